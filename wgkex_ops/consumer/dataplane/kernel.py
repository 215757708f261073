"""The dataplane of this machine's kernel: WireGuard peers, routes and VXLAN FDB entries over netlink.

In the network namespace that the process is in:

- One thread works with the kernel. All changes (`changing`) and dumps (`reading`) pass through it one after the other,
  so a snapshot never shows one of our own changes half done, and none of them interrupts a dump. What must be fast goes
  over blocking sockets that are kept open (`sockets`, `wire`); the interfaces' addresses come by way of pyroute2
  (`links`).
- Changes of links are read on the event loop, with pyroute2, too (`links.LinkNews`).

What the kernel says leaves these files as our own errors only. CAP_NET_ADMIN is the only right that is needed.
"""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from wgkex_ops.consumer.dataplane.apply import Changing, plans
from wgkex_ops.consumer.dataplane.base import LinkEvent, OperationObserver
from wgkex_ops.consumer.dataplane.netlink.errnos import dump_error
from wgkex_ops.consumer.dataplane.netlink.links import LinkNews, LinkTracker
from wgkex_ops.consumer.dataplane.netlink.sockets import NetlinkSocket, WireGuardSocket
from wgkex_ops.consumer.dataplane.netlink.wire import NETLINK_ROUTE
from wgkex_ops.consumer.dataplane.snapshot import Reading
from wgkex_ops.model.changes import Change, Operation, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import ROUTE_PROTOCOL, Snapshot

_T = TypeVar("_T")


def probe(domains: Sequence[Domain]) -> str | None:
    """Find out whether the kernel's dataplane can be used here. Changes nothing, not even which modules are loaded.

    Returns:
        a sentence why not; None if it can.
    """
    wireguard, route = WireGuardSocket(), NetlinkSocket(NETLINK_ROUTE)
    try:
        return Reading(domains, wireguard, route, _Nobody(), ROUTE_PROTOCOL).obstacle()
    finally:
        wireguard.close()
        route.close()


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
        self._sockets = wireguard, route = WireGuardSocket(), NetlinkSocket(NETLINK_ROUTE)
        self._changing = Changing(wireguard, route, observer, route_protocol)
        self._reading = Reading(domains, wireguard, route, observer, route_protocol)
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
        following: asyncio.Future[list[Outcome]] | None = None
        try:
            # The next one is made, and waits for the thread, while the kernel works on the one before it. Whoever else
            # wants the thread, for a snapshot for example, has to wait for no more than these two.
            for plan in plans(changes):
                begun, following = following, self._in_thread(partial(self._changing.carry_out, plan))
                if begun is not None:
                    outcomes += await begun
            if following is not None:
                outcomes += await following
        finally:
            if following is not None:
                following.cancel()
        return outcomes

    async def snapshot(self) -> Snapshot:
        """Read the state of all domains; see `Dataplane.snapshot`."""
        return await self._in_thread(self._reading.snapshot)

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
                    raise dump_error(problem) from problem
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
            raise dump_error(problem) from problem
        self._links = LinkTracker(self._interfaces, await self._in_thread(self._reading.links))

    def _unsubscribe(self) -> None:
        if self._news is not None:
            self._news.close()
            self._news = None

    async def _close(self) -> None:
        self._unsubscribe()
        try:
            await self._in_thread(self._close_sockets)
        finally:
            self._thread.shutdown(wait=False)

    def _close_sockets(self) -> None:
        for one in self._sockets:
            one.close()

    def _in_thread(self, work: Callable[[], _T]) -> "asyncio.Future[_T]":
        # Cancelling gives up waiting, and work that has not begun; what has begun goes on to its end in the thread, so
        # that no answer is left in a socket for the next one to find.
        return asyncio.get_running_loop().run_in_executor(self._thread, work)


class _Nobody:
    """Does not care about operations."""

    def observe(self, operation: Operation, count: int, errors: Sequence[str], seconds: float) -> None: ...
