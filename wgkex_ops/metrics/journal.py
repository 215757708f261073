"""Instruments of what a worker remembers, and of what it puts back."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

MISSING: Final = ("peer", "route", "fdb")


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
            "Keys that the journal knows: peers that were installed, and keys that still wait.",
            registry=registry,
        )
        self.write_duration = Histogram(
            "wgkex_worker_journal_write_duration_seconds",
            "How long one transaction took until the disk had it; keys are acknowledged only after it.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
            registry=registry,
        )
        self.failures = Counter(
            "wgkex_worker_journal_failures",
            "Operations on the journal that failed, were too slow, or were left out because it is not there; and files "
            "that were set aside because they are damaged.",
            registry=registry,
        )


class RepairMetrics:
    """What was put back without a node having asked for it."""

    def __init__(self, registry: CollectorRegistry, domains: Iterable[str]) -> None:
        self.restored = Counter(
            "wgkex_worker_peers_restored",
            "Peers put back from the journal, because the gateway has booted or an interface was made anew.",
            ["domain"],
            registry=registry,
        )
        self.repairs = Counter(
            "wgkex_worker_drift_repairs",
            "Parts of peers put back, by what was missing; if this keeps moving, somebody removes them or asks for keys"
            " of others.",
            ["domain", "missing"],
            registry=registry,
        )
        for domain in domains:
            self.restored.labels(domain)
            for missing in MISSING:
                self.repairs.labels(domain, missing)
