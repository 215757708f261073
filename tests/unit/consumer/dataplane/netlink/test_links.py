"""Events and addresses of interfaces, and pyroute2's failures."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from typing import Any, Never

import pytest
from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgkex_ops.consumer.dataplane.base import LinkEvent
from wgkex_ops.consumer.dataplane.netlink.links import LinkMonitor, LinkTracker, dump_addresses, interface_index
from wgkex_ops.consumer.dataplane.netlink.parse import Link
from wgkex_ops.model.peers import Traffic

GONE = LinkEvent("wg-a", present=False, up=False)
DOWN = LinkEvent("wg-a", present=True, up=False)
UP = LinkEvent("wg-a", present=True, up=True)


def tracker(*known: Link) -> LinkTracker:
    return LinkTracker(frozenset({"wg-a", "wg-b"}), known)


@pytest.mark.parametrize(
    ("link", "present", "events"),
    [
        (Link(7, "wg-a", up=False), True, []),
        (Link(7, "wg-a", up=True), True, [UP]),
        (Link(7, "wg-a", up=False), False, [GONE]),
        (Link(7, "wg-b", up=False), True, [GONE, LinkEvent("wg-b", present=True, up=False)]),
        (Link(7, "other", up=False), True, [GONE]),
        (Link(8, "wg-b", up=True), True, [LinkEvent("wg-b", present=True, up=True)]),
        (Link(8, "wg-b", up=True), False, []),
        (Link(8, "other", up=True), True, []),
    ],
)
def test_what_is_new_about_an_interface(link: Link, present: bool, events: list[LinkEvent]) -> None:
    assert list(tracker(Link(7, "wg-a", up=False)).update(link, present)) == events


def test_an_interface_created_again() -> None:
    tracked = tracker(Link(7, "wg-a", up=True))
    assert list(tracked.update(Link(7, "wg-a", up=False), present=False)) == [GONE]
    assert list(tracked.update(Link(8, "wg-a", up=False), present=True)) == [DOWN]
    assert list(tracked.update(Link(8, "wg-a", up=False), present=True)) == []


def test_more_traffic_is_no_event() -> None:
    """Dumps have what an interface has carried; the kernel's reports of changes are read without it."""
    tracked = tracker(Link(7, "wg-a", up=True, traffic=Traffic(1, 2)))
    assert list(tracked.update(Link(7, "wg-a", up=True), present=True)) == []
    assert list(tracked.update(Link(7, "wg-a", up=True, traffic=Traffic(3, 4)), present=True)) == []


async def test_addresses_are_read_in_a_thread_beside_an_event_loop() -> None:
    assert isinstance(await asyncio.to_thread(dump_addresses), dict)


def test_an_interface_without_an_index_is_missing() -> None:
    assert interface_index("lo") > 0
    assert interface_index("wg-nowhere") == 0


class Message(dict[str, Any]):
    """What `get_addr` yields, as far as it is used."""

    def get_attr(self, name: str) -> str | None:
        address: str | None = self["attributes"].get(name)
        return address


def message(index: int, flags: int = 2, **attributes: str) -> Message:
    return Message(index=index, header={"flags": flags}, attributes=attributes)


def netlink(*messages: Message) -> Callable[[], AsyncIPRoute]:
    """Makes pyroute2's object, with addresses of our own."""

    async def dump() -> AsyncIterator[Message]:
        for one in messages:
            yield one

    async def get_addr(**_: int) -> AsyncIterator[Message]:
        return dump()

    def create() -> AsyncIPRoute:
        created = AsyncIPRoute()
        created.get_addr = get_addr
        return created

    return create


def test_the_lowest_link_local_address_counts() -> None:
    create_netlink = netlink(
        message(7, IFA_ADDRESS="fe80::2"),
        message(7, IFA_ADDRESS="fe80::1"),
        message(7, IFA_ADDRESS="2001:db8::"),
        message(8, IFA_ADDRESS="::1"),
        message(9, IFA_ADDRESS="fe80::8", IFA_LOCAL="fe80::9"),
    )
    assert dump_addresses(create_netlink=create_netlink) == {7: "fe80::1", 9: "fe80::9"}


def test_addresses_that_change_while_they_are_read() -> None:
    create_netlink = netlink(message(7, IFA_ADDRESS="fe80::1"), message(8, flags=0x12, IFA_ADDRESS="fe80::2"))
    with pytest.raises(InterruptedError):
        dump_addresses(create_netlink=create_netlink)


def test_errors_of_pyroute2_become_os_errors() -> None:
    async def get_addr(**_: int) -> Never:
        raise NetlinkError(errno.EPERM)

    def refusing() -> AsyncIPRoute:
        created = AsyncIPRoute()
        created.get_addr = get_addr
        return created

    with pytest.raises(PermissionError):
        dump_addresses(create_netlink=refusing)


def test_a_message_that_is_lost_is_no_reason_to_hang() -> None:
    def losing() -> AsyncIPRoute:
        created = AsyncIPRoute()
        created.enqueue = lambda *_: None
        return created

    with pytest.raises(TimeoutError) as raised:
        dump_addresses(timeout=0.05, create_netlink=losing)
    assert raised.value.errno == errno.ETIMEDOUT


async def test_a_reader_that_waits_fails_when_the_monitor_is_closed() -> None:
    monitor = LinkMonitor()
    await monitor.open()
    reading = asyncio.create_task(monitor.read())
    await asyncio.sleep(0.05)
    monitor.close()
    with pytest.raises(ConnectionResetError):
        await reading


async def test_a_subscription_that_fails() -> None:
    def bind(*_: object) -> Never:
        raise OSError(errno.ENOMEM, "no memory")

    def unbindable(rcvbuf: int) -> AsyncIPRoute:
        created = AsyncIPRoute(rcvbuf=rcvbuf)
        set_up = created.setup_endpoint

        async def setup_endpoint() -> None:
            await set_up()
            created.socket.bind = bind

        created.setup_endpoint = setup_endpoint
        return created

    monitor = LinkMonitor(create_netlink=unbindable)
    with pytest.raises(OSError, match="no memory"):
        await monitor.open()
    monitor.close()
