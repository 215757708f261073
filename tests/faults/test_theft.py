"""Clients that request other nodes' keys: a live node keeps its route, its allowed IP and its FDB entry."""

import time
from typing import Final

from tests.helpers import CITY, WELT
from tests.integration.inprocess import (
    RunningBroker,
    RunningWorker,
    configuration,
    new_key,
    running_broker,
    running_worker,
)
from tests.integration.loopback import eventually, eventually_answered
from tests.integration.servers import Mosquitto
from wgkex_ops.model.keys import PublicKey

# Different keys with the same derived address (contract, section 3).
VICTIM: Final = PublicKey.parse("VrcBIVATAgV5ITICF5iCzEzjZaMwqC89ZIeXFsLKrwk=")
COLLIDING: Final = PublicKey.parse("oa62udj5Ylq1o3AcAg6aQg3YVhPbRZUtq478LJBc8qU=")


async def _connect(broker: RunningBroker, worker: RunningWorker, key: PublicKey) -> None:
    """A node requests its key, and has a handshake."""

    async def served() -> bool:
        return (await broker.submit(2, WELT.name, key)).status == 200

    await eventually_answered(served, "a gateway")
    assert worker.dataplane.shake_hands(WELT, key)


async def test_a_live_nodes_key_that_is_requested_in_another_domain_moves_nothing(mosquitto: Mosquitto) -> None:
    config = configuration(mosquitto.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        key = new_key()
        await _connect(broker, worker, key)
        before = await worker.state(WELT)

        for number in range(1, 21):
            # Version 1 has no place for what the gateway reports.
            assert (await broker.submit(1, CITY.name, key)).status == 200
            await eventually(
                lambda number=number: (  # type: ignore[misc]
                    worker.metric("wgkex_worker_message_rejections_total", reason="live_elsewhere") == number
                ),
                "a refusal",
            )
            assert await worker.state(WELT) == before
        refused = await broker.submit(2, CITY.name, key)
        assert (refused.status, refused.json["error"]["reason"]) == (503, "no_worker")
        assert await worker.state(WELT) == before
        assert not (await worker.state(CITY)).peers

        # A node that really moves gets through when its session has ended.
        assert worker.dataplane.shake_hands(WELT, key, time.time() - 180)
        assert (await broker.submit(2, CITY.name, key)).status == 200
        assert await worker.has(CITY, key)
        assert not await worker.has(WELT, key)


async def test_a_key_that_collides_with_a_live_nodes_takes_nothing(mosquitto: Mosquitto) -> None:
    config = configuration(mosquitto.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        await _connect(broker, worker, VICTIM)
        before = await worker.state(WELT)
        for domain in (WELT, CITY):
            assert (await broker.submit(2, domain.name, COLLIDING)).status == 503
            assert await worker.state(WELT) == before
        assert not (await worker.state(CITY)).peers
        assert worker.metric("wgkex_worker_message_rejections_total", reason="address_taken") == 2
