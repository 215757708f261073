"""What the counters were in the last minutes, so that a page can tell what has happened lately. Bounded, and pure."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from prometheus_client import Counter, Gauge

# Seconds between two looks, and how far back one can see.
INTERVAL: Final = 10.0
SPAN: Final = 900.0
# A look is never early, so these reach back over the whole span; one more for a window that ends between two looks.
_KEPT: Final = int(SPAN / INTERVAL) + 2

# Values of one instrument by its first label (empty for one without labels), summed over the others; zeros left out.
Values = Mapping[str, float]


def read(instrument: Counter | Gauge) -> Values:
    """Read an instrument as it is now: the same numbers that `/metrics` shows."""
    values: defaultdict[str, float] = defaultdict(float)
    for family in instrument.collect():
        for sample in family.samples:
            if sample.value and not sample.name.endswith("_created"):
                values[next(iter(sample.labels.values()), "")] += sample.value
    return values


def read_one(instrument: Counter | Gauge) -> float:
    """Read an instrument as it is now, summed over all labels."""
    return sum(read(instrument).values())


@dataclass(frozen=True, slots=True)
class Window:
    """The time from some moment until now.

    Attributes:
        seconds: how long it is; a little more than what was asked for, as looks are some seconds apart.
        since_start: whether it is shorter than what was asked for, because the process has not run for so long.
    """

    seconds: float
    since_start: bool
    _increases: Mapping[Counter, Mapping[str, int]]

    def by_label(self, counter: Counter) -> Mapping[str, int]:
        """By how much a counter has increased, by its first label; zeros left out."""
        return self._increases[counter]

    def total(self, *counters: Counter) -> int:
        """By how much some counters have increased together."""
        return sum(sum(self._increases[counter].values()) for counter in counters)


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    values: Mapping[Counter, Values]


class History:
    """Looks at counters now and then, and remembers.

    Args:
        counters: what is looked at. They are taken to be 0 at the start, which is now.
        clock: seconds, never set back.
    """

    def __init__(self, counters: Iterable[Counter], clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = tuple(counters)
        self._clock = clock
        self._started = clock()
        self._looks = deque([_Look(self._started, {counter: {} for counter in self._counters})], maxlen=_KEPT)

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    def look(self) -> None:
        """Remember the counters as they are now; the oldest look is forgotten for it."""
        self._looks.append(self._look())

    def windows(self, lengths: Sequence[float]) -> list[Window]:
        """What has happened lately.

        Args:
            lengths: seconds, the shortest first, up to SPAN.

        Returns:
            a window for each length. Of those that would reach back before the start there is only the first one; it
            begins with the start.
        """
        now = self._look()
        windows = []
        for length in lengths:
            enough = [look for look in self._looks if now.at - look.at >= length]
            windows.append(_window(enough[-1] if enough else self._looks[0], now, since_start=not enough))
            if not enough:
                break
        return windows

    async def run(self) -> NoReturn:
        """Look for ever."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.look()

    def _look(self) -> _Look:
        return _Look(self._clock(), {counter: read(counter) for counter in self._counters})


def _window(then: _Look, now: _Look, *, since_start: bool) -> Window:
    increases = {
        counter: {
            label: increase
            for label, value in values.items()
            if (increase := round(value - then.values[counter].get(label, 0))) > 0
        }
        for counter, values in now.values.items()
    }
    return Window(now.at - then.at, since_start, increases)
