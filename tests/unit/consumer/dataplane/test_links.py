"""Links by way of pyroute2: the logic of events, and what becomes of pyroute2's failures."""

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import Any, Never

import pytest
from pyroute2 import AsyncIPRoute
from pyroute2.netlink.core import NoClose
from pyroute2.netlink.exceptions import NetlinkError

from wgkex_ops.consumer.dataplane.base import LinkEvent
from wgkex_ops.consumer.dataplane.netlink import links
from wgkex_ops.consumer.dataplane.netlink.links import LinkNews, LinkTracker, dump_addresses
from wgkex_ops.consumer.dataplane.netlink.wire import Link

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


def test_an_interface_made_anew() -> None:
    tracked = tracker(Link(7, "wg-a", up=True))
    assert list(tracked.update(Link(7, "wg-a", up=False), present=False)) == [GONE]
    assert list(tracked.update(Link(8, "wg-a", up=False), present=True)) == [DOWN]
    assert list(tracked.update(Link(8, "wg-a", up=False), present=True)) == []


async def test_addresses_are_read_in_a_thread_beside_an_event_loop() -> None:
    assert isinstance(await asyncio.to_thread(dump_addresses), dict)


class Message(dict[str, Any]):
    """What `get_addr` yields, as far as it is used."""

    def get_attr(self, name: str) -> str | None:
        address: str | None = self["attributes"].get(name)
        return address


def message(number: int, flags: int = 2, **attributes: str) -> Message:
    return Message(index=number, header={"flags": flags}, attributes=attributes)


def answer(monkeypatch: pytest.MonkeyPatch, *messages: Message) -> None:
    async def dump() -> AsyncIterator[Message]:
        for one in messages:
            yield one

    async def get_addr(_: AsyncIPRoute, **__: int) -> AsyncIterator[Message]:
        return dump()

    monkeypatch.setattr(AsyncIPRoute, "get_addr", get_addr)


def test_the_lowest_link_local_address_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(
        monkeypatch,
        message(7, IFA_ADDRESS="fe80::2"),
        message(7, IFA_ADDRESS="fe80::1"),
        message(7, IFA_ADDRESS="2001:db8::"),
        message(8, IFA_ADDRESS="::1"),
        message(9, IFA_ADDRESS="fe80::8", IFA_LOCAL="fe80::9"),
    )
    assert dump_addresses() == {7: "fe80::1", 9: "fe80::9"}


def test_addresses_that_change_while_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, message(7, IFA_ADDRESS="fe80::1"), message(8, flags=0x12, IFA_ADDRESS="fe80::2"))
    with pytest.raises(InterruptedError):
        dump_addresses()


def test_pyroute2s_errors_end_here(monkeypatch: pytest.MonkeyPatch) -> None:
    async def get_addr(_: AsyncIPRoute, **__: int) -> Never:
        raise NetlinkError(errno.EPERM)

    monkeypatch.setattr(AsyncIPRoute, "get_addr", get_addr)
    with pytest.raises(PermissionError):
        dump_addresses()


def test_an_answer_that_is_lost_is_no_reason_to_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_DUMP_TIMEOUT", 0.05)
    monkeypatch.setattr(AsyncIPRoute, "enqueue", lambda *_: None)
    with pytest.raises(TimeoutError) as raised:
        dump_addresses()
    assert raised.value.errno == errno.ETIMEDOUT


async def test_who_waits_for_news_learns_that_there_will_be_none() -> None:
    news = LinkNews()
    await news.open()
    reading = asyncio.create_task(news.read())
    await asyncio.sleep(0.05)
    news.close()
    with pytest.raises(ConnectionResetError):
        await reading


async def test_news_that_cannot_be_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(*_: object) -> Never:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(NoClose, "bind", bind)
    news = LinkNews()
    with pytest.raises(OSError, match="no memory"):
        await news.open()
    news.close()
