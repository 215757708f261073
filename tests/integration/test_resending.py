"""A key that got 200 reaches every gateway, whatever dies meanwhile: what is sent again, over a real MQTT server."""

import asyncio
import random
import signal
import time
from typing import Any

import pytest

from tests.helpers import CITY, WELT, post_key
from tests.integration.gateways import Gateway, awaiting, gateway, gateways_known
from tests.integration.inprocess import (
    RunningBroker,
    RunningWorker,
    configuration,
    new_key,
    running_broker,
    running_worker,
)
from tests.integration.loopback import LOOPBACK, eventually, eventually_answered
from tests.integration.servers import Bench, Mosquitto
from wgkex_ops.http.gateways.confirmations import RESENT_AFTER
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey


def broker_of(mosquitto: Mosquitto, **changes: Any) -> Any:  # noqa: ANN401  a context of ours
    """A broker by the name of b1."""
    return running_broker(configuration(mosquitto.port, "b1", **changes))


async def republished(broker: RunningBroker, worker: str, count: int) -> None:
    """Wait until so many keys were sent to a gateway again."""
    await eventually(
        lambda: broker.registry.get_sample_value("wgkex_broker_keys_republished_total", {"worker": worker}) == count,
        f"{count} keys sent again to {worker}",
    )


async def test_gateway_that_does_not_confirm_gets_the_key_again_on_its_own_topic(mosquitto: Mosquitto) -> None:
    async with (
        gateway(mosquitto, "gw01") as gw01,
        gateway(mosquitto, "gw02") as gw02,
        gateway(mosquitto, "old", receipts=False) as old,
        broker_of(mosquitto) as broker,
    ):
        await gateways_known(broker, "gw01", "gw02", "old")
        key = new_key()
        started = time.monotonic()
        assert (await broker.submit(1, WELT.name, key)).status == 200
        await gw01.confirm(await gw01.gets(key))
        first = await gw02.gets(key)
        again = await gw02.gets(key, "gw02")
        assert time.monotonic() - started >= RESENT_AFTER[0]
        assert (again.response_topic, again.correlation, again.properties) == (
            first.response_topic,
            first.correlation,
            first.properties,
        )
        await awaiting(broker, 1)
        await gw02.confirm(again)
        await awaiting(broker, 0)
        assert broker.metric("wgkex_broker_keys_republished_total", worker="gw02") == 1
        for worker in ("gw01", "old"):
            assert broker.registry.get_sample_value("wgkex_broker_keys_republished_total", {"worker": worker}) == 0
        await old.gets(key)


async def gets_again(played: Gateway, keys: set[PublicKey]) -> None:
    """Wait until a gateway has got some keys on its own topic, in any order, and confirm them if that is wanted."""
    missing = {str(key).encode() for key in keys}
    while missing:
        message = await played.bus.next()
        message.acknowledge()
        assert message.topic == f"wireguard/{WELT.name}/{played.name}"
        missing.discard(message.payload)
        if message.response_topic:
            await played.confirm(message)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_each_gateway_gets_again_what_it_has_not_confirmed_after_the_server_was_killed(
    mosquitto: Mosquitto, version: str
) -> None:
    async with (
        gateway(mosquitto, "gw01") as gw01,
        gateway(mosquitto, "gw02") as gw02,
        broker_of(mosquitto, mqtt={"version": version, "broker_url": LOOPBACK}) as broker,
    ):
        await gateways_known(broker, "gw01", "gw02")
        # Both of these arrive, but only one is installed before the server dies.
        confirmed, lost = new_key(), new_key()
        for key in (confirmed, lost):
            assert (await broker.submit(1, WELT.name, key)).status == 200
        for each in (gw01, gw02):
            message = await each.gets(confirmed)
            if version == "5":
                await each.confirm(message)
            await each.gets(lost)
        if version == "5":
            await awaiting(broker, 1)
        await mosquitto.restart(signal.SIGKILL)

        for each in (gw01, gw02):
            await each.bus.connection_after(1)
            await each.announce()
        expected = {lost} if version == "5" else {lost, confirmed}
        for each in (gw01, gw02):
            await gets_again(each, expected)
        if version == "5":
            await awaiting(broker, 0)
        for each in (gw01, gw02):
            await republished(broker, each.name, len(expected))


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("receipts", [True, False], ids=("new", "old"))
async def test_gateway_gets_again_what_it_has_not_confirmed_after_the_broker_reconnected(
    mosquitto: Mosquitto, version: str, receipts: bool
) -> None:
    async with (
        gateway(mosquitto, "gw01", receipts=receipts) as gw01,
        broker_of(mosquitto, mqtt={"version": version, "broker_url": LOOPBACK}) as broker,
    ):
        await gateways_known(broker, "gw01")
        key = new_key()
        assert (await broker.submit(1, WELT.name, key)).status == 200
        await gw01.gets(key)
        # A second client of its name throws the broker out. The gateway stays online, and announces nothing.
        mosquitto.publish("anything", "x", "-i", "wgkex-broker-b1")
        await gw01.gets(key, "gw01")
        await republished(broker, "gw01", 1)


async def test_key_accepted_before_a_reconnect_reaches_a_gateway_that_was_not_known(mosquitto: Mosquitto) -> None:
    # With MQTT 3.1.1 the broker does not learn that no client has subscribed.
    async with broker_of(mosquitto, mqtt={"version": "3.1.1", "broker_url": LOOPBACK}) as broker:
        key = new_key()
        assert (await broker.submit(1, WELT.name, key)).status == 200
        await mosquitto.restart(signal.SIGKILL)
        async with gateway(mosquitto, "gw01") as gw01:
            await gw01.gets(key, "gw01")


@pytest.mark.parametrize("receipts", [True, False], ids=("new", "old"))
async def test_gateway_that_comes_online_gets_what_was_sent_meanwhile(mosquitto: Mosquitto, receipts: bool) -> None:
    async with gateway(mosquitto, "gw01") as gw01, broker_of(mosquitto) as broker:
        async with gateway(mosquitto, "gw02", receipts=receipts):
            await gateways_known(broker, "gw01", "gw02")
        # It has gone, but its status is still online, and the server keeps nothing for it.
        key = new_key()
        assert (await broker.submit(1, WELT.name, key)).status == 200
        message = await gw01.gets(key)
        async with gateway(mosquitto, "gw02", receipts=receipts) as gw02:
            again = await gw02.gets(key, "gw02")
            assert again.correlation == message.correlation
            await gw01.confirm(message)
            if receipts:
                await gw02.confirm(again)
            await awaiting(broker, 0)


def total(broker: RunningBroker, counter: str) -> float:
    """The sum over all labels."""
    name = f"wgkex_broker_{counter}_total"
    return sum(sample.value for family in broker.registry.collect() for sample in family.samples if sample.name == name)


class Nodes:
    """Nodes that come one after the other, each with a key of its own, which it sends once.

    Attributes:
        accepted: the keys that got 200.
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
        await gateways_known(broker, "gw01", "gw02")
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
        # Even of those whose nodes were cut off before the response.
        await awaiting(broker, 0)
        for name in ("gw01", "gw02"):
            assert broker.metric("wgkex_broker_keys_unconfirmed_total", worker=name) == 0
            assert broker.metric("wgkex_broker_key_install_failures_total", worker=name) == 0
        assert total(broker, "key_requests") == total(broker, "keys_published") + total(broker, "key_failures")
        assert total(broker, "keys_published") >= len(nodes.accepted)
