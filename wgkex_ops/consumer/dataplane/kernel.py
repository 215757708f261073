"""The dataplane of this machine's kernel, over netlink: WireGuard peers, routes and VXLAN FDB entries.

It works in the network namespace of the process, and needs no capability but CAP_NET_ADMIN.

All changes (`apply.KernelWriter`) and dumps (`snapshot.KernelReader`) go through one thread, one after the other: no
snapshot shows a change of ours half done, and none of our changes interrupts a dump. Events of interfaces are read on
the event loop. All errors of the kernel leave as DataplaneError.
"""

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from wgkex_ops.consumer.dataplane.apply import KernelWriter
from wgkex_ops.consumer.dataplane.base import LinkEvent, OperationObserver
from wgkex_ops.consumer.dataplane.netlink.errnos import dump_error
from wgkex_ops.consumer.dataplane.netlink.links import EVENT_BUFFER_BYTES, LinkMonitor, LinkTracker
from wgkex_ops.consumer.dataplane.netlink.sockets import RECEIVE_BUFFER_BYTES, NetlinkSocket, WireGuardSocket
from wgkex_ops.consumer.dataplane.netlink.uapi import NETLINK_ROUTE
from wgkex_ops.consumer.dataplane.snapshot import KernelReader
from wgkex_ops.consumer.dataplane.thread import NetlinkThread
from wgkex_ops.model.changes import Change, Operation, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import ROUTE_PROTOCOL, Snapshot


def probe(domains: Sequence[Domain]) -> str | None:
    """Find out whether this dataplane works here. Changes nothing, not even which kernel modules are loaded.

    Returns:
        a sentence why not; None if it does.
    """
    wireguard, route = WireGuardSocket(), NetlinkSocket(NETLINK_ROUTE)
    try:
        return KernelReader(domains, wireguard, route, _NullObserver(), ROUTE_PROTOCOL).obstacle()
    finally:
        wireguard.close()
        route.close()


async def read_once(domains: Sequence[Domain], route_protocol: int) -> Snapshot:
    """Read one snapshot, for a command.

    Raises:
        DataplaneError: it could not be read.
    """
    wireguard, route = WireGuardSocket(), NetlinkSocket(NETLINK_ROUTE)
    try:
        reader = KernelReader(domains, wireguard, route, _NullObserver(), route_protocol)
        return await asyncio.to_thread(reader.snapshot)
    finally:
        wireguard.close()
        route.close()


class KernelDataplane:
    """The `Dataplane` of this machine's kernel.

    Args:
        domains: the configured domains.
        observer: is called for each batch of operations and each dump.
        route_protocol: the protocol number of our routes.
        receive_buffer: of the sockets for changes and dumps, in bytes.
        event_buffer: of the socket for events, in bytes.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        observer: OperationObserver,
        route_protocol: int = ROUTE_PROTOCOL,
        *,
        receive_buffer: int = RECEIVE_BUFFER_BYTES,
        event_buffer: int = EVENT_BUFFER_BYTES,
    ) -> None:
        wireguard, route = WireGuardSocket(receive_buffer), NetlinkSocket(NETLINK_ROUTE, receive_buffer)
        self._sockets = (wireguard, route)
        self._writer = KernelWriter(wireguard, route, observer, route_protocol)
        self._reader = KernelReader(domains, wireguard, route, observer, route_protocol)
        self._thread = NetlinkThread()
        self._event_buffer = event_buffer
        self._interfaces = frozenset(name for domain in domains for name in (domain.wg, domain.vx))
        self._monitor: LinkMonitor | None = None
        self._links = LinkTracker(self._interfaces, ())
        self._events_lost = False

    async def __aenter__(self) -> Self:
        """Open the dataplane.

        Raises:
            DataplaneError: the process may not use netlink at all.
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
        """Carry out changes; see `Dataplane.apply`. Cancelled, it stops after the changes that have begun."""
        return await self._thread.apply(changes, self._writer.carry_out)

    async def snapshot(self) -> Snapshot:
        """Read the state of all domains; see `Dataplane.snapshot`."""
        return await self._thread.run(self._reader.snapshot)

    async def events(self) -> AsyncIterator[LinkEvent]:
        """Report changes of the domains' interfaces since the dataplane was entered; see `Dataplane.events`.

        There is one stream of them: an event that one iteration has taken is in no other one.
        """
        while (monitor := self._monitor) is not None:
            if self._events_lost:
                # What still waits in the socket is older than what was lost.
                await self._subscribe()
                self._events_lost = False
                yield LinkEvent(interface="", present=False, up=False)
                continue
            try:
                changes = await monitor.read()
            except OSError as problem:
                if monitor is not self._monitor:
                    return
                if problem.errno != errno.ENOBUFS:
                    raise dump_error(problem) from problem
                self._events_lost = True
                continue
            for link, present in changes:
                for event in self._links.update(link, present):
                    yield event

    async def _subscribe(self) -> None:
        self._unsubscribe()
        self._monitor = LinkMonitor(self._event_buffer)
        try:
            await self._monitor.open()
        except OSError as problem:
            raise dump_error(problem) from problem
        self._links = LinkTracker(self._interfaces, await self._thread.run(self._reader.links))

    def _unsubscribe(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    async def _close(self) -> None:
        self._unsubscribe()
        try:
            await self._thread.run(self._close_sockets)
        finally:
            self._thread.close()

    def _close_sockets(self) -> None:
        for one in self._sockets:
            one.close()


class _NullObserver:
    """Observes nothing."""

    def observe(self, operation: Operation, count: int, errors: Sequence[str], seconds: float) -> None: ...
