"""How both processes begin and end, and what a service manager is told of it: real processes, a real socket."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests import helpers
from tests.helpers import WELT
from tests.integration.inprocess import new_key, settings, submit
from tests.integration.servers import (
    LOOPBACK,
    Answer,
    Bench,
    Mosquitto,
    Program,
    accepts,
    eventually,
    eventually_answered,
    free_port,
    request,
    suspended,
)
from tests.manager import Manager, Notice
from wgkex_ops.config import Listen

BOTH = pytest.mark.parametrize("command", ["broker", "worker"])
# Seconds; short enough to wait for, and long enough for a machine that is busy with other things.
WATCHDOG = 2.0
# Longer than any test: who waits for it has failed.
VERY_LONG = 300

# As systemd starts a process: the number in WATCHDOG_PID is its own.
SUPERVISED = 'export NOTIFY_SOCKET="$1" WATCHDOG_USEC="$2" WATCHDOG_PID=$$; shift 2; exec "$@"'

# The product's own way in, with one part that breaks.
FAULTY = """
import asyncio, sys, time
from wgkex_ops import __main__
from wgkex_ops.bus import session as mqtt
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane
from wgkex_ops.model.changes import Operation
from wgkex_ops.errors import DataplaneError
from wgkex_ops.http.gateways.registry import Gateways

FAULT

sys.exit(__main__.main(sys.argv[1:]))
"""
APPLY_WAITS_FOR_EVER = """
async def apply(self, changes):
    await asyncio.Event().wait()
MemoryDataplane.apply = apply
"""
APPLY_HOLDS_THE_EVENT_LOOP = """
async def apply(self, changes):
    time.sleep(1000)
MemoryDataplane.apply = apply
"""
# Until there is a file `go`; tells by another one that it waits.
APPLY_WAITS_FOR_A_FILE = """
from pathlib import Path
apply_now = MemoryDataplane.apply
async def apply(self, changes):
    Path("FOLDER/waits").touch()
    while not Path("FOLDER/go").exists():
        await asyncio.sleep(0.01)
    return await apply_now(self, changes)
MemoryDataplane.apply = apply
"""
EVENTS_BREAK_DOWN = """
async def events(self):
    # Whoever has announced itself has to say goodbye.
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
SESSION_STANDS_STILL = """
async def open(self, *arguments):
    await asyncio.Event().wait()
mqtt.Connection.open = open
mqtt.STUCK_AFTER = 0.5
"""


class Supervised:
    """Our processes as systemd starts them."""

    def __init__(self, bench: Bench, manager: Manager) -> None:
        self.bench = bench
        self.manager = manager

    def wgkex(self, command: str, document: Mapping[str, Any], fault: str = "") -> Program:
        if not fault:
            return self.bench.wgkex(command, document)
        config = self.bench.folder / "faulty.yaml"
        config.write_text(json.dumps(document))
        script = FAULTY.replace("FAULT", fault)
        process = self.bench.start(f"faulty-{command}", sys.executable, "-c", script, command, "--config", str(config))
        return Program(process)

    async def told(self, name: str, pattern: str) -> Notice:
        """Wait until a field has had a value, and return the first such notice."""

        def find() -> Notice | None:
            found = (notice for notice in self.manager.notices if re.search(pattern, notice.fields.get(name, "")))
            return next(found, None)

        return await eventually(find, f"{name}={pattern}")

    async def silent(self, since: float) -> None:
        """Wait until there has been no sign of life for so long that systemd would have ended the process."""

        def silence() -> bool:
            signs = [notice.at for notice in self.manager.notices if "WATCHDOG" in notice.fields]
            return time.monotonic() - max(signs, default=since) > 1.5 * WATCHDOG

        await eventually(silence, "no sign of life")


@contextlib.contextmanager
def under(manager: Manager, folder: Path) -> Iterator[Supervised]:
    prefix = ("sh", "-c", SUPERVISED, "sh", manager.address, f"{WATCHDOG * 1e6:.0f}")
    with manager, Bench(folder, prefix) as bench:
        yield Supervised(bench, manager)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    folder = tmp_path / "supervised"
    folder.mkdir()
    with under(Manager(), folder) as supervised:
        yield supervised


async def started(program: Program) -> dict[str, Listen]:
    """Where it listens."""
    command = program.process.command[program.process.command.index("--config") - 1]
    line = await program.logs(f"{command}_started")
    addresses = {name: line[name].rpartition(":") for name in ("listen", "metrics") if name in line}
    return {name: Listen(host=host, port=int(port)) for name, (host, _, port) in addresses.items()}


async def readiness(pages: Listen) -> Answer:
    return await request(f"http://{pages}/-/ready")


async def shutting_down(pages: Listen) -> bool:
    return await readiness_is(pages, 503, "shutting down")


async def readiness_is(pages: Listen, status: int, text: str) -> bool:
    answer = await readiness(pages)
    return answer.status == status and text in answer.text


def keep_alive_request(path: str = "/api") -> bytes:
    return helpers.request("GET", path, close=False)


# --- what the service manager is told


@BOTH
@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_beginning_and_end_are_told_by_the_process_itself(
    tmp_path_factory: pytest.TempPathFactory, mosquitto: Mosquitto, command: str, kind: str
) -> None:
    # The path of a socket has 107 bytes at the most.
    folder = tmp_path_factory.mktemp("s")
    with under(Manager(folder if kind == "path" else None), folder) as supervised:
        program = supervised.wgkex(command, settings(mosquitto.port))
        ready = await supervised.told("READY", "1")
        # Whoever is told may come at once.
        for listen in (await started(program)).values():
            assert accepts(listen.port)
        await supervised.told("STATUS", "^ready$")
        program.process.send(signal.SIGTERM)
        stopping = await supervised.told("STOPPING", "1")
        assert await program.process.ended() == 0
        assert {notice.pid for notice in supervised.manager.notices} == {program.process.pid}
        assert supervised.manager.notices.index(ready) == 0
        assert supervised.manager.values("READY") == supervised.manager.values("STOPPING") == ["1"]
        assert stopping.fields == {
            "STOPPING": "1",
            "EXTEND_TIMEOUT_USEC": "5000000",
            "STATUS": "finishes what was accepted",
        }


