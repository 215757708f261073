"""Which keys may be installed, which peers have to make room for others, and when each key was last requested.

A request proves nothing: any client can request another node's key in another domain, or a key whose derived address
is another node's, since an address has only 40 bits of its key. To install it would take the address, and with it the
tunnel, from the node that has it. A handshake proves where a node is: while there is a live session, the address stays
where it is.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import NamedTuple

from wgkex_ops.consumer.table import Table
from wgkex_ops.model.changes import Change
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.names import ADDRESS_TAKEN, LIVE_ELSEWHERE, OWN_KEY, STATIC_KEY, TABLE_FULL
from wgkex_ops.model.peers import DomainState, Snapshot, is_active


class Holder(NamedTuple):
    """The peer that has an address: its domain, by its name, and its key (32 bytes)."""

    domain: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of some installations.

    Attributes:
        refused: why (a reason of the metric `wgkex_worker_message_rejections_total`), by the address of the change.
        displaced: removals to be carried out first: peers without a live session, whose address another one gets.
        evicted: removals to be carried out first, in a full table: peers that never connected, by the address of the
            change that gets the room.
    """

    refused: dict[bytes, str] = field(default_factory=dict)
    displaced: list[Change] = field(default_factory=list)
    evicted: dict[bytes, Change] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a snapshot shows.

    Attributes:
        own: the public key of each domain's own interface, by the domain's name.
        static: keys of peers whose allowed IPs are not the derived address, by the domain's name.
        reserved: addresses of the interfaces themselves, and of peers that have several and so are not ours.
        holders: the peers that have one address, by that address.
        sizes: how many peers each domain has, by the domain's name.
    """

    own: dict[str, bytes]
    static: dict[str, frozenset[bytes]]
    reserved: frozenset[bytes]
    holders: dict[bytes, Holder]
    sizes: dict[str, int]


class Requests:
    """When each key was last requested, by this host's monotonic clock, which no change of the date moves.

    The kernel does not know it of a peer that never had a handshake.

    Args:
        clock: seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._latest: dict[bytes, float] = {}

    def note(self, raw: bytes) -> None:
        """A key (32 bytes) is requested, or restored, now."""
        self._latest[raw] = self._clock()

    def age(self, raw: bytes) -> float:
        """For how many seconds a key (32 bytes) has not been requested; since the start if it never was."""
        return self._clock() - self._latest.get(raw, self._started)

    def forget(self, older_than: float, *, but: Container[bytes]) -> None:
        """Forget the keys that were not requested for some seconds, but those (32 bytes) that still have a peer."""
        before = self._clock() - older_than
        self._latest = {raw: when for raw, when in self._latest.items() if when > before or raw in but}


