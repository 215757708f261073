"""What becomes of the messages of workers and brokers, by a clock that needs no waiting."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from prometheus_client import Counter

from tests.fakes import FakeSession, in_virtual_time
from tests.helpers import WELT, running, settle
from tests.unit.http.gateways.fleet import RECEIPT_TOPIC, Fleet, endpoint, installs
from wgkex_ops.bus.messages import (
    Receipt,
    connected_peers_topic,
    data_payload,
    receipt_payload,
    worker_data_topic,
    worker_status_topic,
)
from wgkex_ops.bus.session import Message
from wgkex_ops.http.gateways.intake import GatewayIntake


class Receiving(Fleet):
    """A broker that listens, and knows no gateway yet but those that are listed."""

    def __init__(self) -> None:
        super().__init__("old")
        self.go("old")
        self.session = FakeSession()
        self.questions: list[Message] = []
        self.answers: list[Message] = []
        self.rejections = Counter("rejections", "x", ["reason"], registry=self.registry)
        self.intake = GatewayIntake(
            self.session,
            self.gateways,
            self.keys,
            self.silences,
            broker="b1",
            take_question=self.questions.append,
            take_answer=self.answers.append,
            rejections=self.rejections,
        )

    async def arrive(self, topic: str, payload: bytes, *, retained: bool = False, correlation: bytes = b"") -> None:
        self.session.deliver(Message(topic, payload, retained=retained, correlation=correlation))
        await settle()

    async def announce(self, worker: str, *, retained: bool) -> None:
        await self.arrive(
            worker_data_topic(worker, WELT.name), data_payload(endpoint(worker, receipts=True)), retained=retained
        )
        await self.arrive(connected_peers_topic(WELT.name, worker), b"0", retained=retained)
        await self.arrive(worker_status_topic(worker), b"1", retained=retained)

    def rejected(self, reason: str) -> float | None:
        return self.registry.get_sample_value("rejections_total", {"reason": reason})


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiving]:
    broker = Receiving()
    async with running(broker.intake.run()), running(broker.intake.forget_lost()):
        yield broker


@in_virtual_time
async def test_gateway_whose_retained_status_comes_gets_only_keys_accepted_before_the_connection() -> None:
    async with receiving() as broker:
        before = broker.accept(1)
        await asyncio.sleep(1)
        broker.session.reconnect()
        await asyncio.sleep(1)
        broker.accept(2)
        await broker.announce("gw01", retained=True)
        assert broker.keys.due(broker.session.opened_at) == [(before, "gw01")]


@in_virtual_time
async def test_acknowledged_receipt_confirms_each_of_its_keys_once() -> None:
    async with receiving() as broker:
        await broker.announce("gw01", retained=True)
        first, second, third = (broker.accept(number) for number in range(3))
        marks = b"".join((first.correlation, bytes(16), second.correlation, first.correlation, third.correlation[:-1]))
        await broker.arrive(RECEIPT_TOPIC, receipt_payload(Receipt("gw01")), correlation=marks)
        assert [broker.has(key) for key in (first, second, third)] == [False, False, True]
        assert broker.moved()[installs("gw01")] == 2


@in_virtual_time
async def test_receipt_on_the_topic_of_its_worker_confirms_and_on_that_of_another_one_is_dropped_and_counted() -> None:
    async with receiving() as broker:
        await broker.announce("gw01", retained=True)
        key = broker.accept()
        payload = receipt_payload(Receipt("gw01"))
        await broker.arrive(f"{RECEIPT_TOPIC}/gw02", payload, correlation=key.correlation)
        assert (key.receipts, broker.rejected("worker_mismatch")) == ({}, 1)
        await broker.arrive(f"{RECEIPT_TOPIC}/gw01", payload, correlation=key.correlation)
        assert not broker.has(key)
        assert broker.rejected("worker_mismatch") == 1


@in_virtual_time
async def test_receipt_of_an_unknown_worker_is_dropped_and_counted() -> None:
    async with receiving() as broker:
        key = broker.accept()
        payload = receipt_payload(Receipt("stranger"))
        await broker.arrive(RECEIPT_TOPIC, payload, correlation=key.correlation)
        assert key.receipts == {}
        assert broker.rejected("unknown_worker") == 1
        # For a key that is not known, there is nothing wrong with it.
        await broker.arrive(RECEIPT_TOPIC, payload, correlation=bytes(16))
        assert broker.rejected("unknown_worker") == 1


@in_virtual_time
async def test_malformed_messages_are_dropped_and_counted_and_the_next_one_is_taken() -> None:
    async with receiving() as broker:
        await broker.arrive(RECEIPT_TOPIC, b"nonsense")
        await broker.arrive(worker_status_topic("gw01"), b"nonsense")
        await broker.arrive(connected_peers_topic("ffmuc_elsewhere", "gw01"), b"0")
        assert (broker.rejected("malformed_payload"), broker.rejected("unknown_domain")) == (2, 1)
        await broker.announce("gw01", retained=False)
        assert broker.gateways.online_in(WELT.name, since=0.0).keys() == {"gw01"}


@in_virtual_time
async def test_gateway_that_the_server_no_longer_retains_is_forgotten_five_seconds_after_the_connection() -> None:
    async with receiving() as broker:
        for worker in ("gw01", "gw02"):
            await broker.announce(worker, retained=True)
        await asyncio.sleep(10)
        broker.session.reconnect()
        await broker.announce("gw02", retained=True)
        await asyncio.sleep(4.9)
        assert broker.gateways.online_in(WELT.name, since=0.0).keys() == {"gw01", "gw02"}
        await asyncio.sleep(0.2)
        assert broker.gateways.online_in(WELT.name, since=0.0).keys() == {"gw02"}


@in_virtual_time
async def test_retained_messages_are_complete_with_our_own_status() -> None:
    async with receiving() as broker:
        complete = [broker.intake.complete]
        for name in ("b2", "b1"):
            await broker.arrive(f"wireguard-broker/{name}/status", b"1", retained=True)
            complete.append(broker.intake.complete)
        assert complete == [False, False, True]


@in_virtual_time
async def test_without_our_own_status_they_are_complete_five_seconds_after_the_first_connection() -> None:
    async with receiving() as broker:
        broker.session.disconnect()
        await asyncio.sleep(60)
        complete = [broker.intake.complete]
        broker.session.reconnect()
        for seconds in (4.9, 0.2):
            await asyncio.sleep(seconds)
            complete.append(broker.intake.complete)
        # What was heard is kept until the next five seconds are over.
        broker.session.reconnect()
        complete.append(broker.intake.complete)
        assert complete == [False, False, True, True]
