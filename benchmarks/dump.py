"""How long reading a big WireGuard interface takes: 2,000 and 20,000 peers, each with its allowed address.

Their endpoints are as the field has them: two thirds IPv4, one third IPv6, mixed at random. No peer has had a
handshake: the kernel sends the time of the last one all the same. One after the other in each round:

- `wg show INTERFACE dump`, its output discarded: a process is started for it
- ours: the dump and its decoding to `Peer` values, as a snapshot has it; and the whole snapshot, with the interfaces,
  the routes and the FDB entries of all these peers
- the library: pyroute2's own dump and decoding
"""

import base64
import random
import statistics
import subprocess
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Final

from prometheus_client import CollectorRegistry
from pyroute2 import WireGuard

from benchmarks.bare import Bare, fresh_domains, random_keys
from benchmarks.installing import seconds
from tests.kernel.lab import Namespace
from wgkex_ops.consumer.dataplane.netlink import parse, uapi
from wgkex_ops.consumer.dataplane.netlink.links import interface_index
from wgkex_ops.consumer.dataplane.netlink.sockets import NetlinkSocket, WireGuardSocket
from wgkex_ops.consumer.dataplane.snapshot import KernelReader
from wgkex_ops.metrics.worker import NetlinkMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import link_local
from wgkex_ops.model.peers import ROUTE_PROTOCOL

# Peers, rounds, and rounds of the library, which takes minutes for the bigger one: there it runs once.
SIZES: Final = ((2_000, 11, 5), (20_000, 5, 0))


class Ways:
    """The ways to read one domain's interfaces. Each sets the number of peers it has found."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        observer = NetlinkMetrics(CollectorRegistry())
        # What KernelDataplane uses in its thread: the switch between threads is not measured.
        self._wireguard, self._route = WireGuardSocket(), NetlinkSocket(uapi.NETLINK_ROUTE)
        self._reader = KernelReader([domain], self._wireguard, self._route, observer, ROUTE_PROTOCOL)
        self.found = 0

    def close(self) -> None:
        self._wireguard.close()
        self._route.close()

    def device(self) -> None:
        bodies = self._wireguard.dump_device(interface_index(self._domain.wg))
        self.found = len(parse.decode_device(bodies).peers)

    def snapshot(self) -> None:
        state = self._reader.snapshot().domains[self._domain.name]
        self.found = len(state.peers)
        assert len(state.routes) == len(state.fdb_entries) == self.found

    def wg(self) -> None:
        subprocess.run(["wg", "show", self._domain.wg, "dump"], stdout=subprocess.DEVNULL, check=True)

    def library(self) -> None:
        with WireGuard() as wg:
            messages = list(wg.info(self._domain.wg))
        # The peers are spread over several messages.
        self.found = sum(len(message.get_attr("WGDEVICE_A_PEERS") or ()) for message in messages)


def measure(domain: Domain, peers: int, rounds: int, library_rounds: int) -> dict[str, float]:
    reading = Ways(domain)
    ways = {
        "wg show dump": reading.wg,
        "peers": reading.device,
        "whole snapshot": reading.snapshot,
        "library": reading.library,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            if name == "library" and number > library_rounds:
                continue
            took = seconds(way)
            # The library decodes a peer that continues in the next message as two.
            assert name in ("wg show dump", "library") or reading.found == peers
            # The first round warms up.
            if number or (name == "library" and not library_rounds):
                taken[name].append(took)
    reading.close()
    return {name: statistics.median(found) for name, found in taken.items()}


def set_endpoints(host: Namespace, domain: Domain, keys: Iterable[bytes]) -> None:
    """Give each peer an endpoint of the field's mix."""
    lines: list[str] = []
    for key in keys:
        number = random.getrandbits(16)
        endpoint = random.choice((f"198.18.{number >> 8}.{number & 255}",) * 2 + (f"[2001:db8::{number:x}]",))
        lines += (
            "[Peer]",
            f"PublicKey = {base64.b64encode(key).decode()}",
            f"AllowedIPs = {IPv6Address(link_local(key))}/128",
            f"Endpoint = {endpoint}:40001",
        )
    host.run("wg", "addconf", domain.wg, "/dev/stdin", stdin="\n".join(lines))


def main() -> None:
    host = Namespace()
    for size, rounds, library_rounds in SIZES:
        (domain,) = fresh_domains(host, 1)
        keys = random_keys(size)
        bare = Bare(domain)
        bare.install(keys)
        bare.close()
        set_endpoints(host, domain, keys)
        medians = measure(domain, size, rounds, library_rounds)
        print(f"{size} peers:", flush=True)
        for name, median in medians.items():
            print(
                f"  {name}: {median * 1000:.0f} ms, {median / medians['wg show dump']:.2f} of wg show dump, "
                f"{medians['library'] / median:.1f} times as fast as the library",
                flush=True,
            )
        host.remove_links(domain.vx, domain.wg)


if __name__ == "__main__":
    main()
