"""What the kernel is asked to change: peers, routes and FDB entries, step by step.

In two parts, so that the first one of some changes can be done while the kernel works on others: a `Plan`, which needs
no kernel, and `Changing`, which blocks.
"""

import errno
import itertools
import operator
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from wgkex_ops.consumer.dataplane.base import OperationObserver
from wgkex_ops.consumer.dataplane.netlink import wire
from wgkex_ops.consumer.dataplane.netlink.errnos import code_of, explain, name_of
from wgkex_ops.consumer.dataplane.netlink.sockets import NetlinkSocket, WireGuardSocket
from wgkex_ops.errors import DataplaneError, InterfaceMissingError
from wgkex_ops.model.changes import Action, Change, Operation, Outcome
from wgkex_ops.model.domains import Domain

# Of one plan: one send for each step, and little enough for the event loop not to stand still while it makes the plan.
_CHANGES_PER_PLAN: Final = min(wire.PEERS_PER_MESSAGE, wire.MESSAGES_PER_SEND)

# What the kernel says of a single peer in a message full of them; anything else is about the interface or about us.
_PEER_ERRORS: Final = frozenset({errno.EINVAL, errno.ERANGE, errno.ENOMEM, errno.EPFNOSUPPORT})

# What the kernel says when there is nothing to remove, or no interface that it could be removed from.
_ABSENT: Final = {
    Operation.PEER_REMOVE: frozenset({errno.ENODEV}),
    Operation.ROUTE_REMOVE: frozenset({errno.ESRCH, errno.ENODEV}),
    # EADDRNOTAVAIL: the WireGuard interface, on the way to the entry's destination, is gone.
    Operation.FDB_REMOVE: frozenset({errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL}),
}


class _Interfaces(NamedTuple):
    """Numbers of a domain's interfaces at this moment; 0 for one that is not there."""

    wg: int = 0
    vx: int = 0


class _Item(msgspec.Struct):
    """A change on its way through the steps.

    Attributes:
        change: what is asked for.
        peer: what WireGuard is told; empty where only an address is cleared.
        interfaces: of its domain, as soon as it is carried out.
        outcome: what has become of it so far.
    """

    change: Change
    peer: bytes
    interfaces: _Interfaces = _Interfaces()
    outcome: Outcome = None


class Plan:
    """Changes of different keys, so that their order does not matter, and what can be known of them beforehand.

    Args:
        changes: one of the parts that `plans` makes.
    """

    def __init__(self, changes: Sequence[Change]) -> None:
        self._items = [_planned(change) for change in changes]
        # Those of a domain one after the other: they share messages, and what is said of them begins and ends alike.
        ordered = sorted(self._items, key=_domain_name)
        self.installs = [item for item in ordered if item.change.action is Action.INSTALL]
        self.removals = [item for item in ordered if item.change.action is not Action.INSTALL]
        self.domains = {change.domain.name: change.domain for change in changes}.values()

    @property
    def outcomes(self) -> list[Outcome]:
        """One for each change, in their order."""
        return [item.outcome for item in self._items]


