"""What is sent again, when, and at which pace, by a clock that needs no waiting."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

import pytest
import structlog
from prometheus_client import CollectorRegistry

from tests.fakes import run_in_virtual_time
from tests.helpers import CITY, DOMAINS, KEY, WELT, key, running, settle
from wgkex_ops.bus.messages import ConnectedPeers, Endpoint, Origin, Receipt, WorkerData, WorkerStatus
from wgkex_ops.errors import (
    BusError,
    NoSubscribersError,
    NotConnectedError,
    PublishRefusedError,
    PublishTimeoutError,
)
from wgkex_ops.http.gateways.confirmations import KEPT_FOR, Handover, Outstanding
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.gateways.resending import WINDOW, Republisher
from wgkex_ops.http.public.submission import Submission
from wgkex_ops.metrics.broker import ReceiptMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

WORKERS: Final = ("gw01", "gw02")


class Bus:
    """A session with an MQTT server, and what it was given."""

    def __init__(self) -> None:
        self.connected = True
        self.opened_at = 0.0
        self.sent: list[tuple[float, PublicKey, str]] = []
        self.error: BusError | None = None
        # Domains that nobody has subscribed to.
        self.unheard: set[str] = set()
        self.in_flight = 0
        self.most_in_flight = 0
        self._connections = 1
        self._changed = asyncio.Condition()

    async def connection_after(self, seen: int) -> int:
        async with self._changed:
            await self._changed.wait_for(lambda: self.connected and self._connections > seen)
            return self._connections

    async def reconnect(self) -> None:
        async with self._changed:
            self.connected = True
            self._connections += 1
            self._changed.notify_all()

    async def publish(self, submission: Submission, origin: Origin, target: str) -> None:
        assert origin.receipt_to is not None
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            await asyncio.sleep(0.001)
            if self.error is not None:
                raise self.error
            if submission.domain.name in self.unheard:
                raise NoSubscribersError("nobody")
            self.sent.append((round(asyncio.get_running_loop().time(), 1), submission.key, target))
        finally:
            self.in_flight -= 1

    def take(self) -> list[tuple[float, PublicKey, str]]:
        sent, self.sent = self.sent, []
        return sent


class Broker:
    """A republisher at work, with two gateways that send receipts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.gateways = Gateways({}, DOMAINS)
        self.outstanding = Outstanding(
            self.gateways, topic="receipts", metrics=ReceiptMetrics(self.registry, WORKERS), label=str
        )
        self.bus = Bus()
        self.republisher = Republisher(self.outstanding, connection=self.bus, publish=self.bus.publish)
        for worker in WORKERS:
            self.gateways.update(
                WorkerData(worker, WELT.name, Endpoint("gw.example.net", 40011, KEY, "fe80::1", receipts=True)), 0.0
            )
            self.gateways.update(ConnectedPeers(worker, WELT.name, 0), 0.0)
            self.gateways.update(WorkerStatus(worker, online=True), 0.0)

    def hand_over(self, number: int = 1, domain: Domain = WELT) -> Handover:
        handover = self.outstanding.begin(Submission(domain, key(number)), "", 0.0)
        self.outstanding.acknowledge(handover)
        return handover

    def confirm(self, handover: Handover, *workers: str) -> None:
        for worker in workers:
            self.outstanding.take(handover, Receipt(worker))

    def republished(self, worker: str) -> float | None:
        return self.registry.get_sample_value("wgkex_broker_keys_republished_total", {"worker": worker})


@contextlib.asynccontextmanager
async def at_work(broker: Broker) -> AsyncIterator[asyncio.Task[object]]:
    async with running(broker.republisher.run()) as task:
        # Past the first connection.
        await settle()
        yield task


def test_silent_worker_is_sent_its_keys_again_and_then_given_up() -> None:
    async def scenario() -> None:
        broker = Broker()
        async with at_work(broker):
            await asyncio.sleep(0.5)
            broker.confirm(broker.hand_over(), "gw01")
            await asyncio.sleep(KEPT_FOR + 1)
            times = [when for when, *rest in broker.bus.sent if rest == [key(1), "gw02"]]
            # After pauses of 5, 10, 20, and 40 s, and at the next look.
            assert times == pytest.approx([5.5, 16, 36.5, 77], abs=1.1)
            assert len(broker.bus.sent) == 4
            assert len(broker.outstanding) == 0

    run_in_virtual_time(scenario())


def test_reconnect_is_not_waited_for_with_the_next_look() -> None:
    async def scenario() -> None:
        broker = Broker()
        async with at_work(broker):
            await asyncio.sleep(2.3)
            answered, half, silent = (broker.hand_over(number) for number in range(3))
            broker.confirm(answered, *WORKERS)
            broker.confirm(half, "gw01")
            assert silent.answers == {}
            await broker.bus.reconnect()
            await asyncio.sleep(0.1)
            assert broker.bus.take() == [(2.3, key(1), "all"), (2.3, key(2), "all")]
            assert broker.republished("all") == 2
            # Once is enough.
            await asyncio.sleep(3)
            assert broker.bus.take() == []

    run_in_virtual_time(scenario())


def test_worker_that_comes_is_sent_what_it_has_not_answered() -> None:
    async def scenario() -> None:
        broker = Broker()
        async with at_work(broker):
            broker.confirm(broker.hand_over(1), "gw01")
            broker.confirm(broker.hand_over(2), "gw02")
            await asyncio.sleep(0.1)
            for _ in range(100):
                broker.republisher.came("gw02")
            await asyncio.sleep(1)
            assert [sent[1:] for sent in broker.bus.take()] == [(key(1), "gw02")]
            await asyncio.sleep(2)
            assert broker.bus.take() == []

    run_in_virtual_time(scenario())


