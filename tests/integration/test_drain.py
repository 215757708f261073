"""Three gateways and 300 nodes: one gateway is taken out of service, emptied, restarted, and taken back."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.helpers import CITY, WELT
from tests.integration.commands import wgkex_ops
from tests.integration.gateways import gateways_known
from tests.integration.inprocess import (
    RunningBroker,
    RunningWorker,
    new_key,
    running_broker,
    running_worker,
    settings,
)
from tests.integration.loopback import eventually_answered
from tests.integration.servers import Bench, Mosquitto
from wgkex_ops.config import parse
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

NODES: Final = 300
PACE: Final = 600
GATEWAYS: Final = ("gw01", "gw02", "gw03")


@dataclass
class Node:
    """A router whose tunnel is with the gateway that version 2 named."""

    domain: Domain
    key: PublicKey = field(default_factory=new_key)
    gateway: str = ""


@dataclass
class Fleet:
    """The broker, its gateways, and their nodes."""

    broker: RunningBroker
    workers: dict[str, RunningWorker]
    files: dict[str, Path]
    documents: dict[str, dict[str, Any]]
    nodes: list[Node] = field(default_factory=list)

    async def connect(self, node: Node) -> None:
        """Ask by version 2, and have a handshake with the gateway that is named."""
        answer = await self.broker.submit(2, node.domain.name, node.key)
        assert answer.status == 200
        node.gateway = answer.json["Endpoint"]["Address"].removesuffix(".example.net")
        assert self.workers[node.gateway].dataplane.shake_hands(node.domain, node.key)

    async def assigned(self, count: int) -> Counter[str]:
        """Where so many new nodes are sent."""
        answers = [await self.broker.submit(2, WELT.name, new_key()) for _ in range(count)]
        return Counter(answer.json["Endpoint"]["Address"].removesuffix(".example.net") for answer in answers)

    async def lost(self) -> list[Node]:
        """The nodes whose peer is gone."""
        return [node for node in self.nodes if not await self.workers[node.gateway].has(node.domain, node.key)]

    async def command(self, name: str, *arguments: str) -> str:
        status, output, errors = await wgkex_ops(*arguments, "--config", str(self.files[name]))
        assert (status, errors) == (0, "")
        return output


@pytest.fixture
async def fleet(mosquitto: Mosquitto, tmp_path: Path) -> AsyncIterator[Fleet]:
    documents = {name: settings(mosquitto.port, name) for name in GATEWAYS}
    files = {name: tmp_path / f"{name}.yaml" for name in GATEWAYS}
    for name, document in documents.items():
        files[name].write_text(json.dumps(document))
    async with AsyncExitStack() as stack:
        workers = {
            name: await stack.enter_async_context(running_worker(parse(json.dumps(document), "test")))
            for name, document in documents.items()
            if name != "gw01"
        }
        broker = await stack.enter_async_context(running_broker(parse(json.dumps(documents["gw02"]), "test")))
        yield Fleet(broker, workers, files, documents)


async def test_a_gateway_is_drained_and_emptied_and_taken_back(
    fleet: Fleet, bench: Bench, mosquitto: Mosquitto
) -> None:
    observer = await bench.observe(mosquitto)
    topics = [f"wireguard-metrics/{domain.name}/gw01/connected_peers" for domain in (WELT, CITY)]
    config = parse(json.dumps(fleet.documents["gw01"]), "test")
    loop = asyncio.get_running_loop()

    async with running_worker(config) as worker:
        fleet.workers["gw01"] = worker
        await gateways_known(fleet.broker, *GATEWAYS)
        fleet.nodes = [Node((WELT, CITY)[number % 2]) for number in range(NODES)]
        for node in fleet.nodes:
            await fleet.connect(node)
        assert Counter(node.gateway for node in fleet.nodes) == dict.fromkeys(GATEWAYS, NODES // 3)

        output = await fleet.command("gw01", "drain")
        assert output == ("gw01 drains: no new nodes are sent here.\n'wgkex-ops undrain' takes it back into service.\n")
        # All that an old broker needs to know: it chooses nobody whose number is negative.
        for topic in topics:
            await observer.sees(topic, "-1")
        assert json.loads(observer.payloads(f"wireguard-worker/gw01/{WELT.name}/data")[-1])["Draining"] is True
        await eventually_answered(lambda: page_has(fleet.broker, "draining"), "the broker's page")
        assert set(await fleet.assigned(30)) == {"gw02", "gw03"}
        assert await fleet.lost() == []
        # Keys that arrive are installed all the same: their nodes may choose this gateway.
        unasked = new_key()
        assert (await fleet.broker.submit(1, WELT.name, unasked)).status == 200
        await eventually_answered(lambda: worker.has(WELT, unasked), "a key of version 1")
        assert worker.dataplane.shake_hands(WELT, unasked)
        assert worker.metric("wgkex_worker_draining") == 1
        assert await page_has(worker, "Draining since")

    # A restart changes nothing, and neither does it send anybody here for a moment.
    seen = len(observer.messages)
    async with running_worker(config) as worker:
        fleet.workers["gw01"] = worker
        assert worker.metric("wgkex_worker_draining") == 1
        assert {message.payload for message in observer.messages[seen:] if message.topic in topics} == {b"-1"}
        # The kernel of this test went with the process; the journal brings the peers back, and nodes their sessions.
        for node in (node for node in fleet.nodes if node.gateway == "gw01"):
            await eventually_answered(lambda node=node: worker.has(node.domain, node.key), "restored")  # type: ignore[misc]
            assert worker.dataplane.shake_hands(node.domain, node.key)
        assert worker.dataplane.shake_hands(WELT, unasked)

        output = await fleet.command("gw01", "drain", "--release", f"{PACE}/min")
        assert f"and {PACE} peers of version 2 are released a minute" in output
        begun = loop.time()
        while any(node.gateway == "gw01" for node in fleet.nodes):
            for node in await fleet.lost():
                await fleet.connect(node)
                assert node.gateway != "gw01"
            gone = NODES // 3 - sum(node.gateway == "gw01" for node in fleet.nodes)
            assert gone <= (loop.time() - begun) * PACE / 60 + 1
            await asyncio.sleep(0.2)
        assert worker.metric("wgkex_worker_peers_removed_total", domain=WELT.name, reason="released") > 0
        # A node of version 1 would come back here.
        assert await worker.has(WELT, unasked)

        assert await fleet.command("gw01", "undrain") == "gw01 is in service again: new nodes are sent here.\n"
        await eventually_answered(lambda: takes_nodes(fleet), "gw01 in service")
        assert worker.metric("wgkex_worker_draining") == 0
        assert await fleet.command("gw01", "undrain") == "gw01 did not drain: nothing to do.\n"


async def takes_nodes(fleet: Fleet) -> bool:
    return "gw01" in await fleet.assigned(1)


async def page_has(process: RunningBroker | RunningWorker, text: str) -> bool:
    return text in (await process.page("/")).text


async def test_what_goes_wrong_is_shown(mosquitto: Mosquitto, tmp_path: Path) -> None:
    file = tmp_path / "wgkex.yaml"
    missing = tmp_path / "missing"
    file.write_text(json.dumps(settings(mosquitto.port, worker={"state_dir": str(missing)})))
    for command in ("drain", "undrain"):
        status, _, errors = await wgkex_ops(command, "--config", str(file))
        assert status == 2
        assert errors == f"worker.state_dir: {missing} does not exist: has a worker ever run on this host?\n"
    for pace in ("20", "0/min", "601/min", "1/h", ""):
        status, _, errors = await wgkex_ops("drain", "--release", pace, "--config", str(file))
        assert (status, "should be from 1/min to 600/min" in errors) == (2, True), pace
    missing.mkdir()
    (missing / "drain.json").mkdir()
    status, _, errors = await wgkex_ops("undrain", "--config", str(file))
    assert (status, errors) == (2, f"worker.state_dir: {missing}: Is a directory\n")
