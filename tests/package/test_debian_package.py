"""The Debian package on a Debian machine with a systemd of its own: from the installation to the purge."""

import json
import re
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import KEY, ROOT
from tests.integration.test_units import EXPOSURE
from tests.package.debian import Package
from tests.package.machine import Machine, checked
from wgkex_ops.__main__ import parser

EXAMPLE: Final = "/usr/share/doc/wgkex-ops/examples/wgkex.yaml.example"
CONFIG: Final = {
    "domains": ["ffmuc_welt"],
    "domain_prefixes": ["ffmuc_"],
    "mqtt": {"broker_url": "127.0.0.1"},
    # A machine without a kernel of its own has no WireGuard.
    "worker": {"name": "gw01.example.net", "dataplane": "memory"},
}
COMMANDS: Final = re.findall(r"^    ([a-z]+) ", parser().format_help(), re.MULTILINE)


def test_lintian_has_nothing_to_say(package: Package) -> None:
    """An override has its reason in the file of overrides."""
    assert checked("lintian", "--no-cfg", "--allow-root", str(package.path), timeout=600) == ""


def test_no_file_of_the_package_is_a_configuration(package: Package) -> None:
    """Else dpkg would ask about /etc/wgkex.yaml at each upgrade, and know a file with a password."""
    listed = checked("dpkg-deb", "--contents", str(package.path))
    assert " ./etc/" not in listed
    assert " ./usr/bin/wgkex-ops -> ../lib/wgkex-ops/bin/wgkex-ops" in listed


def test_the_version_is_that_of_the_project(package: Package) -> None:
    [version] = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert re.fullmatch(re.escape(version) + r"([~+]git\d{14}\.[0-9a-f]+)?", package.version)


@pytest.mark.parametrize("program", ["wgkex-ops", "wgkex-broker", "wgkex-worker"])
def test_the_programs_run(installed: Machine, program: str) -> None:
    assert re.fullmatch(r"wgkex-ops \d+\.\d+\.\d+\n", installed.output(program, "--version"))


def test_the_user_is_made_and_cannot_log_in(installed: Machine) -> None:
    name, _, number, _, _, _, shell = installed.output("getent", "passwd", "wgkex").strip().split(":")
    assert (name, shell) == ("wgkex", "/usr/sbin/nologin")
    assert int(number) < 1000
    assert "wgkex" in installed.output("getent", "group", "wgkex")


def test_no_service_runs_before_somebody_enables_it(installed: Machine) -> None:
    for unit in EXPOSURE:
        assert installed.run("systemctl", "is-enabled", unit).stdout == "disabled\n"
        assert installed.state(unit) == "inactive"


def test_systemd_accepts_the_units(installed: Machine) -> None:
    assert installed.output("systemd-analyze", "verify", "--recursive-errors=no", *EXPOSURE) == ""
    for unit, exposure in EXPOSURE.items():
        installed.output("systemd-analyze", "security", "--offline=true", f"--threshold={exposure}", unit)


def test_the_example_is_a_configuration(installed: Machine) -> None:
    for program in ("broker", "worker", "probe"):
        checked_config = installed.output("wgkex-ops", program, "--check-config", "--config", EXAMPLE)
        assert checked_config == "The configuration is fine.\n"


@pytest.mark.parametrize("name", ["wgkex-ops", "wgkex-broker", *(f"wgkex-ops-{command}" for command in COMMANDS)])
def test_each_command_has_a_man_page_without_mistakes(installed: Machine, name: str) -> None:
    done = installed.run("man", "--warnings", "--pager=cat", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"WGKEX-OPS(-[A-Z]+)?\(1\)", done.stdout)
    # `apropos` finds it.
    assert installed.output("whatis", name).startswith("wgkex-")


def test_bash_completes(installed: Machine) -> None:
    script = """
        . /usr/share/bash-completion/bash_completion
        _completion_loader wgkex-ops
        COMP_WORDS=(wgkex-ops un) COMP_CWORD=1; _shtab_wgkex_ops; echo "${COMPREPLY[@]}"
        COMP_WORDS=(wgkex-ops broker --log-f) COMP_CWORD=2; _shtab_wgkex_ops; echo "${COMPREPLY[@]}"
        cd /etc
        COMP_WORDS=(wgkex-ops broker --config debian_v) COMP_CWORD=3; _shtab_wgkex_ops; echo "${COMPREPLY[@]}"
    """
    assert installed.output("bash", "-c", script).split() == ["undrain", "--log-format", "debian_version"]


