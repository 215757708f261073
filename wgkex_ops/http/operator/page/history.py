"""What the counters were in the last minutes, so that a page can show what has happened lately. Bounded, and pure."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from prometheus_client import Counter, Gauge

from wgkex_ops.model.words import duration

MINUTE: Final = 60.0
# Seconds between two samples, and how far back they go.
INTERVAL: Final = 10.0
SPAN: Final = 15 * MINUTE
# A sample is never early, so these reach back over the whole span; one more for a window that ends between two samples.
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
        seconds: how long it is; a little more than the length asked for, as samples are some seconds apart.
        since_start: whether it is shorter than that, because the process has not run for so long.
        increases: by how much each counter has increased, by its first label; zeros left out.
    """

    seconds: float
    since_start: bool
    increases: Mapping[Counter, Mapping[str, int]]

    def total(self, counter: Counter) -> int:
        """By how much a counter has increased over all labels."""
        return sum(self.increases[counter].values())

    @property
    def heading(self) -> str:
        """The window as the heading of a column."""
        return f"since start ({duration(self.seconds)})" if self.since_start else f"last {self._length}"

    @property
    def words(self) -> str:
        """The window as the end of a sentence."""
        return f"since the start, {duration(self.seconds)} ago" if self.since_start else f"in the last {self._length}"

    @property
    def _length(self) -> str:
        # Samples are some seconds apart: 307 s are 5 minutes.
        return duration(self.seconds // MINUTE * MINUTE)


class History:
    """Samples counters every few seconds.

    Args:
        counters: they are taken to be 0 at the start, which is now.
        clock: seconds, never set back.
    """

    def __init__(self, counters: Iterable[Counter], clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = tuple(counters)
        self._clock = clock
        self._started = clock()
        nothing: dict[Counter, Values] = {counter: {} for counter in self._counters}
        self._samples = deque([(self._started, nothing)], maxlen=_KEPT)

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    async def run(self) -> NoReturn:
        """Take samples for ever."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.sample()

    def sample(self) -> None:
        """Keep the counters as they are now; the oldest sample is dropped for it."""
        self._samples.append((self._clock(), self._read()))

    def windows(self, lengths: Sequence[float]) -> list[Window]:
        """What has happened lately.

        Args:
            lengths: seconds, the shortest first, up to SPAN.

        Returns:
            a window for each length. Of those that would reach back before the start there is only the first one; it
            begins with the start.
        """
        now, values = self._clock(), self._read()
        windows = []
        for length in lengths:
            old_enough = [sample for sample in self._samples if now - sample[0] >= length]
            then, before = old_enough[-1] if old_enough else self._samples[0]
            increases = {counter: _increase(before[counter], values[counter]) for counter in self._counters}
            windows.append(Window(now - then, not old_enough, increases))
            if not old_enough:
                break
        return windows

    def _read(self) -> dict[Counter, Values]:
        return {counter: read(counter) for counter in self._counters}


def _increase(before: Values, now: Values) -> dict[str, int]:
    increases = {label: round(value - before.get(label, 0)) for label, value in now.items()}
    return {label: increase for label, increase in increases.items() if increase > 0}
