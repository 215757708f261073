"""A gateway that boots, loses an interface, or is meddled with, has its peers back without any node asking."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kernel.lab import Namespace
from tests.kernel.network import DOMAIN, WIREGUARD_PORT, Network, create_tunnel, eventually, new_key_pair, running
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import ROUTE_PROTOCOL

PEERS: Final = 1000
STATUS: Final = "wireguard-worker/gw01/status"


@dataclass(frozen=True)
class Worker:
    """A worker that writes its log to a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.events() if entry["event"] == event]


@contextmanager
def running_worker(gateway: Namespace, folder: Path, name: str) -> Iterator[Worker]:
    """A worker that is killed at the end, as by a power cut."""
    (folder / "wgkex.yaml").write_text(
        f"domains: [{DOMAIN}]\ndomain_prefixes: [ffmuc_]\nmqtt: {{broker_url: 127.0.0.1, keepalive: 60}}\n"
        f"worker: {{name: gw01, state_dir: {folder / 'state'}}}\n"
    )
    log = folder / f"{name}.log"
    command = gateway.command(sys.executable, "-m", "wgkex_ops", "worker", "--config", str(folder / "wgkex.yaml"))
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            yield Worker(process, log)
        finally:
            process.kill()
            print(log.read_text()[-10_000:])  # noqa: T201  shown when the test fails


def present(gateway: Namespace) -> tuple[set[str], set[str], set[str]]:
    """What the tools see: addresses of peers, of our routes, of FDB entries."""
    return (
        {peer.allowed_ips.removesuffix("/128") for peer in gateway.wg(DOMAIN.wg).peers.values()},
        {route["dst"] for route in gateway.routes(DOMAIN.wg, ROUTE_PROTOCOL)},
        set(gateway.fdb(DOMAIN.vx)),
    )


def addresses(keys: Sequence[PublicKey]) -> set[str]:
    return {str(key.link_local) for key in keys}


@pytest.mark.timeout(1800)
def test_peers_come_back_after_a_reboot_and_with_their_interface_and_part_by_part(
    add_namespace: Callable[[str], Namespace], tmp_path: Path
) -> None:
    gateway = add_namespace("gateway")
    network = Network(gateway, gateway)
    keys = [PublicKey(os.urandom(32)) for _ in range(PEERS)]
    complete = (addresses(keys),) * 3
    (tmp_path / "mosquitto.conf").write_text("listener 1883 127.0.0.1\nallow_anonymous true\nuser root\n")
    pair = new_key_pair(gateway)
    create_tunnel(gateway, *pair, WIREGUARD_PORT)

    def metric(name: str, labels: str = "") -> float:
        return network.metric(f'wgkex_worker_{name}{{domain="{DOMAIN}"{labels}}}')

    def begin_anew() -> None:
        gateway.remove_links("bat0", DOMAIN.vx, DOMAIN.wg)
        create_tunnel(gateway, *pair, WIREGUARD_PORT)

    with running(gateway.command("mosquitto", "-c", str(tmp_path / "mosquitto.conf"))):
        with running_worker(gateway, tmp_path, "first") as worker:
            eventually(lambda: worker.logged("worker_announced"), "the worker")
            lines = "".join(f"{key}\n" for key in keys)
            gateway.run("mosquitto_pub", "-l", "-q", "1", "-t", f"wireguard/{DOMAIN}/all", stdin=lines)
            eventually(lambda: metric("peers_installed_total") >= PEERS, "all installations")
            eventually(lambda: present(gateway) == complete, "all peers")

        # The host boots: its interfaces are there again, and empty.
        begin_anew()
        assert present(gateway) == (set(), set(), set())
        subscriber = gateway.command("mosquitto_sub", "-R", "-C", "1", "-W", "300", "-t", STATUS)
        told = gateway.command("mosquitto_sub", "-C", "1", "-W", "300", "-t", STATUS)
        eventually(lambda: subprocess.check_output(told) == b"0\n", "the last will")
        with (
            subprocess.Popen(subscriber, stdout=subprocess.PIPE) as status,
            running_worker(gateway, tmp_path, "second") as worker,
        ):
            assert status.communicate()[0] == b"1\n"
            assert present(gateway) == complete
            assert metric("peers_restored_total") == PEERS
            order = [entry["event"] for entry in worker.events()]
            assert order.index("peers_repaired") < order.index("mqtt_connected") < order.index("worker_announced")

            started = time.monotonic()
            begin_anew()
            made = time.monotonic()
            eventually(lambda: present(gateway) == complete, "all peers on the new interface")
            print(f"{made - started:.1f} s for the interfaces, {time.monotonic() - made:.1f} s more")  # noqa: T201
            assert metric("peers_restored_total") == 2 * PEERS

            first, second, third = (str(key.link_local) for key in keys[:3])
            gateway.sh(
                f"ip -6 route delete {first}/128 dev {DOMAIN.wg}",
                f"bridge fdb delete 00:00:00:00:00:00 dev {DOMAIN.vx} dst {second} via {DOMAIN.wg}",
                f"wg set {DOMAIN.wg} peer {keys[2]} remove",
            )
            peers, routes, fdb = present(gateway)
            everything = complete[0]
            assert (everything - peers, everything - routes, everything - fdb) == ({third}, {first}, {second})
            eventually(lambda: present(gateway) == complete, "the missing parts")
            for part in ("peer", "route", "fdb"):
                assert metric("drift_repairs_total", f',missing="{part}"') == 1
            assert metric("peers_restored_total") == 2 * PEERS
            assert network.metric("wgkex_worker_journal_up") == 1
            assert network.metric("wgkex_worker_journal_entries") == PEERS
