"""What moves in the demonstration, in a line: the figures are those of /metrics."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from prometheus_client import CollectorRegistry

from wgkex_ops.demo.routers import Routers
from wgkex_ops.model.words import count, things

# Seconds from one line to the next one, and those over which keys are counted.
_EVERY: Final = 2.0
_WINDOW: Final = 60.0


class Figures:
    """Makes the line.

    Args:
        routers: the simulated ones.
        broker: the broker's instruments.
        worker: the worker's instruments.
        refresh: brings the worker's instruments up to date.
        clock: seconds, never set back.
    """

    def __init__(
        self,
        routers: Routers,
        broker: CollectorRegistry,
        worker: CollectorRegistry,
        refresh: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routers = routers
        self._broker = broker
        self._worker = worker
        self._refresh = refresh
        self._clock = clock
        # When keys were counted, and how many there were until then.
        self._keys: deque[tuple[float, float]] = deque([(clock(), 0.0)])

    async def line(self) -> str:
        """How it is now: at most 80 columns, with 10,000 routers as well."""
        await self._refresh()
        tunnels = _total(self._worker, "wgkex_worker_peers", state="active")
        now, published = self._clock(), _total(self._broker, "wgkex_broker_keys_published_total")
        self._keys.append((now, published))
        while self._keys[1][0] <= now - _WINDOW:
            self._keys.popleft()
        keys = published - self._keys[0][1]
        return (
            f"{things(len(self._routers), 'router')}, {count(self._routers.switched_on)} on, "
            f"{things(round(tunnels), 'tunnel')}, {things(round(keys), 'key')} in the last minute"
        )

    async def show(self, show: Callable[[str], None]) -> NoReturn:
        """Show it every two seconds, without end."""
        while True:
            show(await self.line())
            await asyncio.sleep(_EVERY)


def _total(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """The sum of all series of a metric that have some labels."""
    return sum(
        sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
