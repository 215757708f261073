"""What is asked of a dataplane, and what became of it."""

from enum import StrEnum
from typing import NamedTuple

from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey


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
