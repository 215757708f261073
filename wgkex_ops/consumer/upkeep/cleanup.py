"""Removes the peers of nodes that have gone, and takes over those of the older wgkex during a migration."""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

import structlog

from wgkex_ops.config import CleanupConfig
from wgkex_ops.consumer.dataplane.turns import Look, Turns
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.consumer.upkeep.removal import (
    Departure,
    Identity,
    Judgement,
    Limits,
    Sighting,
    find_adoptable,
    judge,
    known_sighting,
)
from wgkex_ops.consumer.upkeep.requests import Offers
from wgkex_ops.errors import DataplaneError
from wgkex_ops.logs import tell_each
from wgkex_ops.metrics.cleanup import COMPLETED, FAILED, HELD, STALE, CleanupMetrics
from wgkex_ops.model.changes import Change
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import link_local
from wgkex_ops.model.peers import ACTIVE_SECONDS

_log = structlog.get_logger(__name__)

# Keys that nodes ask for have a turn after so many.
_BATCH_LIMIT: Final = 250
# Seconds. Whoever is there has a new handshake within two minutes (REKEY_AFTER_TIME), and may miss one.
_AGREEMENT: Final = 300.0
# Where the last run is not known, so few old peers are no sign of a clock that was set.
_FEW: Final = 10
# Clocks that are set a little forward are no reason to doubt them.
_SLACK: Final = 60.0


