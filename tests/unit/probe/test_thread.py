"""A context in a thread of its own: entered, used and left there, whatever happens to its user."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.helpers import until
from wgkex_ops.probe.thread import LoopThread


class Place:
    """A context, and in which threads it was entered, used and left."""

    def __init__(self, enter_error: Exception | None = None, leave_error: Exception | None = None) -> None:
        self.enter_error = enter_error
        self.leave_error = leave_error
        self.may_enter = threading.Event()
        self.may_enter.set()
        self.threads: list[tuple[str, int]] = []

    def note(self, what: str) -> None:
        self.threads.append((what, threading.get_ident()))

    @contextlib.asynccontextmanager
    async def make(self) -> AsyncIterator["Place"]:
        self.note("enter")
        await until(self.may_enter.is_set, every=0.01)
        if self.enter_error is not None:
            raise self.enter_error
        try:
            yield self
        finally:
            self.note("leave")
            if self.leave_error is not None:
                raise self.leave_error

    async def work(self, seconds: float = 0.0) -> str:
        self.note("work")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.note("cancelled")
            raise
        return "done"

    @property
    def steps(self) -> list[str]:
        assert len({thread for _, thread in self.threads}) == 1
        assert threading.get_ident() not in {thread for _, thread in self.threads}
        return [what for what, _ in self.threads]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "canary":
            thread.join(60)
            assert not thread.is_alive()


async def test_everything_happens_in_one_other_thread() -> None:
    place = Place()
    async with LoopThread(place.make) as thread:
        assert await thread.run(Place.work) == "done"
        assert await thread.run(lambda there: there.work(0.01)) == "done"
    assert place.steps == ["enter", "work", "work", "leave"]


async def test_an_error_of_entering_is_raised_where_it_is_used() -> None:
    place = Place(enter_error=PermissionError("not allowed"))
    with pytest.raises(PermissionError, match="not allowed"):
        async with LoopThread(place.make):
            pass
    assert place.steps == ["enter"]


async def test_an_error_of_leaving_is_raised_unless_there_is_another_one() -> None:
    with pytest.raises(PermissionError, match="leaving"):
        async with LoopThread(Place(leave_error=PermissionError("leaving")).make):
            pass
    with pytest.raises(RuntimeError, match="using"):
        async with LoopThread(Place(leave_error=PermissionError("leaving")).make):
            raise RuntimeError("using")


async def test_an_error_of_the_work_is_raised_to_its_caller_alone() -> None:
    async def fail(_place: Place) -> None:
        raise KeyError("work")

    place = Place()
    async with LoopThread(place.make) as thread:
        with pytest.raises(KeyError, match="work"):
            await thread.run(fail)
        assert await thread.run(Place.work) == "done"
    assert place.steps == ["enter", "work", "leave"]


async def test_a_caller_that_is_cancelled_cancels_the_work_and_the_context_is_left() -> None:
    place = Place()

    async def use() -> None:
        async with LoopThread(place.make) as thread:
            await thread.run(lambda there: there.work(1000))

    task = asyncio.create_task(use())
    await until(lambda: "work" in [what for what, _ in place.threads], every=0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.steps == ["enter", "work", "cancelled", "leave"]


async def test_a_timeout_of_the_caller_is_a_timeout() -> None:
    place = Place()
    async with LoopThread(place.make) as thread:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await thread.run(lambda there: there.work(1000))
        assert await thread.run(Place.work) == "done"


async def test_who_is_cancelled_while_entering_waits_until_it_is_left() -> None:
    place = Place()
    place.may_enter.clear()

    async def use() -> None:
        async with LoopThread(place.make):
            raise AssertionError("entered")

    task = asyncio.create_task(use())
    await until(lambda: bool(place.threads), every=0.01)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    place.may_enter.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.steps == ["enter", "leave"]
