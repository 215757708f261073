"""What a stolen password of the MQTT server is good for, with the shipped files in a real Mosquitto."""

import asyncio
import contextlib
import re
import signal
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import WELT
from tests.integration.gateways import Gateway, awaiting, gateways_known
from tests.integration.inprocess import client, configuration, new_key, running_broker, running_worker
from tests.integration.loopback import LOOPBACK, eventually
from tests.integration.servers import Bench
from tests.integration.shipped import (
    ANOTHER_BROKER,
    ANOTHER_WORKER,
    BROKER,
    OPERATOR,
    PROBE,
    USERS,
    WORKER,
    Server,
)
from wgkex_ops.bus.messages import (
    Receipt,
    key_subscription,
    receipt_payload,
    receipt_topic,
    receipt_topic_of,
    worker_status_topic,
)
from wgkex_ops.bus.questions import ASK
from wgkex_ops.bus.session import Session
from wgkex_ops.config import MqttConfig
from wgkex_ops.errors import PublishRefusedError
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.metrics.mqtt import MqttMetrics
from wgkex_ops.probe.published import PublishedEndpoints, subscriptions

NOT_AUTHORIZED: Final = 0x87


# Part of the topic of answers to a command.
ASKER: Final = "wgkex-operator-7-c0ffee00"


def answers(name: str) -> set[str]:
    """Where a worker or broker answers questions."""
    return {f"wgkex/answers/{asker}/{name}" for asker in (BROKER, ANOTHER_BROKER, ASKER)}


def as_worker(name: str) -> set[str]:
    """What a worker publishes."""
    return {
        f"wireguard-worker/{name}/{WELT.name}/data",
        f"wireguard-worker/{name}/status",
        f"wireguard-metrics/{WELT.name}/{name}/connected_peers",
        *(f"wgkex/receipts/{broker}/{name}" for broker in (BROKER, ANOTHER_BROKER)),
        *answers(name),
    }


def as_broker(name: str) -> set[str]:
    """What a broker publishes."""
    return KEYS | answers(name) | {f"wireguard-broker/{name}/status", ASK}


KEYS: Final = {f"wireguard/{WELT.name}/{target}" for target in ("all", WORKER, ANOTHER_WORKER)}
ALLOWED: Final = {
    WORKER: as_worker(WORKER),
    ANOTHER_WORKER: as_worker(ANOTHER_WORKER),
    BROKER: as_broker(BROKER),
    ANOTHER_BROKER: as_broker(ANOTHER_BROKER),
    OPERATOR: KEYS | {ASK},
    PROBE: set[str](),
}
# Whoever has a user may try to be a gateway and a broker of that name.
TOPICS: Final = {
    *(topic for name in USERS for topic in as_worker(name) | as_broker(name)),
    *(f"wgkex/receipts/{name}" for name in USERS),
    "wgkex/other",
    "else/where",
}
READABLE: Final = {
    WORKER: KEYS - {f"wireguard/{WELT.name}/{ANOTHER_WORKER}"} | {ASK},
    ANOTHER_WORKER: KEYS - {f"wireguard/{WELT.name}/{WORKER}"} | {ASK},
    # The patterns are for all users, so brokers may read keys for all workers.
    BROKER: {
        f"wireguard/{WELT.name}/all",
        ASK,
        *(f"wgkex/answers/{BROKER}/{name}" for name in (WORKER, ANOTHER_WORKER, BROKER, ANOTHER_BROKER)),
        *(f"wireguard-broker/{name}/status" for name in (BROKER, ANOTHER_BROKER)),
        *(
            topic
            for name in (WORKER, ANOTHER_WORKER)
            for topic in as_worker(name) - answers(name)
            if ANOTHER_BROKER not in topic
        ),
    },
    OPERATOR: {topic for topics in ALLOWED.values() for topic in topics},
    PROBE: {f"wireguard-worker/{name}/{WELT.name}/data" for name in (WORKER, ANOTHER_WORKER)},
}


@pytest.fixture
async def server(bench: Bench) -> Server:
    server = Server(bench)
    await server.start()
    return server


