"""How changes take turns in the netlink thread; the kernel itself has tests of its own."""

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from tests.fakes import Nobody
from tests.helpers import WELT, key, until
from wgkex_ops.consumer.dataplane import kernel as netlink
from wgkex_ops.consumer.dataplane.apply import Plan
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.changes import Change, Operation, Outcome


class Slow:
    """Carries plans out when it may, and says of each change which one of all it was."""

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
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    slow = Slow()
    monkeypatch.setattr(netlink, "Changing", lambda *_: slow)
    yield slow
    slow.may_work.set()


def installs(count: int) -> list[Change]:
    return [Change.install(WELT, key(number)) for number in range(count)]


def numbers(outcomes: Sequence[Outcome]) -> list[int]:
    return [int(outcome.error) for outcome in outcomes if outcome is not None]


async def test_outcomes_of_all_turns_come_in_order(slow: Slow) -> None:
    slow.may_work.set()
    outcomes = await KernelDataplane((WELT,), Nobody()).apply(installs(700))
    assert numbers(outcomes) == list(range(700))
    assert slow.begun == [256, 256, 188]


async def test_whoever_gives_up_waits_for_no_turn_that_has_not_begun(slow: Slow) -> None:
    dataplane = KernelDataplane((WELT,), Nobody())
    waiting = asyncio.create_task(dataplane.apply(installs(700)))
    await until(lambda: slow.begun == [256])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    slow.may_work.set()
    assert numbers(await dataplane.apply(installs(2))) == [256, 257]
    assert slow.begun == [256, 2]


@pytest.mark.parametrize("turn", [1, 2, 3])
async def test_a_bug_in_one_turn_is_told_and_ends_no_thread(slow: Slow, turn: int) -> None:
    slow.may_work.set()
    slow.crash_at = turn
    dataplane = KernelDataplane((WELT,), Nobody())
    with pytest.raises(RuntimeError, match="a bug"):
        await dataplane.apply(installs(700))
    slow.crash_at = 0
    assert len(await dataplane.apply(installs(2))) == 2
