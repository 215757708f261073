"""What becomes of interfaces, and their addresses, by way of pyroute2.

pyroute2's messages and errors end here: whatever fails is an OSError.
"""

import asyncio
import errno
import os
from collections.abc import Iterable, Iterator
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
from wgkex_ops.consumer.dataplane.netlink.wire import Link

# Seconds. pyroute2 does not tell who waits for a dump that its socket has failed: it would be waited for for ever.
_DUMP_TIMEOUT: Final = 5


class LinkNews:
    """What the kernel tells of interfaces from open() on, kept until somebody reads it; for one event loop."""

    def __init__(self) -> None:
        self._netlink = AsyncIPRoute()

    async def open(self) -> None:
        """Listen. It is done once: if it fails or is cancelled, only close() is left.

        Raises:
            OSError: that cannot be done.
        """
        await self._netlink.setup_endpoint()
        # pyroute2's own bind() makes a KeyError of whatever the reason is.
        self._netlink.socket.bind((0, RTMGRP_LINK))

    def close(self) -> None:
        """Listen no more; a read() that waits fails."""
        self._netlink.close()

    async def read(self) -> list[tuple[Link, bool]]:
        """Wait for news.

        Returns:
            interfaces, and whether each is there now.

        Raises:
            OSError: there is none any more. ENOBUFS: some was lost.
        """
        with _only_os_errors():
            # A bridge tells of its ports in the same messages, under its own address family: an RTM_DELLINK of that
            # kind means that the interface has left the bridge.
            return [
                (_link(message), message["event"] == "RTM_NEWLINK")
                async for message in self._netlink.get()
                if message["family"] == AF_UNSPEC
            ]


class LinkTracker:
    """Makes events of what the kernel tells of interfaces, for some of them.

    Args:
        interfaces: the names of those that matter.
        links: what is there to begin with.
    """

    def __init__(self, interfaces: frozenset[str], links: Iterable[Link]) -> None:
        self._interfaces = interfaces
        self._known = {link.number: link for link in links}

    def update(self, link: Link, present: bool) -> Iterator[LinkEvent]:
        """Tell what is new about an interface.

        An interface keeps its number when it gets another name, and gets a new one when it is made anew.
        """
        before = self._known.pop(link.number, None)
        if present:
            self._known[link.number] = link
        gone = before is not None and not (present and before.name == link.name)
        if before is not None and gone and before.name in self._interfaces:
            yield LinkEvent(before.name, present=False, up=False)
        if present and link != before and link.name in self._interfaces:
            yield LinkEvent(link.name, present=True, up=link.up)


def dump_addresses() -> dict[int, str]:
    """The lowest link-local address of each interface, by the interface's number. Blocks, in a thread without a loop.

    With a socket and an event loop for this once: pyroute2's synchronous class, which would keep both, has no time
    limit, and leaves both open when it is closed after the socket has failed.

    Raises:
        OSError: they could not be read. EINTR: they have changed meanwhile.
    """
    with _only_os_errors():
        messages = asyncio.run(_address_messages())
    if any(message["header"]["flags"] & NLM_F_DUMP_INTR for message in messages):
        raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
    found: dict[int, IPv6Address] = {}
    for message in messages:
        # Where there is a peer's address, that is IFA_ADDRESS, and the machine's own one is IFA_LOCAL.
        address = IPv6Address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
        if address.is_link_local:
            number = message["index"]
            found[number] = min(address, found.get(number, address))
    return {number: str(address) for number, address in found.items()}


async def _address_messages() -> list[nlmsg]:
    async with asyncio.timeout(_DUMP_TIMEOUT), AsyncIPRoute() as netlink:
        return [message async for message in await netlink.get_addr(family=AF_INET6)]


@contextmanager
def _only_os_errors() -> Iterator[None]:
    try:
        yield
    except NetlinkError as problem:
        raise OSError(problem.code, os.strerror(problem.code)) from problem
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


def _link(message: nlmsg) -> Link:
    # A name may have any bytes; pyroute2 leaves it as bytes if they are not UTF-8.
    return Link(message["index"], os.fsdecode(message.get_attr("IFLA_IFNAME") or ""), bool(message["flags"] & IFF_UP))
