"""The worker's end of a promise: what the server has taken for it is installed, whatever happens, and answered."""

import asyncio
import json
import signal
from collections.abc import Sequence
from typing import Final

import pytest

from tests.fakes import FaultyDataplane
from tests.helpers import CITY, WELT, running
from tests.integration.inprocess import (
    Client,
    RunningWorker,
    client,
    configuration,
    new_key,
    running_worker,
    settings,
)
from tests.integration.loopback import eventually, eventually_answered
from tests.integration.relay import relay
from tests.integration.servers import Bench, Mosquitto, Program
from wgkex_ops.bus.messages import key_topic, worker_data_topic
from wgkex_ops.bus.questions import ASK, answers_to, parse_answer, question_payload
from wgkex_ops.config import Config
from wgkex_ops.consumer.dataplane.base import OperationObserver
from wgkex_ops.errors import DataplaneError, NoSubscribersError
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.model.changes import Operation
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.worker import Worker

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])
RECEIPTS: Final = "wgkex/receipts/b1"
CLIENT_ID: Final = "wgkex-worker-gw01"


def new_keys(count: int) -> list[PublicKey]:
    return [new_key() for _ in range(count)]


async def publish(sender: Client, keys: Sequence[PublicKey]) -> None:
    """Publish keys with QoS 1; the server has taken them all."""
    await asyncio.gather(*(sender.publish(key_topic(WELT.name), str(key).encode()) for key in keys))


async def logs_installed(worker: Program, keys: Sequence[PublicKey]) -> None:
    wanted = {str(key) for key in keys}

    def installed() -> bool:
        return wanted <= {line["public_key"] for line in worker.logged("peer_installed")}

    await eventually(installed, f"{len(keys)} installed peers")


async def has_all(worker: RunningWorker, keys: Sequence[PublicKey]) -> None:
    wanted = {key.raw for key in keys}

    async def installed() -> bool:
        return wanted <= {peer.public_key for peer in (await worker.state(WELT)).peers}

    await eventually_answered(installed, f"{len(keys)} installed peers")


def settled(worker: RunningWorker) -> float:
    """How many messages have come to an end, or wait for one."""
    outcomes = ("messages_deduplicated", "peers_installed", "peer_install_failures")
    return worker.metric("wgkex_worker_queue_length") + sum(
        worker.metric(f"wgkex_worker_{outcome}_total", domain=WELT.name) for outcome in outcomes
    )


# --- nothing is lost


@VERSIONS
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=("ended", "killed"))
async def test_keys_that_come_while_the_worker_is_away_are_installed_when_it_is_back(
    bench: Bench, mosquitto: Mosquitto, version: str, end: signal.Signals
) -> None:
    document = settings(mosquitto.port, mqtt={"version": version})
    worker = bench.wgkex("worker", document)
    await worker.logs("worker_announced")
    await worker.stop(end)
    keys = new_keys(100)
    async with client(mosquitto.port, client_id="sender") as sender:
        await publish(sender, keys)
    await logs_installed(bench.wgkex("worker", document), keys)


@VERSIONS
async def test_keys_that_a_worker_had_when_it_was_killed_come_again(
    bench: Bench, mosquitto: Mosquitto, version: str
) -> None:
    document = settings(mosquitto.port, mqtt={"version": version, "keepalive": 60})
    worker = bench.wgkex("worker", document)
    await worker.logs("worker_announced")
    worker.process.send(signal.SIGSTOP)
    keys = new_keys(50)
    async with client(mosquitto.port, client_id="sender") as sender:
        await publish(sender, keys)
    await eventually(lambda: mosquitto.output.count(f"Sending PUBLISH to {CLIENT_ID}") >= 20, "a full window")
    assert f"Received PUBACK from {CLIENT_ID}" not in mosquitto.output
    await worker.stop(signal.SIGKILL)
    assert worker.logged("peer_installed") == []
    await logs_installed(bench.wgkex("worker", document), keys)


@VERSIONS
async def test_a_bad_network_loses_no_key_and_counts_each_message(mosquitto: Mosquitto, version: str) -> None:
    async with (
        relay(mosquitto.port) as network,
        running_worker(configuration(network.port, mqtt={"version": version})) as worker,
        client(mosquitto.port, client_id="sender") as sender,
    ):
        keys: list[PublicKey] = []
        for number in range(5):
            batch = new_keys(200)
            keys += batch
            publishing = asyncio.create_task(publish(sender, batch))
            await eventually(
                lambda number=number: worker.metric("wgkex_mqtt_connects_total") > number,  # type: ignore[misc]
                "a connection",
            )
            network.cut()
            await publishing
        # The server sends in order: what comes again comes before this.
        keys += new_keys(1)
        await publish(sender, keys[-1:])
        await has_all(worker, keys)
        await eventually(lambda: worker.metric("wgkex_worker_queue_length") == 0, "the end of all waiting")
        assert worker.metric("wgkex_worker_messages_received_total", domain=WELT.name) == settled(worker) >= len(keys)
        assert worker.metric("wgkex_mqtt_disconnects_total") == 5
    # The server has nothing left that it would send again.
    async with running_worker(configuration(mosquitto.port, mqtt={"version": version})) as worker:
        async with client(mosquitto.port, client_id="sender") as sender:
            last = new_keys(1)
            await publish(sender, last)
        await has_all(worker, last)
        assert worker.metric("wgkex_worker_messages_received_total", domain=WELT.name) == 1


