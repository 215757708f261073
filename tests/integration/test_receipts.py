"""Receipts over a real MQTT server: which of them version 2 waits for, and what any client may send."""

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import pytest

from tests.helpers import WELT
from tests.integration.gateways import Gateway, awaiting, gateway, gateways_known
from tests.integration.inprocess import (
    RunningBroker,
    configuration,
    new_key,
    running_broker,
    running_worker,
    submit,
)
from tests.integration.loopback import eventually
from tests.integration.servers import Mosquitto
from wgkex_ops.model.keys import PublicKey

RECEIPTS: Final = "wgkex/receipts/b1"


def broker_of(mosquitto: Mosquitto, **changes: Any) -> Any:  # noqa: ANN401  a context of ours
    """A broker by the name of b1."""
    return running_broker(configuration(mosquitto.port, "b1", **changes))


@contextlib.asynccontextmanager
async def two_gateways(mosquitto: Mosquitto) -> AsyncIterator[tuple[Gateway, Gateway, RunningBroker]]:
    """Two gateways, and a broker that knows them and waits for their receipts for longer than a test takes."""
    async with (
        gateway(mosquitto, "gw01") as gw01,
        gateway(mosquitto, "gw02") as gw02,
        broker_of(mosquitto, broker={"name": "b1", "confirm_timeout": 10}) as broker,
    ):
        await gateways_known(broker, "gw01", "gw02")
        yield gw01, gw02, broker


async def address_of(answering: "asyncio.Task[Any]") -> str:
    """The gateway that a response names."""
    answer = await answering
    assert answer.status == 200, answer.text
    address: str = answer.json["Endpoint"]["Address"]
    return address


# --- where receipts go, and what version 2 waits for


async def test_key_names_the_topic_of_its_receipts(mosquitto: Mosquitto) -> None:
    async with gateway(mosquitto, "gw01") as gw01, broker_of(mosquitto) as broker:
        await gateways_known(broker, "gw01")
        keys = [new_key(), new_key()]
        marks = []
        for key in keys:
            assert (await broker.submit(1, WELT.name, key)).status == 200
            message = await gw01.gets(key)
            assert message.response_topic == RECEIPTS
            assert len(message.correlation) == 16
            assert message.properties.keys() == {"wgkex-request-id", "wgkex-accepted-at", "wgkex-api-version"}
            marks.append(message.correlation)
            await awaiting(broker, 1)
            await gw01.confirm(message)
            await awaiting(broker, 0)
        assert marks[0] != marks[1]
        assert broker.metric("wgkex_broker_key_install_duration_seconds_count", worker="gw01") == 2


async def test_one_message_is_the_receipt_of_many_keys(mosquitto: Mosquitto) -> None:
    async with gateway(mosquitto, "gw01") as gw01, broker_of(mosquitto) as broker:
        await gateways_known(broker, "gw01")
        messages = []
        for key in [new_key() for _ in range(6)]:
            assert (await broker.submit(1, WELT.name, key)).status == 200
            messages.append(await gw01.gets(key))
        first, second, *others, last = messages
        # An unknown one, one twice, and one that was cut off.
        marks = [first.correlation, bytes(16), second.correlation, first.correlation, last.correlation[:15]]
        await gw01.confirm(dataclasses.replace(first, correlation=b"".join(marks)))
        await awaiting(broker, 4)
        assert broker.metric("wgkex_broker_key_install_duration_seconds_count", worker="gw01") == 2
        marks = [message.correlation for message in (*others, last)]
        await gw01.confirm(dataclasses.replace(last, correlation=b"".join(marks)), "EPERM")
        await awaiting(broker, 0)
        assert broker.metric("wgkex_broker_key_install_duration_seconds_count", worker="gw01") == 2
        assert broker.metric("wgkex_broker_key_install_failures_total", worker="gw01") == 4


async def test_version_2_waits_for_the_gateway_that_it_names(mosquitto: Mosquitto) -> None:
    async with two_gateways(mosquitto) as (gw01, gw02, broker):
        key = new_key()
        answering = asyncio.create_task(broker.submit(2, WELT.name, key))
        await gw02.confirm(await gw02.gets(key))
        message = await gw01.gets(key)
        await eventually(
            lambda: broker.registry.get_sample_value(
                "wgkex_broker_key_install_duration_seconds_count", {"worker": "gw02"}
            ),
            "the receipt of the other one",
        )
        assert not answering.done()
        await gw01.confirm(message)
        assert await address_of(answering) == "gw01.example.net"
        assert broker.metric("wgkex_broker_worker_assignments_total", worker="gw01", domain=WELT.name) == 1
        assert broker.metric("wgkex_broker_key_confirmation_timeouts_total", worker="gw01") == 0


