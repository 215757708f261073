"""Instruments of the journal, and of the reconciler that restores what it wants."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from wgkex_ops.model.peers import PARTS

_WRITE_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class JournalMetrics:
    """How the journal is."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.up = Gauge(
            "wgkex_worker_journal_up",
            "1 while the journal can be written; at 0 a reboot of this gateway loses the peers that are installed now.",
            registry=registry,
        )
        self.entries = Gauge(
            "wgkex_worker_journal_entries",
            "Peers that this gateway should have: those that it restores when the kernel lacks them.",
            registry=registry,
        )
        self.write_duration = Histogram(
            "wgkex_worker_journal_write_duration_seconds",
            "How long one transaction took until it was on the disk; keys are confirmed only after it.",
            buckets=_WRITE_BUCKETS,
            registry=registry,
        )
        self.failures = Counter(
            "wgkex_worker_journal_failures",
            "Operations on the journal's file that failed, were too slow, or were left out because it is not there.",
            registry=registry,
        )


class RepairMetrics:
    """What was restored without a request for it."""

    def __init__(self, registry: CollectorRegistry, domains: Iterable[str]) -> None:
        self.restored = Counter(
            "wgkex_worker_peers_restored",
            "Peers restored from the journal, because the gateway has booted or an interface was created anew.",
            ["domain"],
            registry=registry,
        )
        self.repairs = Counter(
            "wgkex_worker_drift_repairs",
            "Parts of peers that were restored, by the missing part; if it keeps rising, another program removes them.",
            ["domain", "missing"],
            registry=registry,
        )
        for domain in domains:
            self.restored.labels(domain)
            for missing in PARTS:
                self.repairs.labels(domain, missing)
