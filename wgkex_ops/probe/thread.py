"""A thread with an event loop of its own: what runs there may leave the network namespace of the process."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


class LoopThread(Generic[_T]):
    """Enters a context in a new thread, and leaves it there, also if its user is cancelled or fails.

    Used once, as an asynchronous context manager. Entering it raises what entering the other context raises.

    Args:
        make: makes the context; called in the thread.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[_T]]) -> None:
        self._make = make
        self._stop: Future[None] = Future()
        self._inside: tuple[_T, asyncio.AbstractEventLoop] | None = None
        self._error: BaseException | None = None

    async def __aenter__(self) -> Self:
        self._outside = asyncio.get_running_loop()
        # The thread sets each of them at its end at the latest.
        self._entered, self._ended = asyncio.Event(), asyncio.Event()
        threading.Thread(target=self._work, name="canary", daemon=True).start()
        try:
            await self._entered.wait()
        except asyncio.CancelledError:
            await self._end()
            raise
        if self._inside is None:
            await self.__aexit__(None, None, None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._end()
        if self._error is not None and error is None:
            raise self._error

    async def run(self, work: Callable[[_T], Coroutine[Any, Any, _R]]) -> _R:
        """Run a coroutine with the context's value in the thread; a caller that is cancelled cancels it."""
        assert self._inside is not None, "not entered"  # noqa: S101  a bug of the caller
        value, loop = self._inside
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(value), loop))

    async def _end(self) -> None:
        self._stop.set_result(None)
        await self._ended.wait()

    def _work(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # noqa: BLE001  it is raised where the context is used
            self._error = error
        finally:
            for event in (self._entered, self._ended):
                self._outside.call_soon_threadsafe(event.set)

    async def _live(self) -> None:
        async with self._make() as value:
            self._inside = value, asyncio.get_running_loop()
            self._outside.call_soon_threadsafe(self._entered.set)
            await asyncio.wrap_future(self._stop)
