"""What must hold on a gateway whatever happens to it, and a machine that does at random what can happen.

The machine knows nothing of how a worker does its work. It knows which nodes live where, when their last handshakes
really were, what other programs have put on the interfaces, and what was requested; and it checks after each step:

- no live peer is removed, and none loses its route or its FDB entry, but by the hand that took it;
- what other programs have put there stays as it is;
- what was requested is there after two quiet scans, complete, until the cleanup may remove it.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal, Protocol

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.fakes import FaultyDataplane, NullObserver
from tests.helpers import key
from tests.unit.consumer.upkeep.gateway import NEVER_AFTER, STALE_AFTER, Clocks, Process, number_of
from wgkex_ops.consumer.dataplane.base import Dataplane
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.peers import ACTIVE_SECONDS, ROUTE_PROTOCOL, DomainState, Incomplete, Snapshot, find_incomplete

DOMAINS: Final = tuple(Domain(f"ffx_{suffix}", f"wg-{suffix}", f"vx-{suffix}") for suffix in ("a", "b"))
NODES: Final = range(4)
# Keys of peers that other programs have put there.
STRANGERS: Final = range(10, 13)
# A live node has a new handshake that often.
REKEY: Final = 120.0

Part = Literal["peer", "route", "fdb"]


class Reachable(Dataplane, Protocol):
    """A dataplane within reach of nodes and of other programs; see `FaultyDataplane`."""

    def lose(self, domain: Domain, key: PublicKey, *parts: Part) -> None: ...
    def add_static(self, domain: Domain, key: PublicKey, *addresses: bytes, protocol: int = 4) -> None: ...
    def reroute(self, domain: Domain, address: bytes, protocol: int) -> None: ...
    def forward(self, domain: Domain, address: bytes) -> None: ...
    def shake_hands(self, domain: Domain, key: PublicKey, when: float | None = None) -> bool: ...
    def remove_interfaces(self, domain: Domain) -> None: ...
    def create_interfaces(self, domain: Domain) -> None: ...


@dataclass
class Node:
    """What is true of a node, whatever a kernel or a clock shows.

    Attributes:
        home: where its key was accepted last, by the name of the domain; empty if the gateway does not want it.
        requested_at: when that was; by the monotonic clock, as is the next one.
        handshake_at: when it had its last handshake, with the peer that is there now; None if it had none.
        damaged: whether somebody has taken a part of its peer since the last scan.
    """

    home: str = ""
    requested_at: float = 0.0
    handshake_at: float | None = None
    damaged: bool = False


NOTHING: Final = Incomplete(frozenset(), frozenset(), frozenset())

domains = st.sampled_from(DOMAINS)
nodes = st.sampled_from(NODES)


class GatewayMachine(RuleBasedStateMachine):
    """A gateway, its nodes, other programs, and time."""

    def make_dataplane(self) -> Reachable:
        """One with the interfaces of all domains."""
        return FaultyDataplane(DOMAINS, NullObserver(), lambda: self.clocks.wall)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clocks = Clocks()
        self.folder = TemporaryDirectory()
        self.nodes = {number: Node() for number in NODES}
        self.present = {domain.name for domain in DOMAINS}
        self.strangers: dict[tuple[str, int], DomainState] = {}
        self.dataplane = self.make_dataplane()
        self.runner.run(self.dataplane.__aenter__())
        self.process = self._started()

    def _started(self) -> Process:
        process = Process(self.dataplane, Path(self.folder.name), self.clocks, DOMAINS)
        self.runner.run(process.journal.__aenter__())
        self.runner.run(process.reconciler.restore(600.0))
        self._all_was_repaired()
        return process

    def teardown(self) -> None:
        self.runner.run(self.process.journal.__aexit__(None, None, None))
        self.runner.run(self.dataplane.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

    # What nodes do, and strangers with their keys

    @rule(domain=domains, number=nodes)
    def request(self, domain: Domain, number: int) -> None:
        node, elsewhere = self.nodes[number], self._is_live(number) and self.nodes[number].home != domain.name
        recent = elsewhere and self._shown_age(number) < ACTIVE_SECONDS
        reason = self.runner.run(self.process.request(domain, key(number)))
        if domain.name not in self.present:
            assert reason in ("ENODEV", "live_elsewhere")
        elif recent:
            assert reason == "live_elsewhere"
        # Right after a jump of the clock, a live session looks old, or an old one live.
        elif not reason:
            if node.home != domain.name:
                self.nodes[number] = node = Node()
            node.home, node.requested_at, node.damaged = domain.name, self.clocks.monotonic, False
        if reason == "ENODEV" and not elsewhere and node.home != domain.name and node.home:
            # The old peer has made room already.
            self._forget_unless_there(number)

    @rule(domain=domains, number=nodes)
    def connect(self, domain: Domain, number: int) -> None:
        self.request(domain, number)
        self._shake_hands([number])

    @rule(seconds=st.sampled_from((60.0, 180.0, NEVER_AFTER, STALE_AFTER)), alive=st.sets(nodes))
    def pass_time(self, seconds: float, alive: set[int]) -> None:
        """Some nodes live on, the others have gone."""
        while seconds > 0:
            step = min(seconds, REKEY)
            self.clocks.advance(step)
            self._shake_hands(number for number in alive if self.nodes[number].handshake_at is not None)
            seconds -= step

    # What the worker does

    @rule()
    def reconcile(self) -> None:
        self.runner.run(self.process.reconciler.reconcile())
        self._all_was_repaired()

    @rule(pause=st.sampled_from((0.0, 300.0)))
    def clean(self, pause: float) -> None:
        """Two runs: what looks old at the first one may be removed at the second."""
        live = {number for number in NODES if self._is_live(number)}
        self.runner.run(self.process.cleanup.clean())
        self.clocks.advance(pause)
        self._shake_hands(live)
        self.runner.run(self.process.cleanup.clean())
        for number, node in self.nodes.items():
            removed = node.home and key(number).raw not in self.process.journal.rows
            if removed:
                assert not self._is_live(number)
                assert self.clocks.monotonic - node.requested_at >= NEVER_AFTER
                self.nodes[number] = Node()

    @rule()
    def restart(self) -> None:
        self.runner.run(self.process.journal.__aexit__(None, None, None))
        self.process = self._started()

    # What happens to a gateway

    @rule(seconds=st.sampled_from((-86_400.0, -3600.0, -59.0, 59.0, 3600.0, 86_400.0)))
    def set_clock(self, seconds: float) -> None:
        self.clocks.wall += seconds

    @rule(seconds=st.sampled_from((-86_400.0, 86_400.0)), alive=st.sets(nodes, min_size=1))
    def set_clock_in_quiet_times(self, seconds: float, alive: set[int]) -> None:
        """When no request is recent, and just before a run of the cleanup."""
        self.pass_time(NEVER_AFTER, alive)
        self.set_clock(seconds)
        self.clean(0.0)

    @rule(number=nodes, parts=st.sets(st.sampled_from(["peer", "route", "fdb"]), min_size=1))
    def delete_by_hand(self, number: int, parts: set[Part]) -> None:
        node = self.nodes[number]
        if node.home in self.present and not node.damaged:
            self.dataplane.lose(by_name(node.home), key(number), *sorted(parts))
            node.damaged = True
            if "peer" in parts:
                node.handshake_at = None

    @rule(domain=domains, number=st.sampled_from(STRANGERS), protocol=st.sampled_from((4, 42)), shape=st.integers(0, 2))
    def add_stranger(self, domain: Domain, number: int, protocol: int, shape: int) -> None:
        """A static peer, one of the older wgkex, or one with several addresses; each in one domain only."""
        if domain.name in self.present and all(other != number for _, other in self.strangers):
            strange = IPv6Address(f"fe80::{number}").packed
            addresses = ([strange], [link_local(key(number).raw)], [strange, IPv6Address(f"fe80::a{number}").packed])
            self.dataplane.add_static(domain, key(number), *addresses[shape], protocol=protocol)
            self.strangers[domain.name, number] = self._state_of(domain, self._read(), number)

    @rule(domain=domains)
    def leave_a_route_to_nobody(self, domain: Domain) -> None:
        if domain.name in self.present:
            address = IPv6Address("fe80::dead").packed
            self.dataplane.reroute(domain, address, ROUTE_PROTOCOL)
            self.dataplane.forward(domain, address)

    @rule(domain=domains, really=st.integers(0, 3))
    def toggle_interfaces(self, domain: Domain, really: int) -> None:
        if really:
            # All that is on them goes with them, so not too often.
            return
        if domain.name in self.present:
            self.present.discard(domain.name)
            self.dataplane.remove_interfaces(domain)
            self.strangers = {one: state for one, state in self.strangers.items() if one[0] != domain.name}
            for node in self.nodes.values():
                if node.home == domain.name:
                    node.handshake_at, node.damaged = None, True
        else:
            self.present.add(domain.name)
            self.dataplane.create_interfaces(domain)

    @rule(really=st.integers(0, 2))
    def reboot(self, really: int) -> None:
        if really:
            return
        for domain in DOMAINS:
            for _ in range(2 if domain.name in self.present else 1):
                self.toggle_interfaces(domain, 0)
        self.restart()

    # What has to hold

    @invariant()
    def live_peers_are_complete(self) -> None:
        snapshot = self._read()
        for number, node in self.nodes.items():
            if self._is_live(number) and not node.damaged:
                self._assert_complete(snapshot, number)

    @invariant()
    def strangers_are_left_alone(self) -> None:
        snapshot = self._read()
        for (name, number), state in self.strangers.items():
            assert self._state_of(by_name(name), snapshot, number) == state

    @rule()
    def two_quiet_scans(self) -> None:
        self.reconcile()
        self.reconcile()
        snapshot = self._read()
        for number, node in self.nodes.items():
            if node.home in self.present:
                self._assert_complete(snapshot, number)
        for name, incomplete in find_incomplete(snapshot).items():
            assert incomplete == NOTHING, name

    # What is true

    def _is_live(self, number: int) -> bool:
        node = self.nodes[number]
        return node.handshake_at is not None and self.clocks.monotonic - node.handshake_at < ACTIVE_SECONDS

    def _shown_age(self, number: int) -> float:
        """How old a handshake looks by the clock of the day."""
        state = self._read().domains[self.nodes[number].home]
        return next(self.clocks.wall - peer.handshake for peer in state.peers if peer.public_key == key(number).raw)

    def _shake_hands(self, numbers: Iterable[int]) -> None:
        """Nodes whose peers are there, and reachable, have a handshake."""
        snapshot = self._read()
        for number in numbers:
            node = self.nodes[number]
            if node.home in self.present and not node.damaged:
                there = {peer.public_key for peer in snapshot.domains[node.home].peers}
                if key(number).raw in there and self.dataplane.shake_hands(by_name(node.home), key(number)):
                    node.handshake_at = self.clocks.monotonic

    def _all_was_repaired(self) -> None:
        for node in self.nodes.values():
            if node.home in self.present:
                node.damaged = False

    def _forget_unless_there(self, number: int) -> None:
        if key(number).raw not in self.process.journal.rows:
            self.nodes[number] = Node()

    def _assert_complete(self, snapshot: Snapshot, number: int) -> None:
        state, address = snapshot.domains[self.nodes[number].home], link_local(key(number).raw)
        assert (key(number).raw, address) in {(peer.public_key, peer.link_local) for peer in state.peers}
        assert address in state.routes
        assert address in state.fdb_entries

    def _read(self) -> Snapshot:
        return self.runner.run(self.dataplane.snapshot())

    def _state_of(self, domain: Domain, snapshot: Snapshot, number: int) -> DomainState:
        """All that there is of a stranger."""
        state = snapshot.domains[domain.name]
        peers = tuple(peer for peer in state.peers if number_of(peer.public_key) == number)
        mine = {IPv6Address(f"fe80::{number}").packed, IPv6Address(f"fe80::a{number}").packed} | {
            link_local(key(number).raw)
        }
        return DomainState(
            peers=peers,
            shared_addresses=state.shared_addresses & mine,
            # Of routes of others, a snapshot knows only some; but where ours is, there is no other one.
            routes=state.routes & mine,
            fdb_entries=state.fdb_entries & mine,
        )


def by_name(name: str) -> Domain:
    return next(domain for domain in DOMAINS if domain.name == name)
