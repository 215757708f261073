"""How both processes end: in time, with what was accepted finished, and at once when a task crashes."""

import asyncio
import json
import signal
import time

import pytest

from tests import helpers
from tests.helpers import WELT
from tests.integration.inprocess import new_key, settings, submit
from tests.integration.loopback import accepts, eventually_answered, request
from tests.integration.servers import Bench, Mosquitto, suspended
from tests.integration.supervised import (
    VERY_LONG,
    WATCHDOG,
    Supervised,
    readiness_is,
    shutting_down,
    started,
)

EVENTS_BREAK_DOWN = """
async def events(self):
    # By then it has announced itself, and has to report that it is offline.
    await asyncio.sleep(1)
    raise DataplaneError(Operation.DUMP, "ENOBUFS", "the source of events broke down")
    yield
MemoryDataplane.events = events
"""
GATEWAYS_BREAK_DOWN = """
update = Gateways.update
def breaks_down(self, event, now):
    if getattr(event, "worker", "") == "poison":
        raise RuntimeError("the gateways broke down")
    return update(self, event, now)
Gateways.update = breaks_down
"""


def keep_alive_request(path: str = "/api") -> bytes:
    return helpers.request("GET", path, close=False)


# --- the end of a broker


async def test_a_delayed_end_is_announced_while_nodes_are_still_served(
    supervised: Supervised, bench: Bench, mosquitto: Mosquitto
) -> None:
    observer = await bench.observe(mosquitto)
    worker = bench.wgkex("worker", settings(mosquitto.port))
    await worker.logs("worker_announced")
    delay = 2 * WATCHDOG
    program = supervised.wgkex("broker", settings(mosquitto.port, broker={"shutdown_delay": delay}))
    listens = await started(program)
    await program.logs("mqtt_connected")
    nodes, pages = listens["listen"], listens["metrics"]
    await eventually_answered(lambda: readiness_is(pages, 200, "ready"), "a broker that is ready")
    async with helpers.connection(nodes) as (reader, writer):
        writer.write(keep_alive_request())
        assert "connection" not in (await helpers.read_answer(reader)).headers

        start = time.monotonic()
        program.process.send(signal.SIGTERM)
        notice = await supervised.gets("STOPPING", "1")
        assert notice.at - start < delay / 2
        assert int(notice.fields["EXTEND_TIMEOUT_USEC"]) == (delay + 5) * 1e6
        await eventually_answered(lambda: shutting_down(pages), "a broker that is not ready")
        assert (await request(f"http://{pages}/-/healthy")).status == 200
        key = new_key()
        assert (await submit(str(nodes), 1, WELT.name, key)).status == 200
        await worker.logs("peer_installed", public_key=str(key))
        # A connection that is kept open gets one more response, which is marked as the last.
        writer.write(keep_alive_request())
        assert (await helpers.read_answer(reader)).headers["connection"] == "close"
        assert await reader.read() == b""
        assert time.monotonic() - start < delay, "this machine is too slow for this test"
    assert observer.payloads("wireguard-broker/gw01/status")[-1:] == [b"1"]

    assert await program.process.ended() == 0
    assert delay <= time.monotonic() - start < delay + 5
    await observer.sees("wireguard-broker/gw01/status", "0")
    signs = [notice for notice in supervised.manager.notices if "WATCHDOG" in notice.fields and notice.at > start]
    assert len(signs) >= 2
    assert {line["level"] for line in program.events} == {"info"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_second_signal_skips_the_delay(
    supervised: Supervised, bench: Bench, mosquitto: Mosquitto, number: signal.Signals
) -> None:
    observer = await bench.observe(mosquitto)
    program = supervised.wgkex("broker", settings(mosquitto.port, broker={"shutdown_delay": VERY_LONG}))
    pages = (await started(program))["metrics"]
    await observer.sees("wireguard-broker/gw01/status", "1")
    program.process.send(signal.SIGTERM)
    await eventually_answered(lambda: shutting_down(pages), "a broker that is not ready")
    start = time.monotonic()
    program.process.send(number)
    assert await program.process.ended() == 0
    assert time.monotonic() - start < 5
    await observer.sees("wireguard-broker/gw01/status", "0")
    assert [int(usec) / 1e6 for usec in supervised.manager.values("EXTEND_TIMEOUT_USEC")] == [VERY_LONG + 5, 5]


async def test_without_a_delay_a_request_in_progress_is_finished_by_a_broker_that_is_not_ready(
    bench: Bench, mosquitto: Mosquitto
) -> None:
    document = settings(mosquitto.port, mqtt={"keepalive": 60})
    worker, broker = (bench.wgkex(command, document) for command in ("worker", "broker"))
    await worker.logs("worker_announced")
    listens = await started(broker)
    await broker.logs("mqtt_connected")
    with suspended(mosquitto):
        waiting = asyncio.create_task(submit(str(listens["listen"]), 1, WELT.name, new_key()))

        async def in_flight() -> bool:
            page = await request(f"http://{listens['metrics']}/metrics")
            return "wgkex_broker_http_requests_in_progress 1.0" in page.text

        await eventually_answered(in_flight, "a request in progress")
        broker.process.send(signal.SIGTERM)
        await broker.logs("broker_stopping")
        assert await shutting_down(listens["metrics"])
        assert not accepts(listens["listen"].port)
    assert (await waiting).json == {"Message": "OK"}
    assert await broker.process.ended() == 0


async def test_a_worker_has_no_delay(bench: Bench, mosquitto: Mosquitto) -> None:
    observer = await bench.observe(mosquitto)
    program = bench.wgkex("worker", settings(mosquitto.port, broker={"shutdown_delay": VERY_LONG}))
    await program.logs("worker_announced")
    start = time.monotonic()
    assert await program.stop() == 0
    assert time.monotonic() - start < 5
    await observer.sees("wireguard-worker/gw01/status", "0")
    await observer.sees(f"wireguard-metrics/{WELT.name}/gw01/connected_peers", "-1")


# --- the crash of a task


async def test_a_breakdown_of_the_link_events_ends_the_worker(
    supervised: Supervised, bench: Bench, mosquitto: Mosquitto
) -> None:
    observer = await bench.observe(mosquitto)
    program = supervised.wgkex("worker", settings(mosquitto.port), EVENTS_BREAK_DOWN)
    assert await program.process.ended() == 1
    [line] = [line for line in program.events if line["level"] == "critical"]
    assert line["event"] == "stopped"
    assert "the source of events broke down" in line["error"]
    assert program.logged("worker_announced")
    await observer.sees("wireguard-worker/gw01/status", "0")
    assert supervised.manager.values("READY") == ["1"]
    assert supervised.manager.values("STOPPING") == []


@pytest.mark.parametrize("stopping", [False, True], ids=["in-the-middle", "during-the-delay"])
async def test_a_breakdown_of_a_task_ends_the_broker_at_once(
    supervised: Supervised, bench: Bench, mosquitto: Mosquitto, stopping: bool
) -> None:
    observer = await bench.observe(mosquitto)
    document = settings(mosquitto.port, broker={"shutdown_delay": VERY_LONG})
    program = supervised.wgkex("broker", document, GATEWAYS_BREAK_DOWN)
    await observer.sees("wireguard-broker/gw01/status", "1")
    if stopping:
        program.process.send(signal.SIGTERM)
        await supervised.gets("STOPPING", "1")
    mosquitto.publish("wireguard-worker/poison/status", "1")
    assert await program.process.ended() == 1
    [line] = [line for line in program.events if line["level"] == "critical"]
    assert line["event"] == "crashed"
    assert "the gateways broke down" in json.dumps(line)
    await observer.sees("wireguard-broker/gw01/status", "0")