@pytest.mark.parametrize("user", USERS)
async def test_each_user_may_publish_in_its_own_name_only_and_all_else_is_refused(server: Server, user: str) -> None:
    allowed, codes = set(), set()
    async with client(server.port, **server.as_user(user)) as session:
        for topic in TOPICS:
            try:
                await session.publish(topic, retain=True)
            except PublishRefusedError as error:
                codes.add(error.code)
            else:
                allowed.add(topic)
        assert session.metric("disconnects_total") == 0
    assert allowed == ALLOWED[user]
    assert codes == {NOT_AUTHORIZED}


@pytest.mark.parametrize("user", READABLE)
async def test_each_user_reads_what_is_meant_for_it_and_nothing_else(server: Server, user: str) -> None:
    for sender, topics in ALLOWED.items():
        async with client(server.port, **server.as_user(sender)) as session:
            for topic in topics:
                await session.publish(topic, topic.encode(), retain=True)
    ends = server.log.count(f"Received DISCONNECT from {user}")
    async with client(server.port, subscriptions=["#"], **server.as_user(user)) as reader:
        read = {(await reader.next()).topic for _ in READABLE[user]}
    assert read == READABLE[user]
    # What should not be readable may come last.
    await eventually(lambda: server.log.count(f"Received DISCONNECT from {user}") > ends, "a DISCONNECT")
    assert set(re.findall(rf"Sending PUBLISH to {re.escape(user)} .*, '([^']+)', ", server.log)) == read


def server_has_subscribed(server: Server, user: str, times: int) -> bool:
    return server.log.count(f"Sending SUBACK to {user}") == times


async def test_a_last_will_in_the_name_of_another_worker_is_not_published(bench: Bench, server: Server) -> None:
    async with client(server.port, subscriptions=["wireguard-worker/+/status"], **server.as_user(BROKER)) as broker:
        for name, victim in (("forger", WORKER), ("honest", ANOTHER_WORKER)):
            connects = server.log.count(f"Sending SUBACK to {ANOTHER_WORKER}")
            process = bench.start(
                name,
                *("mosquitto_sub", "-h", LOOPBACK, "-p", str(server.port), "-u", ANOTHER_WORKER, "-P", ANOTHER_WORKER),
                *("--will-topic", worker_status_topic(victim), "--will-payload", "0", "--will-qos", "1"),
                *("-t", key_subscription(WELT.name)),
            )
            await eventually(
                partial(server_has_subscribed, server, ANOTHER_WORKER, connects + 1), "a client with a will"
            )
            process.send(signal.SIGKILL)
            await process.ended()
        assert (await broker.next()).topic == worker_status_topic(ANOTHER_WORKER)


@pytest.mark.parametrize("shared", [False, True], ids=("own users", "shared users"))
async def test_nobody_is_thrown_out_by_a_client_with_the_same_id(bench: Bench, shared: bool) -> None:
    server = Server(bench, shared=shared)
    await server.start()
    worker_config, broker_config = (
        configuration(server.port, name, mqtt=server.as_user(name)) for name in (WORKER, BROKER)
    )
    ids = (f"wgkex-worker-{WORKER}", f"wgkex-broker-{BROKER}")
    async with running_worker(worker_config) as worker, running_broker(broker_config) as broker:
        for client_id in (*ids, WORKER, BROKER):
            async with client(server.port, client_id=client_id, **server.as_user(ANOTHER_WORKER)):
                pass

        def lost() -> list[float]:
            return [each.metric("wgkex_mqtt_disconnects_total") for each in (worker, broker)]

        if shared:
            # Without use_username_as_clientid.
            await eventually(lambda: min(lost()), "two sessions that an attacker has ended")
        else:
            assert [server.connects_of(name) for name in (WORKER, BROKER, ANOTHER_WORKER)] == [1, 1, 4]
            assert lost() == [0, 0]


