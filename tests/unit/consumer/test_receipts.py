"""Receipts: sent many in a message, never waited for, and thrown away rather than kept for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import pytest
import structlog
from prometheus_client import CollectorRegistry

from tests.fakes import FakeSession, run_in_virtual_time
from tests.helpers import running, samples, settle
from wgkex_ops.bus.messages import Receipt, ReceiptAddress, parse_receipt, split_correlation
from wgkex_ops.consumer.receipts import QUEUE_LIMIT, ReceiptSender
from wgkex_ops.errors import BusError, NoSubscribersError, NotConnectedError, PublishRefusedError
from wgkex_ops.metrics.worker import ReceiptMetrics

TOPIC: Final = "wgkex/receipts/b1"
ANOTHER_TOPIC: Final = "wgkex/receipts/b2"


@dataclass
class Bench:
    """A sender that runs, and what there is to see of it."""

    bus: FakeSession = field(default_factory=FakeSession)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.sender = ReceiptSender(self.bus, "gw01", ReceiptMetrics(self.registry))

    @property
    def published(self) -> list[tuple[str, bytes, bytes]]:
        """Topic, payload and correlation data of what the server has acknowledged."""
        return [(message.topic, message.payload, message.correlation) for message in self.bus.acknowledged]

    @property
    def marks(self) -> list[bytes]:
        return [message.correlation for message in self.bus.acknowledged]

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


def addresses(count: int, topic: str = TOPIC) -> list[ReceiptAddress]:
    return [ReceiptAddress(topic, number.to_bytes(16, "big")) for number in range(count)]


async def hold_up(bench: Bench) -> None:
    """Have as many messages on their way as may be, so that all others wait."""
    bench.bus.seconds = 1000.0
    for number in range(20):
        bench.sender.send(addresses(1, f"wgkex/receipts/{number}"), "")
    await settle()


def test_brokers_get_the_result_with_their_own_marks() -> None:
    async def body(bench: Bench) -> None:
        assert bench.counts() == (0, 0, 0)
        one, two, three, four, five = addresses(5)
        elsewhere = ReceiptAddress(ANOTHER_TOPIC, two.correlation)
        bench.sender.send([one, elsewhere], "")
        bench.sender.send([two], "EBUSY")
        bench.sender.send([three], "")
        bench.sender.send([four], "EBUSY")
        bench.sender.send([five], "EPERM")
        await settle()
        assert [(topic, parse_receipt(topic, payload), mark) for topic, payload, mark in bench.published] == [
            (f"{TOPIC}/gw01", Receipt("gw01"), one.correlation + three.correlation),
            (f"{ANOTHER_TOPIC}/gw01", Receipt("gw01"), two.correlation),
            (f"{TOPIC}/gw01", Receipt("gw01", "EBUSY"), two.correlation + four.correlation),
            (f"{TOPIC}/gw01", Receipt("gw01", "EPERM"), five.correlation),
        ]
        assert bench.counts() == (3, 3, 0)

    bench(body)


def test_marks_of_other_brokers_are_not_joined() -> None:
    async def body(bench: Bench) -> None:
        joined, alone = [b"a" * 16, b"b" * 16], [b"1", b"2" * 15, b"3" * 17, b"4" * 32]
        marks = [*joined, *alone, *joined]
        bench.sender.send([ReceiptAddress(TOPIC, mark) for mark in marks], "")
        await settle()
        assert sorted(bench.marks) == sorted([b"".join(joined), *alone, b"".join(joined)])
        assert bench.counts() == (8, 0, 0)

    bench(body)


def test_many_are_on_their_way_at_once_but_not_all() -> None:
    async def body(bench: Bench) -> None:
        bench.bus.seconds = 0.3
        start = asyncio.get_running_loop().time()
        wanted = addresses(20 * 256 + 100)
        bench.sender.send(wanted, "")
        await bench.sender.flush(10.0)
        # Thousands a second over a link that nobody would like.
        assert asyncio.get_running_loop().time() - start == pytest.approx(0.6)
        assert bench.bus.most_in_flight == 20
        assert [len(mark) for mark in bench.marks] == [256 * 16] * 20 + [100 * 16]
        assert sorted(split_correlation(b"".join(bench.marks))) == [address.correlation for address in wanted]
        assert bench.counts() == (len(wanted), 0, 0)

    bench(body)


def test_a_broker_with_many_receipts_leaves_room_for_another_one() -> None:
    async def body(bench: Bench) -> None:
        bench.bus.seconds = 0.3
        bench.sender.send(addresses(100 * 256), "")
        bench.sender.send(addresses(1, ANOTHER_TOPIC), "")
        await asyncio.sleep(0.4)
        assert [topic for topic, _, _ in bench.published].count(f"{ANOTHER_TOPIC}/gw01") == 1
        assert len(bench.published) == 20

    bench(body)


def test_too_many_cost_the_oldest() -> None:
    async def body(bench: Bench) -> None:
        await hold_up(bench)
        bench.sender.send(addresses(QUEUE_LIMIT + 3), "")
        assert bench.counts() == (0, 0, 3)
        await settle()
        assert (bench.bus.in_flight, bench.counts()) == (20, (0, 0, 3))
        bench.bus.seconds = 0.0
        await bench.sender.flush(2000.0)
        assert bench.counts() == (20 + QUEUE_LIMIT, 0, 3)
        kept = sorted(split_correlation(b"".join(bench.marks[20:])))
        assert kept == [address.correlation for address in addresses(QUEUE_LIMIT + 3)[3:]]

    bench(body)


def test_a_broker_with_too_many_receipts_costs_another_one_none() -> None:
    async def body(bench: Bench) -> None:
        await hold_up(bench)
        bench.sender.send(addresses(QUEUE_LIMIT - 1), "")
        bench.sender.send(addresses(1, ANOTHER_TOPIC), "")
        bench.sender.send(addresses(3), "EBUSY")
        assert bench.counts() == (0, 0, 3)
        bench.bus.seconds = 0.0
        await bench.sender.flush(2000.0)
        assert bench.counts() == (20 + QUEUE_LIMIT - 3, 3, 3)
        assert [topic for topic, _, _ in bench.published].count(f"{ANOTHER_TOPIC}/gw01") == 1

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
            bench.sender.send(addresses(300), "")
            await bench.sender.flush(1.0)
            # A thousand of them are one line a minute.
            assert [(line["event"], line["reason"]) for line in logs] == [("receipt_failed", error.reason)]
            await asyncio.sleep(61)
            bench.sender.send(addresses(1), "")
            await bench.sender.flush(1.0)
            assert len(logs) == 2
        bench.bus.error = None
        bench.sender.send(addresses(2), "")
        await bench.sender.flush(1.0)
        assert bench.counts() == (2, 0, 301)
        assert len(bench.published) == 1

    bench(body)


def test_the_end_waits_for_receipts_but_not_for_long() -> None:
    async def body(bench: Bench) -> None:
        start = asyncio.get_running_loop().time()
        await bench.sender.flush(0.5)
        assert asyncio.get_running_loop().time() == start
        bench.bus.seconds = 0.2
        bench.sender.send(addresses(1), "")
        await bench.sender.flush(0.5)
        assert asyncio.get_running_loop().time() - start == pytest.approx(0.2)
        bench.bus.seconds = 3.0
        bench.sender.send(addresses(1), "")
        await bench.sender.flush(0.5)
        assert asyncio.get_running_loop().time() - start == pytest.approx(0.7)
        assert bench.counts() == (1, 0, 0)

    bench(body)
