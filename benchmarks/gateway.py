"""A gateway's processes, real ones, on this host's loopback: Mosquitto, worker, broker."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from tests.kernel.lab import Namespace
from tests.kernel.network import TIMEOUT, eventually
from wgkex_ops.model.domains import Domain

DOMAIN: Final = Domain("ffmuc_welt", "wg-welt", "vx-welt")
HTTP_PORT: Final = 5000
MQTT_PORT: Final = 1883
WORKER_PAGES: Final = "http://127.0.0.1:9691"
_BROKER_PAGES: Final = "http://127.0.0.1:9690"

_CONFIG: Final = f"""
domains: [{DOMAIN}]
domain_prefixes: [ffmuc_]
mqtt: {{broker_url: 127.0.0.1}}
broker_listen: {{host: 127.0.0.1, port: {HTTP_PORT}}}
broker: {{name: gw01, publish_timeout: 30}}
worker: {{name: gw01, state_dir: STATE_DIR}}
"""
# What deploy/mosquitto has for the flow of messages, without users and a disk.
_MOSQUITTO: Final = f"""
listener {MQTT_PORT} 127.0.0.1
allow_anonymous true
user root
max_queued_messages 100000
max_inflight_messages 0
set_tcp_nodelay true
"""


@dataclass(frozen=True)
class Gateway:
    """The processes by name."""

    pids: dict[str, int]


def fetch(url: str) -> str:
    with urlopen(url, timeout=TIMEOUT) as response:
        text: str = response.read().decode()
    return text


def metric(series: str) -> float:
    """One sample of the worker's metrics."""
    lines = fetch(f"{WORKER_PAGES}/metrics").splitlines()
    return next(float(line.removeprefix(series)) for line in lines if line.startswith(f"{series} "))


@contextmanager
def gateway(*, with_broker: bool, folder: Path) -> Iterator[Gateway]:
    """Interfaces without a peer, and the processes, ready to serve; their log lines go to files."""
    host = Namespace()
    host.remove_links(DOMAIN.vx, DOMAIN.wg)
    host.add_domain(DOMAIN, 1)
    (folder / "wgkex.yaml").write_text(_CONFIG.replace("STATE_DIR", str(folder / "state")))
    (folder / "mosquitto.conf").write_text(_MOSQUITTO)
    commands = {"mosquitto": ["mosquitto", "-c", str(folder / "mosquitto.conf")]}
    pages = {"worker": WORKER_PAGES} | ({"broker": _BROKER_PAGES} if with_broker else {})
    for name in pages:
        commands[name] = [sys.executable, "-m", "wgkex_ops", name, "--config", str(folder / "wgkex.yaml")]
    with ExitStack() as stack:
        # The last to be called, when no process uses them any more.
        stack.callback(host.remove_links, DOMAIN.vx, DOMAIN.wg)
        pids = {
            name: stack.enter_context(running(command, folder / f"{name}.log")) for name, command in commands.items()
        }
        for name, url in pages.items():
            eventually(responding(f"{url}/-/ready"), f"the {name} is ready")
        yield Gateway(pids)


def responding(url: str) -> Callable[[], bool]:
    def responds() -> bool:
        try:
            fetch(url)
        except (URLError, ConnectionError):
            return False
        return True

    return responds


def listening(port: int) -> Callable[[], bool]:
    def listens() -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", port)) == 0

    return listens


@contextmanager
def running(command: list[str], log: Path) -> Iterator[int]:
    """A process, by its number."""
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(TIMEOUT)
