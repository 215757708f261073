"""What a service manager gets from both processes: real processes, a real socket."""

import signal
import socket
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.helpers import WELT
from tests.integration.inprocess import new_key, settings
from tests.integration.loopback import LOOPBACK, accepts, eventually, free_port, request
from tests.integration.servers import Bench, Mosquitto
from tests.integration.supervised import WATCHDOG, Supervised, started, under
from tests.manager import Manager

BOTH = pytest.mark.parametrize("command", ["broker", "worker"])

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
# Until there is a file `go`; another file shows that it waits.
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
# Sooner than the time that one attempt to connect may take.
SESSION_IS_STUCK_SOON = "session.STUCK_AFTER = 0.5"


@BOTH
@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_beginning_and_end_are_reported_by_the_process_itself(
    tmp_path_factory: pytest.TempPathFactory, mosquitto: Mosquitto, command: str, kind: str
) -> None:
    # The path of a socket has 107 bytes at the most.
    folder = tmp_path_factory.mktemp("s")
    with under(Manager(folder if kind == "path" else None), folder) as supervised:
        program = supervised.wgkex(command, settings(mosquitto.port))
        ready = await supervised.gets("READY", "1")
        # What waited for it may connect at once.
        for listen in (await started(program)).values():
            assert accepts(listen.port)
        await supervised.gets("STATUS", "^ready$")
        program.process.send(signal.SIGTERM)
        stopping = await supervised.gets("STOPPING", "1")
        assert await program.process.ended() == 0
        assert {notice.pid for notice in supervised.manager.notices} == {program.process.pid}
        assert supervised.manager.notices.index(ready) == 0
        assert supervised.manager.values("READY") == supervised.manager.values("STOPPING") == ["1"]
        assert stopping.fields == {
            "STOPPING": "1",
            "EXTEND_TIMEOUT_USEC": "5000000",
            "STATUS": "finishes what was accepted",
        }


@pytest.mark.parametrize("setting", ["broker_listen", "broker.metrics_listen", "worker.metrics_listen"])
async def test_a_process_whose_port_is_taken_is_never_ready_and_logs_which_setting_to_change(
    supervised: Supervised, mosquitto: Mosquitto, setting: str
) -> None:
    command = setting.partition("_")[0].partition(".")[0]
    with socket.create_server((LOOPBACK, free_port())) as taken:
        port = taken.getsockname()[1]
        listen: dict[str, object] = {"host": LOOPBACK, "port": port}
        changes = {"broker_listen": listen} if setting == "broker_listen" else {command: {"metrics_listen": listen}}
        program = supervised.wgkex(command, settings(mosquitto.port, **changes))
        assert await program.process.ended() == 1
    assert supervised.manager.notices == []
    [line] = [line for line in program.events if line["level"] == "critical"]
    assert line["event"] == "stopped"
    assert line["error"] == (
        f"cannot listen on {LOOPBACK}:{port}: another program uses this port; to use another one, set {setting}.port"
    )


async def test_a_worker_is_ready_when_the_peers_of_an_earlier_process_are_back(
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
    await supervised.gets("READY", "1")
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
    await supervised.gets_no_sign_of_life(since=time.monotonic())
    assert program.process.running
    if fault == APPLY_WAITS_FOR_EVER:
        # It can still report, and end by itself.
        assert (await program.logs("stuck"))["detail"] == "the installer is stuck"
        await supervised.gets("STATUS", "^not ready: the installer is stuck$")
        assert await program.stop() == 0
    else:
        # What systemd then does.
        assert await program.stop(signal.SIGABRT) == -signal.SIGABRT


@BOTH
async def test_a_process_whose_session_is_stuck_gives_no_sign_of_life(supervised: Supervised, command: str) -> None:
    # Connections are accepted by the kernel, and nothing ever comes back.
    with socket.create_server((LOOPBACK, free_port())) as silent:
        program = supervised.wgkex(command, settings(silent.getsockname()[1]), SESSION_IS_STUCK_SOON)
        await supervised.gets_no_sign_of_life(since=(await supervised.gets("READY", "1")).at)
        assert (await program.logs("stuck"))["detail"] == "the MQTT session is stuck"
        assert program.process.running
