"""The wheel as pipx installs it: in an empty place, with nothing of this checkout."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import KEY, ROOT
from tests.integration.loopback import LOOPBACK, eventually, free_port, request
from tests.integration.servers import Process
from tests.package.machine import checked

READY: Final = "Ctrl-C ends it."


@dataclass(frozen=True)
class Installed:
    """Where the programs are, and the environment to run them in."""

    programs: Path
    environment: Mapping[str, str]

    def output(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            (str(self.programs / program), *arguments),
            cwd=self.programs,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    checked(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", str(ROOT), timeout=600
    )
    [wheel] = folder.glob("*.whl")
    places = {"PIPX_HOME": str(folder / "home"), "PIPX_BIN_DIR": str(folder / "bin")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WGKEX"))}
    subprocess.run(
        ("/usr/bin/pipx", "install", f"{wheel}[embedded]"),
        env=environment | places | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=1200,
        check=True,
    )
    return Installed(folder / "bin", environment)


@pytest.mark.parametrize("program", ["wgkex-ops", "wgkex-broker", "wgkex-worker"])
def test_the_programs_know_their_version(installed: Installed, program: str) -> None:
    [version] = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert installed.output(program, "--version") == f"wgkex-ops {version}\n"


def test_each_command_has_its_help(installed: Installed) -> None:
    commands = re.findall(r"^    ([a-z]+) ", installed.output("wgkex-ops", "--help"), re.MULTILINE)
    assert {"broker", "worker", "up"} < set(commands)
    for command in commands:
        assert installed.output("wgkex-ops", command, "--help").startswith(f"usage: wgkex-ops {command} ")


async def test_everything_runs_and_shows_its_page(installed: Installed, tmp_path: Path) -> None:
    """Templates and style sheets are files of the package, too."""
    listen = {"broker_listen": {"host": LOOPBACK, "port": free_port()}}
    listen |= {section: {"metrics_listen": {"host": LOOPBACK, "port": free_port()}} for section in ("broker", "worker")}
    config = tmp_path / "up.yaml"
    domains = {"domains": ["ffmuc_welt"], "domain_prefixes": ["ffmuc_"], "mqtt": {"broker_url": "mqtt.invalid"}}
    config.write_text(json.dumps(domains | listen))
    program = str(installed.programs / "wgkex-ops")
    elsewhere = ("env", "--unset=PYTHONPATH", f"--chdir={tmp_path}")
    process = Process((*elsewhere, program, "up", "--config", str(config)), tmp_path / "up.log")
    try:
        await eventually(lambda: not process.running or READY in process.output, "the banner")
        assert process.running, process.output
        url = f"http://{LOOPBACK}:{listen['broker_listen']['port']}"
        assert installed.output("wgkex-ops", "register", "ffmuc_welt", KEY, "--url", url)
        for section in ("broker", "worker"):
            port = json.loads(config.read_text())[section]["metrics_listen"]["port"]
            assert "<html" in (await request(f"http://{LOOPBACK}:{port}/")).text
    finally:
        process.close()
