"""Events of interfaces on a real kernel."""

import asyncio
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tests.fakes import Recorder
from tests.kernel.dataplane import (
    DOMAINS,
    A,
    B,
)
from tests.kernel.lab import Namespace, eventually
from wgkex_ops.consumer.dataplane.base import LinkEvent
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane

LOST = LinkEvent("", present=False, up=False)


async def test_events(here: Namespace, dataplane: KernelDataplane) -> None:
    events = aiter(dataplane.events())

    here.run("ip", "link", "add", "dummy7", "type", "dummy")  # of no domain
    here.run("ip", "link", "add", A.wg, "type", "wireguard")
    assert await anext(events) == LinkEvent(A.wg, present=True, up=False)
    here.run("ip", "link", "set", A.wg, "up")
    assert await anext(events) == LinkEvent(A.wg, present=True, up=True)
    here.run("ip", "link", "set", A.wg, "mtu", "1400")  # changes nothing that matters
    here.run("ip", "link", "set", A.wg, "down")
    assert await anext(events) == LinkEvent(A.wg, present=True, up=False)

    here.run("ip", "link", "set", A.wg, "name", B.wg)
    assert await anext(events) == LinkEvent(A.wg, present=False, up=False)
    assert await anext(events) == LinkEvent(B.wg, present=True, up=False)
    here.run("ip", "link", "set", B.wg, "name", "other")
    assert await anext(events) == LinkEvent(B.wg, present=False, up=False)
    here.run("ip", "link", "set", "other", "name", A.wg)
    assert await anext(events) == LinkEvent(A.wg, present=True, up=False)

    here.sh(f"ip link delete {A.wg}", f"ip link add {A.wg} type wireguard")
    assert await anext(events) == LinkEvent(A.wg, present=False, up=False)
    assert await anext(events) == LinkEvent(A.wg, present=True, up=False)


async def test_an_interface_that_leaves_a_bridge_is_still_present(
    here: Namespace, own_keys: list[str], recorder: Recorder
) -> None:
    async with KernelDataplane(DOMAINS, recorder) as dataplane:
        events = aiter(dataplane.events())
        here.sh(
            "ip link add br7 type bridge",
            f"ip link set {A.vx} master br7",
            f"ip link set {A.vx} nomaster",
            f"ip link set {A.vx} down",
        )
        assert await anext(events) == LinkEvent(A.vx, present=True, up=False)


async def test_events_that_are_not_read_in_time_are_reported_as_lost(
    here: Namespace, own_keys: list[str], recorder: Recorder
) -> None:
    async with KernelDataplane(DOMAINS, recorder) as dataplane:
        flapping = "\n".join(f"link set dev {A.wg} {state}" for _ in range(200) for state in ("down", "up"))
        here.run("ip", "-batch", "-", stdin=flapping)
        events = aiter(dataplane.events())
        assert await anext(events) == LOST
        here.run("ip", "link", "set", A.wg, "down")
        assert await anext(events) == LinkEvent(A.wg, present=True, up=False)


async def test_waiting_for_events_can_be_cancelled(here: Namespace, dataplane: KernelDataplane) -> None:
    events = aiter(dataplane.events())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await anext(events)
    here.run("ip", "link", "add", A.wg, "type", "wireguard")
    assert await anext(aiter(dataplane.events())) == LinkEvent(A.wg, present=True, up=False)


@pytest.fixture
async def losing(here: Namespace, recorder: Recorder) -> AsyncIterator[KernelDataplane]:
    """A dataplane whose socket for events has the smallest buffer that the kernel allows: a few events fill it."""
    here.run("ip", "link", "add", A.vx, "type", "veth")
    async with KernelDataplane([A], recorder, event_buffer=1) as opened:
        yield opened


def flap(here: Namespace, last: str) -> None:
    states = ["down", "up"] * 10 + ["down", last]
    here.run("ip", "-batch", "-", stdin="\n".join(f"link set dev {A.vx} {state}" for state in states))


async def test_a_reader_knows_the_last_state_in_spite_of_losses(here: Namespace, losing: KernelDataplane) -> None:
    known: dict[str, bool] = {}
    lost = 0

    async def follow() -> None:
        nonlocal lost
        async for event in losing.events():
            if event == LOST:
                lost += 1
                known[A.vx] = (await losing.snapshot()).domains[A.name].vx_up
            else:
                known[event.interface] = event.up

    def knows(up: bool) -> bool:
        return known.get(A.vx) is up

    following = asyncio.create_task(follow())
    for last in ("up", "down") * 10:
        await asyncio.to_thread(flap, here, last)
        await eventually(partial(knows, last == "up"))
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert lost


async def test_a_loss_is_reported_though_other_readers_were_cancelled(here: Namespace, losing: KernelDataplane) -> None:
    async def read() -> LinkEvent:
        return await anext(losing.events())

    for moments in range(30):
        flap(here, "up")
        reading = asyncio.create_task(read())
        for _ in range(moments):
            await asyncio.sleep(0)
        reading.cancel()
        (cancelled,) = await asyncio.gather(reading, return_exceptions=True)
        async with asyncio.timeout(60):
            assert cancelled == LOST or await read() == LOST


async def test_events_end_when_the_dataplane_closes(here: Namespace, recorder: Recorder) -> None:
    async with KernelDataplane([A], recorder) as dataplane:

        async def follow() -> list[LinkEvent]:
            return [event async for event in dataplane.events()]

        following = asyncio.create_task(follow())
        await asyncio.sleep(0.1)
    assert await following == []
    assert [event async for event in dataplane.events()] == []


async def test_names_of_any_bytes_are_no_problem(here: Namespace, losing: KernelDataplane) -> None:
    name = os.fsdecode(b"\xff\xfe")
    here.run("ip", "link", "add", name, "type", "veth", "peer", "name", "other")
    here.run("ip", "link", "set", A.vx, "up")
    try:
        assert await anext(losing.events()) in (LinkEvent(A.vx, present=True, up=True), LOST)
        assert (await losing.snapshot()).domains[A.name].vx_up
    finally:
        here.run("ip", "link", "delete", name)


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


async def test_nothing_stays_open(here: Namespace, recorder: Recorder) -> None:
    async def use() -> None:
        async with KernelDataplane([A], recorder) as dataplane:
            await dataplane.snapshot()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(dataplane.events())

    await use()
    before = descriptors()
    await use()
    assert descriptors() == before
