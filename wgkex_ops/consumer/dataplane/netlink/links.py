"""Network interfaces: their indices, and by way of pyroute2 their addresses and changes.

pyroute2's messages and errors stay in this file: whatever fails is an OSError.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address
from socket import AF_INET6, AF_UNSPEC
from typing import Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NLM_F_DUMP_INTR, nlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTMGRP_LINK
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP

from wgkex_ops.consumer.dataplane.base import LinkEvent
from wgkex_ops.consumer.dataplane.netlink.parse import Link

# As pyroute2 has it.
EVENT_BUFFER_BYTES: Final = 1 << 20

# Seconds. pyroute2 reports no failure of its socket to a dump that waits: it would wait for ever.
_DUMP_TIMEOUT: Final = 5.0


def interface_index(name: str) -> int:
    """The index of an interface; 0 if there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


class LinkMonitor:
    """Receives changes of interfaces from open() on, for one event loop. They wait in its socket until read().

    Args:
        receive_buffer: bytes that may wait; the kernel grants no more than it is configured to.
        create_netlink: makes pyroute2's object.
    """

    def __init__(
        self,
        receive_buffer: int = EVENT_BUFFER_BYTES,
        create_netlink: Callable[..., AsyncIPRoute] = AsyncIPRoute,
    ) -> None:
        self._netlink = create_netlink(rcvbuf=receive_buffer)

    async def open(self) -> None:
        """Subscribe, once. If that fails or is cancelled, all that is left is close().

        Raises:
            OSError: it failed.
        """
        await self._netlink.setup_endpoint()
        # pyroute2's own bind() turns every error into a KeyError.
        self._netlink.socket.bind((0, RTMGRP_LINK))

    def close(self) -> None:
        """Unsubscribe; a read() that waits fails."""
        self._netlink.close()

    async def read(self) -> list[tuple[Link, bool]]:
        """Wait for changes.

        Returns:
            interfaces, and whether each is present now.

        Raises:
            OSError: there will be no more. ENOBUFS: some were lost.
        """
        with _only_os_errors():
            # A bridge reports its ports in the same messages, under its own address family: an RTM_DELLINK of that
            # kind means that the interface has left the bridge.
            return [
                (_decode_link(message), message["event"] == "RTM_NEWLINK")
                async for message in self._netlink.get()
                if message["family"] == AF_UNSPEC
            ]


class LinkTracker:
    """Turns changes of all interfaces into events of some.

    Args:
        interfaces: the names of these.
        links: all interfaces that are present at first.
    """

    def __init__(self, interfaces: frozenset[str], links: Iterable[Link]) -> None:
        self._interfaces = interfaces
        self._known = {link.index: link for link in links}

    def update(self, link: Link, present: bool) -> Iterator[LinkEvent]:
        """Take in a change of an interface, and yield what is new.

        An interface keeps its index when it is renamed, and gets a new one when it is created again.
        """
        before = self._known.pop(link.index, None)
        if present:
            self._known[link.index] = link
        gone = before is not None and not (present and before.name == link.name)
        if before is not None and gone and before.name in self._interfaces:
            yield LinkEvent(before.name, present=False, up=False)
        if present and link != before and link.name in self._interfaces:
            yield LinkEvent(link.name, present=True, up=link.up)


def dump_addresses(
    timeout: float = _DUMP_TIMEOUT, create_netlink: Callable[[], AsyncIPRoute] = AsyncIPRoute
) -> dict[int, str]:
    """Read the lowest link-local address of each interface, by the interface's index. Blocks; not in an event loop.

    It opens a socket and an event loop each time. pyroute2's synchronous class would keep both, but has no timeout, and
    leaves both open when it is closed after its socket failed.

    Args:
        timeout: seconds.
        create_netlink: makes pyroute2's object.

    Raises:
        OSError: they could not be read. EINTR: they changed meanwhile.
    """
    with _only_os_errors():
        messages = asyncio.run(_address_messages(timeout, create_netlink))
    if any(message["header"]["flags"] & NLM_F_DUMP_INTR for message in messages):
        raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
    found: dict[int, IPv6Address] = {}
    for message in messages:
        # On a point-to-point interface IFA_ADDRESS is the other end's, and IFA_LOCAL our own.
        address = IPv6Address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
        if address.is_link_local:
            index = message["index"]
            found[index] = min(address, found.get(index, address))
    return {index: str(address) for index, address in found.items()}


async def _address_messages(timeout: float, create_netlink: Callable[[], AsyncIPRoute]) -> list[nlmsg]:  # noqa: ASYNC109
    async with asyncio.timeout(timeout), create_netlink() as netlink:
        return [message async for message in await netlink.get_addr(family=AF_INET6)]


@contextmanager
def _only_os_errors() -> Iterator[None]:
    try:
        yield
    except NetlinkError as problem:
        raise OSError(problem.code, os.strerror(problem.code)) from problem
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


def _decode_link(message: nlmsg) -> Link:
    # A name may have any bytes. If they are not UTF-8, pyroute2 leaves them as bytes.
    return Link(message["index"], os.fsdecode(message.get_attr("IFLA_IFNAME") or ""), bool(message["flags"] & IFF_UP))
