"""The systemd units fit what the programs do."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import ROOT
from wgkex_ops.__main__ import EXIT_CONFIGURATION, parser

FOLDER: Final = ROOT / "deploy"
BOTH: Final = pytest.mark.parametrize("command", ["broker", "worker"])
INSTALLED: Final = "/opt/wgkex-ops/current/bin/wgkex-ops"


def unit_file(command: str) -> Path:
    return FOLDER / "systemd" / f"wgkex-{command}.service"


def directives(command: str) -> Mapping[str, Sequence[str]]:
    """The values of each setting, in order: systemd allows some of them more than once, configparser does not."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in unit_file(command).read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


@BOTH
def test_what_is_started_exists(command: str) -> None:
    [line] = directives(command)["ExecStart"]
    program, *arguments = line.split()
    assert program == INSTALLED
    parsed = parser().parse_args(arguments)
    assert (parsed.command, str(parsed.config)) == (command, "/etc/wgkex.yaml")


@BOTH
def test_each_end_but_a_wrong_configuration_is_followed_by_a_start(command: str) -> None:
    unit = directives(command)
    assert unit["Type"] == ["notify"]
    assert unit["NotifyAccess"] == ["main"]
    assert unit["Restart"] == ["always"]
    assert unit["RestartPreventExitStatus"] == [str(EXIT_CONFIGURATION)]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert unit["WatchdogSec"] == ["30"]
    # A clean end is in time; what it takes longer is asked for by the process itself.
    assert int(unit["TimeoutStopSec"][0]) > 5


def test_only_the_worker_has_a_right_and_a_place_to_write() -> None:
    broker, worker = directives("broker"), directives("worker")
    assert broker["CapabilityBoundingSet"] == broker["AmbientCapabilities"] == [""]
    assert worker["CapabilityBoundingSet"] == worker["AmbientCapabilities"] == ["CAP_NET_ADMIN"]
    assert broker["StateDirectory"] == []
    assert worker["StateDirectory"] == ["wgkex"]
    for unit in (broker, worker):
        assert unit["ProtectSystem"] == ["strict"]
        assert unit["NoNewPrivileges"] == ["yes"]
        # Processor and memory metrics need /proc/stat.
        assert unit["ProcSubset"] == []
        assert set(unit["RestrictAddressFamilies"][0].split()) == {"AF_UNIX", "AF_NETLINK", "AF_INET", "AF_INET6"}


@BOTH
def test_the_user_is_the_one_that_is_made(command: str) -> None:
    [user] = re.findall(r"^u (\S+) - ", (FOLDER / "sysusers.d" / "wgkex.conf").read_text(), re.MULTILINE)
    assert directives(command)["User"] == directives(command)["Group"] == [user]


def test_the_files_that_the_instructions_name_are_there() -> None:
    text = (FOLDER / "README.md").read_text()
    named = re.findall(r"\bdeploy/\S+\.(?:conf|service)\b", text)
    assert named
    assert all((ROOT / name).is_file() for name in named)
    assert {unit_file(command) for command in ("broker", "worker")} == set((FOLDER / "systemd").iterdir())
