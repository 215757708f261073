"""The entry point of the container image, in processes of its own."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.helpers import ROOT, TESTDATA

# The second word is where a file may be mounted: on this host there may be one.
PROGRAM: Final = """
import sys
from pathlib import Path
import wgkex_ops.container as container
container.DEFAULT_PATH = Path(sys.argv.pop(1))
sys.exit(container.main())
"""
FILE: Final = "domains: [ffexa_welt]\ndomain_prefixes: [ffexa_]\nmqtt: {broker_url: mqtt.example.net}\n"


class Done(NamedTuple):
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Done]:
    """Runs the entry point with some arguments and variables."""

    def run_it(*arguments: str, **environ: str) -> Done:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WGKEX_", "MQTT_"))}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "wgkex.yaml"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=ROOT,
            env=clean | environ,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run_it


@pytest.mark.parametrize("command", ["broker", "worker"])
def test_a_command_has_the_environment_as_its_configuration(run: Callable[..., Done], command: str) -> None:
    done = run(command, "--check-config", MQTT_PASSWORD="p#'x")

    # Nor does anybody else read the password: there is no warning.
    assert done == (0, "The configuration is fine.\n", "")


def test_each_problem_is_a_line_with_its_variable(run: Callable[..., Done]) -> None:
    done = run("broker", MQTT_BROKER_PORT="x", WGKEX_DOMAINS="bla")

    assert (done.status, done.stdout) == (2, "")
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["WGKEX_DOMAINS", "MQTT_BROKER_PORT"]


def test_an_environment_beyond_all_bounds_is_refused(run: Callable[..., Done]) -> None:
    done = run("broker", MQTT_PASSWORD="é" * 20_000)

    assert done == (2, "", "the environment: is larger than 131072 bytes, which no such file is\n")


def test_a_mounted_file_wins_over_the_environment(run: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "wgkex.yaml").write_text(FILE.replace("welt", "of the file"))

    done = run("broker", "--check-config", WGKEX_DOMAINS="bla")
    assert done.status == 2
    assert done.stderr.startswith(f"{tmp_path}/wgkex.yaml: domains.0 (line 1): 'ffexa_of the file'")


@pytest.mark.parametrize("option", [True, False])
def test_a_named_file_wins_over_the_environment(run: Callable[..., Done], option: bool) -> None:
    path = str(TESTDATA / "config" / "old.yaml")

    done = (
        run("worker", "--check-config", "--config", path, WGKEX_DOMAINS="bla")
        if option
        else run("worker", "--check-config", WGKEX_CONFIG_FILE=path, WGKEX_DOMAINS="bla")
    )
    assert done.stdout == "The configuration is fine.\n"


def test_a_folder_in_place_of_the_file_is_no_reason_to_start_with_something_else(
    run: Callable[..., Done], tmp_path: Path
) -> None:
    # Docker makes one where the file to mount does not exist.
    (tmp_path / "wgkex.yaml").mkdir()

    done = run("broker")
    assert (done.status, done.stderr) == (2, f"{tmp_path}/wgkex.yaml: cannot be read: Is a directory\n")


def test_any_program_can_be_run(run: Callable[..., Done]) -> None:
    assert run("printenv", "WGKEX_DEBUG", WGKEX_DEBUG="loud") == (0, "loud\n", "")


def test_a_command_that_nobody_has_is_refused(run: Callable[..., Done]) -> None:
    done = run("brokr")

    assert done.status == 2
    assert "invalid choice: 'brokr'" in done.stderr


# --- health


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """Starts a server that responds to /-/healthy with a status, as the operators' listener; returns its port."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/-/healthy" else 404)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("role", ["broker", "worker", "probe"])
@pytest.mark.parametrize("status", [200, 401, 404, 503])
def test_health_is_what_the_listener_of_the_role_says(
    run: Callable[..., Done],
    listener: Callable[[int], int],
    tmp_path: Path,
    role: str,
    status: int,
) -> None:
    (tmp_path / "wgkex.yaml").write_text(f"{FILE}{role}: {{metrics_listen: {{port: {listener(status)}}}}}\n")

    done = run("healthcheck", role)
    healthy = status in (200, 401)
    assert (done.status, done.stderr) == (0 if healthy else 1, "")
    assert done.stdout.endswith(f"{role} is healthy\n" if healthy else f"status {status}\n")


def test_who_does_not_answer_is_not_healthy(run: Callable[..., Done], tmp_path: Path) -> None:
    # Nobody can listen on port 1 by chance.
    (tmp_path / "wgkex.yaml").write_text(f"{FILE}broker: {{metrics_listen: {{port: 1}}}}\n")

    done = run("healthcheck", "broker")
    assert (done.status, done.stderr) == (1, "")
    assert done.stdout == "http://127.0.0.1:1 does not answer: [Errno 111] Connection refused\n"


def test_a_configuration_that_is_wrong_is_not_healthy(run: Callable[..., Done]) -> None:
    done = run("healthcheck", "broker", MQTT_TLS="maybe")

    assert done == (2, "", "MQTT_TLS: should be true or false\n")