def test_zsh_and_fish_complete(installed: Machine) -> None:
    zsh = "autoload -U compinit && compinit -u -D && print $_comps[wgkex-ops] && autoload -X +X _wgkex-ops"
    assert installed.output("zsh", "-fc", zsh) == "_wgkex-ops\n"
    found = installed.output("fish", "-c", "complete --do-complete 'wgkex-ops und'")
    assert found.startswith("undrain\t")


def test_services_upgrade_removal_and_purge(machine: Machine, package: Package, tmp_path: Path) -> None:
    machine.install(package.path)
    config = machine.root / "etc" / "wgkex.yaml"
    # What the document has people type.
    [copying] = re.findall(r"^install -m 640 .*/etc/wgkex\.yaml$", (ROOT / "docs/install.md").read_text(), re.MULTILINE)
    machine.output(*copying.split())
    as_service = ("runuser", "-u", "wgkex", "--", "wgkex-ops", "broker", "--check-config")
    assert machine.output(*as_service) == "The configuration is fine.\n"
    config.write_text(json.dumps(CONFIG))
    machine.output("systemctl", "enable", "--now", "wgkex-worker", "wgkex-broker")

    register = ("wgkex-ops", "register", "ffmuc_welt", KEY, "--url", "http://127.0.0.1:5000")
    assert "gw01.example.net" in machine.output(*register)
    assert "Active: active (running)" in machine.output("systemctl", "status", "wgkex-broker")
    assert "peer_installed" in machine.journal()
    machine.output("systemctl", "reload", "wgkex-broker")
    examined = machine.run("wgkex-ops", "doctor").stdout
    assert len(re.findall(r"^ok +(?:broker|worker) version .*, revision [0-9a-f]{7,}$", examined, re.MULTILINE)) == 2, (
        examined
    )
    before = {unit: machine.process(unit) for unit in ("wgkex-broker", "wgkex-worker")}

    newer = package.with_version(f"{package.version}.1", tmp_path)
    machine.install(newer.path)
    assert newer.version in machine.output("dpkg-query", "--show", "wgkex-ops")
    for unit, process in before.items():
        assert machine.state(unit) == "active"
        assert machine.process(unit) not in (process, "0")
    assert machine.state("wgkex-probe") == "inactive"
    assert json.loads(config.read_text()) == CONFIG
    assert (config.stat().st_mode & 0o777) == 0o640
    assert "gw01.example.net" in machine.output(*register)

    machine.output("apt-get", "remove", "--yes", "wgkex-ops")
    assert {machine.state(unit) for unit in before} <= {"inactive", "failed"}
    assert machine.process("wgkex-broker") == "0"
    state = machine.root / "var" / "lib" / "wgkex"
    assert (state / "journal.sqlite3").exists()
    assert json.loads(config.read_text()) == CONFIG

    # What an administrator has written stays, and so does the user that may read it.
    machine.output("apt-get", "purge", "--yes", "wgkex-ops")
    assert not state.exists()
    assert json.loads(config.read_text()) == CONFIG
    assert machine.run("getent", "passwd", "wgkex").returncode == 0


def test_a_purge_leaves_nothing_behind(machine: Machine, package: Package) -> None:
    before = machine.files()
    machine.install(package.path)
    # As a worker has left it.
    machine.output("install", "-d", "-o", "wgkex", "-g", "wgkex", "-m", "700", "/var/lib/wgkex")
    machine.output("install", "-o", "wgkex", "/dev/null", "/var/lib/wgkex/anything")
    machine.output("wgkex-ops", "up", "--help")
    assert machine.files() > before
    machine.output("apt-get", "purge", "--yes", "wgkex-ops")

    assert machine.files() - before == {f"/root/{package.path.name} 644 root:root "}
    assert before - machine.files() == set()
    assert machine.run("getent", "passwd", "wgkex").returncode != 0
    assert machine.run("getent", "group", "wgkex").returncode != 0
