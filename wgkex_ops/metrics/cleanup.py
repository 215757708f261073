"""Instruments of the cleanup: which peers it has removed, and whether it works."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from wgkex_ops.model.peers import REMOVAL_REASONS

COMPLETED: Final = "completed"
FAILED: Final = "failed"
RESULTS: Final = (COMPLETED, FAILED)


class CleanupMetrics:
    """What the cleanup did.

    Args:
        registry: where the instruments live.
        domains: names of the configured domains.
    """

    def __init__(self, registry: CollectorRegistry, domains: Iterable[str]) -> None:
        self.removed = Counter(
            "wgkex_worker_peers_removed",
            "Peers of ours that were removed, by reason: stale and never_connected by the cleanup (a node that comes "
            "back gets a new one); denied and not_allowed because of the key lists; released because this gateway "
            "drains.",
            ["domain", "reason"],
            registry=registry,
        )
        self.adopted = Counter(
            "wgkex_worker_peers_adopted",
            "Peers of the older wgkex that were taken over, because cleanup.adopt is on.",
            ["domain"],
            registry=registry,
        )
        self.runs = Counter(
            "wgkex_worker_cleanup_runs",
            "Runs of the cleanup: completed, or failed, because the kernel could not be read or refused a change.",
            ["result"],
            registry=registry,
        )
        self.last_success = Gauge(
            "wgkex_worker_cleanup_last_success_timestamp_seconds",
            "When a run of the cleanup was last completed; 0 before the first one.",
            registry=registry,
        )
        for domain in domains:
            self.adopted.labels(domain)
            for reason in REMOVAL_REASONS:
                self.removed.labels(domain, reason)
        for result in RESULTS:
            self.runs.labels(result)
