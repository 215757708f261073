"""Two brokers and two gateways, all four restarted one after the other under load."""

import asyncio
import signal
from pathlib import Path

from tests.faults.storm import Storm
from tests.faults.system import DOMAINS, broker_place, place_settings, worker_place
from tests.integration.servers import Bench, Mosquitto

KEYS = 500
PER_SECOND = 75


async def test_rolling_restart_fails_no_request_and_loses_no_key(
    bench: Bench, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    # While it is not ready any more a broker still serves: time for a load balancer to see it.
    documents = [
        place_settings(mosquitto.port, name, tmp_path, broker={"shutdown_delay": 1}) for name in ("gw01", "gw02")
    ]
    brokers = [broker_place(bench, document) for document in documents]
    workers = [worker_place(bench, document) for document in documents]
    for place in (*workers, *brokers):
        await place.start()
    for worker in workers:
        await worker.program.logs("worker_announced")
    for broker in brokers:
        await broker.ready()

    storm = Storm(DOMAINS, [broker.nodes for broker in brokers], ready=[broker.is_ready for broker in brokers])
    async with asyncio.TaskGroup() as group:
        restarted = asyncio.Event()
        group.create_task(storm.blow(KEYS, PER_SECOND, until=restarted))
        await storm.reaches(PER_SECOND)
        for place in (*brokers, *workers):
            await place.restart(signal.SIGTERM)
            await place.ready()
        restarted.set()
    assert storm.total >= KEYS
    # No status but 200, and no request without a response.
    assert storm.statuses.keys() == {200}
    for worker in workers:
        await worker.has_all(storm.accepted)
