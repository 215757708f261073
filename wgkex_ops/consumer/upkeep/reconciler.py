"""Puts back what is missing: peers after a reboot or on an interface made anew, and parts that somebody took away."""

import asyncio
import contextlib
import math
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final, NoReturn

import structlog

from wgkex_ops.consumer.dataplane.base import LinkEvent
from wgkex_ops.consumer.dataplane.turns import Look, Turns
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.consumer.upkeep.moves import Moves
from wgkex_ops.consumer.upkeep.requests import Offers
from wgkex_ops.errors import DataplaneError
from wgkex_ops.metrics.journal import RepairMetrics
from wgkex_ops.model.changes import Change
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.peers import DomainState, Incomplete, Snapshot, find_incomplete

_log = structlog.get_logger(__name__)

INTERVAL: Final = 60.0
# Interfaces come and go in groups: one look for all of them.
_GATHER: Final = 0.25
# Keys that nodes ask for have a turn after so many.
_BATCH_LIMIT: Final = 500

_NOTHING: Final = Incomplete(frozenset(), frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class _Finding:
    """What is certainly amiss in a domain.

    Attributes:
        drift: parts that are missing.
        restore: whether all peers that the journal knows are to be there.
        taken: if so, addresses that somebody has already: a peer of the domain, be it one of several addresses, a
            route of others, or a route of ours over other domains' interfaces.
    """

    domain: Domain
    state: DomainState
    drift: Incomplete
    restore: bool
    taken: frozenset[bytes]


@dataclass(slots=True)
class _Plan:
    """What is to be done.

    Attributes:
        missing: which parts each change brings back; none for a whole peer out of the journal.
        unknown: by domain, addresses that a route of ours leads to without anybody knowing the key.
        unclaimed: by domain, addresses of peers without a route that do not belong there by the journal.
        complete: domains of which everything is planned that the journal knows.
        given_back: the domain, by its name, that loses the route, of each change that takes it.
    """

    missing: dict[Change, set[str]] = field(default_factory=dict)
    unknown: dict[str, set[bytes]] = field(default_factory=dict)
    unclaimed: dict[str, set[bytes]] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)
    given_back: dict[Change, str] = field(default_factory=dict)

    def add(self, domain: Domain, key: PublicKey, *missing: str) -> Change:
        change = Change.install(domain, key)
        self.missing.setdefault(change, set()).update(missing)
        return change


