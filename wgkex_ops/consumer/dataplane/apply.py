"""Changes the kernel: peers, routes and FDB entries, step by step.

In two parts, so that some changes can be encoded while the kernel works on others: a `Plan` needs no kernel, and
`KernelWriter` blocks.
"""

import errno
import itertools
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from wgkex_ops.consumer.dataplane.base import OperationObserver
from wgkex_ops.consumer.dataplane.netlink import configure
from wgkex_ops.consumer.dataplane.netlink.errnos import code_of, explain, name_of
from wgkex_ops.consumer.dataplane.netlink.framing import DecodeError
from wgkex_ops.consumer.dataplane.netlink.links import interface_index
from wgkex_ops.consumer.dataplane.netlink.sockets import MESSAGES_PER_SEND, NetlinkSocket, WireGuardSocket
from wgkex_ops.errors import DataplaneError, InterfaceMissingError
from wgkex_ops.model.changes import Action, Change, Operation, Outcome
from wgkex_ops.model.domains import Domain

# One send for each step of a plan, and few enough not to block the event loop for long while it makes the plan.
_CHANGES_PER_PLAN: Final = min(configure.PEERS_PER_MESSAGE, MESSAGES_PER_SEND)

# Errors of a single peer in a message full of them. All others are about the interface or about this process.
_PEER_ERRORS: Final = frozenset({errno.EINVAL, errno.ERANGE, errno.ENOMEM, errno.EPFNOSUPPORT})

# Errors that mean: there is nothing to remove, or no interface to remove it from.
_ABSENT: Final = {
    Operation.PEER_REMOVE: frozenset({errno.ENODEV}),
    Operation.ROUTE_REMOVE: frozenset({errno.ESRCH, errno.ENODEV}),
    # EADDRNOTAVAIL: the WireGuard interface that the entry uses is gone.
    Operation.FDB_REMOVE: frozenset({errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL}),
}


class _Interfaces(NamedTuple):
    """Indices of a domain's interfaces at this moment; 0 for one that is missing."""

    wg: int = 0
    vx: int = 0


class _Item(msgspec.Struct):
    """A change on its way through the steps.

    Attributes:
        change: the change.
        peer: the encoded peer; empty where only an address is cleared.
        interfaces: of its domain, once it is carried out.
        outcome: so far.
    """

    change: Change
    peer: bytes
    interfaces: _Interfaces = _Interfaces()
    outcome: Outcome = None


class Plan:
    """Changes of different addresses, so that their order does not matter, with all that can be encoded beforehand.

    Args:
        changes: as many as `make_plans` puts into one.
    """

    def __init__(self, changes: Sequence[Change]) -> None:
        self._items = [_planned(change) for change in changes]
        # Sorted by domain: neighbours share messages, and the first and last bytes of their encoding.
        ordered = sorted(self._items, key=_domain_name)
        self.installs = [item for item in ordered if item.change.action is Action.INSTALL]
        self.removals = [item for item in ordered if item.change.action is not Action.INSTALL]
        self.domains = {change.domain.name: change.domain for change in changes}.values()

    @property
    def outcomes(self) -> list[Outcome]:
        """One for each change, in their order."""
        return [item.outcome for item in self._items]


def make_plans(changes: Iterable[Change]) -> Iterator[Plan]:
    """Split changes into plans, lazily and in their order.

    An address occurs once in a plan, even if two domains change it: its one route has to go where the last change wants
    it.
    """
    part: list[Change] = []
    seen: set[bytes] = set()
    for change in changes:
        if change.address in seen or len(part) == _CHANGES_PER_PLAN:
            yield Plan(part)
            part, seen = [], set()
        part.append(change)
        seen.add(change.address)
    if part:
        yield Plan(part)


def _planned(change: Change) -> _Item:
    if not change.key:
        return _Item(change, b"")
    install = change.action is Action.INSTALL
    return _Item(
        change,
        configure.encode_peer(change.key, change.address) if install else configure.encode_peer_removal(change.key),
    )


def _domain_name(item: _Item) -> str:
    return item.change.domain.name


