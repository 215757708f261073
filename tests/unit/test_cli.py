"""The command line as a user types it: in a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.unit.config.samples import EXAMPLE
from wgkex_ops.__main__ import main

GOOD = "domains: [ffmuc_welt]\ndomain_prefixes: [ffmuc_]\nmqtt: {broker_url: mqtt.example.net}\n"
BAD = "domains: []\ndomain_prefixes: [ffmuc_]\nmqtt: {broker_url: mqtt.example.net, broker_prt: 1883}\n"

COMMANDS = ("broker", "worker", "up")


class Done(NamedTuple):
    """How a run ended, and what it wrote."""

    status: object
    stdout: str
    stderr: str


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs what starts nothing in this process: an interpreter of its own takes a second."""

    def run_here(*arguments: str) -> Done:
        try:
            status: object = main(arguments)
        except SystemExit as end:
            status = end.code
        return Done(status, *capsys.readouterr())

    return run_here


def run(*arguments: str, program: str | None = None, environment: dict[str, str] | None = None) -> Done:
    """Run a program in a process of its own."""
    command = [sys.executable, "-m", "wgkex_ops"] if program is None else [str(Path(sys.executable).with_name(program))]
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith("WGKEX_")} | (environment or {}),
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "wgkex.yaml"
    path.write_text(GOOD)
    return path


