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
VXLAN_PORT: Final = 8472

# Seconds. Under emulation everything is twenty to fifty times slower: this only distinguishes slow from never.
TIMEOUT: Final = 600.0

_CONFIG: Final = f"""
domains: [{DOMAIN}, {OTHER_DOMAIN}]
domain_prefixes: [ffmuc_]
externalName: {GATEWAY_ADDRESS}
mqtt: {{broker_url: {GATEWAY_ADDRESS}, keepalive: 60}}
broker_listen: {{host: {GATEWAY_ADDRESS}, port: {HTTP_PORT}}}
broker: {{name: gw01, publish_timeout: 30}}
worker: {{name: gw01, state_dir: STATE_DIR}}
cleanup: {{interval: 60}}
probe: {{interval: 10, keys: STATE_DIR/keys}}
"""
_MOSQUITTO: Final = f"listener 1883 {GATEWAY_ADDRESS}\nallow_anonymous true\nuser root\n"


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


def create_tunnel(
    host: Namespace,
    private_key: str,
    public_key: str,
    port: int = 0,
    *,
    domain: Domain = DOMAIN,
    number: int = 0,
    algorithm: str = "BATMAN_IV",
) -> None:
    """WireGuard, VXLAN on top of it, batman-adv on top of that, as gateways and routers have them.

    Args:
        host: gets them.
        private_key: of the WireGuard interface.
        public_key: the same.
        port: its UDP port; 0 for any.
        domain: names the interfaces.
        number: different for each domain.
        algorithm: of batman-adv, the same on both sides.
    """
    address = PublicKey.parse(public_key).link_local
    script = f"""
        ip link add {domain.wg} type wireguard
        wg set {domain.wg} private-key /dev/stdin listen-port {port}
        ip link set {domain.wg} addrgenmode none
        ip address add {address}/128 dev {domain.wg}
        ip link set {domain.wg} up
        ip link add {domain.vx} type vxlan id {4831583 + number} local {address} dev {domain.wg} dstport {VXLAN_PORT}
        ip link add bat{number} type batadv ra {algorithm}
        ip link set {domain.vx} master bat{number}
        ip link set {domain.vx} up
        ip link set bat{number} up
    """
    host.run("sh", "-ec", script, stdin=private_key)


@dataclass(frozen=True)
class Network:
    """The two hosts, and the MQTT server on the gateway if that is of interest."""

    gateway: Namespace
    router: Namespace
    mosquitto: "subprocess.Popen[bytes] | None" = None

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
def running_network(
    add_namespace: Callable[[str], Namespace], folder: Path, mosquitto_settings: str = ""
) -> Iterator[Network]:
    """Two hosts, and on the gateway the interfaces, Mosquitto, broker and worker, ready to serve."""
    (folder / "wgkex.yaml").write_text(_CONFIG.replace("STATE_DIR", str(folder / "state")))
    (folder / "mosquitto.conf").write_text(f"{_MOSQUITTO}{mosquitto_settings}")
    gateway, router = add_namespace("gateway"), add_namespace("router")
    Namespace().run(*f"ip link add gw0 netns {gateway.name} type veth peer wan0 netns {router.name}".split())
    gateway.sh(f"ip address add {GATEWAY_ADDRESS}/24 dev gw0", "ip link set gw0 up")
    router.sh(f"ip address add {ROUTER_ADDRESS}/24 dev wan0", "ip link set wan0 up")
    create_tunnel(gateway, *new_key_pair(gateway), WIREGUARD_PORT)
    create_tunnel(gateway, *new_key_pair(gateway), WIREGUARD_PORT + 1, domain=OTHER_DOMAIN, number=1)
    with ExitStack() as stack:
        mosquitto = stack.enter_context(running(gateway.command("mosquitto", "-c", str(folder / "mosquitto.conf"))))
        network = Network(gateway, router, mosquitto)
        for command in ("worker", "broker"):
            stack.enter_context(running(gateway.command(*wgkex(command, folder))))
        for port in (WORKER_METRICS_PORT, BROKER_METRICS_PORT):
            eventually(lambda port=port: network.fetch(port, "/-/ready"), f"ready on port {port}")  # type: ignore[misc]
        yield network


def wgkex(command: str, folder: Path, *options: str) -> tuple[str, ...]:
    """The command line of one of our programs, with the network's configuration."""
    return (sys.executable, "-m", "wgkex_ops", command, "--config", str(folder / "wgkex.yaml"), *options)


@contextmanager
def running(command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is ended with SIGTERM; its output is captured by pytest."""
    with subprocess.Popen(command, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
