"""How long the reading of a big WireGuard interface takes: 2,000 and 20,000 peers, each with its allowed address.

The kernel tells a time of the last handshake for each peer, had it one or not, so that none is needed here. In turns
within one run:

- ours: the dump and its decoding to `Peer` values, as a snapshot does it; and the whole snapshot, with the interfaces,
  the routes and the FDB entries of all these peers
- `wg show INTERFACE dump`, its output thrown away: a process has to be started for it
- the library: pyroute2's own dump and decoding
"""

import statistics
import subprocess
from typing import Final

from prometheus_client import CollectorRegistry
from pyroute2 import WireGuard

from benchmarks.bare import Bare, fresh_domains, random_keys
from benchmarks.installing import seconds
from tests.kernel.lab import Namespace
from wgkex_ops.consumer.dataplane.apply import number_of
from wgkex_ops.consumer.dataplane.netlink import wire
from wgkex_ops.consumer.dataplane.netlink.sockets import NetlinkSocket, WireGuardSocket
from wgkex_ops.consumer.dataplane.snapshot import Reading
from wgkex_ops.metrics.worker import NetlinkMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import ROUTE_PROTOCOL

# Peers, rounds, and rounds of the library, which takes minutes for the bigger one: then once has to be enough.
SIZES: Final = ((2_000, 11, 5), (20_000, 5, 0))


class Ways:
    """The ways to read one domain's interfaces, each with its number of peers."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        observer = NetlinkMetrics(CollectorRegistry())
        # What the thread of a KernelDataplane works with: the way there and back is not the matter here.
        self._wireguard, self._route = WireGuardSocket(), NetlinkSocket(wire.NETLINK_ROUTE)
        self._reading = Reading([domain], self._wireguard, self._route, observer, ROUTE_PROTOCOL)
        self.read = 0

    def close(self) -> None:
        self._wireguard.close()
        self._route.close()

    def device(self) -> None:
        self.read = len(wire.decode_device(self._wireguard.dump_device(number_of(self._domain.wg))).peers)

    def snapshot(self) -> None:
        state = self._reading.snapshot().domains[self._domain.name]
        self.read = len(state.peers)
        assert len(state.routes) == len(state.fdb_entries) == self.read

    def wg(self) -> None:
        subprocess.run(["wg", "show", self._domain.wg, "dump"], stdout=subprocess.DEVNULL, check=True)

    def library(self) -> None:
        with WireGuard() as wg:
            messages = list(wg.info(self._domain.wg))
        # A message has as many peers as fit into it.
        self.read = sum(len(message.get_attr("WGDEVICE_A_PEERS") or ()) for message in messages)


def measure(host: Namespace, domain: Domain, rounds: int, library_rounds: int) -> dict[str, float]:
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
            # The first round warms up.
            if number or (name == "library" and not library_rounds):
                taken[name].append(took)
    reading.close()
    return {name: statistics.median(found) for name, found in taken.items()}


def main() -> None:
    host = Namespace()
    for size, rounds, library_rounds in SIZES:
        (domain,) = fresh_domains(host, 1)
        bare = Bare(domain)
        bare.install(random_keys(size))
        bare.close()
        medians = measure(host, domain, rounds, library_rounds)
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
