"""The worker's installer with nothing around it but what it needs: no bus, no broker, no receipts."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from wgkex_ops.bus.messages import Origin, ReceiptAddress
from wgkex_ops.config import MAX_PEERS
from wgkex_ops.consumer.admission import Admission, Requests
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.consumer.dataplane.scans import SerializedDataplane
from wgkex_ops.consumer.installer import CAPACITY, Installer
from wgkex_ops.consumer.table import Table
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.metrics.journal import JournalMetrics
from wgkex_ops.metrics.worker import ConsumerMetrics, NetlinkMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey

# Keys arrive in pieces of what a socket holds.
_AT_ONCE: Final = 100
# Longer than anything here takes.
_FOR_EVER = 3600.0


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """How long a call takes."""
    started = time.monotonic()
    work(*arguments)
    return time.monotonic() - started


class _NoJournal:
    async def install(
        self,
        installed: Sequence[tuple[Domain, PublicKey]],
        gone: Collection[bytes],
        by_version_2: Collection[bytes] = (),
    ) -> None: ...


def _send_nothing(to: Sequence[ReceiptAddress], reason: str) -> None: ...


class Installing:
    """An installer at work.

    Attributes:
        dataplane: of the kernel.
    """

    def __init__(self, domains: Sequence[Domain], state_dir: Path | None) -> None:
        registry = CollectorRegistry()
        self.dataplane = KernelDataplane(domains, NetlinkMetrics(registry))
        self._registry = registry
        self._metrics = ConsumerMetrics(registry, [domain.name for domain in domains], CAPACITY, MAX_PEERS)
        self._journal = Journal(state_dir, JournalMetrics(registry)) if state_dir else None
        serialized = SerializedDataplane(self.dataplane)
        self._installer = Installer(
            serialized,
            Admission(domains, Requests(), serialized.snapshot, table=Table(), lists=KeyLists),
            self._journal or _NoJournal(),
            self._metrics,
            lists=KeyLists,
            send_receipts=_send_nothing,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.dataplane, self._journal or contextlib.nullcontext():
            task = asyncio.create_task(self._installer.run())
            try:
                yield
            finally:
                task.cancel()

    async def install(self, keys: Sequence[tuple[Domain, PublicKey]], at_once: int = _AT_ONCE) -> float:
        """Install keys, as fast as they can be requested, so many at once; the seconds that takes."""
        before = self._installed()
        started = time.monotonic()
        for number, (domain, key) in enumerate(keys, 1):
            await self._installer.room()
            self._installer.request(domain, key, Origin("0" * 32, time.time()), None)
            if not number % at_once:
                await asyncio.sleep(0)
        await self._installer.finish(_FOR_EVER)
        taken = time.monotonic() - started
        assert self._installed() - before == len(keys)
        assert self._journal is None or self._registry.get_sample_value("wgkex_worker_journal_up") == 1
        return taken

    def _installed(self) -> float:
        metrics = self._metrics.installed.collect()
        return sum(sample.value for metric in metrics for sample in metric.samples if sample.name.endswith("_total"))
