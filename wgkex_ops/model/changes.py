"""What is asked of a dataplane, and what became of it."""

from enum import StrEnum
from typing import NamedTuple, Self

from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local


class Action(StrEnum):
    """What is to become of a peer; CLEAR is for a route and an FDB entry that lead to no peer."""

    INSTALL = "install"
    REMOVE = "remove"
    CLEAR = "clear"


class Change(NamedTuple):
    """One peer to install (new or refreshed: the same thing) or to remove, or one address to clear.

    Attributes:
        action: what is to be done.
        domain: where.
        key: the peer's (32 bytes); empty where an address is cleared.
        address: the peer's link-local address (16 bytes), which its route and its FDB entry lead to.
    """

    action: Action
    domain: Domain
    key: bytes
    address: bytes

    @classmethod
    def install(cls, domain: Domain, key: PublicKey) -> Self:
        """Have a peer, its route and its FDB entry."""
        return cls(Action.INSTALL, domain, key.raw, link_local(key.raw))

    @classmethod
    def remove(cls, domain: Domain, key: PublicKey) -> Self:
        """Have none of them any more."""
        return cls(Action.REMOVE, domain, key.raw, link_local(key.raw))

    @classmethod
    def clear(cls, domain: Domain, address: bytes) -> Self:
        """Have neither a route of ours nor an FDB entry that leads to an address (16 bytes)."""
        return cls(Action.CLEAR, domain, b"", address)


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
