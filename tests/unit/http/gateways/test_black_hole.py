"""A gateway that completes no handshakes: where its nodes end up, at the pace of real nodes, in virtual time."""

import asyncio
import random
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry, Counter

from tests.fakes import run_in_virtual_time
from tests.helpers import DOMAINS, WELT, key
from tests.unit.http.gateways.fleet import endpoint
from wgkex_ops.bus.messages import ConnectedPeers, WorkerData, WorkerStatus
from wgkex_ops.http.gateways.choice import Assigner, Locations
from wgkex_ops.http.gateways.confirmations import UnconfirmedKeys
from wgkex_ops.http.gateways.nodes import RecentNodes
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.gateways.silence import Silences
from wgkex_ops.metrics.broker import NodeMetrics, ReceiptMetrics
from wgkex_ops.metrics.locations import LocationMetrics
from wgkex_ops.model.keys import PublicKey

MINUTE = 60.0
# A node gives its tunnel up when it has had no handshake for this long.
GIVES_UP = 180.0


class Network:
    """A broker that hears of its gateways once a minute, and nodes that ask as the firmware does."""

    def __init__(self, workers: Sequence[str]) -> None:
        self.broken = {worker: asyncio.Event() for worker in workers}
        self.connected: dict[str, set[PublicKey]] = {worker: set() for worker in workers}
        # Where each node was sent to since it lost its tunnel.
        self.tries: dict[PublicKey, list[str]] = {}
        registry = CollectorRegistry()
        self._gateways = Gateways(dict.fromkeys(workers, 1.0), DOMAINS)
        silences = Silences(self._gateways)
        metrics = ReceiptMetrics(registry, workers, DOMAINS)
        self._keys = UnconfirmedKeys(self._gateways, silences, receipt_topic="", metrics=metrics)
        clock = asyncio.get_running_loop().time
        self._nodes = RecentNodes(self._gateways, NodeMetrics(registry, workers, DOMAINS), clock)
        self._assigner = Assigner(
            self._gateways,
            self._nodes,
            silences,
            locations=Locations(),
            confirm_timeout=0,
            assignments=Counter("assignments", "x", ["worker", "domain"], registry=registry),
            timeouts=metrics.timeouts,
            preferences=LocationMetrics(registry),
        )
        for worker in workers:
            self._gateways.update(WorkerData(worker, WELT.name, endpoint(worker)), clock())
            self._gateways.update(ConnectedPeers(worker, WELT.name, 0), clock())
            self._gateways.update(WorkerStatus(worker, online=True), clock())

    async def report(self) -> None:
        """Gateways publish their connected peers, for ever."""
        while True:
            await asyncio.sleep(MINUTE)
            for worker, nodes in self.connected.items():
                event = ConnectedPeers(worker, WELT.name, len(nodes))
                self._gateways.update(event, asyncio.get_running_loop().time())

    async def live(self, node: PublicKey) -> None:
        """Ask until there is a tunnel, and again when it is lost, for ever."""
        await asyncio.sleep(random.uniform(0, 39))
        while True:
            tries = self.tries[node] = []
            while True:
                worker = await self._ask(node)
                tries.append(worker)
                if not self.broken[worker].is_set():
                    break
                await asyncio.sleep(MINUTE)
            self.connected[worker].add(node)
            await self.broken[worker].wait()
            await asyncio.sleep(GIVES_UP + random.uniform(0, MINUTE))
            self.connected[worker].discard(node)

    async def _ask(self, node: PublicKey) -> str:
        self._nodes.ask(WELT, node)
        unconfirmed = self._keys.add(WELT, node, "", 0.0)
        self._keys.accept(unconfirmed)
        choice = await self._assigner.assign(unconfirmed)
        self._keys.drop(unconfirmed)
        assert choice is not None
        return choice.worker


@pytest.mark.parametrize(("gateways", "nodes"), [(2, 50), (3, 50), (3, 1000)])
def test_nodes_of_a_black_hole_reach_a_healthy_gateway_at_their_second_try(gateways: int, nodes: int) -> None:
    async def scenario() -> None:
        random.seed(1)
        names = [f"gw{number:02}" for number in range(gateways)]
        network = Network(names)
        tasks = [asyncio.ensure_future(network.report())]
        tasks += [asyncio.ensure_future(network.live(key(number))) for number in range(nodes)]
        await asyncio.sleep(20 * MINUTE)
        # They are spread evenly, and have not asked a second time.
        sizes = [len(peers) for peers in network.connected.values()]
        assert sum(sizes) == nodes
        assert max(sizes) - min(sizes) <= 2
        assert all(len(tries) == 1 for tries in network.tries.values())

        network.broken[names[0]].set()
        lost = set(network.connected[names[0]])
        await asyncio.sleep(20 * MINUTE)
        assert network.connected[names[0]] == set()
        tries = [network.tries[node] for node in lost]
        # It has no more peers than the others, so it gets its share of them at their first try; none at the second one.
        assert sum(each[0] == names[0] for each in tries) > len(lost) / 4
        assert sum(len(each) <= 2 for each in tries) == len(lost)

        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run_in_virtual_time(scenario())