class Cleanup:
    """Looks now and then for peers that have to go. Who they are is told by `departures.judge`.

    After a jump of the clock, peers look old that are not. So nobody goes in a run who cannot have become so old since
    the last one, by a clock that is never set, above all nobody who was active then. Whoever is there has a new
    handshake some minutes later, and whoever has not, has really gone. When more than half of the active ones would go
    at once, the run is held, and told: then nobody goes at all. The first run knows no last one, and takes all that
    ever had a handshake for active.

    Args:
        dataplane: what is looked at, and changed.
        journal: forgets who was removed.
        offers: when each key was last asked for.
        domains: the configured domains.
        settings: when peers go.
        metrics: what was done.
        clock: seconds since the epoch.
        monotonic: seconds by a clock that is never set.
    """

    def __init__(
        self,
        dataplane: Turns,
        journal: Journal,
        offers: Offers,
        domains: Sequence[Domain],
        *,
        settings: CleanupConfig,
        metrics: CleanupMetrics,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dataplane = dataplane
        self._journal = journal
        self._offers = offers
        self._domains = domains
        self._settings = settings
        self._limits = Limits(
            stale_after=settings.stale_after,
            never_after=settings.never_after,
            protected=frozenset(key.raw for key in settings.protected_keys),
        )
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        # Who was active at the last run that was not held, and who idle, and when that was. Who would have gone, but
        # for a doubt: with which handshake, and since when. Whose handshake lies in the future.
        self._active: set[Identity] | None = None
        self._idle: dict[Identity, Sighting] = {}
        self._active_at = math.inf
        self._doubted: dict[Identity, Sighting] = {}
        self._future: dict[Identity, Sighting] = {}

    async def run(self) -> NoReturn:
        """Clean for ever."""
        while True:
            # Gateways that have started together need not clean together.
            await asyncio.sleep(self._settings.interval * random.uniform(0.9, 1.1))  # noqa: S311  no secret
            await self.clean()

    async def clean(self) -> None:
        """Clean once."""
        try:
            async with self._dataplane.looking() as look:
                result = await self._clean(look)
        except DataplaneError as error:
            _log.error("snapshot_failed", error=str(error))
            result = FAILED
        self._metrics.runs.labels(result).inc()
        if result == COMPLETED:
            self._metrics.last_success.set(self._clock())

    async def _clean(self, look: Look) -> str:
        judgement = await self._judge(look)
        held = self._doubt(judgement)
        self._future = judgement.future
        self._metrics.held.set(len(self._doubted) if held else 0)
        self._offers.forget(self._settings.never_after, judgement.peers)
        if held:
            _log.error(
                "cleanup_held",
                count=len(self._doubted),
                detail="more than half of the active peers would go at once: was the clock set? The next run decides",
            )
            return HELD
        self._active, self._idle, self._active_at = judgement.active, judgement.idle, self._monotonic()
        adopted = await self._adopt(look) if self._settings.adopt else True
        removed = await self._remove(
            look, [departure for departure in judgement.departures if departure.identity not in self._doubted]
        )
        return COMPLETED if adopted and removed else FAILED

    async def _judge(self, look: Look) -> Judgement:
        since_start = self._offers.since_start
        installed: Mapping[tuple[str, bytes], float] = {}
        if since_start < self._settings.never_after:
            # Who asked before this process began.
            installed = await self._journal.never_connected()

        def asked(identity: Identity) -> float:
            age = self._offers.age(*identity)
            return max(since_start, installed.get(identity, 0.0)) if age is None else age

        # Thousands of peers take a while.
        return await asyncio.to_thread(
            judge,
            look.snapshot,
            self._domains,
            limits=self._limits,
            asked=asked,
            future=self._future,
            now=self._monotonic(),
        )

    def _doubt(self, judgement: Judgement) -> bool:
        """Find out who must not go yet, though they seem to have to; and tell whether the run is held."""
        now = self._monotonic()
        earlier, self._doubted = self._doubted, {}
        at_once = 0
        waiting: dict[Identity, Sighting] = {}
        for departure in judgement.departures:
            identity = departure.identity
            known = known_sighting(earlier, identity, departure.handshake)
            waiting[identity] = known or Sighting(departure.handshake, now)
            if known is not None and now - known.since >= _AGREEMENT:
                continue
            possible, stale = self._can_be_old(departure, now), departure.reason == STALE
            if self._active is None:
                suspicious = stale
            else:
                suspicious = identity in self._active or (stale and identity in self._idle and not possible)
            at_once += suspicious
            if known is not None or ((suspicious or stale) and not possible):
                self._doubted[identity] = waiting[identity]
        active = judgement.connected if self._active is None else len(self._active)
        held = at_once * 2 > active and (self._active is not None or at_once >= _FEW)
        if held:
            self._doubted = waiting
        return held

    def _can_be_old(self, departure: Departure, now: float) -> bool:
        """Whether there was time enough for it, by the clock that is never set."""
        idle = known_sighting(self._idle, departure.identity, departure.handshake)
        # With another handshake than at the last run, that one came later.
        since = self._active_at - ACTIVE_SECONDS if idle is None else idle.since
        return now - since + _SLACK >= self._settings.stale_after

    async def _adopt(self, look: Look) -> bool:
        """Take over what the older wgkex has left behind; False if something of it failed."""
        found = await asyncio.to_thread(find_adoptable, look.snapshot, self._domains, self._limits.protected)
        changes = [Change.install(domain, key) for domain, key in found]
        failures: list[str] = []
        adopted: Counter[str] = Counter()
        for start in range(0, len(changes), _BATCH_LIMIT):
            for change, outcome in (await look.mend(changes[start : start + _BATCH_LIMIT])).items():
                if outcome is not None:
                    failures.append(str(outcome))
                    continue
                if change.key is not None:
                    self._offers.note(change.domain.name, change.key.raw)
                self._metrics.adopted.labels(change.domain.name).inc()
                adopted[change.domain.name] += 1
        if adopted:
            _log.info("peers_adopted", **adopted)
        if failures:
            _log.error("peers_not_adopted", count=len(failures), error=failures[0])
        return not failures

    async def _remove(self, look: Look, departures: Sequence[Departure]) -> bool:
        """Remove peers; False if the kernel refused to remove some."""
        failures: list[str] = []
        removed: Counter[str] = Counter()
        for start in range(0, len(departures), _BATCH_LIMIT):
            batch = {
                Change.remove(departure.domain, departure.key): departure
                for departure in departures[start : start + _BATCH_LIMIT]
            }
            outcomes = await look.mend(list(batch))
            gone = [batch[change] for change, outcome in outcomes.items() if outcome is None]
            failures += [str(outcome) for outcome in outcomes.values() if outcome is not None]
            # Who asked again in the meantime is there again, and known to the journal, or will be when this is done.
            await self._journal.forget(
                [
                    (departure.domain, departure.key)
                    for departure in gone
                    if link_local(departure.key.raw) not in look.touched
                ]
            )
            removed.update(departure.reason for departure in gone)
            self._tell(gone)
        if removed:
            _log.info("peers_removed", **removed)
        if failures:
            _log.error("peers_not_removed", count=len(failures), error=failures[0])
        return not failures

    def _tell(self, gone: Sequence[Departure]) -> None:
        for departure in gone:
            self._metrics.removed.labels(departure.domain.name, departure.reason).inc()
        tell_each(
            __name__,
            "peer_removed",
            ({"domain": one.domain.name, "public_key": str(one.key), "reason": one.reason} for one in gone),
        )
