"""Puts back what is missing: peers after a reboot or on an interface made anew, and parts that somebody took away."""

import asyncio
import contextlib
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final, NoReturn

import structlog

from wgkex_ops.consumer.journal import Journal
from wgkex_ops.consumer.turns import Turns
from wgkex_ops.dataplane import Action, Change, DomainState, LinkEvent, Snapshot
from wgkex_ops.domains import Domain
from wgkex_ops.drift import Drift, find_drift
from wgkex_ops.errors import DataplaneError
from wgkex_ops.keys import PublicKey, link_local
from wgkex_ops.metrics.journal import RepairMetrics
from wgkex_ops.metrics.wireguard import STALE_SECONDS

_log = structlog.get_logger(__name__)

INTERVAL: Final = 60.0
# Interfaces come and go in groups: one look for all of them.
_GATHER: Final = 0.25
# Keys that nodes ask for have a turn after so many.
_BATCH_LIMIT: Final = 500

_NOTHING: Final = Drift(frozenset(), frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class _Look:
    """What is certainly amiss in a domain.

    Attributes:
        drift: parts that are missing.
        restore: whether all peers that the journal knows are to be there.
        routed_elsewhere: addresses that routes of ours lead to over other domains' interfaces.
    """

    domain: Domain
    state: DomainState
    drift: Drift
    restore: bool
    routed_elsewhere: frozenset[bytes]


@dataclass(slots=True)
class _Plan:
    """What is to be done.

    Attributes:
        missing: which parts each change brings back; none for a whole peer out of the journal.
        unknown: by domain, addresses that a route of ours leads to without anybody knowing the key.
        complete: domains of which everything is planned that the journal knows.
    """

    missing: dict[Change, set[str]] = field(default_factory=dict)
    unknown: dict[str, set[bytes]] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)

    def add(self, look: _Look, key: PublicKey, *missing: str) -> None:
        self.missing.setdefault(Change(Action.INSTALL, look.domain, key), set()).update(missing)


class Sweeper:
    """Compares what is there with what should be: now and then, and at once when interfaces have changed.

    What is found without such a cause has to be found twice in a row: somebody may be in the middle of something.

    Args:
        dataplane: what is looked at, and mended.
        journal: what should be there.
        domains: the configured domains.
        metrics: what was put back.
        interval: seconds between looks, on average.
    """

    def __init__(
        self,
        dataplane: Turns,
        journal: Journal,
        domains: Sequence[Domain],
        metrics: RepairMetrics,
        interval: float = INTERVAL,
    ) -> None:
        self._dataplane = dataplane
        self._journal = journal
        self._domains = domains
        self._metrics = metrics
        self._interval = interval
        self._woken = asyncio.Event()
        # Names of domains: whose interfaces have changed; whose peers are to be put back; that had none at last.
        self._hurried: set[str] = set()
        self._due = {domain.name for domain in domains}
        self._empty: set[str] = set()
        # By domain, what the last look has found.
        self._suspected: dict[str, Drift] = {}
        self._unknown: dict[str, set[bytes]] = {}

    def notice(self, event: LinkEvent) -> None:
        """Look soon: an interface has changed."""
        for domain in self._domains:
            if not event.interface or event.interface in (domain.wg, domain.vx):
                self._hurried.add(domain.name)
                self._woken.set()
            if event.interface == domain.wg and not event.present:
                # Its peers are gone with it, however soon there is another one.
                self._due.add(domain.name)

    async def restore(self, within: float) -> None:
        """Put back what a reboot has taken away, for so many seconds at the most; what is left comes later.

        Halves, too: nobody is at work yet, so that they are what an earlier process has left behind.
        """
        self._hurried = {domain.name for domain in self._domains}
        try:
            async with asyncio.timeout(within):
                await self.look(everywhere=True)
        except TimeoutError:
            _log.error("restore_unfinished", detail=f"not within {within:g} s; the next looks go on with it")

    async def run(self) -> NoReturn:
        """Look and mend for ever."""
        now = asyncio.get_running_loop().time
        while True:
            # Gateways that have started together need not look together.
            due = now() + self._interval * random.uniform(0.9, 1.1)  # noqa: S311  jitter needs no secrecy
            while now() < due:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._woken.wait()
                if self._woken.is_set():
                    await asyncio.sleep(_GATHER)
                    await self.look(everywhere=False)
            await self.look(everywhere=True)

    async def look(self, *, everywhere: bool) -> None:
        """Look once, and mend what is amiss.

        Args:
            everywhere: or only at domains whose interfaces have changed.
        """
        hurried, self._hurried = self._hurried, set()
        self._woken.clear()
        try:
            snapshot = await self._dataplane.look()
        except DataplaneError as error:
            # They stay hurried, for the next look.
            self._hurried |= hurried
            _log.error("snapshot_failed", error=str(error))
            return
        await self._journal.handshakes(snapshot)
        plan = await self._plan(self._judge(snapshot, hurried, everywhere=everywhere))
        self._tell_unknown(plan.unknown)
        for domain in self._domains:
            await self._carry_out(domain, plan)

    def _judge(self, snapshot: Snapshot, hurried: set[str], *, everywhere: bool) -> list[_Look]:
        """Tell what is certain from what has to be seen again."""
        drift = find_drift(snapshot)
        looks = []
        for domain in self._domains:
            name, state, found = domain.name, snapshot.domains[domain.name], drift[domain.name]
            if not state.wg_present:
                self._due.add(name)
            if not state.ready:
                # Nothing can be installed. Its coming is an event.
                self._suspected.pop(name, None)
                self._empty.discard(name)
                continue
            if not everywhere and name not in hurried:
                continue
            if state.routes or found.route:
                self._empty.discard(name)
            elif name in hurried or name in self._empty:
                # That it was made anew may have gone unnoticed.
                self._due.add(name)
            else:
                self._empty.add(name)
            certain = found if name in hurried else _both(found, self._suspected.get(name, _NOTHING))
            self._suspected[name] = found
            others = (other.routes for key, other in snapshot.domains.items() if key != name)
            elsewhere = frozenset[bytes]().union(*others)
            looks.append(_Look(domain, state, certain, restore=name in self._due, routed_elsewhere=elsewhere))
        return looks

    async def _plan(self, looks: Sequence[_Look]) -> _Plan:
        plan = _Plan(unknown={look.domain.name: set() for look in looks})
        if any(look.drift != _NOTHING for look in looks):
            # However old: what is known of a peer that is half there tells where its other half belongs.
            known = await self._journal.peers([domain.name for domain in self._domains], math.inf)
            # To derive the addresses of all keys takes long.
            await asyncio.to_thread(_plan_repairs, plan, looks, known or {})
        due = [look for look in looks if look.restore]
        if due:
            known = await self._journal.peers([look.domain.name for look in due], STALE_SECONDS)
            if known is not None:
                await asyncio.to_thread(_plan_restoration, plan, due, known)
        return plan

    def _tell_unknown(self, unknown: Mapping[str, set[bytes]]) -> None:
        """Routes of ours to nobody whom we know are left alone, and told once."""
        for name, addresses in unknown.items():
            if new := addresses - self._unknown.get(name, set()):
                _log.warning("unknown_routes", domain=name, count=len(new), example=str(IPv6Address(min(new))))
            self._unknown[name] = addresses

    async def _carry_out(self, domain: Domain, plan: _Plan) -> None:
        changes = [change for change in plan.missing if change.domain == domain]
        done: Counter[str] = Counter()
        failures: list[str] = []
        try:
            for start in range(0, len(changes), _BATCH_LIMIT):
                for change, outcome in (await self._dataplane.mend(changes[start : start + _BATCH_LIMIT])).items():
                    if outcome is not None:
                        failures.append(str(outcome))
                    elif missing := plan.missing[change]:
                        for part in missing:
                            self._metrics.repairs.labels(domain.name, part).inc()
                        done.update(missing)
                    else:
                        self._metrics.restored.labels(domain.name).inc()
                        done["restored"] += 1
            if domain.name in plan.complete and not failures:
                self._due.discard(domain.name)
        finally:
            # It may be cut short.
            if done:
                _log.info("peers_put_back", domain=domain.name, **done)
            if failures:
                _log.error("peers_not_put_back", domain=domain.name, count=len(failures), error=failures[0])