class Sweeper:
    """Compares what is there with what should be: now and then, and at once when interfaces have changed.

    What is found without such a cause has to be found twice in a row: somebody may be in the middle of something.

    Args:
        dataplane: what is looked at, and mended.
        journal: what should be there.
        offers: is told of peers that are put back, and have no handshake.
        domains: the configured domains.
        metrics: what was put back.
        restore_limit: peers whose last handshake, or installation, is older than so many seconds are not put back.
        interval: seconds between looks, on average.
    """

    def __init__(
        self,
        dataplane: Turns,
        journal: Journal,
        offers: Offers,
        domains: Sequence[Domain],
        metrics: RepairMetrics,
        *,
        restore_limit: float,
        interval: float = INTERVAL,
    ) -> None:
        self._dataplane = dataplane
        self._journal = journal
        self._offers = offers
        self._domains = domains
        self._metrics = metrics
        self._restore_limit = restore_limit
        self._interval = interval
        self._woken = asyncio.Event()
        # Names of domains: whose interfaces have changed; whose peers are to be put back; that had none at last.
        self._hurried: set[str] = set()
        self._due = {domain.name for domain in domains}
        self._empty: set[str] = set()
        # By domain, the WireGuard interface that the last look has seen, and what it has found.
        self._indices: dict[str, int] = {}
        self._suspected: dict[str, Incomplete] = {}
        self._moves = Moves(offers)
        # By event and domain, which halves were told.
        self._told: dict[tuple[str, str], set[bytes]] = {}

    def notice(self, event: LinkEvent) -> None:
        """Look soon: an interface has changed."""
        for domain in self._domains:
            if not event.interface or event.interface in (domain.wg, domain.vx):
                self._hurried.add(domain.name)
                self._woken.set()

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
        begun = self._offers.since_start
        try:
            async with self._dataplane.looking() as look:
                await self._mend(look, hurried, begun, everywhere=everywhere)
        except DataplaneError as error:
            # They stay hurried, for the next look.
            self._hurried |= hurried
            _log.error("snapshot_failed", error=str(error))

    async def _mend(self, look: Look, hurried: set[str], begun: float, *, everywhere: bool) -> None:
        await self._journal.handshakes(look.snapshot)
        # Thousands of peers take a while.
        drift = await asyncio.to_thread(find_incomplete, look.snapshot)
        plan = await self._plan(self._judge(look.snapshot, drift, hurried, everywhere=everywhere))
        await asyncio.to_thread(_plan_returns, plan, self._moves, look.snapshot, self._domains, begun)
        self._tell("unknown_routes", plan.unknown)
        self._tell("unclaimed_peers", plan.unclaimed)
        for domain in self._domains:
            if await self._carry_out(look, domain, plan):
                self._due.discard(domain.name)

    def _judge(
        self, snapshot: Snapshot, drift: Mapping[str, Incomplete], hurried: set[str], *, everywhere: bool
    ) -> list[_Finding]:
        """Tell what is certain from what has to be seen again; and add the domains that have lost all."""
        findings = []
        for domain in self._domains:
            name, state, found = domain.name, snapshot.domains[domain.name], drift[domain.name]
            if state.wg_index != self._indices.setdefault(name, state.wg_index):
                # The old one's peers are gone with it, whether anything was told of that or not.
                self._indices[name] = state.wg_index
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
                # Somebody who sets up the interface has taken them all, and their routes.
                self._due.add(name)
            else:
                self._empty.add(name)
            certain = found if name in hurried else _both(found, self._suspected.get(name, _NOTHING))
            self._suspected[name] = found
            restore, taken = name in self._due, frozenset[bytes]()
            if restore:
                # For thousands of peers it takes a while to find out.
                others = (other.routes for key, other in snapshot.domains.items() if key != name)
                there = (peer.link_local for peer in state.peers)
                taken = snapshot.routed_by_others.union(
                    snapshot.routed_elsewhere, state.shared_addresses, *others, there
                )
            findings.append(_Finding(domain, state, certain, restore=restore, taken=taken))
        return findings

    async def _plan(self, findings: Sequence[_Finding]) -> _Plan:
        names = [finding.domain.name for finding in findings]
        plan = _Plan(unknown={name: set() for name in names}, unclaimed={name: set() for name in names})
        if any(finding.drift != _NOTHING for finding in findings):
            # However old: what is known of a peer that is half there tells where its other half belongs.
            known = await self._journal.peers(math.inf)
            configured = {domain.name for domain in self._domains}
            # To derive the addresses of all keys takes long.
            await asyncio.to_thread(_plan_repairs, plan, findings, known or {}, configured)
        due = [finding for finding in findings if finding.restore]
        if due:
            known = await self._journal.peers(self._restore_limit)
            if known is not None:
                await asyncio.to_thread(_plan_restoration, plan, due, known)
        return plan

    def _tell(self, event: str, found: Mapping[str, set[bytes]]) -> None:
        """Halves of which nobody knows whose they are: they are left alone, and told once."""
        for name, addresses in found.items():
            if new := addresses - self._told.get((event, name), set()):
                _log.warning(event, domain=name, count=len(new), example=str(IPv6Address(min(new))))
            self._told[event, name] = addresses

    async def _carry_out(self, look: Look, domain: Domain, plan: _Plan) -> bool:
        """Mend a domain; whether all its peers are back that the journal knows."""
        changes = [change for change in plan.missing if change.domain == domain]
        done: Counter[str] = Counter()
        failures: list[str] = []
        try:
            for start in range(0, len(changes), _BATCH_LIMIT):
                for change, outcome in (await look.mend(changes[start : start + _BATCH_LIMIT])).items():
                    if outcome is not None:
                        failures.append(str(outcome))
                    else:
                        done.update(self._take_note(change, plan))
            return domain.name in plan.complete and not failures
        finally:
            # It may be cut short.
            if done:
                _log.info("peers_put_back", domain=domain.name, **done)
            if failures:
                _log.error("peers_not_put_back", domain=domain.name, count=len(failures), error=failures[0])

    def _take_note(self, change: Change, plan: _Plan) -> Collection[str]:
        """Count what was carried out; what it was."""
        domain, missing = change.domain.name, plan.missing[change]
        if change.key is not None and (not missing or "peer" in missing):
            # It has no handshake now, and its node needs time for one.
            self._offers.note(domain, change.key.raw)
        if not missing:
            self._metrics.restored.labels(domain).inc()
            return ("restored",)
        for part in missing:
            self._metrics.repairs.labels(domain, part).inc()
        if loser := plan.given_back.get(change):
            _log.warning("route_given_back", domain=domain, public_key=str(change.key), from_domain=loser)
        return missing


