"""Removes the peers of nodes that have gone, and takes over those of the older wgkex during a migration."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Final, NamedTuple, NoReturn

import structlog

from wgkex_ops.config import CleanupConfig
from wgkex_ops.consumer.admission import Requests
from wgkex_ops.consumer.dataplane.scans import Scan, SerializedDataplane
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.errors import DataplaneError
from wgkex_ops.logs import log_each
from wgkex_ops.metrics.cleanup import COMPLETED, FAILED, CleanupMetrics
from wgkex_ops.model.changes import Change
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import NEVER_CONNECTED, ROUTE_PROTOCOL_STATIC, STALE, Peer, Snapshot

_log = structlog.get_logger(__name__)

# Keys that nodes request have their turn after so many.
_BATCH_LIMIT: Final = 250
# Seconds. A live peer has a new handshake within two minutes (REKEY_AFTER_TIME), and may miss one. So whatever the
# clock of the day says, a peer whose handshake stays the same for so long has no live session.
UNCHANGED_FOR: Final = 300.0


class Sighting(NamedTuple):
    """A handshake, and when it was first seen, by a clock that is never set back."""

    handshake: float
    since: float


class Candidate(NamedTuple):
    """A peer to remove, and why: STALE or NEVER_CONNECTED."""

    domain: Domain
    key: PublicKey
    reason: str


class Cleanup:
    """Looks for removal candidates now and then, and removes them.

    Args:
        dataplane: what is scanned, and changed.
        journal: forgets what was removed.
        requests: when each key was last requested.
        domains: the configured domains.
        protected: keys (32 bytes) whose peers are never removed, nor taken over.
        lists: the operators' key lists, for the names of keys.
        settings: when peers are removed.
        metrics: what was done.
        clock: seconds since the epoch.
        monotonic: seconds by a clock that is never set back.
    """

    def __init__(
        self,
        dataplane: SerializedDataplane,
        journal: Journal,
        requests: Requests,
        domains: Sequence[Domain],
        *,
        protected: Container[bytes],
        lists: Callable[[], KeyLists],
        settings: CleanupConfig,
        metrics: CleanupMetrics,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dataplane = dataplane
        self._journal = journal
        self._requests = requests
        self._domains = domains
        self._settings = settings
        self._protected = protected
        self._lists = lists
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        # Of the peers that looked old at the last run, or whose handshake was in the future, by domain and key.
        self._sightings: dict[tuple[str, bytes], Sighting] = {}

    async def run(self) -> NoReturn:
        """Clean for ever."""
        while True:
            # Gateways that have started together need not clean together.
            await asyncio.sleep(self._settings.interval * random.uniform(0.9, 1.1))  # noqa: S311  no secret
            await self.clean()

    async def clean(self) -> None:
        """Clean once."""
        try:
            async with self._dataplane.scanning() as scan:
                result = await self._clean(scan)
        except DataplaneError as error:
            _log.error("snapshot_failed", error=str(error))
            result = FAILED
        self._metrics.runs.labels(result).inc()
        if result == COMPLETED:
            self._metrics.last_success.set(self._clock())

    async def _clean(self, scan: Scan) -> str:
        # Thousands of peers take a while.
        candidates = await asyncio.to_thread(lambda: list(self._candidates(scan.snapshot)))
        self._requests.forget(self._settings.never_after, but=self._journal.rows)
        adopted = await self._adopt(scan) if self._settings.adopt else True
        removed = await self._remove(scan, candidates)
        return COMPLETED if adopted and removed else FAILED

    def _candidates(self, snapshot: Snapshot) -> Iterator[Candidate]:
        """Find the peers of ours to remove, and remember the sightings for the next run."""
        now = self._monotonic()
        earlier, self._sightings = self._sightings, {}
        for domain in self._domains:
            state = snapshot.domains[domain.name]
            for peer in state.peers:
                if peer.link_local not in state.routes or peer.public_key in self._protected:
                    continue
                identity = (domain.name, peer.public_key)
                reason = NEVER_CONNECTED
                if peer.handshake:
                    age = snapshot.taken_at - peer.handshake
                    if 0 <= age < self._settings.stale_after:
                        continue
                    sighting = earlier.get(identity)
                    if sighting is None or sighting.handshake != peer.handshake:
                        sighting = Sighting(peer.handshake, now)
                    self._sightings[identity] = sighting
                    # One in the future, since the clock was set back, gets old by the clock that is never set back.
                    unchanged = now - sighting.since
                    if unchanged < UNCHANGED_FOR or max(age, unchanged) < self._settings.stale_after:
                        continue
                    reason = STALE
                requested = self._requests.age(peer.public_key) < self._settings.never_after
                if not requested and peer.has_derived_address:
                    yield Candidate(domain, PublicKey(peer.public_key), reason)

    async def _adopt(self, scan: Scan) -> bool:
        """Take over what the older wgkex has left behind; False if something of it failed."""
        found = await asyncio.to_thread(lambda: list(find_adoptable(scan.snapshot, self._domains)))
        changes = [
            Change.install(domain, PublicKey(peer.public_key))
            for domain, peer in found
            if peer.public_key not in self._protected
        ]
        failures: list[str] = []
        adopted: Counter[str] = Counter()
        for start in range(0, len(changes), _BATCH_LIMIT):
            for change, outcome in (await scan.apply(changes[start : start + _BATCH_LIMIT])).items():
                if outcome is not None:
                    failures.append(str(outcome))
                    continue
                self._requests.note(change.key)
                self._metrics.adopted.labels(change.domain.name).inc()
                adopted[change.domain.name] += 1
        if adopted:
            _log.info("peers_adopted", **adopted)
        if failures:
            _log.error("peers_not_adopted", count=len(failures), error=failures[0])
        return not failures

    async def _remove(self, scan: Scan, candidates: Sequence[Candidate]) -> bool:
        """Remove peers; False if the kernel refused to remove some."""
        failures: list[str] = []
        removed: Counter[str] = Counter()
        for start in range(0, len(candidates), _BATCH_LIMIT):
            batch = {
                Change.remove(candidate.domain, candidate.key): candidate
                for candidate in candidates[start : start + _BATCH_LIMIT]
            }
            outcomes = await scan.apply(list(batch))
            failures += [str(outcome) for outcome in outcomes.values() if outcome is not None]
            gone = {change: batch[change] for change, outcome in outcomes.items() if outcome is None}
            # A key that was requested in the meantime is installed again, and the journal knows it, or will soon.
            await self._journal.forget(change.key for change in gone if change.address not in scan.touched)
            removed.update(candidate.reason for candidate in gone.values())
            self._report(list(gone.values()))
        if removed:
            _log.info("peers_removed", **removed)
        if failures:
            _log.error("peers_not_removed", count=len(failures), error=failures[0])
        return not failures

    def _report(self, gone: Sequence[Candidate]) -> None:
        for candidate in gone:
            self._metrics.removed.labels(candidate.domain.name, candidate.reason).inc()
        lists = self._lists()
        log_each(
            __name__,
            "peer_removed",
            ({**lists.describe(one.domain.name, one.key), "reason": one.reason} for one in gone),
        )


def find_adoptable(snapshot: Snapshot, domains: Sequence[Domain]) -> Iterator[tuple[Domain, Peer]]:
    """Find the peers that the older wgkex has left behind.

    Their only allowed IP is the address that derives from their key, and leads to them by a static route: that is how
    it installed them. Peers of other programs look the same only if an operator made them so by hand.
    """
    routed = snapshot.routed
    for domain in domains:
        state = snapshot.domains[domain.name]
        for peer in state.peers:
            static = state.foreign_routes.get(peer.link_local) == ROUTE_PROTOCOL_STATIC
            if static and peer.link_local not in routed and peer.has_derived_address:
                yield domain, peer
