"""A dataplane without a kernel, for trying the service out and for tests. It installs nothing anywhere."""

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Self

import structlog
from msgspec import structs

from wgkex_ops.consumer.dataplane.base import LinkEvent, OperationObserver
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.changes import Action, Change, Operation, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import ROUTE_PROTOCOL, DomainState, Peer, Snapshot, Traffic

_log = structlog.get_logger(__name__)

_FIRST_PORT: Final = 40_000

# What a simulated handshake stands for, in bytes: WireGuard's two messages, which are no traffic of the interface, and
# the mesh's routing protocol until the next handshake, one frame a second each way for two minutes.
_HANDSHAKE: Final = Traffic(148, 92)
_FRAMES: Final = 120
_FRAME_BYTES: Final = 100
# IPv6, UDP and VXLAN around a frame; WireGuard around those.
_VXLAN_OVERHEAD: Final = 56
_WIREGUARD_OVERHEAD: Final = 32

_STEPS: Final = {
    Action.INSTALL: (Operation.PEER_ADD, Operation.ROUTE_ADD, Operation.FDB_ADD),
    Action.REMOVE: (Operation.FDB_REMOVE, Operation.ROUTE_REMOVE, Operation.PEER_REMOVE),
    Action.CLEAR: (Operation.FDB_REMOVE, Operation.ROUTE_REMOVE),
}


@dataclass(slots=True, eq=False)
class MemoryInterfaces:
    """A domain's WireGuard and VXLAN interface, and what they carry, in the form that a snapshot has.

    Attributes:
        state: the interfaces themselves; nothing of what follows.
        peers: by public key.
        allowed: each peer's allowed addresses, by public key.
        owners: public keys by allowed address. WireGuard gives an address to one peer of an interface.
        shared: the addresses of peers that have several.
        unaddressed: public keys of peers that have none.
        routes: destinations of our routes over the WireGuard interface.
        foreign_routes: protocol numbers of all other routes over it, by destination.
        fdb_entries: destinations of the VXLAN interface.
    """

    state: DomainState
    peers: dict[bytes, Peer] = field(default_factory=dict)
    allowed: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    owners: dict[bytes, bytes] = field(default_factory=dict)
    shared: set[bytes] = field(default_factory=set)
    unaddressed: set[bytes] = field(default_factory=set)
    routes: set[bytes] = field(default_factory=set)
    foreign_routes: dict[bytes, int] = field(default_factory=dict)
    fdb_entries: set[bytes] = field(default_factory=set)

    def snapshot(self) -> DomainState:
        """Copy the state. No step of it is a Python loop over peers: it would hold up the event loop."""
        # As the kernel's reader does: the routes of others matter only where a peer has none of ours.
        lacking = bool(self.foreign_routes) and not self.owners.keys() - self.shared <= self.routes
        return replace(
            self.state,
            peers=tuple(self.peers.values()),
            shared_addresses=frozenset(self.shared),
            unaddressed=frozenset(self.unaddressed),
            routes=frozenset(self.routes),
            foreign_routes=dict(self.foreign_routes) if lacking else {},
            fdb_entries=frozenset(self.fdb_entries),
        )

    def shake_hands(self, key: bytes, when: float) -> None:
        """Give a peer a handshake (seconds since the epoch) and the mesh traffic that follows it."""
        # VXLAN sends to whom it has an FDB entry.
        meshed = self.peers[key].link_local in self.fdb_entries
        frames = _FRAMES if meshed and self.state.ready else 0
        inside = frames * (_FRAME_BYTES + _VXLAN_OVERHEAD)
        outside = inside + frames * _WIREGUARD_OVERHEAD
        peer = self.peers[key]
        self.peers[key] = structs.replace(
            peer,
            handshake=when,
            receive_bytes=peer.receive_bytes + _HANDSHAKE.receive_bytes + outside,
            transmit_bytes=peer.transmit_bytes + _HANDSHAKE.transmit_bytes + outside,
        )
        self.state = replace(
            self.state,
            wg_traffic=_more(self.state.wg_traffic, inside),
            vx_traffic=_more(self.state.vx_traffic, frames * _FRAME_BYTES),
        )

    def set_peer(self, key: bytes, *addresses: bytes) -> None:
        """Add or change a peer: these become its only allowed addresses, and it keeps its session."""
        if key == self.state.public_key:
            # The kernel silently ignores a device's own key as a peer.
            return
        for address in self.allowed.get(key, ()):
            del self.owners[address]
        wanted = tuple(dict.fromkeys(addresses))
        for address in wanted:
            if loser := self.owners.get(address):
                self._allow(loser, tuple(kept for kept in self.allowed[loser] if kept != address))
            self.owners[address] = key
        self._allow(key, wanted)

    def remove_peer(self, key: bytes) -> None:
        """Remove a peer with its session, if there is one."""
        self.unaddressed.discard(key)
        if self.peers.pop(key, None) is not None:
            for address in self.allowed.pop(key):
                del self.owners[address]
                self.shared.discard(address)

    def _allow(self, key: bytes, addresses: tuple[bytes, ...]) -> None:
        peer = self.peers.get(key) or Peer(key, 0.0, receive_bytes=0, transmit_bytes=0, link_local=b"")
        self.shared.difference_update(self.allowed.get(key, ()))
        if len(addresses) > 1:
            self.shared.update(addresses)
        if addresses:
            self.unaddressed.discard(key)
        else:
            self.unaddressed.add(key)
        self.allowed[key] = addresses
        self.peers[key] = structs.replace(peer, link_local=addresses[0] if len(addresses) == 1 else b"")


