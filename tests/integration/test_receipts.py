"""Whoever got 200 has been promised something: receipts over a real MQTT server, and what happens when it dies."""

import asyncio
import contextlib
import dataclasses
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import pytest

from tests.helpers import CITY, KEY, WELT
from tests.integration.inprocess import (
    Client,
    RunningBroker,
    RunningWorker,
    client,
    configuration,
    new_key,
    running_broker,
    running_worker,
    submit,
)
from tests.integration.servers import LOOPBACK, Bench, Mosquitto, eventually, eventually_answered
from wgkex_ops.bus.messages import (
    Endpoint,
    Receipt,
    connected_peers_topic,
    data_payload,
    key_subscription,
    receipt_payload,
    worker_data_topic,
    worker_status_topic,
)
from wgkex_ops.bus.session import Message
from wgkex_ops.demo.routers import post_key
from wgkex_ops.http.gateways.confirmations import PAUSES
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

RECEIPTS: Final = "wgkex/receipts/b1"


def broker_of(mosquitto: Mosquitto, **changes: Any) -> Any:  # noqa: ANN401  a context of ours
    """A broker by the name of b1."""
    return running_broker(configuration(mosquitto.port, "b1", **changes))


class Gateway:
    """A worker that is played: it answers what and when a test wants it to."""

    def __init__(self, bus: Client, name: str, *, receipts: bool) -> None:
        self.bus = bus
        self.name = name
        self._receipts = receipts

    async def announce(self) -> None:
        endpoint = Endpoint(f"{self.name}.example.net", 40011, KEY, "fe80::1", self._receipts)
        await self.bus.publish(worker_data_topic(self.name, WELT.name), data_payload(endpoint), retain=True)
        await self.bus.publish(connected_peers_topic(WELT.name, self.name), b"0", retain=True)
        await self.bus.publish(worker_status_topic(self.name), b"1", retain=True)

    async def gets(self, key: PublicKey, target: str = "all") -> Message:
        """Take the next key, which is this one, on this way."""
        message = await self.bus.next()
        message.acknowledge()
        assert (message.topic, message.payload) == (f"wireguard/{WELT.name}/{target}", str(key).encode())
        return message

    async def answer(self, message: Message, reason: str = "") -> None:
        payload = receipt_payload(Receipt(self.name, reason))
        await self.bus.publish(message.response_topic, payload, correlation=message.correlation)


@contextlib.asynccontextmanager
async def gateway(
    mosquitto: Mosquitto,
    name: str,
    *,
    receipts: bool = True,
    **mqtt: Any,  # noqa: ANN401  what a file may have
) -> AsyncIterator[Gateway]:
    async with client(mosquitto.port, client_id=name, subscriptions=[key_subscription(WELT.name)], **mqtt) as bus:
        played = Gateway(bus, name, receipts=receipts)
        await played.announce()
        yield played


async def known(broker: RunningBroker, *workers: str) -> None:
    """Wait until the broker would choose among these gateways."""

    async def online() -> bool:
        await broker.page("/metrics")
        return all(broker.registry.get_sample_value("wgkex_broker_worker_online", {"worker": w}) for w in workers)

    await eventually_answered(online, f"gateways {workers}")


@contextlib.asynccontextmanager
async def two_gateways(mosquitto: Mosquitto) -> AsyncIterator[tuple[Gateway, Gateway, RunningBroker]]:
    """Two gateways, and a broker that knows them, and waits for their receipts for longer than a test takes."""
    async with (
        gateway(mosquitto, "gw01") as gw01,
        gateway(mosquitto, "gw02") as gw02,
        broker_of(mosquitto, broker={"name": "b1", "confirm_timeout": 10}) as broker,
    ):
        await known(broker, "gw01", "gw02")
        yield gw01, gw02, broker


async def awaiting(broker: RunningBroker, count: int) -> None:
    """Wait until so many keys wait for receipts."""

    async def so_many() -> bool:
        await broker.page("/metrics")
        return broker.metric("wgkex_broker_keys_awaiting_receipts") == count

    await eventually_answered(so_many, f"{count} keys that wait for receipts")


