"""Whatever is killed in the middle of a storm of keys, every key that got 200 is installed in the end."""

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.storm import Storm
from tests.faults.system import (
    DOMAINS,
    Brokers,
    Workers,
    place_settings,
    running_places,
)
from tests.integration.loopback import eventually_answered
from tests.integration.servers import Bench, Mosquitto

KEYS = 2000
PER_SECOND = 200


@dataclass
class System:
    mosquitto: Mosquitto
    broker: Brokers
    worker: Workers
    storm: Storm

    async def ends_well(self) -> None:
        """Every key that ever got 200 is installed, once, and the broker's counters add up exactly."""
        assert self.storm.total == KEYS
        await self.worker.has_all(self.storm.accepted)
        # Requests of clients that have gone are still in progress.
        await eventually_answered(self.broker.counts_add_up, "counters that add up")


@pytest.fixture
async def system(bench: Bench, mosquitto: Mosquitto, tmp_path: Path) -> System:
    broker, worker = await running_places(bench, place_settings(mosquitto.port, "gw01", tmp_path))
    return System(mosquitto, broker, worker, Storm(DOMAINS, [broker.nodes]))


async def test_mqtt_server_killed_three_times(system: System) -> None:
    async with asyncio.TaskGroup() as group:
        storm = group.create_task(system.storm.blow(KEYS, PER_SECOND))
        for number in (1, 2, 3):
            await system.storm.reaches(number * KEYS // 4)
            assert not storm.done()
            await system.mosquitto.restart(signal.SIGKILL)
    await system.ends_well()
    assert system.storm.statuses[503] > 0
    # A crowd of the same key is merged, and what was sent again is a refresh: nothing is ever a peer twice.
    assert await system.broker.total("wgkex_broker_key_requests_total") <= system.storm.sent


async def test_worker_killed(system: System) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(system.storm.blow(KEYS, PER_SECOND))
        await system.storm.reaches(KEYS // 3)
        await system.worker.restart(signal.SIGKILL)
    await system.ends_well()
    assert await system.worker.total("wgkex_worker_peers_restored_total") > 0


async def test_broker_killed(system: System) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(system.storm.blow(KEYS, PER_SECOND))
        await system.storm.reaches(KEYS // 3)
        await system.broker.restart(signal.SIGKILL)
    await system.ends_well()
    assert system.storm.statuses[0] > 0
