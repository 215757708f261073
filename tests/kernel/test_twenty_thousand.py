"""A regional gateway: 20,000 peers installed, refreshed, scraped and cleaned, seen through wg, ip and bridge."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession
from prometheus_client import CollectorRegistry

from tests.helpers import key, running, samples
from tests.kernel.lab import Namespace
from wgkex_ops.bus.messages import Origin
from wgkex_ops.config import MAX_PEERS, CleanupConfig, Listen, MetricsListen
from wgkex_ops.consumer.admission import Admission, Requests
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.consumer.dataplane.scans import SerializedDataplane
from wgkex_ops.consumer.dataplane.shared import SharedSnapshots
from wgkex_ops.consumer.installer import CAPACITY, Installer
from wgkex_ops.consumer.table import Table
from wgkex_ops.consumer.upkeep.cleanup import Cleanup
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.http.operator.access import Access
from wgkex_ops.http.operator.listener import OperatorPages, create_operator_app
from wgkex_ops.http.operator.page.parts import Page
from wgkex_ops.http.server import serve
from wgkex_ops.metrics.cleanup import CleanupMetrics
from wgkex_ops.metrics.journal import JournalMetrics
from wgkex_ops.metrics.wireguard import WireGuardCollector
from wgkex_ops.metrics.worker import ConsumerMetrics, NetlinkMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import ROUTE_PROTOCOL, ROUTE_PROTOCOL_STATIC

A: Final = Domain("ffx_a", "wg-a", "vx-a")
B: Final = Domain("ffx_b", "wg-b", "vx-b")
COUNTS: Final = {A: 12_000, B: 8_000}
NAMES: Final = [domain.name for domain in COUNTS]
PROTECTED: Final = (key(0), key(1))

# What others have on this gateway: a neighbour, and a peer of the older wgkex, which looks like one of ours but for its
# route.
NEIGHBOUR: Final = base64.b64encode(bytes(range(32))).decode()
NEIGHBOUR_ADDRESS: Final = "fe80::5:1"
OLD: Final = key(1_000_000)


class Times:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Gateway:
    """The worker without the bus: everything between a requested key and the kernel."""

    installer: Installer
    cleanup: Cleanup
    journal: Journal
    monotonic: Times
    registry: CollectorRegistry
    pages: Listen

    async def install(self, keys: dict[Domain, list[PublicKey]]) -> None:
        """Have all of these keys installed, and noted by the journal."""
        for domain, some in keys.items():
            for one in some:
                await self.installer.room()
                self.installer.request(domain, one, Origin(), None)
        await self.installer.finish(900)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    registry = CollectorRegistry()
    monotonic = Times()
    dataplane = KernelDataplane(tuple(COUNTS), NetlinkMetrics(registry))
    journal = Journal(folder, JournalMetrics(registry), timeout=60)
    serialized = SerializedDataplane(dataplane)
    requests = Requests(monotonic)
    admission = Admission(
        tuple(COUNTS), requests, dataplane.snapshot, table=Table(rows=lambda: journal.rows), lists=KeyLists
    )
    cleanup = Cleanup(
        serialized,
        journal,
        requests,
        tuple(COUNTS),
        protected=[key.raw for key in PROTECTED],
        lists=KeyLists,
        settings=CleanupConfig(),
        metrics=CleanupMetrics(registry, NAMES),
        monotonic=monotonic,
    )
    installer = Installer(
        serialized,
        admission,
        journal,
        ConsumerMetrics(registry, NAMES, CAPACITY, MAX_PEERS),
        lists=KeyLists,
        send_receipts=lambda to, reason: None,
    )
    collector = WireGuardCollector(SharedSnapshots(dataplane).read, tuple(COUNTS), stale_after=10_800)
    registry.register(collector)

    async def no_page() -> Page:
        raise NotImplementedError

    pages = OperatorPages(registry=registry, problems=list, page=no_page, refresh=collector.refresh)
    access = Access(MetricsListen(port=0), setting="worker.metrics_listen")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dataplane)
        await stack.enter_async_context(journal)
        listen = await stack.enter_async_context(
            serve(create_operator_app(pages, access), Listen(port=0), shutdown_timeout=0.0)
        )
        await stack.enter_async_context(running(installer.run()))
        yield Gateway(installer, cleanup, journal, monotonic, registry, listen)


async def scrape(pages: Listen) -> dict[str, float]:
    async with ClientSession() as session, session.get(f"http://{pages}/metrics") as answer:
        assert answer.status == 200
        lines = (await answer.text()).splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def assert_exactly(here: Namespace, domain: Domain, keys: Sequence[PublicKey]) -> None:
    """Each of these keys is there in all three places, and nothing else of ours is."""
    expected = sorted(str(one.link_local) for one in keys)
    peers = here.wg(domain.wg).peers
    ours = {text: peer.allowed_ips for text, peer in peers.items() if text not in (NEIGHBOUR, str(OLD))}
    assert ours == {str(one): f"{one.link_local}/128" for one in keys}
    assert sorted(route["dst"] for route in here.routes(domain.wg, ROUTE_PROTOCOL)) == expected
    others = {NEIGHBOUR_ADDRESS, str(OLD.link_local)}
    assert sorted(address for address in here.fdb(domain.vx) if address not in others) == expected


def static(here: Namespace) -> tuple[Any, ...]:
    """What is there of others."""
    peers = here.wg(A.wg).peers
    return (
        peers[NEIGHBOUR],
        peers[str(OLD)],
        here.routes(A.wg, ROUTE_PROTOCOL_STATIC),
        sorted(address for address in here.fdb(A.vx) if address in (NEIGHBOUR_ADDRESS, str(OLD.link_local))),
    )


async def test_twenty_thousand_peers(here: Namespace, tmp_path: Path) -> None:
    for number, domain in enumerate(COUNTS, 1):
        here.add_domain(domain, number)
    here.sh(
        f"wg set {A.wg} peer {NEIGHBOUR} endpoint 192.0.2.1:40001 persistent-keepalive 25"
        f" allowed-ips {NEIGHBOUR_ADDRESS}/128,fe80::5:2/128",
        f"wg set {A.wg} peer {OLD} allowed-ips {OLD.link_local}/128",
        *(
            f"ip -6 route add {address}/128 dev {A.wg} proto static"
            f"; bridge fdb append 00:00:00:00:00:00 dev {A.vx} dst {address} via {A.wg}"
            for address in (NEIGHBOUR_ADDRESS, OLD.link_local)
        ),
    )
    before = static(here)
    numbers = iter(range(sum(COUNTS.values())))
    keys = {domain: [key(next(numbers)) for _ in range(count)] for domain, count in COUNTS.items()}

    async with gateway(tmp_path) as running_gateway:
        # Installed, then refreshed.
        for times in (1, 2):
            await running_gateway.install(keys)
            for domain, count in COUNTS.items():
                installed = running_gateway.metric("wgkex_worker_peers_installed_total", domain=domain.name)
                assert installed == times * count
                assert_exactly(here, domain, keys[domain])
        assert static(here) == before

        # Scraped, by two at once: they share one reading, and each has all of it.
        dumps = running_gateway.metric("wgkex_worker_netlink_operations_total", operation="dump")
        assert dumps is not None
        both = await asyncio.gather(*(scrape(running_gateway.pages) for _ in range(2)))
        for shown in both:
            for domain, count in COUNTS.items():
                others = 2 if domain is A else 0
                assert shown[f'wgkex_worker_peers{{domain="{domain.name}",state="never"}}'] == count + others
                assert shown[f'wgkex_worker_routes{{domain="{domain.name}"}}'] == count
                assert shown[f'wgkex_worker_fdb_entries{{domain="{domain.name}"}}'] == count
                for missing in ("peer", "route", "fdb"):
                    label = f'{{domain="{domain.name}",missing="{missing}"}}'
                    assert shown[f"wgkex_worker_incomplete_peers{label}"] == 0
        taken = running_gateway.metric("wgkex_worker_netlink_operations_total", operation="dump")
        await scrape(running_gateway.pages)
        for_one = running_gateway.metric("wgkex_worker_netlink_operations_total", operation="dump")
        assert taken is not None
        assert for_one is not None
        assert taken - dumps == for_one - taken

        # Cleaned: none of them before its time, and then all but the protected ones and those that ask again.
        running_gateway.monotonic.seconds += 599
        await running_gateway.cleanup.clean()
        assert_exactly(here, B, keys[B])
        again = {A: keys[A][100:110], B: keys[B][-10:]}
        await running_gateway.install(again)
        running_gateway.monotonic.seconds += 1
        await running_gateway.cleanup.clean()
        left = {A: [*PROTECTED, *again[A]], B: again[B]}
        for domain, some in left.items():
            assert_exactly(here, domain, some)
            removed = running_gateway.metric(
                "wgkex_worker_peers_removed_total", domain=domain.name, reason="never_connected"
            )
            assert removed == COUNTS[domain] - len(some)
        assert static(here) == before
        assert {raw: row.domain for raw, row in running_gateway.journal.rows.items()} == {
            one.raw: domain.name for domain, some in left.items() for one in some
        }
        failures = {
            name: value
            for name, value in samples(running_gateway.registry).items()
            if "failures" in name and value and "created" not in name
        }
        assert failures == {}