async def address_of(answering: "asyncio.Task[Any]") -> str:
    """The gateway that an answer names."""
    answer = await answering
    assert answer.status == 200, answer.text
    address: str = answer.json["Endpoint"]["Address"]
    return address


# --- what is asked for, and what version 2 waits for


async def test_key_says_where_its_receipt_is_wanted(mosquitto: Mosquitto) -> None:
    async with gateway(mosquitto, "gw01") as gw01, broker_of(mosquitto) as broker:
        await known(broker, "gw01")
        keys = [new_key(), new_key()]
        marks = []
        for key in keys:
            assert (await broker.submit(1, WELT.name, key)).status == 200
            message = await gw01.gets(key)
            assert message.response_topic == RECEIPTS
            assert len(message.correlation) == 16
            assert message.properties.keys() == {"wgkex-request-id", "wgkex-accepted-at"}
            marks.append(message.correlation)
            await awaiting(broker, 1)
            await gw01.answer(message)
            await awaiting(broker, 0)
        assert marks[0] != marks[1]
        assert broker.metric("wgkex_broker_key_install_duration_seconds_count", worker="gw01") == 2


async def test_one_message_is_the_receipt_of_many_keys(mosquitto: Mosquitto) -> None:
    async with gateway(mosquitto, "gw01") as gw01, broker_of(mosquitto) as broker:
        await known(broker, "gw01")
        messages = []
        for key in [new_key() for _ in range(6)]:
            assert (await broker.submit(1, WELT.name, key)).status == 200
            messages.append(await gw01.gets(key))
        first, second, *others, last = messages
        # One that nobody knows, one twice, and one that was cut off.
        marks = [first.correlation, bytes(16), second.correlation, first.correlation, last.correlation[:15]]
        await gw01.answer(dataclasses.replace(first, correlation=b"".join(marks)))
        await awaiting(broker, 4)
        assert broker.metric("wgkex_broker_key_install_duration_seconds_count", worker="gw01") == 2
        marks = [message.correlation for message in (*others, last)]
        await gw01.answer(dataclasses.replace(last, correlation=b"".join(marks)), "EPERM")
        await awaiting(broker, 0)
        assert broker.metric("wgkex_broker_key_install_duration_seconds_count", worker="gw01") == 2
        assert broker.metric("wgkex_broker_key_install_failures_total", worker="gw01") == 4


async def test_version_2_waits_for_the_gateway_that_it_names(mosquitto: Mosquitto) -> None:
    async with two_gateways(mosquitto) as (gw01, gw02, broker):
        key = new_key()
        answering = asyncio.create_task(broker.submit(2, WELT.name, key))
        await gw02.answer(await gw02.gets(key))
        message = await gw01.gets(key)
        await eventually(
            lambda: broker.registry.get_sample_value(
                "wgkex_broker_key_install_duration_seconds_count", {"worker": "gw02"}
            ),
            "the receipt of the other one",
        )
        assert not answering.done()
        await gw01.answer(message)
        assert await address_of(answering) == "gw01.example.net"
        assert broker.metric("wgkex_broker_worker_assignments_total", worker="gw01", domain=WELT.name) == 1
        assert broker.metric("wgkex_broker_key_confirmation_timeouts_total", worker="gw01") == 0


