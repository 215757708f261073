"""Broker, worker and plain MQTT sessions inside the process of the tests, where one can look at them closely."""

import asyncio
import atexit
import contextlib
import functools
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry

from tests.fakes import FaultyDataplane
from tests.helpers import CITY, WELT
from tests.integration.loopback import LOOPBACK, TIMEOUT, Answer, eventually, request
from wgkex_ops.broker import Broker
from wgkex_ops.bus.session import Message, Session, Will
from wgkex_ops.config import Config, Listen, MqttConfig, parse
from wgkex_ops.consumer.dataplane.base import OperationObserver
from wgkex_ops.errors import DataplaneError
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.metrics.mqtt import MqttMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.peers import DomainState
from wgkex_ops.worker import Worker

_NO_LIMIT: Final = {"burst": 1_000_000_000, "per_minute": 1_000_000_000}


@functools.cache
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="wgkex-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def settings(mqtt_port: int, name: str = "gw01", /, **changes: object) -> dict[str, Any]:
    """A configuration for a broker and a worker of one name, on ports that the kernel chooses, and with no memories.

    There are no limits: most tests do in seconds, and from one address, what nodes do in hours.

    Args:
        mqtt_port: of an MQTT server on loopback.
        name: of the worker and of the broker.
        changes: sections that are put in place of, or merged into, what is there.
    """
    anywhere = {"host": LOOPBACK, "port": 0}
    document: dict[str, Any] = {
        "domains": [WELT.name, CITY.name],
        "domain_prefixes": ["ffmuc_"],
        "externalName": f"{name}.example.net",
        "mqtt": {"broker_url": LOOPBACK, "broker_port": mqtt_port},
        "broker_listen": anywhere,
        "broker": {"name": name, "metrics_listen": anywhere},
        "worker": {"name": name, "metrics_listen": anywhere, "dataplane": "memory"},
        "limits": dict.fromkeys(("key", "network", "new_keys_per_network", "new_keys", "broker"), _NO_LIMIT),
    }
    document["worker"]["state_dir"] = tempfile.mkdtemp(dir=_folder())
    for section, content in changes.items():
        known = document.get(section, {})
        document[section] = {**known, **content} if isinstance(content, Mapping) else content
    return document


def configuration(mqtt_port: int, name: str = "gw01", /, **changes: object) -> Config:
    return parse(json.dumps(settings(mqtt_port, name, **changes)), "test")


def new_key() -> PublicKey:
    """Any 32 bytes are a point on the curve."""
    return PublicKey(os.urandom(32))


@dataclass(frozen=True)
class Running:
    """What both kinds of processes have: operator pages and metrics."""

    pages: Listen
    registry: CollectorRegistry

    async def page(self, path: str) -> Answer:
        return await request(f"http://{self.pages}{path}")

    def metric(self, name: str, **labels: str) -> float:
        """A sample as it is now; a missing one is a failure."""
        value = self.registry.get_sample_value(name, labels)
        assert value is not None, f"there is no {name}{labels}"
        return value


@dataclass(frozen=True)
class RunningBroker(Running):
    nodes: Listen

    async def submit(self, version: int, domain: str, key: object) -> Answer:
        """POST a key as any program would."""
        return await submit(str(self.nodes), version, domain, key)


@dataclass(frozen=True)
class RunningWorker(Running):
    dataplane: FaultyDataplane

    async def state(self, domain: Domain) -> DomainState:
        return (await self.dataplane.snapshot()).domains[domain.name]

    async def has(self, domain: Domain, key: PublicKey) -> bool:
        """Whether a peer is there with its three parts."""
        state = await self.state(domain)
        address = link_local(key.raw)
        parts = (
            any(peer.public_key == key.raw and peer.link_local == address for peer in state.peers),
            address in state.routes,
            address in state.fdb_entries,
        )
        assert len(set(parts)) == 1, f"half a peer: {parts}"
        return all(parts)


async def submit(address: str, version: int, domain: str, key: object) -> Answer:
    body = json.dumps({"domain": domain, "public_key": str(key)}).encode()
    return await request(f"http://{address}/api/v{version}/wg/key/exchange", body)


