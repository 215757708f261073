"""A key's way through real processes' parts: HTTP, broker, MQTT server, worker; only the kernel is played."""

import asyncio
import base64
import json
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import CITY, TESTDATA, WELT
from tests.integration.inprocess import (
    RunningBroker,
    RunningWorker,
    configuration,
    new_key,
    running_broker,
    running_worker,
    settings,
    submit,
)
from tests.integration.servers import (
    LOOPBACK,
    Answer,
    Bench,
    Mosquitto,
    Program,
    eventually,
    eventually_answered,
    free_port,
    request,
    run,
    suspended,
)
from wgkex_ops.config import Listen
from wgkex_ops.demo.routers import post_key
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

OK = {"Message": "OK"}

# Submits a key with one program or another, and returns the status and the JSON object.
Submit = Callable[[str, int, str, PublicKey], Awaitable[tuple[int, Mapping[str, Any]]]]


async def submit_with_wget(address: str, version: int, domain: str, key: PublicKey) -> tuple[int, Mapping[str, Any]]:
    body = json.dumps({"domain": domain, "public_key": str(key)})
    url = f"http://{address}/api/v{version}/wg/key/exchange"
    answer = await asyncio.to_thread(run, "wget", "-qO-", "--no-proxy", f"--post-data={body}", url)
    return 200, json.loads(answer)


async def submit_like_a_router(
    address: str, version: int, domain: str, key: PublicKey
) -> tuple[int, Mapping[str, Any]]:
    host, _, port = address.rpartition(":")
    return await post_key(Listen(host=host, port=int(port)), version, domain, key)


async def submit_with_urllib(address: str, version: int, domain: str, key: PublicKey) -> tuple[int, Mapping[str, Any]]:
    answer = await submit(address, version, domain, key)
    return answer.status, answer.json


ALL_SENDERS = pytest.mark.parametrize(
    "send",
    [
        pytest.param(submit_with_wget, id="wget"),
        pytest.param(submit_like_a_router, id="router"),
        pytest.param(submit_with_urllib, id="urllib"),
    ],
)


async def installed(worker: RunningWorker, domain: Domain, key: PublicKey) -> None:
    await eventually_answered(lambda: worker.has(domain, key), f"{key} installed")


async def expected_endpoint(worker: RunningWorker, domain: Domain, name: str = "gw01") -> dict[str, Any]:
    """What a node gets: all of it text, the address bare."""
    state = await worker.state(domain)
    return {
        "Address": f"{name}.example.net",
        "Port": str(state.listen_port),
        "AllowedIPs": [state.link_address],
        "PublicKey": base64.b64encode(state.public_key).decode(),
    }


async def gateways_known(broker: RunningBroker, domain: Domain, *workers: str) -> None:
    """Wait until the broker would choose among exactly these workers."""

    async def known() -> bool:
        await broker.page("/metrics")
        lines = {
            worker: broker.registry.get_sample_value("wgkex_broker_worker_online", {"worker": worker})
            for worker in ("gw01", "gw02")
        }
        return {worker for worker, online in lines.items() if online} == set(workers)

    await eventually_answered(known, f"gateways {workers}")


def failure_of(answer: Answer) -> tuple[int, str]:
    """Status and reason of an error object."""
    if answer.status == 503:
        assert int(answer.headers["Retry-After"]) > 0
    return answer.status, answer.json["error"]["reason"]


# --- the way of a key