def test_nobody_is_sent_anything_while_there_is_no_connection() -> None:
    async def scenario() -> None:
        broker = Broker()
        async with at_work(broker):
            broker.hand_over()
            broker.bus.connected = False
            await asyncio.sleep(30.5)
            assert broker.bus.take() == []
            await broker.bus.reconnect()
            await asyncio.sleep(0.1)
            assert broker.bus.take() == [(30.5, key(1), "all")]
            # Even without a connection, what is too old goes.
            broker.bus.connected = False
            await asyncio.sleep(KEPT_FOR - 29)
            assert len(broker.outstanding) == 0

    run_in_virtual_time(scenario())


def test_worker_that_was_not_heard_on_this_connection_is_sent_nothing() -> None:
    async def scenario() -> None:
        broker = Broker()
        async with at_work(broker):
            broker.hand_over()
            broker.bus.opened_at = 1.0
            broker.gateways.update(WorkerStatus("gw02", online=True), 2.0)
            await asyncio.sleep(7)
            assert [target for _, _, target in broker.bus.take()] == ["gw02"]

    run_in_virtual_time(scenario())


@pytest.mark.parametrize(
    "error", [NotConnectedError("x"), NoSubscribersError("x"), PublishTimeoutError("x"), BusError("x")], ids=repr
)
def test_what_the_bus_did_not_take_is_sent_until_it_does(error: BusError) -> None:
    async def scenario() -> None:
        broker = Broker()
        async with at_work(broker) as task:
            broker.hand_over()
            broker.bus.error = error
            await broker.bus.reconnect()
            await asyncio.sleep(60)
            assert not task.done()
            assert (broker.bus.sent, broker.republished("all")) == ([], 0)
            broker.bus.error = None
            await asyncio.sleep(1.1)
            assert [target for _, _, target in broker.bus.take()] == ["all"]
            assert broker.republished("all") == 1

    run_in_virtual_time(scenario())


def test_what_the_bus_refuses_is_given_up_and_the_others_are_not() -> None:
    async def scenario() -> None:
        broker = Broker()
        async with at_work(broker) as task:
            broker.hand_over()
            broker.bus.error = PublishRefusedError(0x87)
            with structlog.testing.capture_logs() as events:
                await broker.bus.reconnect()
                await asyncio.sleep(3)
            assert [event["event"] for event in events] == ["republishing_refused"]
            broker.bus.error = None
            broker.hand_over(2)
            await asyncio.sleep(1.5)
            assert broker.bus.take() == []
            assert not task.done()
            await broker.bus.reconnect()
            await asyncio.sleep(0.1)
            assert {(sent, target) for _, sent, target in broker.bus.take()} == {(key(1), "all"), (key(2), "all")}

    run_in_virtual_time(scenario())


def test_there_are_never_more_on_their_way_than_the_window() -> None:
    async def scenario() -> None:
        broker = Broker()
        async with at_work(broker):
            for number in range(5 * WINDOW + 1):
                broker.hand_over(number)
            await broker.bus.reconnect()
            await asyncio.sleep(0.5)
            sent = [sent for _, sent, _ in broker.bus.take()]
            assert len(sent) == 5 * WINDOW + 1
            assert set(sent) == {key(number) for number in range(5 * WINDOW + 1)}
            assert broker.bus.most_in_flight == WINDOW

    run_in_virtual_time(scenario())


def test_failure_ends_the_round_and_not_the_rest() -> None:
    async def scenario() -> None:
        broker = Broker()
        async with at_work(broker):
            for number in range(3 * WINDOW):
                broker.hand_over(number)
            broker.bus.error = PublishTimeoutError("x")
            await broker.bus.reconnect()
            await asyncio.sleep(0.5)
            assert broker.bus.most_in_flight == WINDOW
            assert broker.bus.sent == []
            broker.bus.error = None
            await asyncio.sleep(1)
            assert len(broker.bus.take()) == 3 * WINDOW

    run_in_virtual_time(scenario())


def test_domain_that_nobody_listens_for_holds_up_no_other() -> None:
    async def scenario() -> None:
        broker = Broker()
        async with at_work(broker):
            for number in range(WINDOW + 1):
                broker.hand_over(number, CITY)
            broker.hand_over(WINDOW + 1)
            broker.bus.unheard = {CITY.name}
            await broker.bus.reconnect()
            await asyncio.sleep(0.5)
            assert [sent for _, sent, _ in broker.bus.take()] == [key(WINDOW + 1)]
            # They are not forgotten.
            broker.bus.unheard = set()
            await asyncio.sleep(1.1)
            assert len(broker.bus.take()) == WINDOW + 1

    run_in_virtual_time(scenario())


def test_what_is_confirmed_while_others_are_sent_is_left_out() -> None:
    async def scenario() -> None:
        broker = Broker()
        async with at_work(broker):
            handovers = [broker.hand_over(number) for number in range(2 * WINDOW)]
            await broker.bus.reconnect()
            await settle()
            assert broker.bus.in_flight == WINDOW
            for handover in handovers[WINDOW + 1 :]:
                broker.confirm(handover, *WORKERS)
            await asyncio.sleep(0.5)
            assert len(broker.bus.take()) == WINDOW + 1

    run_in_virtual_time(scenario())


def test_a_full_registry_is_looked_through_in_no_time() -> None:
    async def scenario() -> None:
        broker = Broker()
        for number in range(20_000):
            broker.hand_over(number)
        started = time.perf_counter()
        for _ in range(10):
            broker.outstanding.expire()
            assert broker.outstanding.due(0.0) == []
        # The event loop serves nodes meanwhile. The limit is far above what it takes.
        assert (time.perf_counter() - started) / 10 < 0.1

    run_in_virtual_time(scenario())
