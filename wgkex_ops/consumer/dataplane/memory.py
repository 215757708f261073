"""A dataplane without a kernel, for trying the service out and for tests. It installs nothing anywhere."""

import asyncio
import hashlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Literal, Self

import structlog
from msgspec import structs

from wgkex_ops.consumer.dataplane.base import LinkEvent, OperationObserver
from wgkex_ops.errors import DataplaneError, InterfaceMissingError
from wgkex_ops.model.changes import Action, Change, Operation, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.peers import ROUTE_PROTOCOL, ROUTE_PROTOCOL_STATIC, DomainState, Peer, Snapshot

_log = structlog.get_logger(__name__)

_FIRST_PORT: Final = 40_000

Part = Literal["peer", "route", "fdb"]

_OPERATIONS: Final = {
    Action.INSTALL: (Operation.PEER_ADD, Operation.ROUTE_ADD, Operation.FDB_ADD),
    Action.REMOVE: (Operation.FDB_REMOVE, Operation.ROUTE_REMOVE, Operation.PEER_REMOVE),
    Action.CLEAR: (Operation.FDB_REMOVE, Operation.ROUTE_REMOVE),
}


@dataclass(slots=True)
class _Gateway:
    """One domain's make-believe interfaces, with what hangs on them in the form that a snapshot has.

    Attributes:
        state: all but what follows.
        peers: by key.
        allowed: each peer's allowed addresses, by key.
        owners: keys by allowed address: WireGuard gives an address to one peer of an interface, who had it loses it.
        single: the addresses of peers that have one only.
        routes: destinations of our routes over the WireGuard interface.
        foreign_routes: the protocol numbers of all others, by destination.
        fdb_entries: destinations of the VXLAN interface.
    """

    state: DomainState
    peers: dict[bytes, Peer] = field(default_factory=dict)
    allowed: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    owners: dict[bytes, bytes] = field(default_factory=dict)
    single: set[bytes] = field(default_factory=set)
    routes: set[bytes] = field(default_factory=set)
    foreign_routes: dict[bytes, int] = field(default_factory=dict)
    fdb_entries: set[bytes] = field(default_factory=set)

    def snapshot(self) -> DomainState:
        """Copy it. Nothing here is done for each peer: it holds up the event loop."""
        return replace(
            self.state,
            peers=tuple(self.peers.values()),
            shared_addresses=frozenset(self.owners) - self.single
            if len(self.owners) > len(self.single)
            else frozenset(),
            routes=frozenset(self.routes),
            # Read on the same occasion as from the kernel.
            foreign_routes={} if self.single <= self.routes else dict(self.foreign_routes),
            fdb_entries=frozenset(self.fdb_entries),
        )

    def set_peer(self, raw: bytes, *wanted: bytes) -> None:
        """Add or change a peer: these become its only allowed addresses, and it keeps its session."""
        if raw == self.state.public_key:
            # The kernel silently ignores a device's own key as a peer.
            return
        addresses = tuple(dict.fromkeys(wanted))
        if self.allowed.get(raw) == addresses:
            return
        for address in self.allowed.get(raw, ()):
            del self.owners[address]
        for address in addresses:
            if loser := self.owners.get(address):
                self._allow(loser, tuple(kept for kept in self.allowed[loser] if kept != address))
            self.owners[address] = raw
        self._allow(raw, addresses)

    def remove_peer(self, raw: bytes) -> None:
        """Remove a peer with its session, if it is there."""
        peer = self.peers.pop(raw, None)
        if peer is not None:
            self.single.discard(peer.link_local)
            for address in self.allowed.pop(raw):
                del self.owners[address]

    def _allow(self, raw: bytes, addresses: tuple[bytes, ...]) -> None:
        peer = self.peers.get(raw) or Peer(raw, 0.0, receive_bytes=0, transmit_bytes=0, link_local=b"")
        self.single.discard(peer.link_local)
        self.allowed[raw] = addresses
        self.peers[raw] = structs.replace(peer, link_local=addresses[0] if len(addresses) == 1 else b"")
        if len(addresses) == 1:
            self.single.add(addresses[0])


