"""What a worker needs of the machine that carries the peers: the kernel, or its stand-in in memory."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

import msgspec

from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local

# Routes that we add carry this protocol number, which is nobody else's in /etc/iproute2/rt_protos: a peer is ours
# exactly when its own /128 route carries it, after any restart.
ROUTE_PROTOCOL: Final = 158
# What `ip route` says of routes that somebody has added by hand, or as the older wgkex did (linux/rtnetlink.h).
ROUTE_PROTOCOL_STATIC: Final = 4


class Action(StrEnum):
    """What is to become of a peer."""

    INSTALL = "install"
    REMOVE = "remove"


class Change(NamedTuple):
    """One peer to install (new or refreshed: the same thing) or to remove."""

    action: Action
    domain: Domain
    key: PublicKey


class Operation(StrEnum):
    """Kinds of netlink operations: the values of the metric label `operation`."""

    PEER_ADD = "peer_add"
    PEER_REMOVE = "peer_remove"
    ROUTE_ADD = "route_add"
    ROUTE_REMOVE = "route_remove"
    FDB_ADD = "fdb_add"
    FDB_REMOVE = "fdb_remove"
    DUMP = "dump"


# One outcome per change: None is success.
Outcome = DataplaneError | None


class Peer(msgspec.Struct, frozen=True, gc=False):
    """One WireGuard peer as the dataplane sees it.

    There are thousands in a snapshot. A struct of this kind is made in a quarter of the time of a named tuple, and is
    nothing that the garbage collector goes through while the event loop stands still; it refers to no other objects.

    Attributes:
        public_key: 32 bytes.
        handshake: seconds since the epoch of the last handshake; 0.0 if there was none yet.
        receive_bytes: received from the peer.
        transmit_bytes: sent to the peer.
        link_local: the one address (16 bytes) that is routed to the peer; empty if it has other allowed IPs than
            exactly one IPv6 /128.
    """

    public_key: bytes
    handshake: float
    receive_bytes: int
    transmit_bytes: int
    link_local: bytes

    @property
    def has_derived_address(self) -> bool:
        """Whether its only allowed IP is what its key derives (`keys.link_local`): without that, it cannot be ours."""
        return self.link_local == link_local(self.public_key)


@dataclass(frozen=True, slots=True)
class DomainState:
    """One domain's interfaces and what hangs on them, at one moment.

    Attributes:
        wg_present, wg_up: whether the WireGuard interface exists, and is up.
        wg_index: its number, which one that is made anew does not get again; 0 without an interface.
        vx_present, vx_up: the same for the VXLAN interface.
        public_key: the WireGuard interface's own key (32 bytes); empty without an interface or without a private key.
        listen_port: its UDP port; 0 without an interface.
        link_address: its own link-local address as text without a prefix length; empty if it has none.
        peers: all peers, ours and others.
        shared_addresses: addresses (16 bytes) of peers that have more than one allowed IP, and so are not ours.
        routes: destinations (16 bytes) of /128 routes over the interface that carry our protocol number.
        foreign_routes: the same of routes that carry another number, and which; only read if some peer has no route of
            ours.
        fdb_entries: destinations (16 bytes) of all-zero FDB entries of the VXLAN interface via the WireGuard interface.
    """

    wg_present: bool = False
    wg_up: bool = False
    wg_index: int = 0
    vx_present: bool = False
    vx_up: bool = False
    public_key: bytes = b""
    listen_port: int = 0
    link_address: str = ""
    peers: tuple[Peer, ...] = ()
    shared_addresses: frozenset[bytes] = frozenset()
    routes: frozenset[bytes] = frozenset()
    foreign_routes: Mapping[bytes, int] = field(default_factory=dict)
    fdb_entries: frozenset[bytes] = frozenset()

    @property
    def ready(self) -> bool:
        """Whether peers can be installed and can talk."""
        return self.wg_up and self.vx_up


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything about all domains, read in one go.

    Attributes:
        taken_at: seconds since the epoch, by the clock that the handshakes are told in.
        domains: the state by the domain's name; every configured domain is there.
        routed_elsewhere: destinations (16 bytes) of routes that carry our protocol number, over interfaces of no
            configured domain: another worker's, or those of a domain that was taken out of the configuration.
    """

    taken_at: float
    domains: Mapping[str, DomainState] = field(default_factory=dict)
    routed_elsewhere: frozenset[bytes] = frozenset()

    @property
    def routed(self) -> frozenset[bytes]:
        """What routes with our protocol number lead to; put together anew each time."""
        return self.routed_elsewhere.union(*(state.routes for state in self.domains.values()))

    @property
    def routed_by_others(self) -> frozenset[bytes]:
        """The same of other people's routes, as far as they were read."""
        return frozenset[bytes]().union(*(state.foreign_routes for state in self.domains.values()))


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """An interface came, went, or changed its state.

    Attributes:
        interface: its name; empty when events were lost and everything should be looked at again.
        present: whether it exists now.
        up: whether it is up now.
    """

    interface: str
    present: bool
    up: bool


class OperationObserver(Protocol):
    """Is told of each batch or dump: what the netlink metrics are made of. Called from any thread."""

    def observe(self, operation: Operation, count: int, errors: Sequence[str], seconds: float) -> None:
        """Take note of one batch.

        Args:
            operation: what was done.
            count: how many single operations the batch had, failed ones included.
            errors: the errno name of each failed one.
            seconds: how long the batch took.
        """


class Dataplane(Protocol):
    """The two implementations are `netlink.KernelDataplane` and `memory.MemoryDataplane`.

    It is entered before use and left at the end, as an asynchronous context manager.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Carry out many changes, for any number of domains.

        Installing means WireGuard peer, route, FDB entry; removing undoes them in the opposite order, and what is
        absent already is no error. Both are idempotent, so a change that failed half-way can simply be asked for again.

        Returns:
            one outcome per change, in order. One bad change never spoils the others, and none of them raises.
        """

    async def snapshot(self) -> Snapshot:
        """Read the state of all domains.

        Raises:
            DataplaneError: it could not be read (operation ``dump``). A missing interface is no error.
        """

    def events(self) -> AsyncIterator[LinkEvent]:
        """Tell of changes of the domains' interfaces, for as long as the dataplane is open.

        Raises:
            DataplaneError: the source of events broke down.
        """