async def test_a_postponed_key_is_acknowledged_and_installed_when_its_interface_comes(mosquitto: Mosquitto) -> None:
    async with running_worker(configuration(mosquitto.port)) as worker:
        worker.dataplane.remove_interfaces(WELT)
        async with client(mosquitto.port, client_id="sender") as sender:
            # More than the server sends without acknowledgements: those of one domain do not hold up the other's.
            waiting = new_keys(100)
            await publish(sender, waiting)
            key = new_key()
            await sender.publish(key_topic(CITY.name), str(key).encode())
            await eventually_answered(lambda: worker.has(CITY, key), "a peer of another domain")
            await eventually(lambda: worker.metric("wgkex_worker_queue_length") == 100, "all the others waiting")
            await eventually(
                lambda: mosquitto.output.count(f"Received PUBACK from {CLIENT_ID}") == 101, "all acknowledged"
            )
            worker.dataplane.create_interfaces(WELT)
            await has_all(worker, waiting)


async def test_no_key_is_taken_before_it_is_known_which_ones_are_static_peers(mosquitto: Mosquitto) -> None:
    config, key, static = configuration(mosquitto.port), new_key(), new_key()
    unreadable = DataplaneError(Operation.DUMP, "EINTR")
    async with (
        running_worker(config, snapshot_error=unreadable) as worker,
        client(mosquitto.port, client_id="sender") as sender,
    ):
        worker.dataplane.readdress(WELT, static, bytes(16))
        await publish(sender, [static, key])
        await eventually(
            lambda: mosquitto.output.count(f"Sending PUBLISH to {CLIENT_ID}") == 2, "both keys on their way"
        )
        assert key.raw not in await worker.dataplane.installed(WELT)
        worker.dataplane.snapshot_error = None
        await has_all(worker, [key])
        await eventually(
            lambda: worker.metric("wgkex_worker_message_rejections_total", reason="static_key") == 1,
            "the refusal counted",
        )
        (kept,) = (peer for peer in (await worker.state(WELT)).peers if peer.public_key == static.raw)
        assert kept.link_local == bytes(16)


async def test_a_worker_that_is_stuck_answers_questions_all_the_same(mosquitto: Mosquitto) -> None:
    unreadable = DataplaneError(Operation.DUMP, "EINTR")
    answers = answers_to("me")
    async with (
        running_worker(configuration(mosquitto.port), snapshot_error=unreadable) as worker,
        client(mosquitto.port, client_id="sender") as sender,
        client(mosquitto.port, client_id="asker", subscriptions=[f"{answers}/+"]) as asker,
    ):
        # More than the server sends without acknowledgements.
        keys = new_keys(2100)
        await publish(sender, keys)
        await asker.publish(ASK, question_payload(str(keys[-1])), response_topic=answers, correlation=b"1")
        answer = await asker.next()
        assert parse_answer(answer.topic, answer.payload).name == "gw01"
        worker.dataplane.snapshot_error = None
        await has_all(worker, keys)


async def test_a_worker_that_ends_while_it_restores_its_peers_loses_no_key_of_an_old_broker(bench: Bench) -> None:
    # As the shipped configuration has it. What comes with QoS 0 is gone from the server as soon as it is handed over.
    mosquitto = await bench.mosquitto("queue_qos0_messages true")
    config = configuration(mosquitto.port)
    keys = new_keys(2)
    async with running_worker(config) as worker, client(mosquitto.port, client_id="sender") as sender:
        await publish(sender, keys[:1])
        await has_all(worker, keys[:1])
    mosquitto.publish(key_topic(WELT.name), str(keys[1]))
    dataplanes: list[FaultyDataplane] = []

    def slow(config: Config, observer: OperationObserver) -> FaultyDataplane:
        dataplanes.append(FaultyDataplane(config.domains, observer))
        dataplanes[0].may_apply.clear()
        return dataplanes[0]

    async def live() -> None:
        async with Worker(config, new_registry("worker"), slow).running():
            await asyncio.Event().wait()

    async with running(live()):
        await eventually(lambda: dataplanes and len(dataplanes[0].batches) == 1, "peers that are restored")
    async with running_worker(config) as worker:
        await has_all(worker, keys)


async def test_without_an_expiry_the_worker_leaves_no_session_behind(mosquitto: Mosquitto) -> None:
    async with (
        client(mosquitto.port, client_id="sender") as sender,
        running_worker(configuration(mosquitto.port, mqtt={"session_expiry": 0})),
    ):
        await publish(sender, new_keys(1))
    async with client(mosquitto.port, client_id="sender") as sender:
        with pytest.raises(NoSubscribersError):
            await publish(sender, new_keys(1))


