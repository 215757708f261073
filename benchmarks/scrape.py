"""How long a scrape takes: the whole HTTP response of `/metrics`, compared with the bare encoding of the same metrics.

Both processes are idle, and have as many series as the metrics reference expects. The worker's peers are in the memory
dataplane: reading it is timed separately, as the kernel's dump has a benchmark of its own.
"""

import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from tests.integration.inprocess import running_broker, running_worker
from tests.integration.loopback import LOOPBACK
from tests.integration.servers import Bench
from wgkex_ops.config import Config, Listen, parse
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane
from wgkex_ops.model.changes import Change
from wgkex_ops.model.keys import PublicKey

DOMAINS: Final = 10
GATEWAYS: Final = 6
ROUNDS: Final = 101
# As Prometheus sends it.
_REQUEST: Final = (
    b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain\r\n"
    b"Accept-Encoding: gzip\r\nConnection: close\r\n\r\n"
)


def configuration(mqtt_port: int, state_dir: Path, *, per_peer: bool) -> Config:
    """One file for both processes."""
    anywhere = {"host": LOOPBACK, "port": 0}
    names = [f"gw{number:02}.example.net" for number in range(GATEWAYS)]
    document = {
        "domains": [f"ffmuc_{number}" for number in range(DOMAINS)],
        "domain_prefixes": ["ffmuc_"],
        "mqtt": {"broker_url": LOOPBACK, "broker_port": mqtt_port},
        "workers": {name: {"weight": 1} for name in names},
        "broker_listen": anywhere,
        "broker": {"name": "broker", "metrics_listen": anywhere},
        "worker": {
            "name": names[0],
            "metrics_listen": anywhere,
            "dataplane": "memory",
            "state_dir": str(state_dir),
        },
        "metrics": {"per_peer": per_peer, "per_peer_limit": 100_000},
    }
    return parse(json.dumps(document), "benchmark")


async def scrape(pages: Listen) -> int:
    """Fetch the metrics; the size of the response in bytes."""
    reader, writer = await asyncio.open_connection(pages.host, pages.port)
    writer.write(_REQUEST)
    response = await reader.read()
    writer.close()
    assert response.startswith(b"HTTP/1.1 200 "), response[:200]
    return len(response)


async def milliseconds(*works: Callable[[], Awaitable[object]]) -> list[float]:
    """The medians of many runs of each, alternating, so that other load on the machine affects all of them."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, times in zip(works, taken, strict=True):
            start = time.perf_counter()
            await work()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) * 1000 for times in taken]


async def nothing() -> None:
    """A broker reads no peers."""


async def report(name: str, pages: Listen, registry: CollectorRegistry, read: Callable[[], Awaitable[object]]) -> None:
    """Measure one process, and print the result."""

    async def encode() -> None:
        generate_latest(registry)  # type: ignore[no-untyped-call]

    size = await scrape(pages)
    whole, bare, reading = await milliseconds(lambda: scrape(pages), encode, read)
    beyond = f", {whole - reading:.1f} ms beyond the reading of the peers ({reading:.1f} ms)" if reading > 1 else ""
    print(
        f"{name}: {whole:.1f} ms{beyond}; {(whole - reading) / bare:.2f} of the bare encoding ({bare:.1f} ms); "
        f"{size / 1000:.0f} kB"
    )


async def fill(dataplane: MemoryDataplane, config: Config, peers: int) -> None:
    """Install peers, spread over the domains, most of them with a handshake."""
    placed = [(config.domains[number % DOMAINS], PublicKey(os.urandom(32))) for number in range(peers)]
    await dataplane.apply([Change.install(domain, key) for domain, key in placed])
    for number, (domain, key) in enumerate(placed):
        if number % 10:
            dataplane.shake_hands(domain, key)


@contextmanager
def servers() -> Iterator[Bench]:
    """Where servers run."""
    with TemporaryDirectory() as folder, Bench(Path(folder)) as bench:
        yield bench


async def measure() -> None:
    """Measure the broker, then workers of some sizes."""
    with servers() as bench:
        mosquitto = await bench.mosquitto()
        config = configuration(mosquitto.port, bench.folder, per_peer=False)
        async with running_broker(config) as broker:
            await report("broker", broker.pages, broker.registry, nothing)
        for peers, per_peer in ((2_000, False), (20_000, False), (2_000, True)):
            state_dir = bench.folder / f"state-{peers}-{per_peer}"
            config = configuration(mosquitto.port, state_dir, per_peer=per_peer)
            async with running_worker(config) as worker:
                await fill(worker.dataplane, config, peers)
                name = f"worker, {peers} peers{', each with series of its own' if per_peer else ''}"
                await report(name, worker.pages, worker.registry, worker.dataplane.snapshot)


def main() -> None:
    """Print the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    asyncio.run(measure())


if __name__ == "__main__":
    main()
