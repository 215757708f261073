"""A gateway and a router that has just booted: two hosts with a cable between them, and only real programs on them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.kernel.lab import Namespace
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

T = TypeVar("T")

DOMAIN: Final = Domain("ffmuc_welt", "wg-welt", "vx-welt")
# One that no router is in.
OTHER_DOMAIN: Final = Domain("ffmuc_city", "wg-city", "vx-city")
GATEWAY_ADDRESS: Final = "10.58.0.1"
ROUTER_ADDRESS: Final = "10.58.0.2"
HTTP_PORT: Final = 5000
BROKER_METRICS_PORT: Final = 9690
WORKER_METRICS_PORT: Final = 9691
WIREGUARD_PORT: Final = 40011

# Seconds. Under emulation everything is twenty to fifty times slower: this only distinguishes slow from never.
TIMEOUT: Final = 300.0

_CONFIG: Final = f"""
domains: [{DOMAIN}, {OTHER_DOMAIN}]
domain_prefixes: [ffmuc_]
externalName: {GATEWAY_ADDRESS}
mqtt: {{broker_url: 127.0.0.1, keepalive: 60}}
broker_listen: {{host: {GATEWAY_ADDRESS}, port: {HTTP_PORT}}}
broker: {{name: gw01, publish_timeout: 30}}
worker: {{name: gw01, state_dir: STATE_DIR}}
cleanup: {{interval: 60}}
"""
_MOSQUITTO: Final = "listener 1883 127.0.0.1\nallow_anonymous true\nuser root\n"


def eventually(check: Callable[[], T | None], what: str) -> T:
    """Repeat a check until it returns something."""
    deadline = time.monotonic() + TIMEOUT
    while not (seen := check()):
        assert time.monotonic() < deadline, f"not within {TIMEOUT:g} s: {what}"
        time.sleep(0.2)
    return seen


def new_key_pair(host: Namespace) -> tuple[str, str]:
    """A private key and its public key."""
    private_key = host.run("wg", "genkey").strip()
    return private_key, host.run("wg", "pubkey", stdin=private_key).strip()


def create_tunnel(host: Namespace, private_key: str, public_key: str, port: int = 0) -> None:
    """WireGuard, VXLAN on top of it, batman-adv on top of that, as gateways and routers have them."""
    address = PublicKey.parse(public_key).link_local
    script = f"""
        ip link add {DOMAIN.wg} type wireguard
        wg set {DOMAIN.wg} private-key /dev/stdin listen-port {port}
        ip link set {DOMAIN.wg} addrgenmode none
        ip address add {address}/128 dev {DOMAIN.wg}
        ip link set {DOMAIN.wg} up
        ip link add {DOMAIN.vx} type vxlan id 4831583 local {address} dev {DOMAIN.wg} dstport 8472
        ip link add bat0 type batadv
        ip link set {DOMAIN.vx} master bat0
        ip link set {DOMAIN.vx} up
        ip link set bat0 up
    """
    host.run("sh", "-ec", script, stdin=private_key)


@dataclass(frozen=True)
class Network:
    """The two hosts."""

    gateway: Namespace
    router: Namespace

    def fetch(self, port: int, path: str) -> str | None:
        """GET from an operator listener on the gateway's loopback; None if the status is not 200."""
        command = self.gateway.command("wget", "-qO-", f"http://127.0.0.1:{port}{path}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        return done.stdout if done.returncode == 0 else None

    def metric(self, series: str) -> float:
        """One sample of the worker's metrics."""
        text = self.fetch(WORKER_METRICS_PORT, "/metrics")
        assert text is not None
        return next(float(line.removeprefix(series)) for line in text.splitlines() if line.startswith(f"{series} "))

    def post_with_wget(self, version: int, public_key: str, domain: Domain = DOMAIN) -> dict[str, Any]:
        """Submit a key as a router does."""
        body = json.dumps({"domain": domain.name, "public_key": public_key})
        url = f"http://{GATEWAY_ADDRESS}:{HTTP_PORT}/api/v{version}/wg/key/exchange"
        response: dict[str, Any] = json.loads(self.router.run("wget", "-qO-", f"--post-data={body}", url))
        return response


@contextmanager
def running_network(add_namespace: Callable[[str], Namespace], folder: Path) -> Iterator[Network]:
    """Two hosts, and on the gateway the interfaces, Mosquitto, broker and worker, ready to serve."""
    (folder / "wgkex.yaml").write_text(_CONFIG.replace("STATE_DIR", str(folder / "state")))
    (folder / "mosquitto.conf").write_text(_MOSQUITTO)
    network = Network(add_namespace("gateway"), add_namespace("router"))
    gateway, router = network.gateway, network.router
    Namespace().run(*f"ip link add gw0 netns {gateway.name} type veth peer wan0 netns {router.name}".split())
    gateway.sh(f"ip address add {GATEWAY_ADDRESS}/24 dev gw0", "ip link set gw0 up")
    router.sh(f"ip address add {ROUTER_ADDRESS}/24 dev wan0", "ip link set wan0 up")
    create_tunnel(gateway, *new_key_pair(gateway), WIREGUARD_PORT)
    gateway.add_domain(OTHER_DOMAIN, 2)
    with ExitStack() as stack:
        start = [gateway.command("mosquitto", "-c", str(folder / "mosquitto.conf"))]
        for command in ("worker", "broker"):
            program = (sys.executable, "-m", "wgkex_ops", command, "--config", str(folder / "wgkex.yaml"))
            start.append(gateway.command(*program))
        for command_line in start:
            stack.enter_context(running(command_line))
        for port in (WORKER_METRICS_PORT, BROKER_METRICS_PORT):
            eventually(lambda port=port: network.fetch(port, "/-/ready"), f"ready on port {port}")  # type: ignore[misc]
        yield network


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """A process that is ended with SIGTERM; its output is captured by pytest."""
    with subprocess.Popen(command, stderr=subprocess.STDOUT) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
