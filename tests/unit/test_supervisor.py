"""What the service manager gets, over real sockets; a clock that needs no waiting."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.fakes import run_in_virtual_time
from tests.helpers import running
from tests.manager import Manager
from wgkex_ops.supervisor import Supervisor


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path if request.param == "path" else None) as manager:
        yield manager


class Process:
    """Its problems, and what is stuck in it, by the time since its start; before that, nothing is."""

    def __init__(
        self, problems: Mapping[float, list[str]] | None = None, stuck: Mapping[float, list[str]] | None = None
    ) -> None:
        self._problems = problems or {}
        self._stuck = stuck or {}
        self.limits: set[float] = set()

    def problems(self) -> list[str]:
        return self._now(self._problems)

    def stuck(self, limit: float) -> list[str]:
        self.limits.add(limit)
        return self._now(self._stuck)

    @staticmethod
    def _now(states: Mapping[float, list[str]]) -> list[str]:
        begun = [start for start in states if start <= asyncio.get_running_loop().time()]
        return states[max(begun)] if begun else []


def watch(supervisor: Supervisor, process: Process, seconds: float) -> None:
    """Watch a process for some time."""

    async def run() -> None:
        async with running(supervisor.watch(process.problems, process.stuck)):
            await asyncio.sleep(seconds)

    run_in_virtual_time(run())


def test_ready_and_stopping_are_reported(manager: Manager) -> None:
    supervisor = Supervisor(manager.address)
    before = supervisor.stopping
    supervisor.ready()
    supervisor.stop(7.5, "finishes")
    assert (before, supervisor.stopping) == (False, True)
    assert [notice.fields for notice in manager.notices] == [
        {"READY": "1"},
        {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "7500000", "STATUS": "finishes"},
    ]
    assert {notice.pid for notice in manager.notices} == {os.getpid()}


def test_a_sign_of_life_comes_at_half_of_the_watchdog_s_time(manager: Manager) -> None:
    watch(Supervisor(manager.address, watchdog=30), Process(), 44)
    assert manager.values("WATCHDOG") == ["1", "1", "1"]
    assert manager.values("STATUS") == ["ready", "ready", "ready"]


def test_without_a_watchdog_only_the_status_is_sent(manager: Manager) -> None:
    process = Process(stuck={0: ["a part is stuck"]})
    watch(Supervisor(manager.address), process, 25)
    assert manager.values("STATUS") == ["ready", "ready", "ready"]
    assert manager.values("WATCHDOG") == []
    assert process.limits == set()


@pytest.mark.parametrize("watchdog", [0, 30])
def test_a_change_of_the_status_is_sent_within_a_second(manager: Manager, watchdog: float) -> None:
    process = Process({0: ["the server is away", "wg-welt is down"], 2.5: ["wg-welt is down"], 4.5: []})
    supervisor = Supervisor(manager.address, watchdog)
    sent: list[list[str]] = []

    async def run() -> None:
        async with running(supervisor.watch(process.problems, process.stuck)):
            for moment in (2.4, 3.6, 4.4, 5.6, 8):
                await asyncio.sleep(moment - asyncio.get_running_loop().time())
                sent.append(manager.values("STATUS"))

    run_in_virtual_time(run())
    away, down, ready = "not ready: the server is away; wg-welt is down", "not ready: wg-welt is down", "ready"
    assert sent == [[away], [away, down], [away, down], [away, down, ready], [away, down, ready]]


def test_what_is_stuck_stops_the_signs_of_life_and_is_logged_once(manager: Manager) -> None:
    process = Process({0: ["away"]}, {1: ["a part is stuck"], 6: []})
    with capture_logs() as logs:
        watch(Supervisor(manager.address, watchdog=4), process, 7.5)
    assert process.limits == {4}
    assert [("WATCHDOG" in notice.fields, notice.fields["STATUS"]) for notice in manager.notices] == [
        (True, "not ready: away"),
        *[(False, "not ready: a part is stuck; away")] * 3,
        (True, "not ready: away"),
    ]
    assert [(line["event"], line["log_level"], line["detail"]) for line in logs] == [
        ("stuck", "critical", "a part is stuck")
    ]


def test_the_status_of_the_end_stays_and_the_signs_of_life_go_on(manager: Manager) -> None:
    supervisor = Supervisor(manager.address, watchdog=2)
    supervisor.stop(5, "finishes")
    watch(supervisor, Process(), 1.5)
    assert manager.values("STATUS") == ["finishes"]
    assert manager.values("WATCHDOG") == ["1", "1"]


def test_without_a_manager_nothing_is_done() -> None:
    with capture_logs() as logs:
        supervisor = Supervisor()
        supervisor.ready()
        supervisor.stop(5, "finishes")
        watch(supervisor, Process({0: ["away"]}, {0: ["a part is stuck"]}), 1000)
    assert supervisor.stopping
    assert logs == []


def test_a_manager_that_has_gone_is_a_warning(tmp_path: Path) -> None:
    with capture_logs() as logs:
        Supervisor(str(tmp_path / "gone")).ready()
    assert [line["event"] for line in logs] == ["supervisor_unreachable"]


def test_a_manager_that_does_not_read_costs_little_time() -> None:
    with Manager() as manager, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"A=1", f"\0{manager.address[1:]}")
        with capture_logs() as logs:
            Supervisor(manager.address).ready()
    assert [line["event"] for line in logs] == ["supervisor_unreachable"]


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "42"}, 0.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "43"}, 0),
        ({"WATCHDOG_USEC": "0"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
    ],
    ids=str,
)
def test_the_watchdog_is_that_of_the_environment_and_of_this_process(
    manager: Manager, environment: dict[str, str], seconds: float
) -> None:
    process = Process()
    watch(Supervisor.from_environment({"NOTIFY_SOCKET": manager.address, **environment}, 42), process, 1)
    assert process.limits == ({seconds} if seconds else set())
    assert bool(manager.values("WATCHDOG")) == bool(seconds)


def test_an_environment_without_a_manager_is_none() -> None:
    with capture_logs() as logs:
        Supervisor.from_environment({"WATCHDOG_USEC": "1000000"}, 42).ready()
    assert logs == []