async def test_version_2_passes_over_a_gateway_that_cannot_install_the_key(mosquitto: Mosquitto) -> None:
    async with two_gateways(mosquitto) as (gw01, gw02, broker):
        key = new_key()
        answering = asyncio.create_task(broker.submit(2, WELT.name, key))
        await gw01.confirm(await gw01.gets(key), "ENODEV")
        await gw02.confirm(await gw02.gets(key))
        assert await address_of(answering) == "gw02.example.net"
        assert broker.metric("wgkex_broker_key_install_failures_total", worker="gw01") == 1
        assert broker.metric("wgkex_broker_worker_assignments_total", worker="gw01", domain=WELT.name) == 0
        assert broker.metric("wgkex_broker_worker_peers", worker="gw01", domain=WELT.name) == 0

        # And if neither of them can.
        key = new_key()
        answering = asyncio.create_task(broker.submit(2, WELT.name, key))
        for each in (gw01, gw02):
            await each.confirm(await each.gets(key), "ENODEV")
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
        await gateways_known(broker, "gw01")
        started = time.monotonic()
        assert await address_of(asyncio.create_task(broker.submit(2, WELT.name, new_key()))) == "gw01.example.net"
        seconds = time.monotonic() - started
        assert seconds >= 0.5 if receipts else seconds < 10
        assert broker.metric("wgkex_broker_key_confirmation_timeouts_total", worker="gw01") == receipts
        await awaiting(broker, int(receipts))


async def test_our_worker_confirms(mosquitto: Mosquitto) -> None:
    config = configuration(mosquitto.port, broker={"name": "b1", "confirm_timeout": 10})
    async with running_worker(config) as worker, running_broker(config) as broker:
        await gateways_known(broker, "gw01")
        keys = [new_key() for _ in range(50)]
        answers = await asyncio.gather(*(submit(str(broker.nodes), 2, WELT.name, key) for key in keys))
        assert {answer.status for answer in answers} == {200}
        # That is what the requests have waited for.
        assert {peer.public_key for peer in (await worker.state(WELT)).peers} == {key.raw for key in keys}
        await awaiting(broker, 0)
        assert broker.metric("wgkex_broker_key_install_duration_seconds_count", worker="gw01") == 50
        for name in ("key_install_failures", "key_confirmation_timeouts", "keys_republished", "keys_unconfirmed"):
            assert broker.metric(f"wgkex_broker_{name}_total", worker="gw01") == 0


async def test_a_key_that_our_worker_refuses_is_not_sent_there(mosquitto: Mosquitto) -> None:
    config = configuration(mosquitto.port, broker={"name": "b1", "confirm_timeout": 10})
    async with running_worker(config) as worker, running_broker(config) as broker:
        await gateways_known(broker, "gw01")
        own = PublicKey((await worker.state(WELT)).public_key)
        answer = await broker.submit(2, WELT.name, own)
        assert (answer.status, answer.json["error"]["reason"]) == (503, "no_worker")
    # It is no fault of the gateway, and no node waits for it.
    assert broker.metric("wgkex_broker_key_install_failures_total", worker="gw01") == 0
    assert broker.metric("wgkex_broker_keys_confirmed_nowhere_total", domain=WELT.name) == 0


# --- what any client may send


async def test_receipts_of_other_clients_do_no_harm(mosquitto: Mosquitto) -> None:
    async with gateway(mosquitto, "gw01") as gw01, broker_of(mosquitto) as broker:
        await gateways_known(broker, "gw01")

        def rejected() -> Mapping[str, float]:
            reasons = ("malformed_payload", "unknown_worker", "worker_mismatch")
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
        await gw01.bus.publish(f"{RECEIPTS}/gw02", json.dumps(good).encode(), correlation=mark)
        # Late ones, and those for a broker that has been restarted: nothing is wrong with them.
        for correlation in (b"", b"x", b"x" * 16, mark[::-1], b"x" * 60_000):
            await gw01.bus.publish(RECEIPTS, json.dumps(good).encode(), correlation=correlation)
        expected = {"malformed_payload": len(malformed), "unknown_worker": 1, "worker_mismatch": 1}
        await eventually(lambda: rejected() == expected, "the rejections")
        await awaiting(broker, 1)
        # As workers of earlier revisions do, but for the flag.
        await gw01.bus.publish(RECEIPTS, json.dumps(good).encode(), correlation=mark, retain=True)
        await awaiting(broker, 0)
        assert rejected() == expected
        assert broker.metric("wgkex_broker_key_install_duration_seconds_count", worker="gw01") == 1
