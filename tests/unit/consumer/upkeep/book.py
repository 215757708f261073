"""A journal that a test opens and closes, as one process after the other does, and what there is to see of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry

from tests.helpers import CITY, WELT, key, samples
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.consumer.upkeep.journal_file import FILE
from wgkex_ops.metrics.journal import JournalMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import link_local
from wgkex_ops.model.peers import DomainState, Peer, Snapshot

NOW: Final = 1_800_000_000.0
READY: Final = DomainState(wg_present=True, wg_up=True, vx_present=True, vx_up=True)


@dataclass
class Book:
    """A journal in a folder.

    Attributes:
        now: what its clock shows.
        events: what was logged.
    """

    folder: Path
    now: float = NOW
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    timeout: float = 60.0
    retry_after: float = 0.0
    events: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.metrics = JournalMetrics(self.registry)

    @property
    def path(self) -> Path:
        return self.folder / FILE

    @property
    def damaged(self) -> Path:
        return self.folder / f"{FILE}.damaged"

    def open(self) -> Journal:
        return Journal(self.folder, self.metrics, lambda: self.now, timeout=self.timeout, retry_after=self.retry_after)

    def metric(self, name: str) -> float:
        return samples(self.registry)[f"wgkex_worker_journal_{name}"]

    def logged(self, event: str) -> list[Any]:
        return [entry for entry in self.events if entry["event"] == event]


def homes(journal: Journal) -> dict[bytes, str]:
    """Where each key is at home."""
    return {raw: row.domain for raw, row in journal.rows.items()}


def home(domain: Domain, *numbers: int) -> dict[bytes, str]:
    return {key(number).raw: domain.name for number in numbers}


def snapshot(taken_at: float, handshakes: Mapping[Domain, Mapping[int, float]]) -> Snapshot:
    """Complete peers of ours, and when their handshakes were."""
    states = {}
    for domain in (WELT, CITY):
        known = handshakes.get(domain, {})
        addresses = frozenset(link_local(key(number).raw) for number in known)
        peers = tuple(
            Peer(key(number).raw, handshake, 0, 0, link_local(key(number).raw)) for number, handshake in known.items()
        )
        states[domain.name] = replace(READY, peers=peers, routes=addresses, fdb_entries=addresses)
    return Snapshot(taken_at, states)
