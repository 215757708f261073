"""A gateway's reboot, while somebody floods the broker with keys and holds connections open."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests import wrk
from tests.faults.storm import Record
from tests.faults.system import DOMAINS, place_settings, running_places
from tests.helpers import WELT, megabytes, post_key
from tests.integration.inprocess import new_key
from tests.integration.loopback import eventually
from tests.integration.servers import Bench, Mosquitto
from wgkex_ops.config import Listen
from wgkex_ops.http.public.app import PATH_V1
from wgkex_ops.simulation.nodes import Node
from wgkex_ops.simulation.post import BrokerClient

ROUTERS: Final = 2000
BEHIND_ONE_ADDRESS: Final = 50
# Ten times as fast as after a real reboot.
SECONDS: Final = 12.0
SLOW_CONNECTIONS: Final = 500
# Documentation's (RFC 5737): one of many nodes, one of the abuser.
CARRIER, ABUSER = "192.0.2.1", "203.0.113.1"


async def reboot(broker: Listen) -> Record:
    """Routers that have lost their gateway, and what they get: each by both versions, every second one twice."""
    record, post = Record(), BrokerClient(f"http://{broker}")

    async def router(node: Node, versions: Sequence[int]) -> None:
        await asyncio.sleep(random.uniform(0, SECONDS))
        for version in versions:
            await node.submit(version)

    async with asyncio.TaskGroup() as group:
        for number in range(ROUTERS):
            client = CARRIER if number < BEHIND_ONE_ADDRESS else f"198.18.{number // 250}.{number % 250}"
            node = Node(post, DOMAINS[number % len(DOMAINS)].name, record.note, client=client)
            group.create_task(router(node, (2, 1, 2, 1) if number % 2 else (2, 1)))
    return record


@asynccontextmanager
async def slow_connections(broker: Listen, count: int) -> AsyncIterator[None]:
    """Connections that never end their request; one that is closed is opened again."""

    async def hold() -> None:
        while True:
            reader, writer = await asyncio.open_connection(broker.host, broker.port)
            try:
                writer.write(b"POST /api/v1/wg/key/exchange HTTP/1.1\r\nHost: broker\r\nContent-Len")
                await reader.read()
            except ConnectionError:
                pass
            finally:
                writer.close()
            await asyncio.sleep(0.5)

    tasks = [asyncio.create_task(hold()) for _ in range(count)]
    await asyncio.sleep(0)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def flood(broker: Listen, folder: Path, seconds: float) -> wrk.Result:
    """Random valid keys from one address for a while."""
    bodies = (json.dumps({"domain": WELT.name, "public_key": str(new_key())}) for _ in range(50_000))
    wrk.write_requests(folder / "flood", ((ABUSER, body) for body in bodies))
    command = wrk.command(f"http://{broker}{PATH_V1}", folder / "flood", connections=8, seconds=seconds)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return wrk.parse(output.decode())


async def test_routers_that_come_back_are_served_beside_an_abuser(
    bench: Bench, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    broker, worker = await running_places(bench, place_settings(mosquitto.port, "gw01", tmp_path, limits=None))
    before, _ = megabytes(broker.program.process.pid)
    async with slow_connections(broker.nodes, SLOW_CONNECTIONS):
        flooding = asyncio.create_task(flood(broker.nodes, tmp_path, SECONDS + 8))
        record = await reboot(broker.nodes)
        flooded = await flooding
    _, peak = megabytes(broker.program.process.pid)
    figures = (
        f"slowest response {record.slowest:.2f} s; the abuser: {flooded.requests} requests, "
        f"{flooded.refused} refused; the broker's memory: {before:.0f} MB before, {peak:.0f} MB at the most"
    )
    print(figures)  # noqa: T201  for people

    # Who waits for a response, waits less than ten seconds: that is the node's limit, and not the machine's.
    assert record.statuses == {200: ROUTERS * 3}
    assert record.slowest < 10
    await worker.has_all(record.accepted)
    # In 20 s: what the bucket holds, and ten a minute.
    installed = sum(map(len, (await worker.installed()).values()))
    assert installed - ROUTERS <= 310
    assert flooded.requests > 20_000
    assert flooded.requests - flooded.refused < flooded.requests / 10
    assert peak - before < 100


async def test_same_key_is_published_a_few_times_a_minute(bench: Bench, mosquitto: Mosquitto, tmp_path: Path) -> None:
    broker, _ = await running_places(bench, place_settings(mosquitto.port, "gw01", tmp_path, limits=None))
    key = new_key()
    began = time.monotonic()
    for number in range(200):
        await post_key(broker.nodes, 1, WELT.name, key, f"198.18.0.{number}")
    minutes = (time.monotonic() - began) / 60
    published = await broker.total("wgkex_broker_keys_published_total")
    assert 6 <= published <= 6 + 4 * minutes + 1
    await eventually(lambda: len(broker.program.logged("key_accepted")) >= published, "the log lines")
    assert len(broker.program.logged("key_accepted")) == published
