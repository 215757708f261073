"""The line of the demonstration."""

import itertools

from prometheus_client import CollectorRegistry, Counter, Gauge

from tests.helpers import CITY, WELT
from wgkex_ops.demo.figures import Figures
from wgkex_ops.demo.routers import Routers
from wgkex_ops.simulation.post import Response


async def no_broker(api_version: int, domain: str, key: object, client: str) -> Response:
    raise OSError


class Scene:
    """What the line is made of."""

    def __init__(self, count: int) -> None:
        worker, broker = CollectorRegistry(), CollectorRegistry()
        self.now = 0.0
        self.refreshed = 0
        self.peers = Gauge("wgkex_worker_peers", "-", ["domain", "state"], registry=worker)
        self.keys = Counter("wgkex_broker_keys_published", "-", ["domain"], registry=broker)
        self.routers = Routers(no_broker, (WELT, CITY), count, None)
        self.figures = Figures(self.routers, broker, worker, self.refresh, clock=lambda: self.now)

    async def refresh(self) -> None:
        self.refreshed += 1

    def set(self, **peers: int) -> None:
        for domain, state in itertools.product(("ffmuc_welt", "ffmuc_muc_cty"), peers):
            self.peers.labels(domain, state).set(peers[state])


async def test_tunnels_are_peers_with_a_live_session_in_all_domains() -> None:
    scene = Scene(20)
    scene.set(active=9, idle=3, never=1)
    scene.routers.switched_on = 17
    scene.keys.labels("ffmuc_welt").inc(2)
    scene.keys.labels("ffmuc_muc_cty").inc(4)
    assert await scene.figures.line() == "20 routers, 17 on, 18 tunnels, 6 keys in the last minute"
    assert scene.refreshed == 1


async def test_a_key_counts_for_a_minute() -> None:
    scene = Scene(1)

    async def keys() -> str:
        return (await scene.figures.line()).rpartition(", ")[2]

    for now, new, expected in (
        (2, 1, "1 key"),
        (4, 0, "1 key"),
        (60, 2, "3 keys"),
        (62, 0, "2 keys"),
        (119, 0, "2 keys"),
    ):
        scene.now = now
        scene.keys.labels("ffmuc_welt").inc(new)
        assert await keys() == f"{expected} in the last minute", now
    scene.now = 120
    assert await keys() == "0 keys in the last minute"


async def test_one_is_no_plural_and_10_000_fit_80_columns() -> None:
    scene = Scene(1)
    scene.set(active=0)
    scene.peers.labels("ffmuc_welt", "active").set(1)
    assert (await scene.figures.line()).startswith("1 router, 0 on, 1 tunnel, 0 keys")
    many = Scene(10_000)
    many.set(active=5000)
    many.routers.switched_on = 10_000
    many.keys.labels("ffmuc_welt").inc(10_000)
    # It is indented by two.
    assert len(await many.figures.line()) <= 78
