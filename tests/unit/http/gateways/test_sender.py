"""How keys are published, the first time and again, and at which pace, by a clock that needs no waiting."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import structlog

from tests.fakes import FakeSession, in_virtual_time, run_in_virtual_time
from tests.helpers import CITY, WELT, key, running, settle, until
from tests.unit.http.gateways.fleet import RECEIPT_TOPIC, Fleet
from wgkex_ops.bus.messages import key_topic
from wgkex_ops.errors import (
    BusError,
    NoSubscribersError,
    NotConnectedError,
    PublishRefusedError,
    PublishTimeoutError,
)
from wgkex_ops.http.gateways.confirmations import KEPT_FOR
from wgkex_ops.http.gateways.sender import WINDOW, KeySender

TO_GW02 = key_topic(WELT.name, "gw02")


class Sending(Fleet):
    """Two gateways that send receipts, and a sender."""

    def __init__(self, receipt_topic: str = RECEIPT_TOPIC) -> None:
        super().__init__("gw01", "gw02", receipt_topic=receipt_topic)
        self.session = FakeSession()
        self.session.seconds = 0.001
        self.sender = KeySender(self.keys, self.session, publish_timeout=3)

    def reconnect(self) -> None:
        """The connection is a new one, and the server has sent what it has retained."""
        self.session.reconnect()
        for worker in ("gw01", "gw02"):
            self.come(worker, heard_at=self.session.opened_at)

    def take(self) -> list[tuple[str, bytes]]:
        """Topics and payloads that were published since the last call."""
        published, self.session.acknowledged = self.session.acknowledged, []
        return [(message.topic, message.payload) for message in published]

    def republished(self, worker: str) -> float | None:
        return self.registry.get_sample_value("wgkex_broker_keys_republished_total", {"worker": worker})


@contextlib.asynccontextmanager
async def sending() -> AsyncIterator[Sending]:
    sending = Sending()
    async with running(sending.sender.resend()) as task:
        await settle()
        yield sending
        assert not task.done()


@in_virtual_time
async def test_key_is_published_with_its_origin_and_where_its_receipts_go() -> None:
    sending = Sending()
    added = sending.add()
    await sending.sender.send(added)
    [message] = sending.session.acknowledged
    assert (message.topic, message.payload) == (f"wireguard/{WELT.name}/all", str(added.public_key).encode())
    assert (message.timeout, message.retain) == (3, False)
    assert message.properties == {"wgkex-request-id": "request-1", "wgkex-accepted-at": "1700000000.000000"}
    assert (message.response_topic, message.correlation) == (RECEIPT_TOPIC, added.correlation)


@in_virtual_time
async def test_without_receipts_no_response_topic_is_named() -> None:
    sending = Sending(receipt_topic="")
    await sending.sender.send(sending.add())
    [message] = sending.session.acknowledged
    assert (message.response_topic, message.correlation) == ("", b"")


@in_virtual_time
async def test_key_goes_again_to_the_gateway_that_has_not_confirmed_it_until_it_is_given_up() -> None:
    async with sending() as broker:
        await asyncio.sleep(0.5)
        added = broker.accept()
        broker.confirm(added, "gw01")
        times = []
        while len(broker.keys):
            times += [asyncio.get_running_loop().time() for _ in broker.take()]
            assert asyncio.get_running_loop().time() < KEPT_FOR + 3
            await asyncio.sleep(0.1)
        # At the first check after 5, 15, 35 and 75 s.
        assert times == pytest.approx([6, 16, 36, 76], abs=0.2)
        assert broker.republished("gw02") == 4


@in_virtual_time
async def test_key_is_the_same_message_each_time() -> None:
    async with sending() as broker:
        added = broker.accept()
        await broker.sender.send(added)
        broker.confirm(added, "gw01")
        await asyncio.sleep(7)
        first, again = broker.session.acknowledged
        assert again.topic == TO_GW02
        assert (again.payload, again.properties, again.response_topic, again.correlation) == (
            first.payload,
            first.properties,
            first.response_topic,
            first.correlation,
        )


@in_virtual_time
async def test_after_a_reconnect_each_gateway_gets_at_once_what_it_has_not_confirmed() -> None:
    async with sending() as broker:
        await asyncio.sleep(2.3)
        confirmed, one_missing, two_missing = (broker.accept(number) for number in range(3))
        broker.confirm(confirmed, "gw01", "gw02")
        broker.confirm(one_missing, "gw01")
        assert two_missing.receipts == {}
        await asyncio.sleep(0.1)
        broker.reconnect()
        await asyncio.sleep(1)
        assert [topic.rpartition("/")[2] for topic, _ in broker.take()] == ["gw02", "gw01", "gw02"]
        assert (broker.republished("gw01"), broker.republished("gw02")) == (1, 2)
        # Once is enough.
        await asyncio.sleep(3)
        assert broker.take() == []


@in_virtual_time
async def test_gateway_that_comes_online_gets_at_once_what_it_has_not_confirmed() -> None:
    async with sending() as broker:
        broker.confirm(broker.accept(1), "gw01")
        broker.confirm(broker.accept(2), "gw02")
        await asyncio.sleep(0.1)
        for _ in range(100):
            broker.come("gw02")
        await asyncio.sleep(1)
        assert broker.take() == [(TO_GW02, str(key(1)).encode())]
        await asyncio.sleep(2)
        assert broker.take() == []


@in_virtual_time
async def test_nothing_is_sent_without_a_connection() -> None:
    async with sending() as broker:
        broker.accept()
        broker.session.disconnect()
        await asyncio.sleep(30.5)
        assert broker.take() == []
        broker.reconnect()
        await asyncio.sleep(1)
        assert len(broker.take()) == 2
        # Even without a connection, what is too old is given up.
        broker.session.disconnect()
        await asyncio.sleep(KEPT_FOR - 29)
        assert len(broker.keys) == 0


@pytest.mark.parametrize("error", [NotConnectedError("x"), PublishTimeoutError("x"), BusError("x")], ids=repr)
def test_key_that_the_server_did_not_take_is_sent_until_it_does(error: BusError) -> None:
    async def scenario() -> None:
        async with sending() as broker:
            broker.confirm(broker.accept(), "gw01")
            broker.session.error = error
            await asyncio.sleep(60)
            assert broker.take() == []
            assert broker.republished("gw02") == 0
            broker.session.error = None
            await asyncio.sleep(1.1)
            assert [topic for topic, _ in broker.take()] == [TO_GW02]
            assert broker.republished("gw02") == 1

    run_in_virtual_time(scenario())


@pytest.mark.parametrize(
    ("error", "logged"),
    [(PublishRefusedError(0x87), ["republishing_refused"]), (NoSubscribersError("x"), [])],
    ids=("refused", "no subscribers"),
)
def test_key_that_the_server_does_not_deliver_waits_for_its_next_time(error: BusError, logged: list[str]) -> None:
    async def scenario() -> None:
        async with sending() as broker:
            broker.confirm(broker.accept(), "gw01")
            broker.session.error = error
            with structlog.testing.capture_logs() as events:
                await asyncio.sleep(14)
            assert [event["event"] for event in events if event["log_level"] == "warning"] == logged
            broker.session.error = None
            await asyncio.sleep(0.5)
            assert broker.take() == []
            await asyncio.sleep(1.6)
            assert [topic for topic, _ in broker.take()] == [TO_GW02]
            assert broker.republished("gw02") == 1

    run_in_virtual_time(scenario())


@in_virtual_time
async def test_no_more_keys_than_the_window_are_on_their_way() -> None:
    async with sending() as broker:
        for number in range(5 * WINDOW + 1):
            broker.confirm(broker.accept(number), "gw01")
        await asyncio.sleep(0.1)
        broker.come("gw02")
        await asyncio.sleep(1.5)
        assert {payload for _, payload in broker.take()} == {
            str(key(number)).encode() for number in range(5 * WINDOW + 1)
        }
        assert broker.session.most_in_flight == WINDOW


@in_virtual_time
async def test_failure_ends_the_round_and_the_rest_remains_due() -> None:
    async with sending() as broker:
        for number in range(3 * WINDOW):
            broker.confirm(broker.accept(number), "gw01")
        await asyncio.sleep(0.1)
        broker.session.error = PublishTimeoutError("x")
        broker.come("gw02")
        await asyncio.sleep(1.5)
        assert (broker.session.most_in_flight, broker.take()) == (WINDOW, [])
        broker.session.error = None
        await asyncio.sleep(1)
        assert len(broker.take()) == 3 * WINDOW


@in_virtual_time
async def test_domain_without_a_subscriber_holds_up_no_other() -> None:
    async with sending() as broker:
        for worker in ("gw01", "gw02"):
            broker.come(worker, domain=CITY)
        for number in range(WINDOW + 1):
            broker.accept(number, CITY)
        broker.confirm(broker.accept(WINDOW + 1), "gw01")
        broker.session.no_subscribers = {key_topic(CITY.name, worker) for worker in ("gw01", "gw02")}
        await asyncio.sleep(7)
        assert broker.take() == [(TO_GW02, str(key(WINDOW + 1)).encode())]
        # They are not forgotten.
        broker.session.no_subscribers = set()
        await asyncio.sleep(9)
        assert len(broker.take()) == 2 * (WINDOW + 1) + 1


@in_virtual_time
async def test_key_that_is_confirmed_while_others_are_sent_is_left_out() -> None:
    async with sending() as broker:
        keys = [broker.accept(number) for number in range(2 * WINDOW)]
        for added in keys:
            broker.confirm(added, "gw01")
        await asyncio.sleep(0.9)
        broker.come("gw02")
        await until(lambda: broker.session.in_flight == WINDOW, every=0.0001)
        for added in keys[WINDOW + 1 :]:
            broker.confirm(added, "gw02")
        await asyncio.sleep(0.5)
        assert len(broker.take()) == WINDOW + 1
