"""Receipts: sent many at once, never waited for, and thrown away rather than kept for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import pytest
import structlog
from prometheus_client import CollectorRegistry

from tests.helpers import run_in_virtual_time, running, samples, settle
from wgkex_ops.consumer.receipts import QUEUE_LIMIT, ReceiptSender
from wgkex_ops.errors import BusError, NoSubscribersError, NotConnectedError, PublishRefusedError
from wgkex_ops.metrics.worker import ReceiptMetrics
from wgkex_ops.mqtt import Session
from wgkex_ops.topics import Receipt, Reply, parse_receipt


class Bus:
    """A session whose server takes its time, or fails."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.error: BusError | None = None
        self.published: list[tuple[str, bytes, bytes]] = []
        self.in_flight = 0
        self.most_in_flight = 0

    @property
    def marks(self) -> list[bytes]:
        return [correlation for _, _, correlation in self.published]

    async def publish(self, topic: str, payload: bytes, *, timeout: float, correlation: bytes) -> None:  # noqa: ASYNC109
        assert timeout == 5.0
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.in_flight -= 1
        if self.error is not None:
            raise self.error
        self.published.append((topic, payload, correlation))


@dataclass
class Bench:
    """A sender that runs, and what there is to see of it."""

    bus: Bus = field(default_factory=Bus)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.sender = ReceiptSender(cast("Session", self.bus), "gw01", ReceiptMetrics(self.registry))

    def counts(self) -> tuple[float, float, float]:
        """Receipts sent of installed and of failed keys, and those that were not sent."""
        seen = samples(self.registry)
        installed, failed = (seen[f'wgkex_worker_receipts_total{{result="{it}"}}'] for it in ("installed", "failed"))
        return installed, failed, seen["wgkex_worker_receipt_failures_total"]


def bench(body: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        made = Bench()
        async with running(made.sender.run()):
            await body(made)

    with structlog.testing.capture_logs():
        run_in_virtual_time(run())


def replies(count: int) -> list[Reply]:
    return [Reply("wgkex/receipts/b1", b"%d" % number) for number in range(count)]


def test_brokers_get_the_result_with_their_own_mark() -> None:
    async def body(bench: Bench) -> None:
        assert bench.counts() == (0, 0, 0)
        bench.sender.answer([Reply("wgkex/receipts/b1", b"\x00"), Reply("wgkex/receipts/b2", b"\xff")], "")
        bench.sender.answer([Reply("wgkex/receipts/b1", b"2")], "EBUSY")
        await settle()
        assert [(topic, parse_receipt(payload), mark) for topic, payload, mark in bench.bus.published] == [
            ("wgkex/receipts/b1", Receipt("gw01"), b"\x00"),
            ("wgkex/receipts/b2", Receipt("gw01"), b"\xff"),
            ("wgkex/receipts/b1", Receipt("gw01", "EBUSY"), b"2"),
        ]
        assert bench.counts() == (2, 1, 0)

    bench(body)


def test_many_are_on_their_way_at_once_but_not_all() -> None:
    async def body(bench: Bench) -> None:
        bench.bus.seconds = 0.3
        start = asyncio.get_running_loop().time()
        bench.sender.answer(replies(1800), "")
        await bench.sender.flush(10.0)
        # 600 a second over a link that nobody would like.
        assert asyncio.get_running_loop().time() - start == pytest.approx(2.7)
        assert bench.bus.most_in_flight == 200
        assert bench.counts() == (1800, 0, 0)
        assert sorted(bench.bus.marks) == sorted(reply.correlation for reply in replies(1800))

    bench(body)


def test_too_many_cost_the_oldest() -> None:
    async def body(bench: Bench) -> None:
        bench.bus.seconds = 1000.0
        bench.sender.answer(replies(200), "")
        await settle()
        bench.sender.answer(replies(QUEUE_LIMIT + 3), "")
        assert bench.counts() == (0, 0, 3)
        await settle()
        assert (bench.bus.in_flight, bench.counts()) == (200, (0, 0, 3))
        bench.bus.seconds = 0.0
        await bench.sender.flush(2000.0)
        assert bench.counts() == (200 + QUEUE_LIMIT, 0, 3)
        assert b"2" not in bench.bus.marks[200:]
        assert b"3" in bench.bus.marks[200:]

    bench(body)


@pytest.mark.parametrize(
    "error",
    [NotConnectedError("gone"), NoSubscribersError("nobody"), PublishRefusedError(0x87)],
    ids=lambda e: e.reason,
)
def test_a_receipt_that_fails_is_counted_and_not_sent_again(error: BusError) -> None:
    async def body(bench: Bench) -> None:
        bench.bus.error = error
        with structlog.testing.capture_logs() as logs:
            bench.sender.answer(replies(300), "")
            await bench.sender.flush(1.0)
            # A thousand of them are one line a minute.
            assert [(line["event"], line["reason"]) for line in logs] == [("receipt_failed", error.reason)]
            await asyncio.sleep(61)
            bench.sender.answer(replies(1), "")
            await bench.sender.flush(1.0)
            assert len(logs) == 2
        bench.bus.error = None
        bench.sender.answer(replies(2), "")
        await bench.sender.flush(1.0)
        assert bench.counts() == (2, 0, 301)
        assert len(bench.bus.published) == 2

    bench(body)


def test_the_end_waits_for_receipts_but_not_for_long() -> None:
    async def body(bench: Bench) -> None:
        start = asyncio.get_running_loop().time()
        await bench.sender.flush(0.5)
        assert asyncio.get_running_loop().time() == start
        bench.bus.seconds = 0.2
        bench.sender.answer(replies(1), "")
        await bench.sender.flush(0.5)
        assert asyncio.get_running_loop().time() - start == pytest.approx(0.2)
        bench.bus.seconds = 3.0
        bench.sender.answer(replies(1), "")
        await bench.sender.flush(0.5)
        assert asyncio.get_running_loop().time() - start == pytest.approx(0.7)
        assert bench.counts() == (1, 0, 0)

    bench(body)
