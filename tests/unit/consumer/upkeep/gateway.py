"""A gateway with all that works on its peers, the dataplane in memory, a journal on the disk, and clocks to be set."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry

from tests.fakes import FaultyDataplane, NullObserver
from tests.helpers import CITY, DOMAINS, WELT, key, samples
from wgkex_ops.config import MAX_PEERS, CleanupConfig
from wgkex_ops.consumer.admission import Admission, Requests
from wgkex_ops.consumer.dataplane.base import Dataplane
from wgkex_ops.consumer.dataplane.scans import SerializedDataplane
from wgkex_ops.consumer.table import Table
from wgkex_ops.consumer.upkeep.cleanup import Cleanup
from wgkex_ops.consumer.upkeep.connectivity import Connectivity
from wgkex_ops.consumer.upkeep.drain import Drain
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.consumer.upkeep.reconciler import Reconciler
from wgkex_ops.consumer.upkeep.refused_peers import RefusedPeers
from wgkex_ops.key_lists import ProtectedKeys
from wgkex_ops.metrics.cleanup import CleanupMetrics
from wgkex_ops.metrics.drain import DrainMetrics
from wgkex_ops.metrics.journal import JournalMetrics, RepairMetrics
from wgkex_ops.metrics.worker import SessionMetrics
from wgkex_ops.model.changes import Change
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey

MINUTE: Final = 60.0
HOUR: Final = 3600.0
STALE_AFTER: Final = 3 * HOUR
NEVER_AFTER: Final = 10 * MINUTE


@dataclass
class Clocks:
    """The two clocks of a host: both go on, and the first one can be set."""

    wall: float = 1_800_000_000.0
    monotonic: float = 5000.0

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


class Process:
    """A worker process, as far as it works on peers.

    Args:
        dataplane: what the process finds.
        folder: of the journal.
        clocks: the host's.
        domains: the configured domains.
        adopt, protected: settings of the cleanup.
        max_peers: of each domain.
        lists: of the operators.
    """

    def __init__(
        self,
        dataplane: Dataplane,
        folder: Path,
        clocks: Clocks,
        domains: Sequence[Domain] = (WELT, CITY),
        *,
        adopt: bool = False,
        protected: Sequence[PublicKey] = (),
        max_peers: int = MAX_PEERS,
        lists: Callable[[], KeyLists] = KeyLists,
    ) -> None:
        names = [domain.name for domain in domains]
        self.registry = CollectorRegistry()
        self.dataplane = SerializedDataplane(dataplane)
        self.requests = Requests(lambda: clocks.monotonic)
        self.journal = Journal(folder, JournalMetrics(self.registry), lambda: clocks.wall, retry_after=0.0)
        kept = ProtectedKeys([key.raw for key in protected], lists)
        self.admission = Admission(
            domains,
            self.requests,
            dataplane.snapshot,
            table=Table(max_peers, lambda: self.journal.rows, kept),
            lists=lists,
            clock=lambda: clocks.monotonic,
        )
        self.cleanup_metrics = CleanupMetrics(self.registry, names)
        self.refused = RefusedPeers(domains, self.journal, lists, self.cleanup_metrics, lambda: clocks.wall)
        self.repair_metrics = RepairMetrics(self.registry, names)
        self.connectivity = Connectivity(domains, SessionMetrics(self.registry, names))
        self.reconciler = Reconciler(
            self.dataplane,
            self.journal,
            self.admission,
            self.requests,
            domains,
            refused=self.refused,
            connectivity=self.connectivity,
            metrics=self.repair_metrics,
            clock=lambda: clocks.monotonic,
        )
        self.cleanup = Cleanup(
            self.dataplane,
            self.journal,
            self.requests,
            domains,
            protected=kept,
            lists=lists,
            settings=CleanupConfig(stale_after=STALE_AFTER, never_after=NEVER_AFTER, adopt=adopt),
            metrics=self.cleanup_metrics,
            clock=lambda: clocks.wall,
            monotonic=lambda: clocks.monotonic,
        )

        self.drain = Drain(
            folder,
            self.dataplane,
            dataplane.snapshot,
            self.journal,
            domains,
            protected=kept,
            lists=lists,
            metrics=DrainMetrics(self.registry),
            removed=self.cleanup_metrics.removed,
            clock=lambda: clocks.wall,
            monotonic=lambda: clocks.monotonic,
        )

    async def request(self, domain: Domain, requested: PublicKey, api_version: int = 1) -> str:
        """Have a key installed as the installer does; why that was refused or failed, else an empty text."""
        change = Change.install(domain, requested)
        verdict = await self.admission.judge([change])
        if reason := verdict.refused.get(change.address):
            return reason
        removals = [*verdict.displaced, *verdict.evicted.values()]
        *_, outcome = await self.dataplane.apply([*removals, change])
        if outcome is not None:
            return outcome.error
        for evicted in verdict.evicted.values():
            self.admission.forget(evicted)
        self.admission.note(change)
        by_version_2 = [requested.raw] if api_version == 2 else []
        await self.journal.install([(domain, requested)], [removed.key for removed in removals], by_version_2)
        return ""

    def count(self, name: str, labels: str) -> float:
        return samples(self.registry)[f"wgkex_worker_{name}_total{{{labels}}}"]


@dataclass
class Gateway:
    """A gateway in memory, and the process that runs on it."""

    folder: Path
    clocks: Clocks = field(default_factory=Clocks)
    settings: dict[str, Any] = field(default_factory=dict)
    lists: KeyLists = field(default_factory=KeyLists)
    events: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dataplane = FaultyDataplane(tuple(DOMAINS.values()), NullObserver(), lambda: self.clocks.wall)
        self.process = self._new_process()
        self._stack = contextlib.AsyncExitStack()

    def _new_process(self) -> Process:
        return Process(self.dataplane, self.folder, self.clocks, lists=lambda: self.lists, **self.settings)

    async def start(self) -> None:
        """Start a process: it restores, before brokers hear of it."""
        await self._stack.enter_async_context(self.process.journal)
        await self.process.reconciler.restore(60.0)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def restart(self) -> None:
        """End the process, and start another one."""
        await self.stop()
        self.process = self._new_process()
        await self.start()

    async def reboot(self) -> None:
        """Lose all that the kernel has, and the process."""
        await self.stop()
        for domain in (WELT, CITY):
            self.dataplane.remove_interfaces(domain)
            self.dataplane.create_interfaces(domain)
        self.process = self._new_process()
        await self.start()

    # What nodes do

    async def request(self, domain: Domain, *numbers: int, api_version: int = 1) -> None:
        for number in numbers:
            assert await self.process.request(domain, key(number), api_version) == ""

    async def connect(self, domain: Domain, *numbers: int, api_version: int = 1) -> None:
        await self.request(domain, *numbers, api_version=api_version)
        self.shake_hands(domain, *numbers)

    def shake_hands(self, domain: Domain, *numbers: int) -> None:
        for number in numbers:
            assert self.dataplane.shake_hands(domain, key(number))

    # What there is to see

    async def reconcile(self) -> None:
        await self.process.reconciler.reconcile()

    async def clean(self) -> None:
        await self.process.cleanup.clean()

    async def peers(self, domain: Domain = WELT) -> set[int]:
        """The numbers of the complete peers of ours; and there are no incomplete ones."""
        state = (await self.dataplane.snapshot()).domains[domain.name]
        assert {peer.link_local for peer in state.peers} == state.routes == state.fdb_entries
        return {number_of(peer.public_key) for peer in state.peers}

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in entry.items() if name not in ("event", "log_level")}
            for entry in self.events
            if entry["event"] == event
        ]


def number_of(raw: bytes) -> int:
    """Which of the test keys that is."""
    return int.from_bytes(raw[3:], "big")


@contextlib.asynccontextmanager
async def running_gateway(folder: Path, **settings: Any) -> AsyncIterator[Gateway]:  # noqa: ANN401  those of Process
    """A gateway with a process that has started."""
    gateway = Gateway(folder, settings=settings)
    with structlog.testing.capture_logs() as gateway.events:
        await gateway.start()
        try:
            yield gateway
        finally:
            await gateway.stop()
