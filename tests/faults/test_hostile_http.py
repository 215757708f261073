"""Clients that hold connections, and send what never ends: routers are served beside them, and so are operators."""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.faults.attacks import ATTACKS, Report
from tests.faults.storm import Record
from tests.faults.system import Brokers, place_settings, running_places
from tests.helpers import WELT, megabytes
from tests.integration.loopback import request
from tests.integration.servers import Bench, Mosquitto
from wgkex_ops.simulation.nodes import Node
from wgkex_ops.simulation.post import BrokerClient

SECONDS: Final = 12.0
PER_SECOND: Final = 20


@dataclass
class Served:
    """What routers and operators got meanwhile."""

    routers: Record = field(default_factory=Record)
    slowest_ready: float = 0.0

    async def operator(self, broker: Brokers) -> None:
        while True:
            began = time.monotonic()
            assert (await request(f"http://{broker.pages}/-/ready")).status == 200
            self.slowest_ready = max(self.slowest_ready, time.monotonic() - began)
            await asyncio.sleep(0.5)


async def attacked(name: str, broker: Brokers) -> tuple[Report, Served]:
    """Attack for a while from an address of its own, with routers and an operator beside it."""
    command = (sys.executable, "-m", "tests.faults.attacks", name)
    arguments = (broker.nodes.host, str(broker.nodes.port), str(SECONDS))
    attacker = await asyncio.create_subprocess_exec(*command, *arguments, stdout=asyncio.subprocess.PIPE)
    served = Served()
    post = BrokerClient(f"http://{broker.nodes}")
    asking = asyncio.create_task(served.operator(broker))
    async with asyncio.TaskGroup() as group:
        for _ in range(int(SECONDS * PER_SECOND)):
            group.create_task(Node(post, WELT.name, served.routers.note).submit(1))
            await asyncio.sleep(1 / PER_SECOND)
    output, _ = await attacker.communicate()
    asking.cancel()
    return Report(**json.loads(output)), served


@pytest.mark.parametrize("name", ATTACKS)
async def test_routers_and_operators_are_served_beside(
    bench: Bench, mosquitto: Mosquitto, tmp_path: Path, name: str
) -> None:
    broker, _ = await running_places(bench, place_settings(mosquitto.port, "gw01", tmp_path), descriptors=1024)
    before, _ = megabytes(broker.program.process.pid)
    report, served = await attacked(name, broker)
    after, peak = megabytes(broker.program.process.pid)
    routers = served.routers
    lines = broker.program.process.output.count("\n") - routers.statuses.total()
    print(  # noqa: T201  for people
        f"{name}: {dict(routers.statuses)}, slowest {routers.slowest:.2f} s, ready {served.slowest_ready:.2f} s; "
        f"memory {before:.0f} MB before, {peak:.0f} MB at the most, {after:.0f} MB after; {lines} other log lines; "
        f"{report}"
    )
    assert routers.statuses[200] >= 0.99 * routers.statuses.total()
    assert peak - before < 60
    assert report.longest < 20
    assert lines < 100


async def test_one_network_has_its_share_of_the_connections(bench: Bench, mosquitto: Mosquitto, tmp_path: Path) -> None:
    trusting = place_settings(mosquitto.port, "gw01", tmp_path, broker={"trusted_proxies": ["127.0.0.1/32"]})
    broker, _ = await running_places(bench, trusting, descriptors=1024)
    attacking = asyncio.create_task(attacked("idle", broker))
    most = 0.0
    while not attacking.done():
        most = max(most, await broker.total("wgkex_broker_connections"))
        await asyncio.sleep(0.2)
    _, served = await attacking
    assert served.routers.statuses == {200: int(SECONDS * PER_SECOND)}
    # Those of the routers and of the one that has more than its share.
    assert 150 < most < 300
    refused = (await broker.samples())["wgkex_broker_connections_refused_total"]
    assert {dict(labels)["reason"] for labels, count in refused.items() if count} == {"network"}