async def test_version_2_passes_over_a_gateway_that_cannot_install_the_key(mosquitto: Mosquitto) -> None:
    async with two_gateways(mosquitto) as (gw01, gw02, broker):
        key = new_key()
        answering = asyncio.create_task(broker.submit(2, WELT.name, key))
        await gw01.answer(await gw01.gets(key), "ENODEV")
        await gw02.answer(await gw02.gets(key))
        assert await address_of(answering) == "gw02.example.net"
        assert broker.metric("wgkex_broker_key_install_failures_total", worker="gw01") == 1
        assert broker.metric("wgkex_broker_worker_assignments_total", worker="gw01", domain=WELT.name) == 0
        assert broker.metric("wgkex_broker_worker_peers", worker="gw01", domain=WELT.name) == 0

        # And when none of them can.
        key = new_key()
        answering = asyncio.create_task(broker.submit(2, WELT.name, key))
        for each in (gw01, gw02):
            await each.answer(await each.gets(key), "ENODEV")
        answer = await answering
        assert (answer.status, answer.json["error"]["reason"]) == (503, "no_worker")
        assert broker.metric("wgkex_broker_key_requests_total", api_version="v2", domain=WELT.name) == 2
        assert broker.metric("wgkex_broker_keys_published_total", domain=WELT.name) == 1
        assert broker.metric("wgkex_broker_key_failures_total", reason="no_worker") == 1
        await awaiting(broker, 0)


@pytest.mark.parametrize("receipts", [True, False], ids=("silent", "old"))
async def test_silent_gateway_is_named_in_the_end_and_an_old_one_at_once(mosquitto: Mosquitto, receipts: bool) -> None:
    timeout = 0.5 if receipts else 10.0
    async with (
        gateway(mosquitto, "gw01", receipts=receipts),
        broker_of(mosquitto, broker={"name": "b1", "confirm_timeout": timeout}) as broker,
    ):
        await known(broker, "gw01")
        started = time.monotonic()
        assert await address_of(asyncio.create_task(broker.submit(2, WELT.name, new_key()))) == "gw01.example.net"
        seconds = time.monotonic() - started
        assert seconds >= 0.5 if receipts else seconds < 10
        assert broker.metric("wgkex_broker_key_confirmation_timeouts_total", worker="gw01") == receipts
        await awaiting(broker, int(receipts))


async def test_our_worker_confirms(mosquitto: Mosquitto) -> None:
    config = configuration(mosquitto.port, broker={"name": "b1", "confirm_timeout": 10})
    async with running_worker(config) as worker, running_broker(config) as broker:
        await known(broker, "gw01")
        keys = [new_key() for _ in range(50)]
        answers = await asyncio.gather(*(submit(str(broker.nodes), 2, WELT.name, key) for key in keys))
        assert {answer.status for answer in answers} == {200}
        # That is what the waiting is for.
        assert {peer.public_key for peer in (await worker.state(WELT)).peers} == {key.raw for key in keys}
        await awaiting(broker, 0)
        assert broker.metric("wgkex_broker_key_install_duration_seconds_count", worker="gw01") == 50
        for name in ("key_install_failures", "key_confirmation_timeouts", "keys_republished", "keys_unconfirmed"):
            assert broker.metric(f"wgkex_broker_{name}_total", worker="gw01") == 0


async def test_a_key_that_our_worker_refuses_is_not_sent_there(mosquitto: Mosquitto) -> None:
    config = configuration(mosquitto.port, broker={"name": "b1", "confirm_timeout": 10})
    async with running_worker(config) as worker, running_broker(config) as broker:
        await known(broker, "gw01")
        own = PublicKey((await worker.state(WELT)).public_key)
        answer = await broker.submit(2, WELT.name, own)
        assert (answer.status, answer.json["error"]["reason"]) == (503, "no_worker")
        assert broker.metric("wgkex_broker_key_install_failures_total", worker="gw01") == 1


# --- what anybody may write


