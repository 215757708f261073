"""A network that drops everything silently, for half a minute."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.storm import Storm
from tests.faults.system import DOMAINS, broker_place, place_settings, worker_place
from tests.integration.loopback import eventually, eventually_answered
from tests.integration.servers import Bench, Mosquitto
from tests.kernel.lab import Namespace, inside, namespaces

NEAR, FAR = "10.58.1.1", "10.58.1.2"
SILENCE = 30.0
PUBLISH_TIMEOUT = 3.0


@pytest.fixture
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    """Two hosts with a cable: this thread is on the near one."""
    with namespaces() as add:
        near, far = add("near"), add("far")
        Namespace().run("ip", "link", "add", "v0", "netns", near.name, "type", "veth", "peer", "v0", "netns", far.name)
        near.sh(f"ip address add {NEAR}/24 dev v0", "ip link set v0 up")
        far.sh(f"ip address add {FAR}/24 dev v0", "ip link set v0 up")
        with inside(Path(f"/run/netns/{near.name}")):
            yield near, far


@pytest.fixture
async def far_mosquitto(hosts: tuple[Namespace, Namespace], tmp_path: Path) -> AsyncIterator[Mosquitto]:
    """An MQTT server on the far host."""
    with Bench(tmp_path, prefix=("ip", "netns", "exec", hosts[1].name)) as bench:
        server = Mosquitto(bench, (), address=FAR)
        await server.start()
        yield server


@pytest.fixture
def add_cut(hosts: tuple[Namespace, Namespace]) -> Callable[[str], None]:
    """Cut the cable silently (`add`) or repair it (`delete`): nothing is refused, nothing arrives."""

    def change(verb: str) -> None:
        near, far = hosts
        near.run("ip", "route", verb, "blackhole", f"{FAR}/32")
        far.run("ip", "route", verb, "blackhole", f"{NEAR}/32")

    return change


async def test_silent_network_is_noticed_and_nothing_is_lost(
    far_mosquitto: Mosquitto, add_cut: Callable[[str], None], bench: Bench, tmp_path: Path
) -> None:
    document = place_settings(far_mosquitto.port, "gw01", tmp_path, mqtt={"broker_url": FAR, "keepalive": 2})
    broker, worker = broker_place(bench, document), worker_place(bench, document)
    for place in (worker, broker):
        await place.start()
        await place.ready()
    await worker.program.logs("worker_announced")

    storm = Storm(DOMAINS, [broker.nodes])
    async with asyncio.TaskGroup() as group:
        group.create_task(storm.blow(1500, 25))
        await storm.reaches(100)
        add_cut("add")
        cut_at = time.monotonic()
        before = await broker.total("process_resident_memory_bytes")
        for place in (broker, worker):
            await place.program.logs("mqtt_disconnected")
        # Requests meanwhile fail within the time limit: none is left without a response.
        await eventually(lambda: time.monotonic() > cut_at + SILENCE, "half a minute", 2 * SILENCE)
        assert storm.statuses[503] > 200
        assert storm.statuses[0] == 0
        assert storm.slowest < PUBLISH_TIMEOUT + 2
        assert await broker.total("process_resident_memory_bytes") < before + 30e6
        add_cut("delete")
    assert storm.total == 1500
    await worker.has_all(storm.accepted)
    await eventually_answered(broker.counts_add_up, "counters that add up")