@VERSIONS
async def test_a_domain_that_left_the_configuration_has_no_subscriber_any_more(
    mosquitto: Mosquitto, version: str
) -> None:
    async with running_worker(configuration(mosquitto.port, mqtt={"version": version})):
        pass
    async with (
        running_worker(configuration(mosquitto.port, domains=[WELT.name], mqtt={"version": version})) as worker,
        client(mosquitto.port, client_id="sender") as sender,
    ):
        # Nobody knows of it before a message comes.
        await sender.publish(key_topic(CITY.name), str(new_key()).encode())
        await eventually(lambda: f"Sending UNSUBACK to {CLIENT_ID}" in mosquitto.output, "the end of the subscription")
        assert worker.metric("wgkex_worker_message_rejections_total", reason="unknown_domain") == 1
        with pytest.raises(NoSubscribersError):
            await sender.publish(key_topic(CITY.name), str(new_key()).encode())
        keys = new_keys(1)
        await publish(sender, keys)
        await has_all(worker, keys)


# --- receipts


@pytest.mark.parametrize(("version", "receipts"), [("5", True), ("3.1.1", None)])
async def test_a_worker_says_that_it_sends_receipts_where_it_can(
    mosquitto: Mosquitto, version: str, receipts: bool | None
) -> None:
    async with (
        running_worker(configuration(mosquitto.port, mqtt={"version": version})),
        client(mosquitto.port, subscriptions=[worker_data_topic("gw01", WELT.name)]) as tester,
    ):
        assert json.loads((await tester.next()).payload).get("Receipts") is receipts


async def test_each_key_is_answered_with_its_brokers_own_mark(mosquitto: Mosquitto) -> None:
    async with (
        running_worker(configuration(mosquitto.port)) as worker,
        client(mosquitto.port, subscriptions=[f"{RECEIPTS}/gw01"]) as tester,
    ):
        own = PublicKey((await worker.state(WELT)).public_key)
        refused, good = new_key(), new_key()
        worker.dataplane.refuse(refused, Operation.ROUTE_ADD, "EBUSY")
        failed = {"worker": "gw01", "result": "failed"}
        expected = {
            b"\x00": {"worker": "gw01", "result": "installed"},
            b"again": {"worker": "gw01", "result": "installed"},
            bytes(range(64)): failed | {"reason": "own_key"},
            b"refused": failed | {"reason": "EBUSY"},
        }
        for key, mark in zip((good, good, own, refused), expected, strict=True):
            await tester.publish(key_topic(WELT.name), str(key).encode(), response_topic=RECEIPTS, correlation=mark)
        messages = [await tester.next() for _ in expected]
        assert {message.correlation: json.loads(message.payload) for message in messages} == expected
        # The one that is tried again and again comes last.
        assert messages[-1].correlation == b"refused"
        assert not any(message.retained for message in messages)
        assert await worker.has(WELT, good)
        for message in messages:
            message.acknowledge()
        for result in ("installed", "failed"):
            await eventually(
                lambda result=result: worker.metric("wgkex_worker_receipts_total", result=result) == 2,  # type: ignore[misc]
                "the receipts counted",
            )
        assert worker.metric("wgkex_worker_receipt_failures_total") == 0


async def test_nobody_makes_a_worker_publish_anywhere_else(bench: Bench, mosquitto: Mosquitto) -> None:
    observer = await bench.observe(mosquitto)
    elsewhere = ("elsewhere", "wgkex/receipts", "wgkex/receipts/b1/x", "wireguard-worker/gw01/status", RECEIPTS)
    async with (
        running_worker(configuration(mosquitto.port)) as worker,
        client(mosquitto.port, client_id="sender") as sender,
    ):
        for topic in elsewhere:
            key = new_key()
            await sender.publish(
                key_topic(WELT.name), str(key).encode(), response_topic=topic, correlation=topic.encode()
            )
            await eventually_answered(lambda key=key: worker.has(WELT, key), "a peer")  # type: ignore[misc]
        await observer.sees(f"{RECEIPTS}/gw01", json.dumps({"worker": "gw01", "result": "installed"}))
        assert [message.topic for message in observer.messages if b'"result"' in message.payload] == [
            f"{RECEIPTS}/gw01"
        ]


async def test_receipts_that_nobody_wants_any_more_are_counted_and_hold_up_nothing(mosquitto: Mosquitto) -> None:
    async with (
        running_worker(configuration(mosquitto.port)) as worker,
        client(mosquitto.port, client_id="sender") as sender,
    ):
        keys = new_keys(300)
        await asyncio.gather(
            *(
                sender.publish(key_topic(WELT.name), str(key).encode(), response_topic=RECEIPTS, correlation=key.raw)
                for key in keys
            )
        )
        await has_all(worker, keys)
        await eventually(lambda: worker.metric("wgkex_worker_receipt_failures_total") == 300, "300 failures")