async def test_receipts_of_anybody_do_no_harm(mosquitto: Mosquitto) -> None:
    async with gateway(mosquitto, "gw01") as gw01, broker_of(mosquitto) as broker:
        await known(broker, "gw01")

        def rejected() -> Mapping[str, float]:
            reasons = ("malformed_topic", "malformed_payload", "unknown_domain", "unknown_worker")
            values = {
                reason: broker.metric("wgkex_broker_message_rejections_total", reason=reason) for reason in reasons
            }
            return {reason: value for reason, value in values.items() if value}

        key = new_key()
        await broker.submit(1, WELT.name, key)
        mark = (await gw01.gets(key)).correlation
        good = {"worker": "gw01", "result": "installed"}
        malformed = (
            b"",
            b"nonsense",
            b"[" * 5000,
            b"{}",
            json.dumps(good | {"result": "perhaps"}).encode(),
            json.dumps(good | {"worker": "a/b"}).encode(),
            json.dumps(good | {"result": "failed"}).encode(),
            json.dumps(good | {"result": "failed", "reason": "x" * 1000}).encode(),
        )
        for payload in malformed:
            await gw01.bus.publish(RECEIPTS, payload, correlation=mark)
        await gw01.bus.publish(RECEIPTS, json.dumps(good | {"worker": "stranger"}).encode(), correlation=mark)
        # Late ones, and those for a broker that has been restarted: nothing is wrong with them.
        for correlation in (b"", b"x", b"x" * 16, mark[::-1], b"x" * 60_000):
            await gw01.bus.publish(RECEIPTS, json.dumps(good).encode(), correlation=correlation)
        await eventually(
            lambda: rejected() == {"malformed_payload": len(malformed), "unknown_worker": 1}, "the rejections"
        )
        await awaiting(broker, 1)
        await gw01.bus.publish(RECEIPTS, json.dumps(good).encode(), correlation=mark, retain=True)
        await awaiting(broker, 0)
        assert rejected() == {"malformed_payload": len(malformed), "unknown_worker": 1}
        assert broker.metric("wgkex_broker_key_install_duration_seconds_count", worker="gw01") == 1


# --- nothing is lost


async def test_silent_worker_is_sent_the_key_again_on_its_own_topic(mosquitto: Mosquitto) -> None:
    async with (
        gateway(mosquitto, "gw01") as gw01,
        gateway(mosquitto, "gw02") as gw02,
        gateway(mosquitto, "old", receipts=False) as old,
        broker_of(mosquitto) as broker,
    ):
        await known(broker, "gw01", "gw02", "old")
        key = new_key()
        started = time.monotonic()
        assert (await broker.submit(1, WELT.name, key)).status == 200
        await gw01.answer(await gw01.gets(key))
        first = await gw02.gets(key)
        again = await gw02.gets(key, "gw02")
        assert time.monotonic() - started >= PAUSES[0]
        assert (again.response_topic, again.correlation, again.properties) == (
            first.response_topic,
            first.correlation,
            first.properties,
        )
        await awaiting(broker, 1)
        await gw02.answer(again)
        await awaiting(broker, 0)
        assert broker.metric("wgkex_broker_keys_republished_total", worker="gw02") == 1
        for worker in ("gw01", "old", "all"):
            assert broker.registry.get_sample_value("wgkex_broker_keys_republished_total", {"worker": worker}) == 0
        await old.gets(key)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_what_nobody_has_confirmed_is_sent_to_all_after_the_server_was_killed(
    mosquitto: Mosquitto, version: str
) -> None:
    async with (
        gateway(mosquitto, "gw01") as gw01,
        gateway(mosquitto, "gw02") as gw02,
        broker_of(mosquitto, mqtt={"version": version, "broker_url": LOOPBACK}) as broker,
    ):
        await known(broker, "gw01", "gw02")
        # Both of these arrive, but only one is installed before the server dies.
        confirmed, lost = new_key(), new_key()
        for key in (confirmed, lost):
            assert (await broker.submit(1, WELT.name, key)).status == 200
        for each in (gw01, gw02):
            message = await each.gets(confirmed)
            if version == "5":
                await each.answer(message)
            await each.gets(lost)
        if version == "5":
            await awaiting(broker, 1)
        await mosquitto.restart(signal.SIGKILL)

        for each in (gw01, gw02):
            await each.bus.connection_after(1)
            await each.announce()
        seen: dict[str, set[bytes]] = {}
        expected = {str(lost).encode()} if version == "5" else {str(lost).encode(), str(confirmed).encode()}
        for each in (gw01, gw02):
            keys = seen[each.name] = set()
            while keys != expected:
                message = await each.bus.next()
                message.acknowledge()
                keys.add(message.payload)
                if version == "5":
                    await each.answer(message)
        if version == "5":
            await awaiting(broker, 0)
        await eventually(
            lambda: broker.metric("wgkex_broker_keys_republished_total", worker="all") == len(expected),
            "the server's acknowledgements",
        )


