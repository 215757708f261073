"""Broker and worker as processes that a real Prometheus scrapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.integration.inprocess import (
    settings,
    submit,
)
from tests.integration.loopback import Answer, eventually_answered, request
from tests.integration.servers import Bench, Mosquitto, Prometheus
from wgkex_ops.model.keys import PublicKey

NAMED: Final = PublicKey(b"town hall".ljust(32))


@dataclass(frozen=True)
class Programs:
    """Broker and worker as processes that know each other: where nodes and operators are served."""

    nodes: str
    pages: Mapping[str, str]

    async def submit(self, version: int, domain: str, key: object) -> Answer:
        return await submit(self.nodes, version, domain, key)

    async def post(self, path: str, body: bytes) -> Answer:
        return await request(f"http://{self.nodes}{path}", body)


@dataclass(frozen=True)
class System(Programs):
    """The same, and a Prometheus that scrapes them."""

    prometheus: Prometheus

    async def becomes(self, expression: str, value: float) -> None:
        """Wait until Prometheus has a value."""

        async def has() -> bool:
            return await self.prometheus.scalar(expression) == value

        await eventually_answered(has, f"{expression} == {value}")


async def start_programs(bench: Bench, mosquitto: Mosquitto, *, per_peer: bool = True) -> Programs:
    """Run broker and worker; one peer has a name. With `per_peer`, each peer has series of its own."""
    names = bench.folder / "names"
    names.write_text(f"{NAMED} town hall\n")
    document = settings(
        mosquitto.port, workers={"gw01": {"weight": 1}}, metrics={"per_peer": per_peer, "peer_names": str(names)}
    )
    worker, broker = (bench.wgkex(command, document) for command in ("worker", "broker"))
    await worker.logs("worker_announced")
    await broker.logs("mqtt_connected")
    started = await broker.logs("broker_started")
    pages = {"broker": started["metrics"], "worker": (await worker.logs("worker_started"))["metrics"]}
    return Programs(started["listen"], pages)


async def start_system(bench: Bench, mosquitto: Mosquitto, *, per_peer: bool = True) -> System:
    """The same, and a Prometheus that scrapes them, until all of them know each other."""
    programs = await start_programs(bench, mosquitto, per_peer=per_peer)
    system = System(programs.nodes, programs.pages, await bench.prometheus(programs.pages))
    await system.becomes("sum(up)", 2)
    await system.becomes('wgkex_broker_worker_online{worker="gw01"}', 1)
    return system
