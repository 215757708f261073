"""The one thread that works with the kernel."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from wgkex_ops.consumer.dataplane.apply import Plan, make_plans
from wgkex_ops.model.changes import Change, Outcome

_T = TypeVar("_T")


class NetlinkThread:
    """Does blocking work in a thread, one piece after the other.

    A caller that waits may be cancelled. Then a piece that has not begun is dropped; one that has begun goes on to its
    end, so that no message of the kernel is left in a socket for the next piece.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")

    def close(self) -> None:
        """End the thread after what waits for it."""
        self._executor.shutdown(wait=False)

    def run(self, work: Callable[[], _T]) -> "asyncio.Future[_T]":
        """Do a piece of work."""
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def apply(self, changes: Sequence[Change], carry_out: Callable[[Plan], list[Outcome]]) -> list[Outcome]:
        """Carry out changes plan by plan, and return their outcomes in order.

        A plan is made while the kernel works on the one before it. So no other work waits for more than two plans.
        """
        outcomes: list[Outcome] = []
        following: asyncio.Future[list[Outcome]] | None = None
        try:
            for plan in make_plans(changes):
                begun, following = following, self.run(partial(carry_out, plan))
                if begun is not None:
                    outcomes += await begun
            if following is not None:
                outcomes += await following
        finally:
            if following is not None:
                following.cancel()
        return outcomes
