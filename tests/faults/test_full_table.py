"""Random keys without end, from more networks than limits can tell apart: a table ends, and nobody loses a tunnel."""

import asyncio
from typing import Final

from tests.helpers import WELT, post_key
from tests.integration.inprocess import configuration, new_key, running_broker, running_worker
from tests.integration.keys import installed
from tests.integration.loopback import eventually
from tests.integration.servers import Mosquitto

MAX_PEERS: Final = 200
CONNECTED: Final = 50
FLOOD: Final = 3000


async def test_a_flood_ends_at_the_table_and_evicts_nobody_who_ever_connected(mosquitto: Mosquitto) -> None:
    config = configuration(mosquitto.port, worker={"max_peers": MAX_PEERS})
    async with running_worker(config) as worker, running_broker(config) as broker:
        nodes = [new_key() for _ in range(CONNECTED)]
        for node in nodes:
            await broker.submit(1, WELT.name, node)
            await installed(worker, WELT, node)
            assert worker.dataplane.shake_hands(WELT, node)

        async def flood() -> None:
            for _ in range(FLOOD // 30):
                status, _ = await post_key(broker.nodes, 1, WELT.name, new_key())
                assert status == 200

        sizes = []

        async def observe() -> None:
            while True:
                sizes.append(len((await worker.state(WELT)).peers))
                await asyncio.sleep(0.05)

        observing = asyncio.create_task(observe())
        async with asyncio.TaskGroup() as group:
            for _ in range(30):
                group.create_task(flood())

        def installations() -> float:
            return worker.metric("wgkex_worker_peers_installed_total", domain=WELT.name)

        def refusals() -> float:
            return worker.metric("wgkex_worker_message_rejections_total", reason="table_full")

        await eventually(lambda: installations() + refusals() == CONNECTED + FLOOD, "all keys")
        observing.cancel()
        peers = {peer.public_key for peer in (await worker.state(WELT)).peers}
        assert max(sizes) == len(peers) == MAX_PEERS
        assert peers >= {node.raw for node in nodes}
        evicted = worker.metric("wgkex_worker_peers_evicted_total", domain=WELT.name)
        assert evicted == installations() - MAX_PEERS
        # Somebody new still gets in.
        latest = new_key()
        await broker.submit(1, WELT.name, latest)
        await installed(worker, WELT, latest)