class KernelWriter:
    """Changes the kernel, for one thread at a time.

    Args:
        wireguard: the socket for peers.
        route: the socket for routes and FDB entries.
        observer: is called for each step.
        route_protocol: the protocol number of our routes.
        index_of: the index of an interface, by its name; 0 if there is none.
    """

    def __init__(
        self,
        wireguard: WireGuardSocket,
        route: NetlinkSocket,
        observer: OperationObserver,
        route_protocol: int,
        index_of: Callable[[str], int] = interface_index,
    ) -> None:
        self._wireguard = wireguard
        self._route = route
        self._observer = observer
        self._route_protocol = route_protocol
        self._index_of = index_of

    def carry_out(self, plan: Plan) -> list[Outcome]:
        """Carry out all steps; one outcome for each change, in their order."""
        interfaces = {
            domain.name: _Interfaces(self._index_of(domain.wg), self._index_of(domain.vx)) for domain in plan.domains
        }
        for item in itertools.chain(plan.installs, plan.removals):
            item.interfaces = interfaces[item.change.domain.name]
        self._install(plan.installs)
        self._remove(plan.removals)
        return plan.outcomes

    def _install(self, items: Sequence[_Item]) -> None:
        for item in items:
            if not item.interfaces.wg:
                item.outcome = InterfaceMissingError(Operation.PEER_ADD, item.change.domain.wg)
            elif not item.interfaces.vx:
                item.outcome = InterfaceMissingError(Operation.FDB_ADD, item.change.domain.vx)
        self._step(Operation.PEER_ADD, items, self._set_peers)
        self._step(Operation.ROUTE_ADD, items, self._add_routes)
        self._step(Operation.FDB_ADD, items, self._add_fdb_entries)

    def _remove(self, items: Sequence[_Item]) -> None:
        # What was on an interface is gone with it.
        items = [item for item in items if item.interfaces.wg]
        self._step(Operation.FDB_REMOVE, [item for item in items if item.interfaces.vx], self._remove_fdb_entries)
        self._step(Operation.ROUTE_REMOVE, items, self._remove_routes)
        self._step(Operation.PEER_REMOVE, [item for item in items if item.peer], self._set_peers)

    def _step(self, operation: Operation, items: Iterable[_Item], work: Callable[[Sequence[_Item]], list[int]]) -> None:
        """Carry out one step of those changes that no earlier step has failed for."""
        pending = [item for item in items if item.outcome is None]
        if not pending:
            return
        started = time.monotonic()
        try:
            codes = work(pending)
        except (OSError, DecodeError) as problem:
            # Which of them were made is unknown. The caller repeats them all, which does no harm.
            codes = [code_of(problem)] * len(pending)
        names: list[str] = []
        for item, code in zip(pending, codes, strict=True) if any(codes) else ():
            if code and code not in _ABSENT.get(operation, ()):
                item.outcome = _change_error(operation, item.change.domain, code)
                names.append(name_of(code))
        self._observer.observe(operation, len(pending), names, time.monotonic() - started)

    def _add_routes(self, items: Sequence[_Item]) -> list[int]:
        return self._route.exchange(configure.add_routes(self._route_protocol, _routes(items)))

    def _remove_routes(self, items: Sequence[_Item]) -> list[int]:
        return self._route.exchange(configure.remove_routes(self._route_protocol, _routes(items)))

    def _add_fdb_entries(self, items: Sequence[_Item]) -> list[int]:
        return self._route.exchange(configure.add_fdb_entries(_fdb_entries(items)))

    def _remove_fdb_entries(self, items: Sequence[_Item]) -> list[int]:
        return self._route.exchange(configure.remove_fdb_entries(_fdb_entries(items)))

    def _set_peers(self, items: Sequence[_Item]) -> list[int]:
        """Send messages of many peers, each for one interface; error numbers in the order of the items."""
        family = self._wireguard.family()
        codes = [0] * len(items)
        parts = _parts(items)
        while parts:
            errors = self._wireguard.exchange(
                configure.set_peers(
                    family,
                    [(items[part.start].interfaces.wg, [items[one].peer for one in part]) for part in parts],
                )
            )
            split: list[range] = []
            for part, code in zip(parts, errors, strict=True):
                if code == errno.ENOENT:
                    self._wireguard.forget_family()
                if code in _PEER_ERRORS and len(part) > 1:
                    # The kernel stops at the first peer that it refuses, and does not report which one.
                    split += [part[: len(part) // 2], part[len(part) // 2 :]]
                    continue
                for position in part:
                    codes[position] = code
            parts = split
        return codes


_interfaces: Final = operator.attrgetter("interfaces")


def _by_interfaces(items: Iterable[_Item]) -> list[tuple[_Interfaces, list[_Item]]]:
    """Group neighbours that have the same interfaces."""
    return [(interfaces, list(some)) for interfaces, some in itertools.groupby(items, _interfaces)]


def _parts(items: Sequence[_Item]) -> list[range]:
    """The positions of the items that share one message."""
    ends = list(itertools.accumulate(len(some) for _, some in _by_interfaces(items)))
    return [range(start, end) for start, end in itertools.pairwise([0, *ends])]


def _routes(items: Iterable[_Item]) -> list[tuple[int, list[bytes]]]:
    return [(interfaces.wg, [item.change.address for item in some]) for interfaces, some in _by_interfaces(items)]


def _fdb_entries(items: Iterable[_Item]) -> list[tuple[int, int, list[bytes]]]:
    return [
        (interfaces.vx, interfaces.wg, [item.change.address for item in some])
        for interfaces, some in _by_interfaces(items)
    ]


def _change_error(operation: Operation, domain: Domain, code: int) -> DataplaneError:
    if code == errno.ENODEV:
        return InterfaceMissingError(operation, domain.vx if operation is Operation.FDB_ADD else domain.wg)
    if code == errno.EADDRNOTAVAIL and operation is Operation.FDB_ADD:
        # VXLAN's error when the entry's WireGuard interface is missing.
        return InterfaceMissingError(operation, domain.wg)
    return DataplaneError(operation, name_of(code), explain(code))
