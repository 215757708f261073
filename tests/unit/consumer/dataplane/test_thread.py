"""How changes pass through the netlink thread. tests/kernel has the same with a real kernel."""

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from tests.helpers import WELT, key, until
from wgkex_ops.consumer.dataplane.apply import Plan
from wgkex_ops.consumer.dataplane.thread import NetlinkThread
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.changes import Change, Operation, Outcome


class SlowWriter:
    """Carries out plans once `may_work` is set. The error of each outcome is its number among all changes."""

    def __init__(self) -> None:
        self.may_work = threading.Event()
        self.begun: list[int] = []
        self.crash_at = 0
        self._count = 0

    def carry_out(self, plan: Plan) -> list[Outcome]:
        self.begun.append(len(plan.outcomes))
        assert self.may_work.wait(60)
        if len(self.begun) == self.crash_at:
            raise RuntimeError("a bug")
        first, self._count = self._count, self._count + len(plan.outcomes)
        return [DataplaneError(Operation.PEER_ADD, str(number)) for number in range(first, self._count)]


@pytest.fixture
def writer() -> Iterator[SlowWriter]:
    writer = SlowWriter()
    yield writer
    writer.may_work.set()


@pytest.fixture
def thread(writer: SlowWriter) -> Iterator[NetlinkThread]:
    thread = NetlinkThread()
    yield thread
    thread.close()


def installs(count: int) -> list[Change]:
    return [Change.install(WELT, key(number)) for number in range(count)]


def numbers(outcomes: Sequence[Outcome]) -> list[int]:
    return [int(outcome.error) for outcome in outcomes if outcome is not None]


async def test_outcomes_of_all_plans_come_in_order(thread: NetlinkThread, writer: SlowWriter) -> None:
    writer.may_work.set()
    assert numbers(await thread.apply(installs(700), writer.carry_out)) == list(range(700))
    assert writer.begun == [256, 256, 188]


async def test_cancelled_changes_that_have_not_begun_are_dropped(thread: NetlinkThread, writer: SlowWriter) -> None:
    waiting = asyncio.create_task(thread.apply(installs(700), writer.carry_out))
    await until(lambda: writer.begun == [256])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    writer.may_work.set()
    assert numbers(await thread.apply(installs(2), writer.carry_out)) == [256, 257]
    assert writer.begun == [256, 2]


@pytest.mark.parametrize("plan", [1, 2, 3])
async def test_a_bug_in_one_plan_is_raised_and_ends_no_thread(
    thread: NetlinkThread, writer: SlowWriter, plan: int
) -> None:
    writer.may_work.set()
    writer.crash_at = plan
    with pytest.raises(RuntimeError, match="a bug"):
        await thread.apply(installs(700), writer.carry_out)
    writer.crash_at = 0
    assert len(await thread.apply(installs(2), writer.carry_out)) == 2