def _both(one: Incomplete, other: Incomplete) -> Incomplete:
    return Incomplete(peer=one.peer & other.peer, route=one.route & other.route, fdb=one.fdb & other.fdb)


def _plan_repairs(
    plan: _Plan, findings: Sequence[_Finding], known: Mapping[str, Sequence[PublicKey]], configured: Collection[str]
) -> None:
    """Plan what brings the missing parts back.

    Args:
        plan: is added to.
        findings: what is amiss.
        known: all keys of the journal by domain.
        configured: the names of the configured domains.
    """
    # Without a route of its own a peer is ours only if the journal says so, and there a key has one home. A node that
    # has moved leaves a peer behind in its old domain, which must not get the route while the new one is configured.
    homes = {key.raw: name for name, keys in known.items() for key in keys}
    for finding in findings:
        name, state, drift = finding.domain.name, finding.state, finding.drift
        for peer in state.peers:
            address = peer.link_local
            if address in drift.route:
                home = homes.get(peer.public_key)
                if home == name or (home and home not in configured):
                    fdb = ["fdb"] if address in drift.fdb else []
                    plan.add(finding.domain, PublicKey(peer.public_key), "route", *fdb)
                else:
                    plan.unclaimed[name].add(address)
            elif address in drift.fdb and peer.has_derived_address:
                plan.add(finding.domain, PublicKey(peer.public_key), "fdb")
        if drift.peer:
            keys = {link_local(key.raw): key for key in known.get(name, ())}
            # One that has another address now belongs to somebody else, as does the peer that has this one now.
            taken = {peer.public_key for peer in state.peers} | {state.public_key}
            for address in drift.peer:
                if address in keys and keys[address].raw not in taken and address not in state.shared_addresses:
                    plan.add(finding.domain, keys[address], "peer")
                else:
                    plan.unknown[name].add(address)


def _plan_returns(plan: _Plan, moves: Moves, snapshot: Snapshot, domains: Sequence[Domain], begun: float) -> None:
    """Plan to give the route back to who has not moved; see `Moves.stayed`."""
    for domain, peer, elsewhere in moves.stayed(snapshot, domains, begun):
        plan.given_back[plan.add(domain, PublicKey(peer.public_key), "route")] = elsewhere


def _plan_restoration(plan: _Plan, findings: Sequence[_Finding], known: Mapping[str, Sequence[PublicKey]]) -> None:
    """Plan to put back whole peers: those that the kernel lacks, as it knows better of all others.

    Whoever has their address meanwhile keeps it.

    Args:
        plan: is added to.
        findings: the domains whose peers are to be there.
        known: the keys that should be there, by domain.
    """
    for finding in findings:
        there = {peer.public_key for peer in finding.state.peers} | {finding.state.public_key}
        for key in known.get(finding.domain.name, ()):
            if key.raw not in there and link_local(key.raw) not in finding.taken:
                plan.add(finding.domain, key)
        plan.complete.add(finding.domain.name)