async def test_a_receipt_in_the_name_of_another_worker_confirms_nothing(server: Server) -> None:
    config = configuration(server.port, BROKER, mqtt=server.as_user(BROKER))
    async with (
        client(server.port, **server.as_user(WORKER)) as victim,
        client(server.port, subscriptions=[key_subscription(WELT.name)], **server.as_user(ANOTHER_WORKER)) as attacker,
        running_broker(config) as broker,
    ):
        await Gateway(victim, WORKER, receipts=True).announce()
        await gateways_known(broker, WORKER)
        assert (await broker.submit(1, WELT.name, new_key())).status == 200
        # All workers read the mark of a key for all.
        mark = (await attacker.next()).correlation
        forged = receipt_payload(Receipt(WORKER))
        with pytest.raises(PublishRefusedError) as refused:
            await attacker.publish(receipt_topic_of(WORKER, receipt_topic(BROKER)), forged, correlation=mark)
        assert refused.value.code == NOT_AUTHORIZED
        await attacker.publish(receipt_topic_of(ANOTHER_WORKER, receipt_topic(BROKER)), forged, correlation=mark)
        await eventually(
            lambda: broker.metric("wgkex_broker_message_rejections_total", reason="worker_mismatch"), "a rejection"
        )
        await awaiting(broker, 1)
        await victim.publish(receipt_topic_of(WORKER, receipt_topic(BROKER)), forged, correlation=mark)
        await awaiting(broker, 0)


async def test_a_retained_key_is_installed_by_no_worker_that_connects_later(server: Server) -> None:
    retained, key = new_key(), new_key()
    async with client(server.port, **server.as_user(BROKER)) as thief:
        # Mosquitto cannot forbid that to a user.
        await thief.publish(f"wireguard/{WELT.name}/all", str(retained).encode(), retain=True)
        async with running_worker(configuration(server.port, WORKER, mqtt=server.as_user(WORKER))) as worker:
            reason = "retained_key"
            await eventually(
                lambda: worker.metric("wgkex_worker_message_rejections_total", reason=reason), "a rejection"
            )
            await thief.publish(f"wireguard/{WELT.name}/all", str(key).encode())
            await eventually(
                lambda: worker.metric("wgkex_worker_peers_installed_total", domain=WELT.name), "another key"
            )
            assert await worker.has(WELT, key)
            assert not await worker.has(WELT, retained)


async def test_an_unlisted_worker_is_ignored_where_only_listed_ones_are_served(server: Server) -> None:
    config = configuration(
        server.port,
        BROKER,
        mqtt=server.as_user(BROKER),
        broker={"name": BROKER, "workers_only_listed": True},
        workers={WORKER: {"weight": 1}},
    )
    async with running_broker(config) as broker, contextlib.AsyncExitStack() as stack:
        for name in (ANOTHER_WORKER, WORKER):
            bus = await stack.enter_async_context(client(server.port, **server.as_user(name)))
            await Gateway(bus, name, receipts=False).announce()
        await gateways_known(broker, WORKER)
        # Its data, number of peers, and status.
        assert broker.metric("wgkex_broker_message_rejections_total", reason="unknown_worker") == 3
        answer = await broker.submit(2, WELT.name, new_key())
        assert answer.json["error"]["reason"] == "no_worker" or answer.json["Endpoint"]["Address"] == "gw01.example.net"


async def test_canaries_of_one_user_find_their_gateways_at_the_same_time(server: Server, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for name in (WORKER, ANOTHER_WORKER):
            bus = await stack.enter_async_context(client(server.port, **server.as_user(name)))
            await Gateway(bus, name, receipts=True).announce()
        mqtt = MqttConfig(**{"broker_url": LOOPBACK, "broker_port": server.port, **server.as_user(PROBE)})

        async def find(name: str) -> str:
            session = Session(
                mqtt,
                client_id=f"wgkex-probe-{name}",
                subscriptions=subscriptions(name, [WELT]),
                will=None,
                metrics=MqttMetrics(new_registry("probe")),
            )
            published = PublishedEndpoints(session, name)
            async with session, asyncio.TaskGroup() as group:
                task = group.create_task(published.run())
                endpoint = await published.find(WELT)
                task.cancel()
            return endpoint.address

        found = await asyncio.gather(*(find(name) for name in (WORKER, ANOTHER_WORKER) * 3))
        assert found == ["gw01.example.net", "gw02.example.net"] * 3