def plans(changes: Iterable[Change]) -> Iterator[Plan]:
    """Plan changes in their order, each part when it is asked for.

    No part is too long for the messages of its steps, and in none of them an address occurs twice, be it in two
    domains: the route goes to where it is asked for last.
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
    return _Item(change, wire.new_peer(change.key, change.address) if install else wire.gone_peer(change.key))


def _domain_name(item: _Item) -> str:
    return item.change.domain.name


class Changing:
    """Changes the kernel; for one thread at a time.

    Args:
        wireguard: where peers are told of.
        route: the same for routes and FDB entries.
        observer: is told of each step.
        route_protocol: the number that our routes carry.
    """

    def __init__(
        self, wireguard: WireGuardSocket, route: NetlinkSocket, observer: OperationObserver, route_protocol: int
    ) -> None:
        self._wireguard = wireguard
        self._route = route
        self._observer = observer
        self._route_protocol = route_protocol

    def carry_out(self, plan: Plan) -> list[Outcome]:
        """Do all steps; the outcome of each change, in their order."""
        interfaces = {domain.name: _resolve(domain) for domain in plan.domains}
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
        # Whatever went over an interface went with it.
        items = [item for item in items if item.interfaces.wg]
        self._step(Operation.FDB_REMOVE, [item for item in items if item.interfaces.vx], self._remove_fdb_entries)
        self._step(Operation.ROUTE_REMOVE, items, self._remove_routes)
        self._step(Operation.PEER_REMOVE, [item for item in items if item.peer], self._set_peers)

    def _step(self, operation: Operation, items: Iterable[_Item], work: Callable[[Sequence[_Item]], list[int]]) -> None:
        """Do one step of those changes that have not failed in an earlier one."""
        alive = [item for item in items if item.outcome is None]
        if not alive:
            return
        started = time.monotonic()
        try:
            codes = work(alive)
        except (OSError, wire.DecodeError) as problem:
            # Which of them were made is not known. All are asked for again some time, which does no harm.
            codes = [code_of(problem)] * len(alive)
        names: list[str] = []
        # Mostly all goes well.
        for item, code in zip(alive, codes, strict=True) if any(codes) else ():
            if code and code not in _ABSENT.get(operation, ()):
                item.outcome = _change_error(operation, item.change.domain, code)
                names.append(name_of(code))
        self._observer.observe(operation, len(alive), names, time.monotonic() - started)

    def _add_routes(self, items: Sequence[_Item]) -> list[int]:
        return self._route.exchange(wire.add_routes(self._route_protocol, _routes(items)))

    def _remove_routes(self, items: Sequence[_Item]) -> list[int]:
        return self._route.exchange(wire.remove_routes(self._route_protocol, _routes(items)))

    def _add_fdb_entries(self, items: Sequence[_Item]) -> list[int]:
        return self._route.exchange(wire.add_fdb_entries(_fdb_entries(items)))

    def _remove_fdb_entries(self, items: Sequence[_Item]) -> list[int]:
        return self._route.exchange(wire.remove_fdb_entries(_fdb_entries(items)))

    def _set_peers(self, items: Sequence[_Item]) -> list[int]:
        """Send messages of many peers, each for one interface; errors in the order of the items."""
        family = self._wireguard.family()
        codes = [0] * len(items)
        parts = _parts(items)
        while parts:
            answers = self._wireguard.exchange(
                wire.set_peers(
                    family,
                    [(items[part.start].interfaces.wg, [items[one].peer for one in part]) for part in parts],
                )
            )
            halves: list[range] = []
            for part, code in zip(parts, answers, strict=True):
                if code == errno.ENOENT:
                    self._wireguard.forget_family()
                if code in _PEER_ERRORS and len(part) > 1:
                    # The kernel stops at the first peer that it refuses, and does not say which one.
                    halves += [part[: len(part) // 2], part[len(part) // 2 :]]
                    continue
                for position in part:
                    codes[position] = code
            parts = halves
        return codes


_interfaces: Final = operator.attrgetter("interfaces")


def _by_interfaces(items: Iterable[_Item]) -> list[tuple[_Interfaces, list[_Item]]]:
    """Those that follow one another and have the same interfaces, together."""
    return [(interfaces, list(some)) for interfaces, some in itertools.groupby(items, _interfaces)]


def _parts(items: Sequence[_Item]) -> list[range]:
    """The positions of those that share one message of peers."""
    ends = list(itertools.accumulate(len(some) for _, some in _by_interfaces(items)))
    return [range(start, end) for start, end in itertools.pairwise([0, *ends])]


def _routes(items: Iterable[_Item]) -> list[tuple[int, list[bytes]]]:
    return [(interfaces.wg, [item.change.address for item in some]) for interfaces, some in _by_interfaces(items)]


def _fdb_entries(items: Iterable[_Item]) -> list[tuple[int, int, list[bytes]]]:
    return [
        (interfaces.vx, interfaces.wg, [item.change.address for item in some])
        for interfaces, some in _by_interfaces(items)
    ]


def _resolve(domain: Domain) -> _Interfaces:
    return _Interfaces(number_of(domain.wg), number_of(domain.vx))


def number_of(interface: str) -> int:
    """The index of an interface; 0 if it is not there."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def _change_error(operation: Operation, domain: Domain, code: int) -> DataplaneError:
    if code == errno.ENODEV:
        return InterfaceMissingError(operation, domain.vx if operation is Operation.FDB_ADD else domain.wg)
    if code == errno.EADDRNOTAVAIL and operation is Operation.FDB_ADD:
        # That is how VXLAN says that there is no interface of this number on the way to the destination.
        return InterfaceMissingError(operation, domain.wg)
    return DataplaneError(operation, name_of(code), explain(code))