def test_help_names_all_commands_and_exit_statuses() -> None:
    done = run("--help")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: wgkex-ops")
    for command in COMMANDS:
        assert f"\n    {command} " in done.stdout
    assert "Exit status: 0 after a clean stop, 2 if the configuration is wrong" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_names_its_options(here: Callable[..., Done], command: str) -> None:
    done = here(command, "--help")
    assert (done.status, done.stderr) == (0, "")
    for option in ("--config FILE", "--check-config", "--log-level", "--log-format"):
        assert option in done.stdout
    assert ("--nodes" in done.stdout) == (command == "up")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (None, ["--version"]),
        (None, ["broker", "--version"]),
        ("wgkex-ops", ["--version"]),
        ("wgkex-broker", ["--version"]),
        ("wgkex-worker", ["--version"]),
    ],
)
def test_version_is_that_of_the_package(program: str | None, arguments: list[str]) -> None:
    done = run(*arguments, program=program)
    assert (done.status, done.stdout, done.stderr) == (0, f"wgkex-ops {version('wgkex-ops')}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_good_configuration_is_fine(here: Callable[..., Done], command: str, config: Path) -> None:
    done = here(command, "--check-config", "--config", str(config))
    assert (done.status, done.stdout, done.stderr) == (0, "The configuration is fine.\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_warning_of_the_check_is_on_standard_error_and_no_failure(
    here: Callable[..., Done], command: str, config: Path
) -> None:
    config.write_text(GOOD.replace("}", ", password: secret, tls: {verify: false}}"))
    config.chmod(0o644)
    done = here(command, "--check-config", "--config", str(config))
    assert (done.status, done.stdout) == (0, "The configuration is fine.\n")
    lines = done.stderr.splitlines()
    assert [line.split(" ")[:2] for line in lines] == [["warning:", f"{config}:"], ["warning:", "mqtt.tls.verify:"]]
    assert "secret" not in done.stderr


def test_a_warning_is_logged_at_the_start(config: Path) -> None:
    config.write_text(f"{GOOD.replace('}', ', password: secret}')}broker: {{metrics_listen: {{host: 192.0.2.1}}}}\n")
    config.chmod(0o644)
    done = run("broker", "--config", str(config))
    events = [json.loads(line) for line in done.stderr.splitlines()]
    [warning] = [event for event in events if event["event"] == "configuration_warning"]
    assert (warning["level"], str(config) in warning["detail"]) == ("warning", True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_key_without_effect_is_warned_of_and_one_that_asks_for_more_is_refused(
    here: Callable[..., Done], command: str, config: Path
) -> None:
    config.write_text(f"{GOOD}parker: {{enabled: false}}\n")
    done = here(command, "--check-config", "--config", str(config))
    assert (done.status, done.stdout) == (0, "The configuration is fine.\n")
    assert done.stderr.startswith("warning: parker: has no effect here: ")
    config.write_text(f"{GOOD}parker: {{enabled: true}}\n")
    done = here(command, "--check-config", "--config", str(config))
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{config}: parker.enabled (line ")


def test_a_key_without_effect_is_logged_at_the_start(config: Path) -> None:
    config.write_text(f"{GOOD}netbox:\nbroker: {{metrics_listen: {{host: 192.0.2.1}}}}\n")
    done = run("broker", "--config", str(config))
    events = [json.loads(line) for line in done.stderr.splitlines()]
    [warning] = [event for event in events if event["event"] == "configuration_warning"]
    assert (warning["level"], warning["detail"].split(":")[0]) == ("warning", "netbox")


@pytest.mark.parametrize("program", ["wgkex-broker", "wgkex-worker"])
def test_old_names_run_their_command(program: str, config: Path) -> None:
    done = run("--check-config", program=program, environment={"WGKEX_CONFIG_FILE": str(config)})
    assert (done.status, done.stdout, done.stderr) == (0, "The configuration is fine.\n", "")


def test_demonstration_needs_no_configuration() -> None:
    done = run("up", "--check-config")
    assert (done.status, done.stdout, done.stderr) == (0, "The configuration is fine.\n", "")


def test_the_example_that_is_printed_is_the_one_at_the_top(here: Callable[..., Done]) -> None:
    assert here("example-config") == (0, EXAMPLE.read_text(), "")


@pytest.mark.parametrize("check", [["--check-config"], []], ids=("checked", "started"))
@pytest.mark.parametrize("command", COMMANDS)
def test_bad_configuration_is_status_2_with_all_problems_on_standard_error(
    here: Callable[..., Done], command: str, check: list[str], config: Path
) -> None:
    config.write_text(BAD)
    done = here(command, *check, "--config", str(config))
    assert (done.status, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{config}: ") for line in lines)
    assert any("domains" in line for line in lines)
    assert any("broker_prt" in line and "broker_port" in line for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["missing", "directory", "binary"])
def test_configuration_that_cannot_be_read_is_status_2(
    here: Callable[..., Done], command: str, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "wgkex.yaml"
    if kind == "directory":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(bytes(range(256)))
    done = here(command, "--config", str(path))
    assert (done.status, done.stdout) == (2, "")
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


def test_option_wins_over_the_environment(config: Path) -> None:
    elsewhere = {"WGKEX_CONFIG_FILE": str(config.with_name("missing"))}
    assert run("broker", "--check-config", environment=elsewhere).status == 2
    assert run("broker", "--check-config", "--config", str(config), environment=elsewhere).status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["brokr"], "invalid choice: 'brokr'"),
        (["broker", "--confg", "x"], "unrecognized arguments: --confg"),
        (["broker", "--nodes", "3"], "unrecognized arguments: --nodes 3"),
        (["broker", "--log-level", "loud"], "invalid choice: 'loud'"),
        (["broker", "--log-format", "xml"], "invalid choice: 'xml'"),
        (["broker", "--config"], "expected one argument"),
        (["up", "--nodes", "-1"], "should be from 0 to 10000"),
        (["up", "--nodes", "10001"], "should be from 0 to 10000"),
        (["up", "--nodes", "many"], "should be from 0 to 10000"),
        (["up", "--nodes", "1.5"], "should be from 0 to 10000"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_option_is_status_2_with_a_message(here: Callable[..., Done], arguments: list[str], message: str) -> None:
    done = here(*arguments)
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")
    assert message in done.stderr
    assert "_count" not in done.stderr


def test_address_in_use_is_status_1_and_one_line(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # Nothing listens on port 9 (discard).
        config.write_text(
            f"{GOOD.replace('mqtt.example.net', '127.0.0.1, broker_port: 9')}"
            f"broker: {{metrics_listen: {{host: 127.0.0.1, port: {port}}}}}\n"
        )
        done = run("broker", "--config", str(config))
    assert (done.status, done.stdout) == (1, "")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    (stopped,) = (event for event in events if event["level"] == "critical")
    assert stopped["event"] == "stopped"
    assert str(port) in stopped["error"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("command", ["broker", "worker"])
def test_signal_ends_a_process_with_status_0(command: str, number: int, config: Path) -> None:
    config.write_text(
        f"{GOOD.replace('mqtt.example.net', '127.0.0.1, broker_port: 9')}"
        "broker_listen: {port: 0}\n"
        "broker: {metrics_listen: {port: 0}}\n"
        f"worker: {{metrics_listen: {{port: 0}}, dataplane: memory, state_dir: {config.parent / 'state'}}}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "wgkex_ops", command, "--config", str(config)], stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        events = []
        for line in process.stderr:
            events.append(json.loads(line)["event"])
            if events[-1] == f"{command}_started":
                process.send_signal(number)
    assert process.returncode == 0
    assert f"{command}_stopping" in events


@pytest.mark.parametrize(
    ("command", "absent"),
    [("broker", ("pyroute2",)), ("status", ("pyroute2", "aiohttp")), ("peer", ("pyroute2", "aiohttp"))],
)
def test_a_command_imports_only_what_it_needs(command: str, absent: tuple[str, ...]) -> None:
    """An operator waits for imports each time."""
    lines = (
        "import sys",
        "from wgkex_ops.__main__ import parser",
        f"parser({command!r})",
        f"print([one for one in {absent!r} if one in sys.modules])",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
