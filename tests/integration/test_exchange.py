"""A key's way through all parts, with real servers: HTTP, broker, MQTT, worker; only the kernel is played."""

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import CITY, WELT, post_key
from tests.integration.gateways import gateways_known
from tests.integration.inprocess import configuration, new_key, running_broker, running_worker, submit
from tests.integration.keys import OK, expected_endpoint, failure_of, installed
from tests.integration.loopback import Answer, eventually, eventually_answered, run
from tests.integration.servers import Bench, Mosquitto, suspended
from wgkex_ops.config import Listen
from wgkex_ops.model.keys import PublicKey

# Submits a key with one program or another, and returns the status and the JSON object.
Submit = Callable[[Listen, int, str, PublicKey], Awaitable[tuple[int, Mapping[str, Any]]]]


async def submit_with_wget(broker: Listen, version: int, domain: str, key: PublicKey) -> tuple[int, Mapping[str, Any]]:
    body = json.dumps({"domain": domain, "public_key": str(key)})
    url = f"http://{broker}/api/v{version}/wg/key/exchange"
    answer = await asyncio.to_thread(run, "wget", "-qO-", "--no-proxy", f"--post-data={body}", url)
    return 200, json.loads(answer)


async def submit_with_urllib(
    broker: Listen, version: int, domain: str, key: PublicKey
) -> tuple[int, Mapping[str, Any]]:
    answer = await submit(str(broker), version, domain, key)
    return answer.status, answer.json


ALL_SENDERS = pytest.mark.parametrize(
    "send",
    [
        pytest.param(submit_with_wget, id="wget"),
        pytest.param(post_key, id="router"),
        pytest.param(submit_with_urllib, id="urllib"),
    ],
)


# --- the way of a key


@ALL_SENDERS
async def test_version_1_installs_a_peer_with_all_its_parts(mosquitto: Mosquitto, send: Submit) -> None:
    config = configuration(mosquitto.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        key = new_key()
        assert await send(broker.nodes, 1, WELT.name, key) == (200, OK)
        await installed(worker, WELT, key)
        assert not await worker.has(CITY, key)


@ALL_SENDERS
async def test_version_2_installs_a_peer_and_names_the_gateway(mosquitto: Mosquitto, send: Submit) -> None:
    config = configuration(mosquitto.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        await gateways_known(broker, "gw01")
        key = new_key()
        status, answer = await send(broker.nodes, 2, CITY.name, key)
        assert (status, answer) == (200, {"Endpoint": await expected_endpoint(worker, CITY)})
        await installed(worker, CITY, key)
        assert not await worker.has(WELT, key)


async def test_broker_and_worker_may_use_different_versions_of_mqtt(mosquitto: Mosquitto) -> None:
    old, new = (configuration(mosquitto.port, mqtt={"version": version}) for version in ("3.1.1", "5"))
    for broker_config, worker_config in ((old, new), (new, old), (old, old)):
        async with running_worker(worker_config) as worker, running_broker(broker_config) as broker:
            await gateways_known(broker, "gw01")
            key = new_key()
            answer = await broker.submit(2, WELT.name, key)
            assert answer.json == {"Endpoint": await expected_endpoint(worker, WELT)}
            await installed(worker, WELT, key)


async def test_a_flood_of_keys_is_installed_without_a_loss(bench: Bench) -> None:
    server = await bench.mosquitto("max_inflight_messages 20")
    config = configuration(server.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        keys = [new_key() for _ in range(500)]
        answers = await asyncio.gather(*(post_key(broker.nodes, 1, WELT.name, key) for key in keys))
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


async def test_a_server_that_forgot_everything_gets_it_again(bench: Bench, mosquitto: Mosquitto) -> None:
    config = configuration(mosquitto.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        await gateways_known(broker, "gw01")
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
    # Not even by a broker that may not publish its own status, as access rules of old servers have it.
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write wireguard-worker/#\ntopic write wireguard-metrics/#\n")
    server = await bench.mosquitto(f"acl_file {acl}")
    async with running_broker(configuration(server.port)) as broker:
        async with running_worker(configuration(server.port)):
            await gateways_known(broker, "gw01")
            await server.stop(signal.SIGKILL)
        await server.start()
        await gateways_known(broker)
        assert broker.metric("wgkex_broker_worker_online", worker="gw01") == 0
