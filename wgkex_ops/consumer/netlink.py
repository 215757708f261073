"""The dataplane of this machine's kernel: WireGuard peers, routes and VXLAN FDB entries over netlink.

In the network namespace that the process is in:

- One thread works with the kernel (`_Kernel`). All changes and dumps pass through it one after the other, so a snapshot
  never shows one of our own changes half done, and none of them interrupts a dump. What must be fast goes over blocking
  sockets that are kept open (`_Socket`, `wire`); the interfaces' addresses come by way of pyroute2 (`links`).
- Changes of links are read on the event loop, with pyroute2, too (`links.LinkNews`).

What the kernel says leaves this file as our own errors only. CAP_NET_ADMIN is the only right that is needed.
"""

import asyncio
import errno
import itertools
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

from wgkex_ops.consumer import wire
from wgkex_ops.consumer.links import LinkNews, LinkTracker, dump_addresses
from wgkex_ops.dataplane import (
    ROUTE_PROTOCOL,
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
from wgkex_ops.keys import link_local

_T = TypeVar("_T")

# So many changes at most keep the thread busy before somebody else has a turn: a snapshot, another apply(), the end.
_CHANGES_PER_TURN: Final = 1000

# Seconds. The kernel answers before send() returns, so this is waited only when an answer got lost.
_ANSWER_TIMEOUT: Final = 3

# A dump is interrupted when somebody else changes the same thing meanwhile; more than this in a row is no accident.
_DUMP_ATTEMPTS: Final = 5

# What the kernel says of a single peer in a message full of them; anything else is about the interface or about us.
_PEER_ERRORS: Final = frozenset({errno.EINVAL, errno.ERANGE, errno.ENOMEM, errno.EPFNOSUPPORT})

# What the kernel says when there is nothing to remove, or no interface that it could be removed from.
_ABSENT: Final = {
    Operation.PEER_REMOVE: frozenset({errno.ENODEV}),
    Operation.ROUTE_REMOVE: frozenset({errno.ESRCH, errno.ENODEV}),
    # EADDRNOTAVAIL: the WireGuard interface, on the way to the entry's destination, is gone.
    Operation.FDB_REMOVE: frozenset({errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL}),
}

_RIGHT_NEEDED: Final = "the right CAP_NET_ADMIN is needed"


def probe(domains: Sequence[Domain]) -> str | None:
    """Find out whether the kernel's dataplane can be used here. Changes nothing, not even which modules are loaded.

    Returns:
        a sentence why not; None if it can.
    """
    kernel = _Kernel(domains, _Nobody(), ROUTE_PROTOCOL)
    try:
        return kernel.obstacle()
    finally:
        kernel.close()


class KernelDataplane:
    """The `Dataplane` of this machine's kernel.

    Args:
        domains: whose interfaces these are.
        observer: is told of each batch and dump.
        route_protocol: the number that our routes carry.
    """

    def __init__(
        self, domains: Sequence[Domain], observer: OperationObserver, route_protocol: int = ROUTE_PROTOCOL
    ) -> None:
        self._kernel = _Kernel(domains, observer, route_protocol)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._interfaces = frozenset(name for domain in domains for name in (domain.wg, domain.vx))
        self._news: LinkNews | None = None
        self._links = LinkTracker(self._interfaces, ())
        self._lost = False

    async def __aenter__(self) -> Self:
        """Open the dataplane.

        Raises:
            DataplaneError: this process may not speak netlink at all.
        """
        try:
            await self._subscribe()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Carry out changes; see `Dataplane.apply`. Cancelled, it stops after the changes that are being made."""
        outcomes: list[Outcome] = []
        for turn in _turns(changes):
            outcomes += await self._in_thread(partial(self._kernel.apply, turn))
        return outcomes

    async def snapshot(self) -> Snapshot:
        """Read the state of all domains; see `Dataplane.snapshot`."""
        return await self._in_thread(self._kernel.snapshot)

    async def events(self) -> AsyncIterator[LinkEvent]:
        """Tell of changes of the domains' interfaces since the dataplane was entered; see `Dataplane.events`.

        There is one stream of them: what one iteration has taken, another one does not get.
        """
        while (news := self._news) is not None:
            if self._lost:
                # What still waits in the socket is older than what was lost: a new one, and a look at everything.
                await self._subscribe()
                self._lost = False
                yield LinkEvent(interface="", present=False, up=False)
                continue
            try:
                told = await news.read()
            except OSError as problem:
                if news is not self._news:
                    return
                if problem.errno != errno.ENOBUFS:
                    raise _dump_error(problem) from problem
                self._lost = True
                continue
            for link, present in told:
                for event in self._links.update(link, present):
                    yield event

    async def _subscribe(self) -> None:
        self._unsubscribe()
        self._news = LinkNews()
        try:
            await self._news.open()
        except OSError as problem:
            raise _dump_error(problem) from problem
        self._links = LinkTracker(self._interfaces, await self._in_thread(self._kernel.links))

    def _unsubscribe(self) -> None:
        if self._news is not None:
            self._news.close()
            self._news = None

    async def _close(self) -> None:
        self._unsubscribe()
        try:
            await self._in_thread(self._kernel.close)
        finally:
            self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        # Cancelling gives up waiting, and work that has not begun; what has begun goes on to its end in the thread, so
        # that no answer is left in a socket for the next one to find.
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class _Nobody:
    """Does not care about operations."""

    def observe(self, operation: Operation, count: int, errors: Sequence[str], seconds: float) -> None: ...


class _Socket:
    """A blocking netlink socket to the kernel: opened when it is needed, given up after a failure.

    After a failure nobody can know what is still on its way; a new socket has nothing waiting in it.

    Args:
        protocol: NETLINK_ROUTE or NETLINK_GENERIC.
    """

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._connection: socket.socket | None = None
        self._sequence = itertools.count(1)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def exchange(self, requests: Sequence[wire.Request]) -> list[int]:
        """Ask for changes.

        Returns:
            the errno of each, in order; 0 for success.

        Raises:
            OSError: the socket failed; what has become of the changes is not known.
            wire.DecodeError: an answer cannot be read.
        """
        errors: list[int] = []
        for start in range(0, len(requests), wire.MESSAGES_PER_SEND):
            part = requests[start : start + wire.MESSAGES_PER_SEND]
            errors += self._guarded(partial(self._exchange, part))
        return errors

    def dump(self, request: wire.Request) -> list[bytes]:
        """Ask for a dump.

        Returns:
            the bodies of its messages.

        Raises:
            OSError: the kernel refused it, or the socket failed. EINTR: what was dumped has changed meanwhile.
            wire.DecodeError: an answer cannot be read.
        """
        return self._guarded(partial(self._dump, request))

    def _guarded(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except BlockingIOError:
            self.close()
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        except (OSError, wire.DecodeError):
            self.close()
            raise

    def _exchange(self, requests: Sequence[wire.Request]) -> list[int]:
        first = next(self._sequence)
        self._sequence = itertools.count(first + len(requests))
        connection = self._opened()
        connection.send(wire.encode(requests, first))
        errors = [0] * len(requests)
        while True:
            for message in wire.messages(connection.recv(wire.DATAGRAM_BYTES)):
                position = (message.sequence - first) & wire.SEQUENCE_MASK
                if message.kind != wire.NLMSG_ERROR or position >= len(requests):
                    continue
                errors[position] = wire.decode_error(message.body)
                if position == len(requests) - 1:
                    return errors

    def _dump(self, request: wire.Request) -> list[bytes]:
        sequence = next(self._sequence)
        connection = self._opened()
        connection.send(wire.encode([request], sequence))
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, carried, body in wire.messages(connection.recv(wire.DATAGRAM_BYTES)):
                if carried != sequence & wire.SEQUENCE_MASK:
                    continue
                interrupted = interrupted or bool(flags & wire.NLM_F_DUMP_INTR)
                if kind not in (wire.NLMSG_DONE, wire.NLMSG_ERROR):
                    bodies.append(body)
                    continue
                if code := wire.decode_error(body):
                    raise OSError(code, os.strerror(code))
                if interrupted:
                    raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
                return bodies

    def _opened(self) -> socket.socket:
        if self._connection is None:
            connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, self._protocol)
            self._connection = connection
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _ANSWER_TIMEOUT, 0))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wire.RECEIVE_BUFFER_BYTES)
            # Else a failure's answer carries the whole request, and a message of peers is long.
            connection.setsockopt(wire.SOL_NETLINK, wire.NETLINK_CAP_ACK, 1)
            if self._protocol == wire.NETLINK_ROUTE:
                connection.setsockopt(wire.SOL_NETLINK, wire.NETLINK_GET_STRICT_CHK, 1)
            # Nobody but the kernel can send anything to a connected socket.
            connection.connect((0, 0))
        return self._connection


class _Interfaces(NamedTuple):
    """Numbers of a domain's interfaces at this moment; 0 for one that is not there."""

    wg: int
    vx: int


@dataclass(slots=True)
class _Item:
    """A change on its way through the steps."""

    domain: Domain
    key: bytes
    address: bytes
    interfaces: _Interfaces
    outcome: Outcome = None


class _Kernel:
    """All blocking work, for one thread at a time."""

    def __init__(self, domains: Sequence[Domain], observer: OperationObserver, route_protocol: int) -> None:
        self._domains = domains
        self._observer = observer
        self._route_protocol = route_protocol
        self._generic = _Socket(wire.NETLINK_GENERIC)
        self._route = _Socket(wire.NETLINK_ROUTE)
        self._wireguard: int | None = None

    def close(self) -> None:
        self._generic.close()
        self._route.close()

    # Changes

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Carry out changes of different keys, so that their order does not matter."""
        domains = {change.domain.name: change.domain for change in changes}
        interfaces = {name: _resolve(domain) for name, domain in domains.items()}
        items = [
            _Item(change.domain, change.key.raw, link_local(change.key.raw), interfaces[change.domain.name])
            for change in changes
        ]
        self._install([item for change, item in zip(changes, items, strict=True) if change.action is Action.INSTALL])
        self._remove([item for change, item in zip(changes, items, strict=True) if change.action is Action.REMOVE])
        return [item.outcome for item in items]

    def _install(self, items: Sequence[_Item]) -> None:
        for item in items:
            if not item.interfaces.wg:
                item.outcome = InterfaceMissingError(Operation.PEER_ADD, item.domain.wg)
            elif not item.interfaces.vx:
                item.outcome = InterfaceMissingError(Operation.FDB_ADD, item.domain.vx)
        self._step(Operation.PEER_ADD, items, self._add_peers)
        self._step(Operation.ROUTE_ADD, items, self._add_routes)
        self._step(Operation.FDB_ADD, items, self._add_fdb_entries)

    def _remove(self, items: Sequence[_Item]) -> None:
        # Whatever went over an interface went with it.
        items = [item for item in items if item.interfaces.wg]
        self._step(Operation.FDB_REMOVE, [item for item in items if item.interfaces.vx], self._remove_fdb_entries)
        self._step(Operation.ROUTE_REMOVE, items, self._remove_routes)
        self._step(Operation.PEER_REMOVE, items, self._remove_peers)

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
            codes = [_code(problem)] * len(alive)
        names: list[str] = []
        # Mostly all goes well.
        for item, code in zip(alive, codes, strict=True) if any(codes) else ():
            if code and code not in _ABSENT.get(operation, ()):
                item.outcome = _change_error(operation, item.domain, code)
                names.append(_name(code))
        self._observer.observe(operation, len(alive), names, time.monotonic() - started)

    def _add_peers(self, items: Sequence[_Item]) -> list[int]:
        return self._change_peers(
            items,
            lambda family, part: wire.add_peers(
                family, part[0].interfaces.wg, ((item.key, item.address) for item in part)
            ),
        )

    def _remove_peers(self, items: Sequence[_Item]) -> list[int]:
        return self._change_peers(
            items,
            lambda family, part: wire.remove_peers(family, part[0].interfaces.wg, (item.key for item in part)),
        )

    def _add_routes(self, items: Sequence[_Item]) -> list[int]:
        return self._route.exchange(
            [wire.add_route(item.interfaces.wg, item.address, self._route_protocol) for item in items]
        )

    def _remove_routes(self, items: Sequence[_Item]) -> list[int]:
        return self._route.exchange(
            [wire.remove_route(item.interfaces.wg, item.address, self._route_protocol) for item in items]
        )

    def _add_fdb_entries(self, items: Sequence[_Item]) -> list[int]:
        return self._route.exchange(
            [wire.add_fdb_entry(item.interfaces.vx, item.interfaces.wg, item.address) for item in items]
        )

    def _remove_fdb_entries(self, items: Sequence[_Item]) -> list[int]:
        return self._route.exchange(
            [wire.remove_fdb_entry(item.interfaces.vx, item.interfaces.wg, item.address) for item in items]
        )

    def _change_peers(
        self, items: Sequence[_Item], request: Callable[[int, Sequence[_Item]], wire.Request]
    ) -> list[int]:
        """Send messages of many peers, each for one interface; errors in the order of the items."""
        family = self._family()
        by_interface: dict[int, list[int]] = {}
        for position, item in enumerate(items):
            by_interface.setdefault(item.interfaces.wg, []).append(position)
        codes = [0] * len(items)
        parts = [
            positions[start : start + wire.PEERS_PER_MESSAGE]
            for positions in by_interface.values()
            for start in range(0, len(positions), wire.PEERS_PER_MESSAGE)
        ]
        while parts:
            answers = self._generic.exchange([request(family, [items[one] for one in part]) for part in parts])
            halves: list[list[int]] = []
            for part, code in zip(parts, answers, strict=True):
                if code == errno.ENOENT:
                    self._wireguard = None  # no such family: the module was loaded anew
                if code in _PEER_ERRORS and len(part) > 1:
                    # The kernel stops at the first peer that it refuses, and does not say which one.
                    halves += [part[: len(part) // 2], part[len(part) // 2 :]]
                    continue
                for position in part:
                    codes[position] = code
            parts = halves
        return codes

    def _family(self) -> int:
        """WireGuard's number among the generic netlink families.

        Raises:
            OSError: there is none (EOPNOTSUPP), or it cannot be asked for.
        """
        if self._wireguard is None:
            families = wire.decode_families(self._generic.dump(wire.dump_families()))
            self._wireguard = families.get(wire.WG_GENL_NAME)
        if self._wireguard is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return self._wireguard

    # Reading

    def obstacle(self) -> str | None:
        """A sentence why peers cannot be installed here; None if they can."""
        wanted = {domain.wg for domain in self._domains}
        present = [number for name in wanted if (number := _number(name))]
        if not present:
            return f"none of the WireGuard interfaces is there ({', '.join(sorted(wanted))})"
        try:
            self._dump(self._generic.dump, wire.dump_device(self._family(), present[0]))
        except (OSError, wire.DecodeError) as problem:
            if _code(problem) == errno.EOPNOTSUPP:
                return "the kernel offers no WireGuard: it has none, or its module is not loaded"
            return f"the kernel does not tell its WireGuard peers: {_explain(_code(problem))}"
        return None

    def links(self) -> list[wire.Link]:
        """All interfaces.

        Raises:
            DataplaneError: they could not be read.
        """
        try:
            return self._links()
        except (OSError, wire.DecodeError) as problem:
            raise _dump_error(problem) from problem

    def snapshot(self) -> Snapshot:
        """Read the state of all domains.

        Raises:
            DataplaneError: it could not be read.
        """
        try:
            links = {link.name: link for link in self._links()}
            addresses = self._dump(dump_addresses)
            routes = self._routes()
            states = {
                domain.name: self._state(links.get(domain.wg), links.get(domain.vx), addresses, routes)
                for domain in self._domains
            }
        except (OSError, wire.DecodeError) as problem:
            raise _dump_error(problem) from problem
        return Snapshot(taken_at=time.time(), domains=states)

    def _links(self) -> list[wire.Link]:
        return list(wire.decode_links(self._dump(self._route.dump, wire.dump_links())))

    def _routes(self) -> dict[int, set[bytes]]:
        """Destinations of our routes by interface."""
        bodies = self._dump(self._route.dump, wire.dump_routes(self._route_protocol))
        found: dict[int, set[bytes]] = {}
        for destination, interface, _ in wire.decode_routes(bodies, self._route_protocol):
            found.setdefault(interface, set()).add(destination)
        return found

    def _state(
        self, wg: wire.Link | None, vx: wire.Link | None, addresses: dict[int, str], routes: dict[int, set[bytes]]
    ) -> DomainState:
        state = DomainState(vx_present=vx is not None, vx_up=vx is not None and vx.up)
        device = self._device(wg) if wg else None
        if wg is None or device is None:
            return state
        # Each address is told three times, by peer, route and FDB entry: of thousands, one copy each is enough.
        known = {peer.link_local: peer.link_local for peer in device.peers}
        ours = frozenset(known.get(address, address) for address in routes.get(wg.number, ()))
        return replace(
            state,
            wg_present=True,
            wg_up=wg.up,
            public_key=device.public_key,
            listen_port=device.listen_port,
            link_address=addresses.get(wg.number, ""),
            peers=device.peers,
            routes=ours,
            foreign_routes=self._foreign_routes(wg, device.peers, ours),
            fdb_entries=frozenset(known.get(address, address) for address in self._fdb(vx, wg)) if vx else frozenset(),
        )

    def _foreign_routes(self, wg: wire.Link, peers: Iterable[Peer], ours: frozenset[bytes]) -> dict[bytes, int]:
        """Protocols of other people's routes, by destination; asked for only where some peer has none of ours."""
        if all(not peer.link_local or peer.link_local in ours for peer in peers):
            return {}
        try:
            bodies = self._dump(self._route.dump, wire.dump_routes_over(wg.number))
        except OSError as problem:
            if problem.errno == errno.ENODEV:
                # It has gone in the meantime, and its routes with it.
                return {}
            raise
        found: dict[bytes, int] = {}
        for destination, interface, protocol in wire.decode_routes(bodies):
            if interface == wg.number and destination not in ours:
                # Of several to one address the kernel tells the one first that is in use.
                found.setdefault(destination, protocol)
        return found

    def _device(self, wg: wire.Link) -> wire.Device | None:
        """The WireGuard interface with its peers; None if it has gone in the meantime, or is of another kind."""
        try:
            return wire.decode_device(self._dump(self._generic.dump, wire.dump_device(self._family(), wg.number)))
        except OSError as problem:
            if problem.errno in (errno.ENODEV, errno.EOPNOTSUPP):
                return None
            raise

    def _fdb(self, vx: wire.Link, wg: wire.Link) -> Iterator[bytes]:
        bodies = self._dump(self._route.dump, wire.dump_fdb(vx.number))
        return (destination for destination, via in wire.decode_fdb(bodies, vx.number) if via == wg.number)

    def _dump(self, work: Callable[..., _T], *request: wire.Request) -> _T:
        """Dump, again if it was interrupted.

        Raises:
            OSError: the kernel refused it, the socket failed, or it was interrupted too often (EINTR).
            wire.DecodeError: it cannot be read.
        """
        for _ in range(_DUMP_ATTEMPTS):
            started = time.monotonic()
            names: list[str] = []
            try:
                return work(*request)
            except InterruptedError:
                names = [_name(errno.EINTR)]
            except (OSError, wire.DecodeError) as problem:
                names = [_name(_code(problem))]
                raise
            finally:
                self._observer.observe(Operation.DUMP, 1, names, time.monotonic() - started)
        raise OSError(errno.EINTR, "it changed under each of several attempts")


def _turns(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Cut a list into parts in which no key occurs twice in a domain, and that are not too long."""
    turn: list[Change] = []
    seen: set[tuple[str, bytes]] = set()
    for change in changes:
        identity = (change.domain.name, change.key.raw)
        if identity in seen or len(turn) == _CHANGES_PER_TURN:
            yield turn
            turn, seen = [], set()
        turn.append(change)
        seen.add(identity)
    if turn:
        yield turn


def _resolve(domain: Domain) -> _Interfaces:
    return _Interfaces(_number(domain.wg), _number(domain.vx))


def _number(interface: str) -> int:
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
    return DataplaneError(operation, _name(code), _explain(code))


def _dump_error(problem: OSError | wire.DecodeError) -> DataplaneError:
    code = _code(problem)
    detail = _explain(code) if code == errno.EPERM else str(problem)
    return DataplaneError(Operation.DUMP, _name(code), detail)


def _code(problem: OSError | wire.DecodeError) -> int:
    return errno.EBADMSG if isinstance(problem, wire.DecodeError) else problem.errno or errno.EIO


def _name(code: int) -> str:
    """The kernel's name of an error. Python has another one for EOPNOTSUPP, which is the same number on Linux."""
    return "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode.get(code, str(code))


def _explain(code: int) -> str:
    return _RIGHT_NEEDED if code == errno.EPERM else os.strerror(code)
