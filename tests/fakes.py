"""All fakes of the tests: each stands for one seam of the product, and injects its faults."""

import asyncio
import selectors
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wgkex_ops.consumer.dataplane.memory import MemoryDataplane
from wgkex_ops.model.changes import Operation

T = TypeVar("T")

# --- the dataplane


class FaultyDataplane(MemoryDataplane):
    """The memory dataplane, to which a test does what nodes, other programs and a kernel in trouble do."""


class Nobody:
    """Observes nothing of what a dataplane does."""

    def observe(self, operation: Operation, count: int, errors: Sequence[str], seconds: float) -> None: ...


@dataclass
class Recorder:
    """An observer that keeps what it is told."""

    seen: list[tuple[Operation, int, tuple[str, ...]]] = field(default_factory=list)

    def observe(self, operation: Operation, count: int, errors: Sequence[str], seconds: float) -> None:
        assert seconds >= 0
        self.seen.append((operation, count, tuple(errors)))

    def of(self, operation: Operation) -> list[tuple[int, tuple[str, ...]]]:
        return [(count, errors) for kind, count, errors in self.seen if kind is operation]


# --- time


class _ImpatientSelector(selectors.DefaultSelector):
    """Waits for input no longer than the grace, in real seconds; then the clock jumps to the next timer."""

    def __init__(self, grace: float) -> None:
        super().__init__()
        self._grace = grace
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(min(timeout, self._grace))
        if not ready:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in which no time passes but that which everybody sleeps through."""

    def __init__(self, grace: float) -> None:
        self._impatient = _ImpatientSelector(grace)
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._impatient.now


def run_in_virtual_time(coroutine: Coroutine[Any, Any, T], *, grace: float = 0.0) -> T:
    """Run a coroutine to its end.

    Args:
        coroutine: what is run.
        grace: real seconds for bytes to cross the loopback interface; 0 where there are no sockets.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(grace)) as runner:
        return runner.run(coroutine)
