"""The counters of the last minutes: windows of the right length, the instruments' own numbers, bounded memory."""

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge

from tests.fakes import run_in_virtual_time
from tests.helpers import Clock, running
from wgkex_ops.http.operator.page.history import INTERVAL, SPAN, History, read, read_one


class Bench:
    """A history of two counters, and a clock that a test sets."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.plain = Counter("wgkex_plain", "Plain.", registry=registry)
        self.labelled = Counter("wgkex_labelled", "With labels.", ["worker", "domain"], registry=registry)
        self.clock = Clock()
        self.history = History([self.plain, self.labelled], self.clock)

    def live(self, seconds: float, increase: int = 0) -> None:
        """Let time pass, with a sample every ten seconds and an increase just before each."""
        for _ in range(int(seconds / INTERVAL)):
            self.clock.now += INTERVAL
            self.plain.inc(increase)
            self.history.sample()


def test_an_instrument_is_read_by_its_first_label_and_zeros_are_left_out() -> None:
    registry = CollectorRegistry()
    counter = Counter("wgkex_things", "Things.", ["worker", "domain"], registry=registry)
    for worker, domain, number in (("a", "x", 1), ("a", "y", 2), ("b", "x", 4), ("c", "x", 0)):
        counter.labels(worker, domain).inc(number)
    gauge = Gauge("wgkex_level", "Level.", registry=registry)
    assert read(counter) == {"a": 3, "b": 4}
    assert read_one(counter) == 7
    assert read(gauge) == {}
    assert read_one(gauge) == 0
    gauge.set(-1.5)
    assert read(gauge) == {"": -1.5}


def test_directly_after_the_start_there_is_one_window_and_it_says_so() -> None:
    bench = Bench()
    bench.clock.now += 3
    bench.plain.inc(2)
    (window,) = bench.history.windows([60, 300, 900])
    assert (window.seconds, window.since_start) == (3, True)
    assert window.total(bench.plain) == 2
    assert bench.history.age == 3


def test_what_was_counted_before_the_first_sample_belongs_to_the_start() -> None:
    registry = CollectorRegistry()
    counter = Counter("wgkex_things", "Things.", registry=registry)
    counter.inc(5)
    clock = Clock()
    history = History([counter], clock)
    clock.now += 1
    (window,) = history.windows([60])
    assert window.total(counter) == 5


def test_windows_reach_back_as_far_as_they_say() -> None:
    bench = Bench()
    bench.live(1200, increase=1)
    minute, five, fifteen = bench.history.windows([60, 300, 900])
    for window, seconds in ((minute, 60), (five, 300), (fifteen, 900)):
        assert (window.seconds, window.since_start) == (seconds, False)
        assert window.total(bench.plain) == seconds / INTERVAL


def test_a_window_that_ends_between_two_samples_is_a_little_longer() -> None:
    bench = Bench()
    bench.live(1200, increase=1)
    bench.clock.now += INTERVAL - 1
    bench.plain.inc(100)
    minute, five, fifteen = bench.history.windows([60, 300, 900])
    assert [window.seconds for window in (minute, five, fifteen)] == [69, 309, 909]
    assert minute.total(bench.plain) == 106


def test_only_the_first_window_before_the_start_is_there() -> None:
    bench = Bench()
    bench.live(180, increase=1)
    minute, longer = bench.history.windows([60, 300, 900])
    assert (minute.seconds, minute.since_start) == (60, False)
    assert (longer.seconds, longer.since_start) == (180, True)
    assert longer.total(bench.plain) == 18


def test_what_happened_long_ago_is_forgotten() -> None:
    bench = Bench()
    bench.plain.inc(1000)
    bench.live(SPAN + 2 * INTERVAL)
    assert [window.total(bench.plain) for window in bench.history.windows([60, 300, 900])] == [0, 0, 0]


def test_labels_that_are_new_count_from_zero_and_a_counter_never_counts_down() -> None:
    bench = Bench()
    bench.labelled.labels("gw01", "x").inc(5)
    bench.live(60)
    bench.labelled.labels("gw02", "x").inc(2)
    bench.labelled.labels("gw02", "y").inc(1)
    bench.labelled.labels("gw01", "x").reset()
    (window,) = bench.history.windows([60])
    assert window.increases[bench.labelled] == {"gw02": 3}
    bench.live(30)
    (window,) = bench.history.windows([20])
    assert window.increases[bench.labelled] == {}
    assert window.total(bench.labelled) == 0


def test_memory_is_bounded_however_long_a_process_runs() -> None:
    bench = Bench()
    bench.live(100 * SPAN)
    (everything,) = bench.history.windows([10 * SPAN])
    assert everything.seconds == SPAN + INTERVAL


def test_the_task_takes_a_sample_every_ten_seconds() -> None:
    async def sample() -> float:
        history = History([], asyncio.get_running_loop().time)
        async with running(history.run()):
            await asyncio.sleep(125)
            (window,) = history.windows([60])
            return window.seconds

    assert run_in_virtual_time(sample()) == 65