@pytest.mark.parametrize("receipts", [True, False], ids=("new", "old"))
async def test_worker_that_comes_late_gets_what_was_sent_meanwhile(mosquitto: Mosquitto, receipts: bool) -> None:
    async with gateway(mosquitto, "gw01") as gw01, broker_of(mosquitto) as broker:
        async with gateway(mosquitto, "gw02", receipts=receipts):
            await known(broker, "gw01", "gw02")
        # It vanished, and nobody has said so yet; the server keeps nothing for it.
        key = new_key()
        assert (await broker.submit(1, WELT.name, key)).status == 200
        message = await gw01.gets(key)
        async with gateway(mosquitto, "gw02", receipts=receipts) as gw02:
            again = await gw02.gets(key, "gw02")
            assert again.correlation == message.correlation
            await gw01.answer(message)
            if receipts:
                await gw02.answer(again)
            await awaiting(broker, 0)


def total(broker: RunningBroker, counter: str) -> float:
    """The sum over all labels."""
    name = f"wgkex_broker_{counter}_total"
    return sum(sample.value for family in broker.registry.collect() for sample in family.samples if sample.name == name)


class Nodes:
    """Routers that come one after the other, each with a key of its own, asks once, and goes.

    Attributes:
        accepted: the keys that were answered with 200.
    """

    def __init__(self, broker: RunningBroker) -> None:
        self.accepted: set[tuple[Domain, PublicKey]] = set()
        self._broker = broker

    async def run(self) -> None:
        while True:
            key, domain = new_key(), random.choice((WELT, CITY))
            status, _ = await post_key(self._broker.nodes, random.choice((1, 2)), domain.name, key)
            if status == 200:
                self.accepted.add((domain, key))
            else:
                await asyncio.sleep(0.05)

    async def more(self, count: int = 200) -> None:
        wanted = len(self.accepted) + count
        await eventually(lambda: len(self.accepted) >= wanted, "keys that are accepted")


async def has_all(worker: RunningWorker, keys: set[tuple[Domain, PublicKey]]) -> bool:
    there = {(domain, peer.public_key) for domain in (WELT, CITY) for peer in (await worker.state(domain)).peers}
    return {(domain, key.raw) for domain, key in keys} <= there


async def test_no_accepted_key_is_lost_while_the_server_is_killed_again_and_again(bench: Bench) -> None:
    # As servers come from their packages: a small window, and nothing is kept over a restart.
    server = await bench.mosquitto("max_inflight_messages 20", "max_queued_messages 1000")
    config = configuration(server.port, "b1", broker={"name": "b1", "publish_timeout": 1})
    async with (
        running_worker(configuration(server.port, "gw01")) as gw01,
        running_worker(configuration(server.port, "gw02")) as gw02,
        running_broker(config) as broker,
    ):
        await known(broker, "gw01", "gw02")
        nodes = Nodes(broker)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(nodes.run()) for _ in range(20)]
            for _ in range(3):
                await nodes.more()
                await server.restart(signal.SIGKILL)
            await nodes.more()
            for task in running:
                task.cancel()
        await eventually_answered(lambda: has_all(gw01, nodes.accepted), "every accepted key on gw01")
        await eventually_answered(lambda: has_all(gw02, nodes.accepted), "every accepted key on gw02")
        # Even of those whose nodes were cut off before the answer.
        await awaiting(broker, 0)
        for name in ("gw01", "gw02"):
            assert broker.metric("wgkex_broker_keys_unconfirmed_total", worker=name) == 0
            assert broker.metric("wgkex_broker_key_install_failures_total", worker=name) == 0
        assert total(broker, "key_requests") == total(broker, "keys_published") + total(broker, "key_failures")
        assert total(broker, "keys_published") >= len(nodes.accepted)
