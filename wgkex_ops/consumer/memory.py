"""A dataplane without a kernel, for trying the service out and for tests. It installs nothing anywhere."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Literal, Self

import structlog

from wgkex_ops.dataplane import (
    Action,
    Change,
    DomainState,
    LinkEvent,
    Operation,
    OperationObserver,
    Outcome,
    Peer,
    Snapshot,
)
from wgkex_ops.domains import Domain
from wgkex_ops.errors import DataplaneError, InterfaceMissingError
from wgkex_ops.keys import PublicKey, link_local

_log = structlog.get_logger(__name__)

_FIRST_PORT: Final = 40_000

Part = Literal["peer", "route", "fdb"]


@dataclass(slots=True)
class _Gateway:
    """One domain's make-believe interfaces."""

    state: DomainState
    handshakes: dict[bytes, float] = field(default_factory=dict)
    addresses: dict[bytes, bytes] = field(default_factory=dict)
    lost: dict[Part, set[bytes]] = field(default_factory=lambda: {"peer": set(), "route": set(), "fdb": set()})

    def have(self, part: Part) -> list[bytes]:
        """Keys of the peers that have a part."""
        return [raw for raw in self.handshakes if raw not in self.lost[part]]

    def find(self, raw: bytes) -> None:
        """Put back what was lost of a peer."""
        self.addresses.pop(raw, None)
        for lost in self.lost.values():
            lost.discard(raw)


class MemoryDataplane:
    """Keeps peers in a dictionary, and behaves like the kernel in all that the interface promises.

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
        self._gateways = {
            domain.name: _Gateway(_new_interfaces(domain, self._ports[domain.name])) for domain in domains
        }
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
        outcomes = [self._apply_one(change) for change in changes]
        seconds = time.perf_counter() - start
        for action, operations in _OPERATIONS.items():
            of_action = [outcome for change, outcome in zip(changes, outcomes, strict=True) if change.action is action]
            for operation in operations if of_action else ():
                errors = [outcome.error for outcome in of_action if outcome and outcome.operation == operation]
                self._observer.observe(operation, len(of_action), errors, seconds)
        return outcomes

    async def snapshot(self) -> Snapshot:
        """See `Dataplane.snapshot`."""
        start = time.perf_counter()
        domains = {
            name: replace(
                gateway.state,
                peers=tuple(
                    Peer(
                        raw,
                        handshake,
                        receive_bytes=0,
                        transmit_bytes=0,
                        link_local=gateway.addresses.get(raw) or link_local(raw),
                    )
                    for raw, handshake in gateway.handshakes.items()
                    if raw not in gateway.lost["peer"]
                ),
                routes=frozenset(map(link_local, gateway.have("route"))),
                fdb_entries=frozenset(map(link_local, gateway.have("fdb"))),
            )
            for name, gateway in self._gateways.items()
        }
        self._observer.observe(Operation.DUMP, 1, [], time.perf_counter() - start)
        return Snapshot(self._clock(), domains)

    async def events(self) -> AsyncIterator[LinkEvent]:
        """See `Dataplane.events`."""
        while True:
            yield await self._events.get()

    def shake_hands(self, domain: Domain, key: PublicKey) -> bool:
        """Play a handshake of a peer now; False if there is no such peer."""
        handshakes = self._gateways[domain.name].handshakes
        if key.raw not in handshakes:
            return False
        handshakes[key.raw] = self._clock()
        return True

    def refuse(self, key: PublicKey, operation: Operation, error: str) -> None:
        """Fail each installation of a key from now on, as the kernel might."""
        self._refused[key.raw] = (operation, error)

    def lose(self, domain: Domain, key: PublicKey, *parts: Part) -> None:
        """Take parts of an installed peer away, as an operator or another program might."""
        for part in parts:
            self._gateways[domain.name].lost[part].add(key.raw)

    def readdress(self, domain: Domain, key: PublicKey, address: bytes) -> None:
        """Give an installed peer another address (16 bytes) than the one that derives from its key."""
        self._gateways[domain.name].addresses[key.raw] = address

    def remove_interfaces(self, domain: Domain) -> None:
        """Delete a domain's interfaces with all that hangs on them."""
        self._gateways[domain.name] = _Gateway(DomainState())
        for interface in (domain.wg, domain.vx):
            self._events.put_nowait(LinkEvent(interface, present=False, up=False))

    def create_interfaces(self, domain: Domain) -> None:
        """Create a domain's interfaces, empty and up."""
        self._gateways[domain.name] = _Gateway(_new_interfaces(domain, self._ports[domain.name]))
        for interface in (domain.wg, domain.vx):
            self._events.put_nowait(LinkEvent(interface, present=True, up=True))

    def _apply_one(self, change: Change) -> Outcome:
        gateway = self._gateways[change.domain.name]
        if change.action is Action.REMOVE:
            gateway.handshakes.pop(change.key.raw, None)
            gateway.find(change.key.raw)
            return None
        if not gateway.state.wg_present:
            return InterfaceMissingError(Operation.PEER_ADD, change.domain.wg)
        if change.key.raw in self._refused:
            return DataplaneError(*self._refused[change.key.raw])
        # The kernel silently ignores a device's own key as a peer.
        if change.key.raw != gateway.state.public_key:
            gateway.handshakes.setdefault(change.key.raw, 0.0)
            gateway.find(change.key.raw)
        return None


_OPERATIONS: Final = {
    Action.INSTALL: (Operation.PEER_ADD, Operation.ROUTE_ADD, Operation.FDB_ADD),
    Action.REMOVE: (Operation.FDB_REMOVE, Operation.ROUTE_REMOVE, Operation.PEER_REMOVE),
}


def _new_interfaces(domain: Domain, port: int) -> DomainState:
    public_key = hashlib.sha256(domain.name.encode()).digest()
    return DomainState(
        wg_present=True,
        wg_up=True,
        vx_present=True,
        vx_up=True,
        public_key=public_key,
        listen_port=port,
        link_address=str(PublicKey(public_key).link_local),
    )