class MemoryDataplane:
    """Keeps peers in dictionaries, and does with them what the kernel does.

    Args:
        domains: the configured domains; each has interfaces from the start.
        observer: is called for each batch of operations.
        clock: seconds since the epoch.

    Attributes:
        interfaces: by domain name.
    """

    def __init__(
        self, domains: Sequence[Domain], observer: OperationObserver, clock: Callable[[], float] = time.time
    ) -> None:
        self._observer = observer
        self._clock = clock
        self._ports = {domain.name: _FIRST_PORT + number for number, domain in enumerate(domains)}
        # The kernel has one route to an address, over one interface.
        self._routed_over: dict[bytes, MemoryInterfaces] = {}
        self.interfaces = {domain.name: self.new_interfaces(domain) for domain in domains}

    async def __aenter__(self) -> Self:
        _log.warning("memory_dataplane", detail="NOTHING IS INSTALLED: peers are kept in memory, for trying out only")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """See `Dataplane.apply`."""
        start = time.perf_counter()
        steps: dict[Operation, list[str]] = defaultdict(list)
        outcomes = [self.apply_one(change, steps) for change in changes]
        seconds = time.perf_counter() - start
        for operation, results in steps.items():
            self._observer.observe(operation, len(results), [error for error in results if error], seconds)
        return outcomes

    async def snapshot(self) -> Snapshot:
        """See `Dataplane.snapshot`."""
        start = time.perf_counter()
        domains = {name: interfaces.snapshot() for name, interfaces in self.interfaces.items()}
        self._observer.observe(Operation.DUMP, 1, [], time.perf_counter() - start)
        return Snapshot(self._clock(), domains)

    async def events(self) -> AsyncIterator[LinkEvent]:
        """Wait for ever: these interfaces never change."""
        await asyncio.get_running_loop().create_future()
        yield LinkEvent("", present=True, up=True)  # never reached, but it makes this an iterator

    def shake_hands(self, domain: Domain, key: PublicKey, when: float | None = None) -> bool:
        """Give a peer a handshake, now or at another time (seconds since the epoch), and traffic with it.

        Returns:
            False if there is no such peer.
        """
        interfaces = self.interfaces[domain.name]
        if key.raw not in interfaces.peers:
            return False
        interfaces.shake_hands(key.raw, self._clock() if when is None else when)
        return True

    def apply_one(self, change: Change, steps: dict[Operation, list[str]]) -> Outcome:
        """Carry out the steps of a change up to one that fails.

        Args:
            change: the change.
            steps: gets an entry for each step that is tried: its errno name, or "" for success.
        """
        for operation in _STEPS[change.action]:
            try:
                self.carry_out(operation, change)
            except DataplaneError as error:
                steps[operation].append(error.error)
                return error
            steps[operation].append("")
        return None

    def carry_out(self, operation: Operation, change: Change) -> None:
        """Carry out one step of a change.

        Raises:
            DataplaneError: it failed, which happens in tests only.
        """
        interfaces, key = self.interfaces[change.domain.name], change.key
        match operation:
            case Operation.PEER_ADD:
                interfaces.set_peer(key, change.address)
            case Operation.ROUTE_ADD:
                self.set_route(interfaces, change.address, ROUTE_PROTOCOL)
            case Operation.FDB_ADD:
                interfaces.fdb_entries.add(change.address)
            case Operation.FDB_REMOVE:
                interfaces.fdb_entries.discard(change.address)
            case Operation.ROUTE_REMOVE:
                if change.address in interfaces.routes:
                    self.remove_route(interfaces, change.address)
            case Operation.PEER_REMOVE:
                interfaces.remove_peer(key)

    def set_route(self, interfaces: MemoryInterfaces, address: bytes, protocol: int) -> None:
        """Route an address over an interface, in place of any other route to it."""
        if address in self._routed_over:
            self.remove_route(self._routed_over[address], address)
        self._routed_over[address] = interfaces
        if protocol == ROUTE_PROTOCOL:
            interfaces.routes.add(address)
        else:
            interfaces.foreign_routes[address] = protocol

    def remove_route(self, interfaces: MemoryInterfaces, address: bytes) -> None:
        """Remove the route to an address, whatever its protocol number, if it leads over this interface."""
        if self._routed_over.get(address) is interfaces:
            del self._routed_over[address]
            interfaces.routes.discard(address)
            interfaces.foreign_routes.pop(address, None)

    def new_interfaces(self, domain: Domain) -> MemoryInterfaces:
        """Interfaces of a domain, empty and up; their key and port are always the same."""
        public_key = hashlib.sha256(domain.name.encode()).digest()
        return MemoryInterfaces(
            DomainState(
                wg_present=True,
                wg_up=True,
                vx_present=True,
                vx_up=True,
                wg_traffic=Traffic(),
                vx_traffic=Traffic(),
                public_key=public_key,
                listen_port=self._ports[domain.name],
                link_address=str(PublicKey(public_key).link_local),
            )
        )


def _more(traffic: Traffic | None, each_way: int) -> Traffic | None:
    """What an interface has carried after as many further bytes each way; None for one that does not exist."""
    return traffic and Traffic(traffic.receive_bytes + each_way, traffic.transmit_bytes + each_way)
