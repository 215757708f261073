"""The life of the demonstration's routers, in virtual time: what the broker and their gateway see of them."""

import asyncio
import itertools
import json
from collections import defaultdict
from typing import Final

from tests.fakes import NullObserver, in_virtual_time
from tests.helpers import CITY, DOMAINS, KEY, WELT, running
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane
from wgkex_ops.demo.routers import Routers
from wgkex_ops.http.gateways.nodes import REMEMBERED_FOR
from wgkex_ops.model.changes import Change
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import ACTIVE_SECONDS, Snapshot, is_active
from wgkex_ops.simulation.post import Response

COUNT: Final = 20
HOUR: Final = 3600.0
ENDPOINT: Final = {"Address": "gw01.example.net", "Port": "40000", "AllowedIPs": ["fe80::1"], "PublicKey": KEY}
ACCEPTED: Final = Response(200, json.dumps({"Endpoint": ENDPOINT}).encode(), 0.1)


class Network:
    """A broker and a gateway in one: a key that is accepted is installed, some seconds later.

    Args:
        delay: those seconds.

    Attributes:
        asked: when each key was asked for, by the loop's clock.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        # A handshake at 0 means that there was none, and should be long ago.
        self.dataplane = MemoryDataplane((WELT, CITY), NullObserver(), clock=lambda: 1e9 + self._loop.time())
        self._delay = delay
        self.asked: dict[object, list[float]] = defaultdict(list)

    async def __call__(self, api_version: int, domain: str, key: object, client: str) -> Response:
        assert isinstance(key, PublicKey)
        self.asked[key].append(self._loop.time())
        change = Change.install(DOMAINS[domain], key)
        self._loop.call_later(self._delay, lambda: self.dataplane.apply_one(change, defaultdict(list)))
        return ACCEPTED

    async def tunnels(self) -> int:
        """How many peers have a live session."""
        snapshot: Snapshot = await self.dataplane.snapshot()
        peers = [peer for state in snapshot.domains.values() for peer in state.peers]
        return sum(is_active(peer, snapshot.taken_at) for peer in peers)

    def routers(self, count: int = COUNT) -> Routers:
        return Routers(self, (WELT, CITY), count, self.dataplane.shake_hands)


@in_virtual_time
async def test_most_routers_have_their_tunnel_after_some_seconds_and_the_others_follow_one_by_one() -> None:
    network = Network()
    routers = network.routers()
    async with running(routers.run()):
        await asyncio.sleep(11)
        assert await network.tunnels() == routers.switched_on == 14
        await asyncio.sleep(330)
    first = sorted(times[0] for times in network.asked.values())
    assert len(first) == len(routers) == COUNT
    assert all(30 < after - before < 60 for before, after in itertools.pairwise(first[14:]))


@in_virtual_time
async def test_routers_lose_their_tunnel_and_come_back() -> None:
    network = Network()
    routers = network.routers()
    on, tunnels = [], []
    async with running(routers.run()):
        await asyncio.sleep(180)
        for _ in range(int(HOUR / 10)):
            on.append(routers.switched_on)
            tunnels.append(await network.tunnels())
            await asyncio.sleep(10)
        await asyncio.sleep(6 * HOUR)
    for figures in (on, tunnels):
        # All of it moves, in both directions, and most routers have a tunnel.
        differences = [after - before for before, after in itertools.pairwise(figures)]
        assert min(differences) < 0 < max(differences)
        assert COUNT / 2 < sum(figures) / len(figures) < COUNT
    # Every router was away, and every one has come back.
    assert len(network.asked) == COUNT
    assert all(len(times) > 1 for times in network.asked.values())


@in_virtual_time
async def test_no_router_comes_back_so_soon_that_it_looks_as_if_it_had_got_no_tunnel() -> None:
    network = Network()
    async with running(network.routers(200).run()):
        await asyncio.sleep(HOUR)
    pauses = [after - before for times in network.asked.values() for before, after in itertools.pairwise(times)]
    assert len(pauses) > 200
    assert min(pauses) > REMEMBERED_FOR


@in_virtual_time
async def test_a_router_that_is_on_always_has_a_live_session() -> None:
    """WireGuard makes a new handshake before the session ends; so does the simulation, also of a key that came late."""
    network = Network(delay=3.2)
    away: dict[PublicKey, list[tuple[float, float]]] = defaultdict(list)
    last: dict[PublicKey, float] = {}

    def shake_hands(domain: Domain, key: PublicKey) -> bool:
        installed = network.dataplane.shake_hands(domain, key)
        if installed:
            now = asyncio.get_running_loop().time()
            if now - last.get(key, now) >= ACTIVE_SECONDS:
                away[key].append((last[key], now))
            last[key] = now
        return installed

    async with running(Routers(network, (WELT, CITY), COUNT, shake_hands).run()):
        await asyncio.sleep(HOUR)
    assert len(last) == COUNT
    # Where a session ended, the router has booted and asked again since.
    for key, times in away.items():
        for before, after in times:
            assert any(before < asked <= after for asked in network.asked[key])


@in_virtual_time
async def test_where_a_kernel_makes_handshakes_none_are_simulated() -> None:
    network = Network()
    routers = Routers(network, (WELT,), 4, None)
    async with running(routers.run()):
        await asyncio.sleep(340)
        assert len(network.asked) == 4
        assert await network.tunnels() == 0