class MemoryDataplane:
    """Keeps peers in dictionaries, and behaves like the kernel in all that the interface promises, and some more.

    Args:
        domains: the configured domains; each has interfaces from the start.
        observer: is told of each operation.
        clock: seconds since the epoch.
    """

    def __init__(
        self, domains: Sequence[Domain], observer: OperationObserver, clock: Callable[[], float] = time.time
    ) -> None:
        self._observer = observer
        self._clock = clock
        self._ports = {domain.name: _FIRST_PORT + number for number, domain in enumerate(domains)}
        self._indices = itertools.count(1)
        self._gateways = {domain.name: _Gateway(self._new_interfaces(domain)) for domain in domains}
        # There is one route to an address, whatever interface it leads over.
        self._leads_over: dict[bytes, _Gateway] = {}
        self._refused: dict[bytes, tuple[Operation, str]] = {}
        self._events: asyncio.Queue[LinkEvent] = asyncio.Queue()

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
        counts: Counter[Operation] = Counter()
        outcomes = [self._apply_one(change, counts) for change in changes]
        seconds = time.perf_counter() - start
        # Without an interface nothing is tried, and nothing told.
        failed = [one for one in outcomes if one is not None and not isinstance(one, InterfaceMissingError)]
        for operation, count in counts.items():
            errors = [one.error for one in failed if one.operation == operation]
            self._observer.observe(operation, count, errors, seconds)
        return outcomes

    async def snapshot(self) -> Snapshot:
        """See `Dataplane.snapshot`."""
        start = time.perf_counter()
        domains = {name: gateway.snapshot() for name, gateway in self._gateways.items()}
        self._observer.observe(Operation.DUMP, 1, [], time.perf_counter() - start)
        return Snapshot(self._clock(), domains)

    async def events(self) -> AsyncIterator[LinkEvent]:
        """See `Dataplane.events`."""
        while True:
            yield await self._events.get()

    # What nodes do

    def shake_hands(self, domain: Domain, key: PublicKey, when: float | None = None) -> bool:
        """Play a handshake of a peer, now or at another time (seconds since the epoch); False if it is not there."""
        peers = self._gateways[domain.name].peers
        if key.raw not in peers:
            return False
        peers[key.raw] = structs.replace(peers[key.raw], handshake=self._clock() if when is None else when)
        return True

    # What others do

    def readdress(self, domain: Domain, key: PublicKey, *addresses: bytes) -> None:
        """Add or change a peer: these (16 bytes each) become its only allowed addresses."""
        if self._gateways[domain.name].state.wg_present:
            self._gateways[domain.name].set_peer(key.raw, *addresses)

    def reroute(self, domain: Domain, address: bytes, protocol: int) -> None:
        """Route an address (16 bytes) over a domain's interface, in place of any other route to it."""
        if self._gateways[domain.name].state.wg_present:
            self._set_route(self._gateways[domain.name], address, protocol)

    def forward(self, domain: Domain, address: bytes) -> None:
        """Add an FDB entry with a destination (16 bytes)."""
        if self._gateways[domain.name].state.vx_present:
            self._gateways[domain.name].fdb_entries.add(address)

    def add_static(
        self, domain: Domain, key: PublicKey, *addresses: bytes, protocol: int = ROUTE_PROTOCOL_STATIC
    ) -> None:
        """Add a peer of somebody else, complete with routes to its addresses and FDB entries.

        Without addresses it gets the one that derives from its key, as the older wgkex has installed its peers.
        """
        addresses = addresses or (link_local(key.raw),)
        self.readdress(domain, key, *addresses)
        for address in addresses:
            self.reroute(domain, address, protocol)
            self.forward(domain, address)

    def lose(self, domain: Domain, key: PublicKey, *parts: Part) -> None:
        """Take parts of a peer away, whoever has made them; a route only if it leads over this domain's interface."""
        gateway, address = self._gateways[domain.name], link_local(key.raw)
        if "peer" in parts:
            gateway.remove_peer(key.raw)
        if "route" in parts and self._leads_over.get(address) is gateway:
            self._remove_route(address)
        if "fdb" in parts:
            gateway.fdb_entries.discard(address)

    def refuse(self, key: PublicKey, operation: Operation, error: str) -> None:
        """Fail one step of each installation or removal of a key from now on; those before it are done."""
        self._refused[key.raw] = (operation, error)

    def remove_interfaces(self, domain: Domain) -> None:
        """Delete a domain's interfaces with all that hangs on them."""
        self._replace(domain, DomainState())
        for interface in (domain.wg, domain.vx):
            self._events.put_nowait(LinkEvent(interface, present=False, up=False))

    def create_interfaces(self, domain: Domain) -> None:
        """Create a domain's interfaces, empty and up."""
        self._replace(domain, self._new_interfaces(domain))
        for interface in (domain.wg, domain.vx):
            self._events.put_nowait(LinkEvent(interface, present=True, up=True))

    def _replace(self, domain: Domain, state: DomainState) -> None:
        gone = self._gateways[domain.name]
        for address in [*gone.routes, *gone.foreign_routes]:
            del self._leads_over[address]
        self._gateways[domain.name] = _Gateway(state)

    def _apply_one(self, change: Change, counts: Counter[Operation]) -> Outcome:
        gateway, raw = self._gateways[change.domain.name], change.key.raw if change.key else b""
        if not gateway.state.wg_present:
            # Whatever went over an interface went with it.
            return (
                InterfaceMissingError(Operation.PEER_ADD, change.domain.wg) if change.action is Action.INSTALL else None
            )
        refused, error = self._refused.get(raw, (None, ""))
        for operation in _OPERATIONS[change.action]:
            counts[operation] += 1
            if operation is refused:
                return DataplaneError(operation, error)
            self._carry_out(operation, gateway, raw, change.address)
        return None

    def _carry_out(self, operation: Operation, gateway: _Gateway, raw: bytes, address: bytes) -> None:
        match operation:
            case Operation.PEER_ADD:
                gateway.set_peer(raw, address)
            case Operation.ROUTE_ADD:
                self._set_route(gateway, address, ROUTE_PROTOCOL)
            case Operation.FDB_ADD:
                gateway.fdb_entries.add(address)
            case Operation.FDB_REMOVE:
                gateway.fdb_entries.discard(address)
            case Operation.ROUTE_REMOVE:
                if address in gateway.routes:
                    self._remove_route(address)
            case Operation.PEER_REMOVE:
                gateway.remove_peer(raw)

    def _set_route(self, gateway: _Gateway, address: bytes, protocol: int) -> None:
        if address in self._leads_over:
            self._remove_route(address)
        self._leads_over[address] = gateway
        if protocol == ROUTE_PROTOCOL:
            gateway.routes.add(address)
        else:
            gateway.foreign_routes[address] = protocol

    def _remove_route(self, address: bytes) -> None:
        gateway = self._leads_over.pop(address)
        gateway.routes.discard(address)
        gateway.foreign_routes.pop(address, None)

    def _new_interfaces(self, domain: Domain) -> DomainState:
        public_key = hashlib.sha256(domain.name.encode()).digest()
        return DomainState(
            wg_present=True,
            wg_up=True,
            wg_index=next(self._indices),
            vx_present=True,
            vx_up=True,
            public_key=public_key,
            listen_port=self._ports[domain.name],
            link_address=str(PublicKey(public_key).link_local),
        )