class Admission:
    """Decides on installations by the latest snapshot, and by a new one where an address is another peer's.

    Args:
        domains: the configured domains.
        requests: gets to know each key that is judged.
        read: reads a snapshot, or raises DataplaneError.
        table: how many peers a domain may have.
        lists: the operators' key lists in force.
        clock: seconds, never set back.

    Attributes:
        ready: set with the first snapshot: before it, it is not known which keys are static peers'.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        requests: Requests,
        read: Callable[[], Awaitable[Snapshot]],
        *,
        table: Table,
        lists: Callable[[], KeyLists],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._lists = lists
        self._domains = {domain.name: domain for domain in domains}
        self._requests = requests
        self._read = read
        self._clock = clock
        self._known = _Known({}, {}, frozenset(), {}, {})
        # How many peers each domain has, about: a new snapshot decides whether it is full.
        self._sizes: Counter[str] = Counter()
        # By address, who was installed since the latest snapshot was begun, or None for who was evicted, and when.
        self._changed: dict[bytes, tuple[Holder | None, float]] = {}
        self.ready = asyncio.Event()

    async def learn(self, snapshot: Snapshot, begun: float) -> None:
        """Take in a snapshot.

        Args:
            snapshot: what is there.
            begun: when it was begun to be read, by the clock.
        """
        # Thousands of peers take a while.
        self._known = await asyncio.to_thread(_summarize, snapshot)
        self._changed = {address: change for address, change in self._changed.items() if change[1] >= begun}
        self._sizes = Counter(self._known.sizes)
        for address, (holder, _) in self._changed.items():
            self._resize(self._known.holders.get(address), holder)
        self.ready.set()

    def note(self, change: Change) -> None:
        """A peer was installed."""
        self._give(change.address, Holder(change.domain.name, change.key))

    def forget(self, change: Change) -> None:
        """A peer was evicted."""
        self._give(change.address, None)

    def _give(self, address: bytes, holder: Holder | None) -> None:
        self._resize(self._holder_of(address), holder)
        self._changed[address] = (holder, self._clock())

    def _resize(self, before: Holder | None, after: Holder | None) -> None:
        """Count a peer that went, and one that came."""
        if before is not None:
            self._sizes[before.domain] -= 1
        if after is not None:
            self._sizes[after.domain] += 1

    async def judge(self, wanted: Sequence[Change]) -> Verdict:
        """Decide on installations.

        Args:
            wanted: each of another address.

        Raises:
            DataplaneError: a new snapshot was needed and could not be read.
        """
        verdict = Verdict()
        contested: dict[bytes, Holder] = {}
        # Those that have no peer there yet, by domain.
        new: dict[str, list[Change]] = {}
        lists, now = self._lists(), time.time()
        for change in wanted:
            domain, key = wanted_by = Holder(change.domain.name, change.key)
            self._requests.note(key)
            if refusal := lists.refusal(domain, key, now):
                verdict.refused[change.address] = refusal
            elif key == self._known.own.get(domain):
                verdict.refused[change.address] = OWN_KEY
            elif key in self._known.static.get(domain, ()):
                verdict.refused[change.address] = STATIC_KEY
            elif change.address in self._known.reserved:
                verdict.refused[change.address] = ADDRESS_TAKEN
            elif (holder := self._holder_of(change.address)) != wanted_by:
                new.setdefault(domain, []).append(change)
                if holder is not None:
                    contested[change.address] = wanted_by
        full = [domain for domain, changes in new.items() if self._sizes[domain] + len(changes) > self._table.limit]
        if contested or full:
            snapshot = await self._read()
            _settle(snapshot, contested, self._domains, verdict)
            for domain in full:
                # The snapshot may not show them yet.
                latest = {address: holder for address, (holder, _) in self._changed.items()}
                # Thousands of peers take a while.
                await asyncio.to_thread(
                    self._make_room, snapshot.domains[domain], latest, new[domain], wanted=wanted, verdict=verdict
                )
            # Who gets no room displaces nobody.
            verdict.displaced[:] = [one for one in verdict.displaced if one.address not in verdict.refused]
        return verdict

    def _make_room(
        self,
        state: DomainState,
        latest: Mapping[bytes, Holder | None],
        new: Sequence[Change],
        *,
        wanted: Sequence[Change],
        verdict: Verdict,
    ) -> None:
        """Evict as many peers of a domain as there is no room for new ones, and refuse those that still have none.

        Where its interfaces are missing, nothing can be installed, and nothing has to make room.
        """
        domain = new[0].domain
        there = {peer.public_key for peer in state.peers if peer.link_local not in latest}
        there.update(holder.key for holder in latest.values() if holder is not None and holder.domain == domain.name)
        # Who displaces a peer of the same domain gets its place.
        placed = {change.address for change in verdict.displaced if change.domain == domain}.union(verdict.refused)
        coming = [one for one in new if one.key not in there and one.address not in placed]
        short = min(len(there) + len(coming) - self._table.limit, len(coming))
        if short <= 0 or not state.ready:
            return
        needed = {change.key for change in (*wanted, *verdict.displaced)}
        evicted = self._table.removal_candidates(state, short, self._requests.age, needed)
        without_room = coming[len(coming) - short :]
        for change, key in zip(without_room, evicted, strict=False):
            verdict.evicted[change.address] = Change.remove(domain, PublicKey(key))
        verdict.refused.update((change.address, TABLE_FULL) for change in without_room[len(evicted) :])

    def _holder_of(self, address: bytes) -> Holder | None:
        changed = self._changed.get(address)
        return changed[0] if changed is not None else self._known.holders.get(address)


def _summarize(snapshot: Snapshot) -> _Known:
    holders: dict[bytes, Holder] = {}
    for domain, state in snapshot.domains.items():
        for peer in state.peers:
            # Where a peer was left behind, the one with the route counts: a new snapshot finds the other one.
            if peer.link_local and (peer.link_local not in holders or peer.link_local in state.routes):
                holders[peer.link_local] = Holder(domain, peer.public_key)
    return _Known(
        {domain: state.public_key for domain, state in snapshot.domains.items()},
        {domain: _static_keys(state) for domain, state in snapshot.domains.items()},
        frozenset(address for state in snapshot.domains.values() for address in _reserved(state)),
        holders,
        {domain: len(state.peers) for domain, state in snapshot.domains.items()},
    )


def _reserved(state: DomainState) -> Iterator[bytes]:
    yield from state.shared_addresses
    if state.link_address:
        yield IPv6Address(state.link_address).packed


def _static_keys(state: DomainState) -> frozenset[bytes]:
    # Most peers have a route of ours, and their addresses need not be derived.
    others = (peer for peer in state.peers if peer.link_local not in state.routes and not peer.has_derived_address)
    return frozenset(peer.public_key for peer in others) - state.unaddressed


def _settle(snapshot: Snapshot, contested: dict[bytes, Holder], domains: dict[str, Domain], verdict: Verdict) -> None:
    """Refuse what a live session, or a peer of others, stands against; displace the peers of ours that stand there.

    Where an interface is missing, nothing can be installed, and nothing has to make room.
    """
    displaced: list[Change] = []
    for name, state in snapshot.domains.items():
        for peer in state.peers:
            wanted_by = contested.get(peer.link_local)
            if wanted_by is None or wanted_by == (name, peer.public_key):
                continue
            ours = peer.link_local in state.routes
            if peer.public_key != wanted_by.key and (is_active(peer, snapshot.taken_at) or not ours):
                verdict.refused[peer.link_local] = ADDRESS_TAKEN
            elif is_active(peer, snapshot.taken_at):
                verdict.refused[peer.link_local] = LIVE_ELSEWHERE
            elif ours and snapshot.domains[wanted_by.domain].ready:
                displaced.append(Change.remove(domains[name], PublicKey(peer.public_key)))
    verdict.displaced.extend(change for change in displaced if change.address not in verdict.refused)