def _both(one: Drift, other: Drift) -> Drift:
    return Drift(peer=one.peer & other.peer, route=one.route & other.route, fdb=one.fdb & other.fdb)


def _plan_repairs(plan: _Plan, looks: Sequence[_Look], known: Mapping[str, Sequence[PublicKey]]) -> None:
    """Plan what brings the missing parts back.

    Args:
        plan: is added to.
        looks: what is amiss.
        known: all keys of the journal by domain.
    """
    homes = {key.raw: name for name, keys in known.items() for key in keys}
    # A node that has moved leaves a peer behind in its old domain. When the routes of both are gone, the journal knows
    # where it was last, else the handshake.
    unrouted: dict[bytes, list[tuple[float, int]]] = {}
    for number, look in enumerate(looks):
        name, state, drift = look.domain.name, look.state, look.drift
        for peer in state.peers:
            address = peer.link_local
            if address in drift.route:
                if homes.get(peer.public_key, name) == name:
                    unrouted.setdefault(peer.public_key, []).append((peer.handshake, number))
            elif address in drift.fdb and address == link_local(peer.public_key):
                plan.add(look, PublicKey(peer.public_key), "fdb")
        if drift.peer:
            keys = {link_local(key.raw): key for key in known.get(name, ())}
            # One that has another address now belongs to somebody else.
            taken = {peer.public_key for peer in state.peers} | {state.public_key}
            for address in drift.peer:
                if address in keys and keys[address].raw not in taken:
                    plan.add(look, keys[address], "peer")
                else:
                    plan.unknown[name].add(address)
    for raw, places in unrouted.items():
        look = looks[max(places)[1]]
        plan.add(look, PublicKey(raw), "route", *(["fdb"] if link_local(raw) in look.drift.fdb else []))


def _plan_restoration(plan: _Plan, looks: Sequence[_Look], known: Mapping[str, Sequence[PublicKey]]) -> None:
    """Plan to put back whole peers: those that the kernel lacks, as it knows better of all others.

    Args:
        plan: is added to.
        looks: the domains whose peers are to be there.
        known: the keys that should be there, by domain.
    """
    for look in looks:
        there = {peer.public_key for peer in look.state.peers} | {look.state.public_key}
        for key in known[look.domain.name]:
            if key.raw not in there and link_local(key.raw) not in look.routed_elsewhere:
                plan.add(look, key)
        plan.complete.add(look.domain.name)
