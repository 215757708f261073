"""Events of links when the kernel tells more than fits, and nobody waits for them in peace."""

import asyncio
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from pyroute2 import AsyncIPRoute

from tests.fakes import Recorder
from tests.kernel.lab import Namespace, eventually
from wgkex_ops.consumer.dataplane.base import LinkEvent
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.consumer.dataplane.netlink import links
from wgkex_ops.model.domains import Domain

# Any kind of interface has links; a veth is on every kernel.
A = Domain("ffx_a", "wg-a", "vx-a")
LOST = LinkEvent("", present=False, up=False)


@pytest.fixture
async def dataplane(
    here: Namespace, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[KernelDataplane]:
    """Its socket has the smallest buffer that the kernel allows: a few messages fill it."""
    here.run("ip", "link", "add", A.vx, "type", "veth")
    monkeypatch.setattr(links, "AsyncIPRoute", partial(AsyncIPRoute, rcvbuf=1))
    async with KernelDataplane([A], recorder) as opened:
        yield opened


def flap(here: Namespace, last: str) -> None:
    states = ["down", "up"] * 10 + ["down", last]
    here.run("ip", "-batch", "-", stdin="\n".join(f"link set dev {A.vx} {state}" for state in states))


async def test_whoever_follows_knows_the_truth_in_the_end(here: Namespace, dataplane: KernelDataplane) -> None:
    known: dict[str, bool] = {}
    lost = 0

    async def follow() -> None:
        nonlocal lost
        async for event in dataplane.events():
            if event == LOST:
                lost += 1
                known[A.vx] = (await dataplane.snapshot()).domains[A.name].vx_up
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


async def test_a_loss_is_told_though_others_gave_up_before(here: Namespace, dataplane: KernelDataplane) -> None:
    async def ask() -> LinkEvent:
        return await anext(dataplane.events())

    for moments in range(30):
        flap(here, "up")
        asking = asyncio.create_task(ask())
        for _ in range(moments):
            await asyncio.sleep(0)
        asking.cancel()
        (given_up,) = await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(60):
            assert given_up == LOST or await ask() == LOST


async def test_events_end_when_the_dataplane_closes(here: Namespace, recorder: Recorder) -> None:
    async with KernelDataplane([A], recorder) as dataplane:

        async def follow() -> list[LinkEvent]:
            return [event async for event in dataplane.events()]

        following = asyncio.create_task(follow())
        await asyncio.sleep(0.1)
    assert await following == []
    assert [event async for event in dataplane.events()] == []


async def test_names_of_any_bytes_are_no_problem(here: Namespace, dataplane: KernelDataplane) -> None:
    name = os.fsdecode(b"\xff\xfe")
    here.run("ip", "link", "add", name, "type", "veth", "peer", "name", "other")
    here.run("ip", "link", "set", A.vx, "up")
    try:
        assert await anext(dataplane.events()) in (LinkEvent(A.vx, present=True, up=True), LOST)
        assert (await dataplane.snapshot()).domains[A.name].vx_up
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