@BOTH
async def test_who_cannot_listen_is_never_ready(supervised: Supervised, mosquitto: Mosquitto, command: str) -> None:
    with socket.create_server((LOOPBACK, free_port())) as taken:
        listen = {"host": LOOPBACK, "port": taken.getsockname()[1]}
        program = supervised.wgkex(command, settings(mosquitto.port, **{command: {"metrics_listen": listen}}))
        assert await program.process.ended() == 1
    assert supervised.manager.notices == []


async def test_a_worker_is_ready_when_the_peers_of_its_earlier_life_are_back(
    supervised: Supervised, bench: Bench, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    document = settings(mosquitto.port, worker={"state_dir": str(tmp_path)})
    earlier = bench.wgkex("worker", document)
    await earlier.logs("worker_announced")
    key = new_key()
    mosquitto.publish(f"wireguard/{WELT.name}/all", str(key))
    await earlier.logs("peer_installed", public_key=str(key))
    assert await earlier.stop(signal.SIGKILL) == -signal.SIGKILL
    program = supervised.wgkex("worker", document, APPLY_WAITS_FOR_A_FILE.replace("FOLDER", str(tmp_path)))
    await eventually((tmp_path / "waits").exists, "a worker that puts peers back")
    assert supervised.manager.notices == []
    (tmp_path / "go").touch()
    await supervised.told("READY", "1")
    page = await request(f"http://{(await started(program))['metrics']}/metrics")
    assert f'wgkex_worker_peers_restored_total{{domain="{WELT.name}"}} 1.0' in page.text


@BOTH
async def test_signs_of_life_come_in_time_also_without_an_mqtt_server(supervised: Supervised, command: str) -> None:
    supervised.wgkex(command, settings(free_port()))
    await eventually(lambda: len(supervised.manager.values("WATCHDOG")) >= 5, "signs of life")
    signs = [notice.at for notice in supervised.manager.notices if "WATCHDOG" in notice.fields]
    assert max(later - earlier for earlier, later in pairwise(signs)) < WATCHDOG
    assert set(supervised.manager.values("STATUS")) == {"not ready: there is no connection with the MQTT server"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(APPLY_WAITS_FOR_EVER, id="waits-for-ever"),
        pytest.param(APPLY_HOLDS_THE_EVENT_LOOP, id="holds-the-event-loop"),
    ],
)
async def test_a_worker_whose_dataplane_hangs_gives_no_sign_of_life(
    supervised: Supervised, mosquitto: Mosquitto, fault: str
) -> None:
    program = supervised.wgkex("worker", settings(mosquitto.port), fault)
    await program.logs("worker_announced")
    await eventually(lambda: len(supervised.manager.values("WATCHDOG")) >= 3, "signs of life")
    mosquitto.publish(f"wireguard/{WELT.name}/all", str(new_key()))
    await supervised.silent(since=time.monotonic())
    assert program.process.running
    if fault == APPLY_WAITS_FOR_EVER:
        # It can still tell, and end by itself.
        assert (await program.logs("stuck"))["detail"] == "the installer is stuck"
        await supervised.told("STATUS", "^not ready: the installer is stuck$")
        assert await program.stop() == 0
    else:
        # What systemd then does.
        assert await program.stop(signal.SIGABRT) == -signal.SIGABRT


@BOTH
async def test_a_process_whose_session_is_stuck_gives_no_sign_of_life(
    supervised: Supervised, mosquitto: Mosquitto, command: str
) -> None:
    program = supervised.wgkex(command, settings(mosquitto.port), SESSION_STANDS_STILL)
    await supervised.silent(since=(await supervised.told("READY", "1")).at)
    assert (await program.logs("stuck"))["detail"] == "the MQTT session is stuck"
    assert program.process.running


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
    assert await readiness_is(pages, 200, "ready")
    async with helpers.connection(nodes) as (reader, writer):
        writer.write(keep_alive_request())
        assert "connection" not in (await helpers.read_answer(reader)).headers

        start = time.monotonic()
        program.process.send(signal.SIGTERM)
        notice = await supervised.told("STOPPING", "1")
        assert notice.at - start < delay / 2
        assert int(notice.fields["EXTEND_TIMEOUT_USEC"]) == (delay + 5) * 1e6
        await eventually_answered(lambda: shutting_down(pages), "a broker that is not ready")
        assert (await request(f"http://{pages}/-/healthy")).status == 200
        key = new_key()
        assert (await submit(str(nodes), 1, WELT.name, key)).status == 200
        await worker.logs("peer_installed", public_key=str(key))
        # A connection that is kept open gets one more answer, and is told to be the last.
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


async def test_a_worker_knows_no_delay(bench: Bench, mosquitto: Mosquitto) -> None:
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
        await supervised.told("STOPPING", "1")
    mosquitto.publish("wireguard-worker/poison/status", "1")
    assert await program.process.ended() == 1
    [line] = [line for line in program.events if line["level"] == "critical"]
    assert line["event"] == "crashed"
    assert "the gateways broke down" in json.dumps(line)
    await observer.sees("wireguard-broker/gw01/status", "0")
