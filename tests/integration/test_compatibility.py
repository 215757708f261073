"""Old and new brokers and workers on one bus."""

import base64
import json
import signal
import time

import pytest

from tests.helpers import CITY, WELT
from tests.integration.gateways import gateways_known
from tests.integration.inprocess import configuration, new_key, running_broker, running_worker, settings
from tests.integration.keys import expected_endpoint, installed
from tests.integration.servers import Bench, Mosquitto


@pytest.mark.parametrize("target", ["all", "gw01"])
async def test_keys_of_old_brokers_are_taken(mosquitto: Mosquitto, target: str) -> None:
    async with running_worker(configuration(mosquitto.port)) as worker:
        key = new_key()
        mosquitto.publish(f"wireguard/{WELT.name}/{target}", str(key), "-q", "0")
        await installed(worker, WELT, key)


async def test_a_key_for_another_worker_is_left_to_it(mosquitto: Mosquitto) -> None:
    async with running_worker(configuration(mosquitto.port)) as worker:
        key, sentinel = new_key(), new_key()
        mosquitto.publish(f"wireguard/{WELT.name}/gw02", str(key), "-q", "1")
        mosquitto.publish(f"wireguard/{WELT.name}/all", str(sentinel), "-q", "1")
        await installed(worker, WELT, sentinel)
        assert not await worker.has(WELT, key)
        assert worker.metric("wgkex_worker_messages_received_total", domain=WELT.name) == 1


async def test_an_old_worker_of_the_same_name_can_run_beside_a_new_one(bench: Bench, mosquitto: Mosquitto) -> None:
    async with running_worker(configuration(mosquitto.port)) as worker:
        # Old workers take their bare name as client id.
        mosquitto.publish("anything", "x", "-i", "gw01")
        mosquitto.publish("anything", "x", "-i", "gw01.example.net")
        key = new_key()
        mosquitto.publish(f"wireguard/{WELT.name}/all", str(key))
        await installed(worker, WELT, key)
        assert worker.metric("wgkex_mqtt_connects_total") == 1


async def test_an_old_worker_is_chosen_like_a_new_one(mosquitto: Mosquitto) -> None:
    gateway_key = str(new_key())
    data = {
        "ExternalAddress": "gw02.example.net",
        "Port": 40011,
        "PublicKey": gateway_key,
        "LinkAddress": "fe80::1/128",
    }
    async with (
        running_broker(configuration(mosquitto.port)) as broker,
        running_worker(configuration(mosquitto.port)) as worker,
    ):
        mosquitto.publish(f"wireguard-worker/gw02/{WELT.name}/data", json.dumps(data), "-q", "1", "-r")
        mosquitto.publish(f"wireguard-metrics/{WELT.name}/gw02/connected_peers", "0", "-q", "1", "-r")
        mosquitto.publish("wireguard-worker/gw02/status", "1", "-q", "1", "-r")
        await gateways_known(broker, "gw01", "gw02")
        endpoints = [(await broker.submit(2, WELT.name, new_key())).json["Endpoint"] for _ in range(2)]
        assert endpoints == [
            await expected_endpoint(worker, WELT),
            {"Address": "gw02.example.net", "Port": "40011", "AllowedIPs": ["fe80::1"], "PublicKey": gateway_key},
        ]


async def test_a_worker_publishes_exactly_what_old_brokers_expect(bench: Bench, mosquitto: Mosquitto) -> None:
    observer = await bench.observe(mosquitto)
    peers = f"wireguard-metrics/{WELT.name}/gw01/connected_peers"
    data = f"wireguard-worker/gw01/{WELT.name}/data"
    status = "wireguard-worker/gw01/status"
    async with running_worker(configuration(mosquitto.port, domains=[WELT.name])) as worker:
        state = await worker.state(WELT)
        await observer.sees(status, "1")
        assert [(seen.topic, seen.qos, seen.retained) for seen in observer.messages] == [
            (data, 1, True),
            (peers, 1, True),
            (status, 1, True),
        ]
        assert json.loads(observer.payloads(data)[0]) == {
            "ExternalAddress": "gw01.example.net",
            "Port": state.listen_port,
            "PublicKey": base64.b64encode(state.public_key).decode(),
            "LinkAddress": state.link_address,
            # Old brokers ignore what they do not know.
            "Receipts": True,
        }
        assert isinstance(json.loads(observer.payloads(data)[0])["Port"], int)
        assert observer.payloads(peers) == [b"0"]
    await observer.sees(peers, "-1")
    # What takes the gateway out of the choice at once is published first.
    assert [(seen.topic, seen.payload, seen.retained) for seen in observer.messages[3:]] == [
        (status, b"0", True),
        (peers, b"-1", True),
    ]


async def test_a_worker_counts_its_live_peers(bench: Bench, mosquitto: Mosquitto) -> None:
    now = time.time()
    later = 0.0
    async with running_worker(configuration(mosquitto.port), clock=lambda: now + later) as worker:
        keys = [new_key() for _ in range(3)]
        for key in keys:
            mosquitto.publish(f"wireguard/{WELT.name}/all", str(key), "-q", "1")
            await installed(worker, WELT, key)
        worker.dataplane.shake_hands(WELT, keys[0])
        later = 179
        worker.dataplane.shake_hands(WELT, keys[1])
        # A reconnect brings a report.
        mosquitto.publish("anything", "x", "-i", "wgkex-worker-gw01")
        observer = await bench.observe(mosquitto, "wireguard-metrics/#")
        await observer.sees(f"wireguard-metrics/{WELT.name}/gw01/connected_peers", "2")
        await observer.sees(f"wireguard-metrics/{CITY.name}/gw01/connected_peers", "0")


async def test_a_broker_publishes_a_key_once_and_not_retained(bench: Bench, mosquitto: Mosquitto) -> None:
    observer = await bench.observe(mosquitto, "wireguard/#")
    async with running_broker(configuration(mosquitto.port)) as broker:
        key = new_key()
        await broker.submit(1, WELT.name, key)
        await observer.sees(f"wireguard/{WELT.name}/all", str(key))
        [seen] = observer.messages
        assert (seen.qos, seen.retained) == (1, False)


async def test_the_last_wills_take_out_what_was_killed(bench: Bench, mosquitto: Mosquitto) -> None:
    observer = await bench.observe(mosquitto)
    for command in ("broker", "worker"):
        program = bench.wgkex(command, settings(mosquitto.port))
        await observer.sees(f"wireguard-{command}/gw01/status", "1")
        await program.stop(signal.SIGKILL)
        await observer.sees(f"wireguard-{command}/gw01/status", "0")
        assert observer.payloads(f"wireguard-{command}/gw01/status") == [b"1", b"0"]
    assert all(seen.retained for seen in observer.messages)
