"""An installer with the dataplane in memory and a clock that needs no waiting, and what a test sees of it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from tests.fakes import FaultyDataplane, NullObserver, run_in_virtual_time
from tests.helpers import DOMAINS, WELT, key, running, samples
from wgkex_ops.bus.messages import Origin, ReceiptAddress
from wgkex_ops.config import MAX_PEERS
from wgkex_ops.consumer.admission import Admission, Requests
from wgkex_ops.consumer.installer import CAPACITY, Installer
from wgkex_ops.consumer.table import Table
from wgkex_ops.consumer.upkeep.journal_file import Row
from wgkex_ops.metrics.worker import ConsumerMetrics
from wgkex_ops.model.changes import Change
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey

NOW: Final = 1_800_000_000.0


class WatchedDataplane(FaultyDataplane):
    """The dataplane of a bench."""

    def __init__(self) -> None:
        super().__init__(tuple(DOMAINS.values()), NullObserver(), lambda: NOW)

    @property
    def calls(self) -> list[tuple[float, list[Change]]]:
        """When it was given what."""
        return list(zip(self.batch_times, self.batches, strict=True))


class Notebook:
    """The journal's place: notes what was installed, and can be slow, or held up."""

    def __init__(self) -> None:
        self.noted: list[tuple[list[PublicKey], list[bytes]]] = []
        self.slowness = 0.0
        self.may_work = asyncio.Event()
        self.may_work.set()

    async def install(
        self,
        installed: Sequence[tuple[Domain, PublicKey]],
        gone: Collection[bytes],
        by_version_2: Collection[bytes] = (),
    ) -> None:
        self.noted.append(([key for _, key in installed], list(gone)))
        if self.slowness:
            await asyncio.sleep(self.slowness)
        if not self.may_work.is_set():
            await self.may_work.wait()


@dataclass
class Bench:
    """An installer, and what there is to see of it.

    Attributes:
        done: how often each message was acknowledged.
        receipts: what was sent: the correlation data, and the reason.
        begun: how many batches had been begun when each of them was sent.
        limit: how many peers a domain may have.
        rows: what the journal knows.
        lists: of the operators.
    """

    dataplane: WatchedDataplane = field(default_factory=WatchedDataplane)
    journal: Notebook = field(default_factory=Notebook)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    done: Counter[str] = field(default_factory=Counter)
    receipts: list[tuple[list[bytes], str]] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    limit: int = MAX_PEERS
    rows: dict[bytes, Row] = field(default_factory=dict)
    lists: KeyLists = field(default_factory=KeyLists)

    def __post_init__(self) -> None:
        self.requests = Requests()
        self.admission = Admission(
            tuple(DOMAINS.values()),
            self.requests,
            self.dataplane.snapshot,
            table=Table(self.limit, lambda: self.rows),
            lists=lambda: self.lists,
        )
        self.metrics = ConsumerMetrics(self.registry, DOMAINS, CAPACITY, self.limit)
        self.installer = Installer(
            self.dataplane,
            self.admission,
            self.journal,
            self.metrics,
            lists=lambda: self.lists,
            send_receipts=self.send_receipts,
            clock=lambda: NOW,
        )

    def send_receipts(self, to: Sequence[ReceiptAddress], reason: str) -> None:
        self.receipts.append(([address.correlation for address in to], reason))
        self.begun.append(len(self.dataplane.calls))

    async def request(
        self,
        number: int,
        domain: Domain = WELT,
        request_id: str = "",
        accepted_at: float | None = None,
        *,
        name: str = "",
        receipt_to: bytes = b"",
        kept_by_the_bus: bool = True,
    ) -> None:
        name = name or f"{domain.name} {number}"
        address = ReceiptAddress("wgkex/receipts/b1", receipt_to) if receipt_to else None
        await self.installer.room()
        self.installer.request(
            domain,
            key(number),
            Origin(request_id, accepted_at, address),
            (lambda: self.done.update([name])) if kept_by_the_bus else None,
        )

    def journal_knows(self, *numbers: int) -> None:
        """Peers that never connected have been noted in the journal."""
        self.rows = {key(number).raw: Row(key(number).raw, WELT.name, NOW, 0.0) for number in numbers}

    def count(self, name: str, domain: Domain = WELT) -> float:
        return samples(self.registry)[f'wgkex_worker_{name}_total{{domain="{domain.name}"}}']

    @property
    def waiting(self) -> float:
        return samples(self.registry)["wgkex_worker_queue_length"]


def bench(body: Callable[[Bench], Awaitable[None]], *, start: bool = True, limit: int = MAX_PEERS) -> None:
    """Run the body of a test with an installer, which runs, too, unless the body starts it."""

    async def run() -> None:
        made = Bench(limit=limit)
        if not start:
            await body(made)
            return
        async with running(made.installer.run()):
            await body(made)

    with structlog.testing.capture_logs():
        run_in_virtual_time(run())


def raw(*numbers: int) -> list[bytes]:
    return [key(number).raw for number in numbers]