@contextlib.asynccontextmanager
async def running_broker(config: Config, *, connected: bool = True) -> AsyncIterator[RunningBroker]:
    """Run a broker; by default it is connected when the context begins."""
    registry = new_registry("broker")
    broker = Broker(config, registry)
    async with broker.running() as (nodes, pages):
        if connected:
            async with asyncio.timeout(TIMEOUT):
                await broker.connected()
        yield RunningBroker(pages, registry, nodes)


@contextlib.asynccontextmanager
async def running_worker(
    config: Config,
    *,
    announced: bool = True,
    clock: Callable[[], float] = time.time,
    snapshot_error: DataplaneError | None = None,
) -> AsyncIterator[RunningWorker]:
    """Run a worker without a kernel; by default brokers know it when the context begins."""
    dataplanes: list[FaultyDataplane] = []

    def make_dataplane(config: Config, observer: OperationObserver) -> FaultyDataplane:
        dataplane = FaultyDataplane(config.domains, observer, clock)
        dataplane.snapshot_error = snapshot_error
        dataplanes.append(dataplane)
        return dataplane

    registry = new_registry("worker")
    worker = Worker(config, registry, make_dataplane)
    async with worker.running() as pages:
        if announced:
            async with asyncio.timeout(TIMEOUT):
                await worker.announced()
        yield RunningWorker(pages, registry, dataplanes[0])


class Client:
    """A session and its instruments."""

    def __init__(self, session: Session, registry: CollectorRegistry) -> None:
        self.session = session
        self._registry = registry
        self._messages = session.messages()

    def find(self, name: str, **labels: str) -> float | None:
        """A sample of a metric; None if there is none."""
        return self._registry.get_sample_value(f"wgkex_mqtt_{name}", labels)

    def metric(self, name: str, **labels: str) -> float:
        value = self.find(name, **labels)
        assert value is not None, f"there is no {name}{labels}"
        return value

    async def next(self) -> Message:
        """The next message that arrives."""
        async with asyncio.timeout(TIMEOUT):
            return await anext(self._messages)

    async def connection_after(self, seen: int) -> int:
        async with asyncio.timeout(TIMEOUT):
            return await self.session.connection_after(seen)

    async def publish(
        self,
        topic: str,
        payload: bytes = b"something",
        *,
        timeout: float = TIMEOUT,  # noqa: ASYNC109  as the session has it
        retain: bool = False,
        properties: Mapping[str, str] | None = None,
        response_topic: str = "",
        correlation: bytes = b"",
    ) -> None:
        await self.session.publish(
            topic,
            payload,
            timeout=timeout,
            retain=retain,
            properties=properties,
            response_topic=response_topic,
            correlation=correlation,
        )

    async def failed(self, reason: str, times: int = 1) -> None:
        """Wait until attempts to connect have failed."""
        await eventually(
            lambda: self.metric("connection_failures_total", reason=reason) >= times, f"{times} times {reason}"
        )


@contextlib.asynccontextmanager
async def client(
    port: int,
    *,
    client_id: str = "tester",
    subscriptions: Sequence[str] = (),
    will: Will | None = None,
    connected: bool = True,
    connect_timeout: float = 10.0,
    session_expiry: int = 0,
    **mqtt: Any,  # noqa: ANN401  what a file may have
) -> AsyncIterator[Client]:
    """Run a session with an MQTT server on loopback; by default it is connected when the context begins.

    Args:
        port: of the server.
        client_id: of the session.
        subscriptions: topic filters.
        will: its last will; by default one of its own.
        connected: whether to wait for the connection.
        connect_timeout: seconds for each attempt.
        session_expiry: seconds for which the server keeps the session.
        mqtt: further settings of the server, in the words of the configuration's file.
    """
    registry = CollectorRegistry()
    session = Session(
        MqttConfig(**{"broker_url": LOOPBACK, "broker_port": port, **mqtt}),
        client_id=client_id,
        subscriptions=subscriptions,
        will=will or Will(f"wills/{client_id}", b"gone"),
        metrics=MqttMetrics(registry),
        session_expiry=session_expiry,
        connect_timeout=connect_timeout,
    )
    async with session:
        running = Client(session, registry)
        if connected:
            await running.connection_after(0)
        yield running
