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
COMMANDS: Final = ("broker", "worker", "probe")
ALL: Final = pytest.mark.parametrize("command", COMMANDS)
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


@ALL
def test_what_is_started_exists(command: str) -> None:
    [line] = directives(command)["ExecStart"]
    program, *arguments = line.split()
    assert program == INSTALLED
    parsed = parser().parse_args(arguments)
    assert (parsed.command, str(parsed.config)) == (command, "/etc/wgkex.yaml")


@ALL
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


def test_each_has_the_rights_and_the_place_to_write_that_it_needs() -> None:
    rights = {
        "broker": "",
        "worker": "CAP_NET_ADMIN",
        "probe": "CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN",
    }
    places = {"broker": [], "worker": ["wgkex"], "probe": ["wgkex"]}
    families = {"AF_UNIX", "AF_NETLINK", "AF_INET", "AF_INET6"}
    for command in COMMANDS:
        unit = directives(command)
        assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == [rights[command]]
        assert unit["StateDirectory"] == places[command]
        assert unit["ProtectSystem"] == ["strict"]
        assert unit["NoNewPrivileges"] == ["yes"]
        # Processor and memory metrics need /proc/stat.
        assert unit["ProcSubset"] == []
        packets = {"AF_PACKET"} if command == "probe" else set()
        assert set(unit["RestrictAddressFamilies"][0].split()) == families | packets
        assert unit["RestrictNamespaces"] == ["net" if command == "probe" else "yes"]


@ALL
def test_the_user_is_the_one_that_is_made(command: str) -> None:
    [user] = re.findall(r"^u (\S+) - ", (FOLDER / "sysusers.d" / "wgkex.conf").read_text(), re.MULTILINE)
    assert directives(command)["User"] == directives(command)["Group"] == [user]


def test_the_files_that_the_instructions_name_are_there() -> None:
    text = (FOLDER / "README.md").read_text()
    named = re.findall(r"\bdeploy/\S+\.(?:conf|service)\b", text)
    assert named
    assert all((ROOT / name).is_file() for name in named)
    assert {unit_file(command) for command in COMMANDS} == set((FOLDER / "systemd").iterdir())
