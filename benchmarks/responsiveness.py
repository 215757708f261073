"""How long the worker's event loop is blocked, at most, while 20,000 peers are read, reported, repaired and cleaned.

The dumps are prepared, with the bytes that a kernel sends. They are decoded in a thread, as those of a kernel are: all
that competes with the event loop for the interpreter is there, but for the kernel itself. The worker has its usual
tasks and is scraped twice a second; it runs long enough for each task to run.
"""

import asyncio
import contextlib
import os
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, TypeVar

import structlog

from benchmarks.scrape import DOMAINS, configuration, scrape, servers
from wgkex_ops.__main__ import be_responsive
from wgkex_ops.config import CleanupConfig, Config, Listen
from wgkex_ops.consumer.dataplane.base import OperationObserver
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane
from wgkex_ops.consumer.dataplane.netlink import configure, parse, uapi
from wgkex_ops.consumer.dataplane.netlink.framing import (
    Requests,
    decode_messages,
    encode_attribute,
    encode_messages,
    encode_nested,
)
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.model.keys import link_local
from wgkex_ops.model.peers import ROUTE_PROTOCOL, Snapshot
from wgkex_ops.worker import Worker

_T = TypeVar("_T")

PEERS: Final = (0, 20_000)
SECONDS: Final = 75.0
_TICK: Final = 0.001
# As many as the kernel puts into a datagram of at most 32 KiB.
_PEERS_PER_MESSAGE: Final = 100
_ROUTES_PER_DATAGRAM: Final = 200


class RecordedDataplane(MemoryDataplane):
    """Takes changes in memory, and decodes each snapshot from the prepared dumps of a whole gateway.

    Args:
        config: whose domains these are.
        observer: is called for each batch of operations.
        peers: how many peers there are, spread over the domains.
    """

    def __init__(self, config: Config, observer: OperationObserver, peers: int) -> None:
        super().__init__(config.domains, observer)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._dumps = {
            domain.name: [list(kind) for kind in record(number + 1, peers // DOMAINS)]
            for number, domain in enumerate(config.domains)
        }

    async def snapshot(self) -> Snapshot:
        """Decode all dumps, in the thread."""
        empty = await super().snapshot()
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._decode, empty)

    def _decode(self, empty: Snapshot) -> Snapshot:
        states = {}
        for number, (name, (peers, routes, entries)) in enumerate(self._dumps.items(), 1):
            states[name] = replace(
                empty.domains[name],
                peers=parse.decode_device(_received(peers)).peers,
                routes=frozenset(route.destination for route in parse.decode_routes(_received(routes), ROUTE_PROTOCOL)),
                fdb_entries=frozenset(entry.destination for entry in parse.decode_fdb(_received(entries), number)),
            )
        return Snapshot(time.time(), states)


def record(number: int, count: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Datagrams of a domain's three dumps: peers with their handshakes, routes, FDB entries."""
    keys = [os.urandom(32) for _ in range(count)]
    peers = [_peer(key) for key in keys]
    addresses = [link_local(key) for key in keys]
    return (
        [
            encode_messages(Requests(0, 0, [bytes(4) + encode_nested(uapi.WGDEVICE_A_PEERS, *part)]), 1)
            for part in _parts(peers, _PEERS_PER_MESSAGE)
        ],
        [
            encode_messages(configure.add_routes(ROUTE_PROTOCOL, [(number, part)]), 1)
            for part in _parts(addresses, _ROUTES_PER_DATAGRAM)
        ],
        [
            encode_messages(configure.add_fdb_entries([(number, number, part)]), 1)
            for part in _parts(addresses, _ROUTES_PER_DATAGRAM)
        ],
    )


def _peer(key: bytes) -> bytes:
    """A peer in the order of drivers/net/wireguard/netlink.c; nine of ten have had a handshake, all at another time."""
    handshake = time.time() - 10_000 * os.urandom(1)[0] / 256 if os.urandom(1)[0] < 230 else 0.0
    return encode_nested(
        0,
        encode_attribute(uapi.WGPEER_A_PUBLIC_KEY, key),
        encode_attribute(uapi.WGPEER_A_PRESHARED_KEY, bytes(32)),
        encode_attribute(uapi.WGPEER_A_LAST_HANDSHAKE_TIME, struct.pack("=qq", int(handshake), 0)),
        encode_attribute(uapi.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, bytes(2)),
        encode_attribute(uapi.WGPEER_A_TX_BYTES, struct.pack("=Q", 1)),
        encode_attribute(uapi.WGPEER_A_RX_BYTES, struct.pack("=Q", 1)),
        encode_attribute(uapi.WGPEER_A_PROTOCOL_VERSION, struct.pack("=I", 1)),
        encode_nested(
            uapi.WGPEER_A_ALLOWEDIPS,
            encode_nested(
                0,
                encode_attribute(3, b"\x80"),
                encode_attribute(1, struct.pack("=H", 10)),
                encode_attribute(2, link_local(key)),
            ),
        ),
    )


def _parts(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _received(datagrams: Sequence[bytes]) -> list[bytes]:
    return [message.body for datagram in datagrams for message in decode_messages(datagram)]


async def watch(stalls: list[float]) -> None:
    """Note how much later than requested the event loop returns, in seconds."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(_TICK)
        stalls.append(time.perf_counter() - before - _TICK)


async def scrape_each_second(pages: Listen) -> None:
    """Scrape, as Prometheus does."""
    while True:
        await scrape(pages)
        await asyncio.sleep(1)


async def stalls(config: Config, peers: int) -> list[float]:
    """Run a worker for a while."""
    found: list[float] = []
    registry = new_registry("worker")
    worker = Worker(config, registry, lambda config, observer: RecordedDataplane(config, observer, peers))
    async with worker.running() as pages:
        async with asyncio.timeout(30):
            await worker.announced()
        watching = [
            asyncio.create_task(work) for work in (watch(found), *(scrape_each_second(pages) for _ in range(2)))
        ]
        await asyncio.sleep(SECONDS)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    failed = registry.get_sample_value("wgkex_worker_cleanup_runs_total", {"result": "failed"})
    cleaned = registry.get_sample_value("wgkex_worker_cleanup_runs_total", {"result": "completed"})
    assert cleaned, "no run of the cleanup was completed"
    assert not failed, "a run of the cleanup has failed"
    return found


async def measure() -> list[str]:
    """Measure an empty gateway and a full one; a line each."""
    figures: list[str] = []
    # The MQTT server's output is for failed tests.
    with contextlib.redirect_stdout(sys.stderr), servers() as bench:
        mosquitto = await bench.mosquitto()
        for peers in PEERS:
            config = configuration(mosquitto.port, bench.folder / str(peers), per_peer=False)
            often = config.model_copy(update={"cleanup": CleanupConfig(interval=10)})
            found = sorted(await stalls(often, peers))
            figures.append(
                f"{peers} peers: the event loop was blocked for {found[-1] * 1000:.1f} ms at most, "
                f"{found[len(found) * 999 // 1000] * 1000:.1f} ms in one of 1,000 ticks ({len(found)} ticks)"
            )
    return figures


def main() -> None:
    """Print the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    be_responsive()
    print(*asyncio.run(measure()), sep="\n")


if __name__ == "__main__":
    main()
