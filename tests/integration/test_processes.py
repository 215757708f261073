"""Broker and worker as processes: their logs, how they start and how they end."""

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import WELT
from tests.integration.inprocess import new_key, settings, submit
from tests.integration.keys import OK
from tests.integration.loopback import eventually_answered, free_port, request
from tests.integration.servers import Bench, Mosquitto, Program, suspended


async def both(bench: Bench, server_port: int, **changes: object) -> tuple[Program, Program]:
    """A worker and a broker as processes; they run, and may or may not be connected."""
    worker, broker = (bench.wgkex(command, settings(server_port, **changes)) for command in ("worker", "broker"))
    await worker.logs("worker_started")
    await broker.logs("broker_started")
    return worker, broker


async def test_one_request_id_is_in_the_response_and_in_both_logs(bench: Bench, mosquitto: Mosquitto) -> None:
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


async def test_a_signal_ends_a_broker_that_waits_for_an_acknowledgement(bench: Bench, mosquitto: Mosquitto) -> None:
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


async def test_a_request_in_progress_is_finished_before_the_end(bench: Bench, mosquitto: Mosquitto) -> None:
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