@ALL_SENDERS
async def test_version_1_installs_a_peer_with_all_its_parts(mosquitto: Mosquitto, send: Submit) -> None:
    config = configuration(mosquitto.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        key = new_key()
        assert await send(str(broker.nodes), 1, WELT.name, key) == (200, OK)
        await installed(worker, WELT, key)
        assert not await worker.has(CITY, key)


@ALL_SENDERS
async def test_version_2_installs_a_peer_and_names_the_gateway(mosquitto: Mosquitto, send: Submit) -> None:
    config = configuration(mosquitto.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        await gateways_known(broker, CITY, "gw01")
        key = new_key()
        status, answer = await send(str(broker.nodes), 2, CITY.name, key)
        assert (status, answer) == (200, {"Endpoint": await expected_endpoint(worker, CITY)})
        await installed(worker, CITY, key)
        assert not await worker.has(WELT, key)


async def test_broker_and_worker_may_speak_different_versions_of_mqtt(mosquitto: Mosquitto) -> None:
    old, new = (configuration(mosquitto.port, mqtt={"version": version}) for version in ("3.1.1", "5"))
    for broker_config, worker_config in ((old, new), (new, old), (old, old)):
        async with running_worker(worker_config) as worker, running_broker(broker_config) as broker:
            await gateways_known(broker, WELT, "gw01")
            key = new_key()
            answer = await broker.submit(2, WELT.name, key)
            assert answer.json == {"Endpoint": await expected_endpoint(worker, WELT)}
            await installed(worker, WELT, key)


async def test_a_flood_of_keys_is_installed_without_a_loss(bench: Bench) -> None:
    server = await bench.mosquitto("max_inflight_messages 20")
    config = configuration(server.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        keys = [new_key() for _ in range(500)]
        answers = await asyncio.gather(*(submit_like_a_router(str(broker.nodes), 1, WELT.name, key) for key in keys))
        assert {status for status, _ in answers} == {200}
        wanted = {key.raw for key in keys}

        async def all_there() -> bool:
            return {peer.public_key for peer in (await worker.state(WELT)).peers} == wanted

        await eventually_answered(all_there, "500 peers")


async def test_a_key_that_comes_again_is_one_peer(mosquitto: Mosquitto) -> None:
    config = configuration(mosquitto.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        key = new_key()
        for version in (2, 1, 1):
            await broker.submit(version, WELT.name, key)
        await eventually(
            lambda: (
                worker.metric("wgkex_worker_peers_installed_total", domain=WELT.name)
                + worker.metric("wgkex_worker_messages_deduplicated_total", domain=WELT.name)
                == 3
            ),
            "three times the key",
        )
        assert [peer.public_key for peer in (await worker.state(WELT)).peers] == [key.raw]


# --- old and new on one bus


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
        await gateways_known(broker, WELT, "gw01", "gw02")
        endpoints = [(await broker.submit(2, WELT.name, new_key())).json["Endpoint"] for _ in range(2)]
        assert endpoints == [
            await expected_endpoint(worker, WELT),
            {"Address": "gw02.example.net", "Port": "40011", "AllowedIPs": ["fe80::1"], "PublicKey": gateway_key},
        ]


async def test_a_worker_says_literally_what_old_brokers_expect(bench: Bench, mosquitto: Mosquitto) -> None:
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
            # Old brokers take no notice of what they do not know.
            "Receipts": True,
        }
        assert isinstance(json.loads(observer.payloads(data)[0])["Port"], int)
        assert observer.payloads(peers) == [b"0"]
    await observer.sees(peers, "-1")
    # What takes the gateway out of the choice at once is said first.
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


# --- what can go wrong with MQTT


async def test_a_key_that_the_acl_forbids_is_no_success(bench: Bench, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write wireguard-broker/#\ntopic write wireguard-worker/#\n")
    server = await bench.mosquitto(f"acl_file {acl}")
    async with running_broker(configuration(server.port)) as broker:
        answer = await broker.submit(1, WELT.name, new_key())
        assert failure_of(answer) == (503, "publish_refused")
        assert broker.metric("wgkex_broker_key_failures_total", reason="publish_refused") == 1
        assert broker.metric("wgkex_broker_keys_published_total", domain=WELT.name) == 0


async def test_a_server_that_is_away_costs_503_until_it_is_back(bench: Bench) -> None:
    server = Mosquitto(bench, ())
    config = configuration(server.port)
    async with running_worker(config, announced=False) as worker, running_broker(config, connected=False) as broker:
        for running in (broker, worker):
            assert (await running.page("/-/ready")).status == 503
            assert (await running.page("/-/healthy")).status == 200
        assert failure_of(await broker.submit(1, WELT.name, new_key())) == (503, "mqtt_disconnected")
        assert failure_of(await broker.submit(2, WELT.name, new_key())) == (503, "mqtt_disconnected")
        await server.start()
        key = new_key()

        async def accepted() -> bool:
            return (await broker.submit(2, WELT.name, key)).status == 200

        await eventually_answered(accepted, "a success")
        await installed(worker, WELT, key)
        for running in (broker, worker):
            assert (await running.page("/-/ready")).status == 200


async def test_a_server_that_hangs_costs_503_within_the_time_limit(mosquitto: Mosquitto) -> None:
    config = configuration(mosquitto.port, broker={"publish_timeout": 0.3}, mqtt={"keepalive": 60})
    async with running_worker(config) as worker, running_broker(config) as broker:
        with suspended(mosquitto):
            start = time.monotonic()
            assert failure_of(await broker.submit(1, WELT.name, new_key())) == (503, "publish_timeout")
            assert time.monotonic() - start < 3
        key = new_key()
        assert (await broker.submit(1, WELT.name, key)).json == OK
        await installed(worker, WELT, key)


async def test_without_a_worker_a_key_is_no_success(mosquitto: Mosquitto) -> None:
    async with running_broker(configuration(mosquitto.port)) as broker:
        assert failure_of(await broker.submit(1, WELT.name, new_key())) == (503, "no_worker")
        assert failure_of(await broker.submit(2, WELT.name, new_key())) == (503, "no_worker")


async def test_version_2_without_a_gateway_has_published_the_key_all_the_same(
    bench: Bench, mosquitto: Mosquitto
) -> None:
    observer = await bench.observe(mosquitto)
    async with running_broker(configuration(mosquitto.port)) as broker:
        key = new_key()
        assert failure_of(await broker.submit(2, WELT.name, key)) == (503, "no_worker")
        await observer.sees(f"wireguard/{WELT.name}/all", str(key))


async def test_a_server_that_forgot_everything_is_told_again(bench: Bench, mosquitto: Mosquitto) -> None:
    config = configuration(mosquitto.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        await gateways_known(broker, WELT, "gw01")
        await mosquitto.restart(signal.SIGKILL)
        observer = await bench.observe(mosquitto)
        for domain in (WELT, CITY):
            await eventually(lambda: observer.payloads(f"wireguard-worker/gw01/{WELT.name}/data"), "the data")
            await observer.sees(f"wireguard-metrics/{domain.name}/gw01/connected_peers", "0")
        await observer.sees("wireguard-worker/gw01/status", "1")
        await observer.sees("wireguard-broker/gw01/status", "1")
        key = new_key()

        async def answered() -> Answer | None:
            answer = await broker.submit(2, WELT.name, key)
            return answer if answer.status == 200 else None

        answer = await eventually_answered(answered, "a gateway")
        assert answer.json == {"Endpoint": await expected_endpoint(worker, WELT)}
        await installed(worker, WELT, key)


async def test_a_gateway_that_died_while_the_server_was_away_is_not_chosen(bench: Bench, tmp_path: Path) -> None:
    # Not even by a broker that may not say itself that it is there, as old servers' lists have it.
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write wireguard-worker/#\ntopic write wireguard-metrics/#\n")
    server = await bench.mosquitto(f"acl_file {acl}")
    async with running_broker(configuration(server.port)) as broker:
        async with running_worker(configuration(server.port)):
            await gateways_known(broker, WELT, "gw01")
            await server.stop(signal.SIGKILL)
        await server.start()
        await gateways_known(broker, WELT)
        assert broker.metric("wgkex_broker_worker_online", worker="gw01") == 0


# --- choosing


def formula(weights: Mapping[str, float], rounds: int) -> Counter[str]:
    """The contract's formula, played by hand from no peers at all: who gets how many."""
    peers: Counter[str] = Counter()
    for _ in range(rounds):
        total = peers.total()
        chosen = min(weights, key=lambda name: (peers[name] - weights[name] / sum(weights.values()) * total, name))
        peers[chosen] += 1
    return peers


async def chosen_by(broker: RunningBroker, rounds: int) -> Counter[str]:
    answers = [await broker.submit(2, WELT.name, new_key()) for _ in range(rounds)]
    assert {answer.status for answer in answers} == {200}
    return Counter(answer.json["Endpoint"]["Address"].removesuffix(".example.net") for answer in answers)


async def test_weights_decide_until_a_worker_stops(bench: Bench, mosquitto: Mosquitto) -> None:
    weights = {"gw01": 30, "gw02": 10}
    changes = {"workers": {name: {"weight": weight} for name, weight in weights.items()}}
    second = bench.wgkex("worker", settings(mosquitto.port, "gw02", **changes))
    config = configuration(mosquitto.port, **changes)
    async with running_worker(config), running_broker(config) as broker:
        await gateways_known(broker, WELT, "gw01", "gw02")
        chosen = await chosen_by(broker, 60)
        assert chosen == formula(weights, 60) == {"gw01": 45, "gw02": 15}
        for name, count in chosen.items():
            labels = {"worker": name, "domain": WELT.name}
            assert broker.metric("wgkex_broker_worker_assignments_total", **labels) == count

        assert await second.stop() == 0
        await gateways_known(broker, WELT, "gw01")
        assert await chosen_by(broker, 5) == {"gw01": 5}


async def test_a_killed_worker_is_not_chosen(bench: Bench, mosquitto: Mosquitto) -> None:
    second = bench.wgkex("worker", settings(mosquitto.port, "gw02"))
    config = configuration(mosquitto.port)
    async with running_worker(config), running_broker(config) as broker:
        await gateways_known(broker, WELT, "gw01", "gw02")
        assert await chosen_by(broker, 4) == {"gw01": 2, "gw02": 2}
        await second.stop(signal.SIGKILL)
        await gateways_known(broker, WELT, "gw01")
        assert await chosen_by(broker, 4) == {"gw01": 4}


async def test_brokers_know_of_each_other_and_count_an_assignment_for_all(bench: Bench, mosquitto: Mosquitto) -> None:
    async def counts(broker: RunningBroker, brokers: int) -> None:
        async def counted() -> bool:
            await broker.page("/metrics")
            return broker.metric("wgkex_broker_brokers_online") == brokers

        await eventually_answered(counted, f"{brokers} brokers")

    observer = await bench.observe(mosquitto, "wireguard-broker/#")
    config = configuration(mosquitto.port)
    async with running_worker(config), running_broker(config) as broker:
        await gateways_known(broker, WELT, "gw01")
        async with running_broker(configuration(mosquitto.port, "other")) as other:
            await counts(broker, 2)
            await counts(other, 2)
            assert await chosen_by(broker, 3) == {"gw01": 3}
            await broker.page("/metrics")
            assert broker.metric("wgkex_broker_worker_assignments_total", worker="gw01", domain=WELT.name) == 3
            assert broker.metric("wgkex_broker_worker_peers", worker="gw01", domain=WELT.name) == 6
        await counts(broker, 1)
        assert await chosen_by(broker, 1) == {"gw01": 1}
        await broker.page("/metrics")
        assert broker.metric("wgkex_broker_worker_peers", worker="gw01", domain=WELT.name) == 7
    await observer.sees("wireguard-broker/gw01/status", "0")
    for name in ("gw01", "other"):
        assert observer.payloads(f"wireguard-broker/{name}/status") == [b"1", b"0"]
    assert {(seen.qos, seen.retained) for seen in observer.messages} == {(1, True)}


async def test_a_gateway_without_its_interface_is_not_chosen_until_it_is_back(
    bench: Bench, mosquitto: Mosquitto
) -> None:
    peers = f"wireguard-metrics/{WELT.name}/gw01/connected_peers"
    observer = await bench.observe(mosquitto)
    config = configuration(mosquitto.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        await gateways_known(broker, WELT, "gw01")
        worker.dataplane.remove_interfaces(WELT)
        await observer.sees(peers, "-1")
        page = await worker.page("/-/ready")
        assert page.status == 503
        assert "wg-welt is missing" in page.text

        waiting = new_key()

        async def refused() -> bool:
            return failure_of(await broker.submit(2, WELT.name, waiting)) == (503, "no_worker")

        await eventually_answered(refused, "a refusal")
        assert (await broker.submit(2, CITY.name, new_key())).status == 200
        assert (await broker.submit(1, WELT.name, waiting)).status == 200

        before = len(observer.payloads(peers))
        worker.dataplane.create_interfaces(WELT)
        # The key that was waiting for the interface does not wait for its node to ask again.
        await installed(worker, WELT, waiting)
        await eventually(lambda: b"0" in observer.payloads(peers)[before:], "peers again")
        assert (await worker.page("/-/ready")).status == 200

        async def accepted() -> bool:
            return (await broker.submit(2, WELT.name, new_key())).status == 200

        await eventually_answered(accepted, "a success")


# --- what strangers send


def bad_submissions() -> list[bytes]:
    rejected = json.loads((TESTDATA / "public_keys_rejected.json").read_text())
    key = str(new_key())
    documents: list[object] = [
        *({"domain": WELT.name, "public_key": entry["public_key"]} for kind in rejected.values() for entry in kind),
        *({"domain": name, "public_key": key} for name in ("", "ffmuc_unknown", "welt", "+", "#", "../all", None, 42)),
        {"domain": WELT.name},
        {"public_key": key},
        {},
        [],
        None,
        "text",
    ]
    raw = [
        b"",
        b"domain=ffmuc_welt&public_key=" + key.encode(),
        b"\xff\xfe",
        b"[" * 4000,
        json.dumps({"domain": WELT.name, "public_key": key, "padding": "x" * 4096}).encode(),
        f'{{"domain": "{WELT.name}", "public_key": "{key}", "public_key": "{new_key()}"}}'.encode(),
    ]
    return [json.dumps(document).encode() for document in documents] + raw


async def test_no_bad_submission_reaches_the_bus(bench: Bench, mosquitto: Mosquitto) -> None:
    observer = await bench.observe(mosquitto, "wireguard/#")
    async with running_broker(configuration(mosquitto.port)) as broker:
        for body in bad_submissions():
            for version in (1, 2):
                answer = await request(f"http://{broker.nodes}/api/v{version}/wg/key/exchange", body)
                assert answer.status in (400, 413), body
                assert answer.json["error"]["message"]
        sentinel = new_key()
        await broker.submit(1, WELT.name, sentinel)
        await observer.sees(f"wireguard/{WELT.name}/all", str(sentinel))
        assert len(observer.messages) == 1


async def test_nothing_bad_on_the_bus_disturbs_a_worker(mosquitto: Mosquitto) -> None:
    async with running_worker(configuration(mosquitto.port)) as worker:
        own_key = base64.b64encode((await worker.state(WELT)).public_key)
        rejected = json.loads((TESTDATA / "public_keys_rejected.json").read_text())
        texts = [entry["public_key"] for kind in rejected.values() for entry in kind]
        payloads = [text.encode() for text in texts if isinstance(text, str)]
        payloads += [own_key, b"\xff" * 44, bytes(65_536), json.dumps({"public_key": str(new_key())}).encode()]
        for payload in payloads:
            mosquitto.publish(f"wireguard/{WELT.name}/all", payload, "-q", "1")
        sentinel = new_key()
        mosquitto.publish(f"wireguard/{WELT.name}/all", str(sentinel), "-q", "1")
        await installed(worker, WELT, sentinel)
        assert [peer.public_key for peer in (await worker.state(WELT)).peers] == [sentinel.raw]
        rejections = {
            reason: worker.metric("wgkex_worker_message_rejections_total", reason=reason)
            for reason in ("invalid_public_key", "small_order_public_key", "own_key")
        }
        assert rejections["own_key"] == 1
        assert rejections["small_order_public_key"] == len(rejected["small_order"])
        assert sum(rejections.values()) == len(payloads)


async def test_nothing_bad_on_the_bus_disturbs_a_broker(mosquitto: Mosquitto) -> None:
    topics = [
        f"wireguard-worker/gw01/{WELT.name}/data",
        f"wireguard-metrics/{WELT.name}/gw01/connected_peers",
        "wireguard-worker/gw01/status",
        "wireguard-broker/gw01/status",
        "wireguard-worker//status",
        "wireguard-worker/ /status",
        "wireguard-metrics/unknown/gw01/connected_peers",
    ]
    payloads = [b"nonsense", b"\xff\xfe", b"[" * 4000, b"1e9", b"{}", b"[]", bytes(65_536), b"-1"]
    config = configuration(mosquitto.port)
    async with running_broker(config) as broker:
        for topic in topics:
            for payload in payloads:
                mosquitto.publish(topic, payload, "-q", "1", "-r")
        async with running_worker(config) as worker:
            await gateways_known(broker, WELT, "gw01")
            answer = await broker.submit(2, WELT.name, new_key())
            assert answer.json == {"Endpoint": await expected_endpoint(worker, WELT)}
        assert broker.metric("wgkex_mqtt_disconnects_total") == 0
        assert broker.metric("wgkex_broker_message_rejections_total", reason="malformed_payload") > 10


# --- processes


async def both(bench: Bench, server_port: int, **changes: object) -> tuple[Program, Program]:
    """A worker and a broker as processes; they run, and may or may not be connected."""
    worker, broker = (bench.wgkex(command, settings(server_port, **changes)) for command in ("worker", "broker"))
    await worker.logs("worker_started")
    await broker.logs("broker_started")
    return worker, broker


async def test_one_request_id_goes_from_the_answer_through_both_logs(bench: Bench, mosquitto: Mosquitto) -> None:
    worker, broker = await both(bench, mosquitto.port)
    await worker.logs("worker_announced")
    await broker.logs("mqtt_connected")
    key = new_key()
    answer = await submit((await broker.logs("broker_started"))["listen"], 1, WELT.name, key)
    request_id = answer.headers["X-Request-Id"]
    assert request_id
    accepted = await broker.logs("key_accepted", public_key=str(key))
    done = await worker.logs("peer_installed", public_key=str(key))
    assert accepted["request_id"] == request_id
    assert done["request_ids"] == [request_id]
    assert accepted["level"] == done["level"] == "info"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("server_is", ["there", "hanging", "away"])
async def test_a_signal_ends_both_processes_cleanly_and_soon(
    bench: Bench, mosquitto: Mosquitto, server_is: str, number: signal.Signals
) -> None:
    programs = await both(bench, mosquitto.port)
    for program in programs:
        await program.logs("mqtt_connected")
    if server_is == "hanging":
        mosquitto.send(signal.SIGSTOP)
    if server_is == "away":
        await mosquitto.stop(signal.SIGKILL)
        for program in programs:
            await program.logs("mqtt_disconnected")
    for program in programs:
        program.process.send(number)
    start = time.monotonic()
    assert [await program.process.ended() for program in programs] == [0, 0]
    assert time.monotonic() - start < 5
    for program in programs:
        assert {line["level"] for line in program.events} <= {"info", "warning"}


async def test_a_signal_ends_a_broker_that_waits_for_an_answer(bench: Bench, mosquitto: Mosquitto) -> None:
    broker = bench.wgkex("broker", settings(mosquitto.port, broker={"publish_timeout": 30}, mqtt={"keepalive": 60}))
    listen = (await broker.logs("broker_started"))["listen"]
    await broker.logs("mqtt_connected")
    mosquitto.send(signal.SIGSTOP)
    waiting = asyncio.create_task(submit(listen, 1, WELT.name, new_key()))
    metrics = (await broker.logs("broker_started"))["metrics"]

    async def in_flight() -> bool:
        return "wgkex_broker_http_requests_in_progress 1.0" in (await request(f"http://{metrics}/metrics")).text

    await eventually_answered(in_flight, "a request in progress")
    start = time.monotonic()
    status = await broker.stop()
    seconds = time.monotonic() - start
    with pytest.raises(ConnectionError):
        await waiting
    assert status == 0
    assert seconds < 5


async def test_a_request_in_progress_is_answered_before_the_end(bench: Bench, mosquitto: Mosquitto) -> None:
    worker, broker = await both(bench, mosquitto.port, mqtt={"keepalive": 60})
    await worker.logs("worker_announced")
    started = await broker.logs("broker_started")
    await broker.logs("mqtt_connected")
    with suspended(mosquitto):
        waiting = asyncio.create_task(submit(started["listen"], 1, WELT.name, new_key()))

        async def in_flight() -> bool:
            page = await request(f"http://{started['metrics']}/metrics")
            return "wgkex_broker_http_requests_in_progress 1.0" in page.text

        await eventually_answered(in_flight, "a request in progress")
        broker.process.send(signal.SIGTERM)
        await broker.logs("broker_stopping")
    assert (await waiting).json == OK
    assert await broker.process.ended() == 0


@pytest.mark.parametrize(
    ("command", "section", "key"),
    [
        ("broker", "broker_listen", None),
        ("broker", "broker", "metrics_listen"),
        ("worker", "worker", "metrics_listen"),
    ],
)
async def test_a_port_in_use_is_one_clear_line(
    bench: Bench, mosquitto: Mosquitto, command: str, section: str, key: str | None
) -> None:
    with socket.create_server((LOOPBACK, free_port())) as taken:
        port = taken.getsockname()[1]
        listen = {"host": LOOPBACK, "port": port}
        changes = {section: listen if key is None else {key: listen}}
        program = bench.wgkex(command, settings(mosquitto.port, **changes))
        assert await program.process.ended() == 1
    [line] = [line for line in program.events if line["level"] not in ("info", "warning")]
    assert line["event"] == "stopped"
    assert str(port) in line["error"]
    assert "in use" in line["error"]


async def test_a_second_process_by_mistake_does_not_disturb_the_first(bench: Bench, mosquitto: Mosquitto) -> None:
    observer = await bench.observe(mosquitto)
    for command in ("broker", "worker"):
        # Looking up a name takes longer than connecting to the MQTT server.
        document = settings(mosquitto.port, **{command: {"metrics_listen": {"host": "localhost", "port": free_port()}}})
        first = bench.wgkex(command, document)
        status = f"wireguard-{command}/gw01/status"
        await observer.sees(status, "1")
        second = bench.wgkex(command, document)
        assert await second.process.ended() == 1
        assert first.process.running
        assert mosquitto.connects_of(f"wgkex-{command}-gw01") == 1
        assert observer.payloads(status) == [b"1"]


# The product's own way in, with a dataplane that breaks down on the first key.
CRASH = """
import sys
from wgkex_ops import __main__
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane

async def apply(self, changes):
    raise RuntimeError("the dataplane broke down")

MemoryDataplane.apply = apply
sys.exit(__main__.main(sys.argv[1:]))
"""


async def test_a_crash_of_a_task_ends_the_process_and_takes_the_gateway_out(
    bench: Bench, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    observer = await bench.observe(mosquitto)
    config = tmp_path / "wgkex.yaml"
    config.write_text(json.dumps(settings(mosquitto.port)))
    program = Program(bench.start("crash", sys.executable, "-c", CRASH, "worker", "--config", str(config)))
    await observer.sees("wireguard-worker/gw01/status", "1")
    mosquitto.publish(f"wireguard/{WELT.name}/all", str(new_key()))
    assert await program.process.ended() == 1
    [line] = [line for line in program.events if line["level"] == "critical"]
    assert line["event"] == "crashed"
    assert "the dataplane broke down" in json.dumps(line)
    await observer.sees("wireguard-worker/gw01/status", "0")
