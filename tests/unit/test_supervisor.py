"""What the service manager is told, over real sockets; a clock that needs no waiting."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Coroutine, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fakes import run_in_virtual_time
from tests.manager import Manager
from wgkex_ops.supervisor import Supervisor


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path if request.param == "path" else None) as manager:
        yield manager


def for_seconds(seconds: float, coroutine: Coroutine[Any, Any, object]) -> None:
    """Run what runs for ever for a while."""

    async def run() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await coroutine

    run_in_virtual_time(run())


def none() -> list[str]:
    return []


def never(_limit: float) -> list[str]:
    return []


def test_ready_and_stopping_are_told(manager: Manager) -> None:
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
    supervisor = Supervisor(manager.address, watchdog=30)
    for_seconds(44, supervisor.watch(none, never))
    assert manager.told("WATCHDOG") == ["1", "1", "1"]
    assert manager.told("STATUS") == ["ready", "ready", "ready"]


def test_without_a_watchdog_only_the_status_is_told(manager: Manager) -> None:
    asked: list[float] = []

    def stuck(limit: float) -> list[str]:
        asked.append(limit)
        return ["a part is stuck"]

    troubles = iter([["the server is away", "wg-welt is down"], []])
    for_seconds(15, Supervisor(manager.address).watch(lambda: next(troubles), stuck))
    assert manager.told("STATUS") == ["not ready: the server is away; wg-welt is down", "ready"]
    assert manager.told("WATCHDOG") == []
    assert asked == []


def test_whoever_is_stuck_gives_no_sign_of_life_and_is_told_of_once(manager: Manager) -> None:
    turns = count()
    limits = set()

    def stuck(limit: float) -> list[str]:
        limits.add(limit)
        return ["a part is stuck"] if 1 <= next(turns) <= 3 else []

    with capture_logs() as logs:
        for_seconds(5.5, Supervisor(manager.address, watchdog=2).watch(lambda: ["away"], stuck))
    assert limits == {2}
    assert [("WATCHDOG" in notice.fields) for notice in manager.notices] == [True, False, False, False, True, True]
    assert manager.told("STATUS")[0:2] == ["not ready: away", "not ready: a part is stuck; away"]
    assert [(line["event"], line["log_level"], line["detail"]) for line in logs] == [
        ("stuck", "critical", "a part is stuck")
    ]


def test_the_status_of_the_end_stays_and_the_signs_of_life_go_on(manager: Manager) -> None:
    supervisor = Supervisor(manager.address, watchdog=2)
    supervisor.stop(5, "finishes")
    for_seconds(1.5, supervisor.watch(none, never))
    assert manager.told("STATUS") == ["finishes"]
    assert manager.told("WATCHDOG") == ["1", "1"]


def test_without_a_manager_nothing_is_done() -> None:
    with capture_logs() as logs:
        supervisor = Supervisor()
        supervisor.ready()
        supervisor.stop(5, "finishes")
        for_seconds(1000, supervisor.watch(none, never))
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
    asked: set[float] = set()

    def stuck(limit: float) -> list[str]:
        asked.add(limit)
        return []

    supervisor = Supervisor.from_environment({"NOTIFY_SOCKET": manager.address, **environment}, 42)
    for_seconds(1, supervisor.watch(none, stuck))
    assert asked == ({seconds} if seconds else set())
    assert bool(manager.told("WATCHDOG")) == bool(seconds)


def test_an_environment_without_a_manager_is_none() -> None:
    with capture_logs() as logs:
        Supervisor.from_environment({"WATCHDOG_USEC": "1000000"}, 42).ready()
    assert logs == []
