"""Instruments of the cleanup: who was removed, and whether it gets on."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

STALE: Final = "stale"
NEVER_CONNECTED: Final = "never_connected"
REMOVAL_REASONS: Final = (STALE, NEVER_CONNECTED)
COMPLETED: Final = "completed"
HELD: Final = "held"
FAILED: Final = "failed"
RESULTS: Final = (COMPLETED, HELD, FAILED)


class CleanupMetrics:
    """What the cleanup did.

    Args:
        registry: where the instruments live.
        domains: names of the configured domains.
    """

    def __init__(self, registry: CollectorRegistry, domains: Iterable[str]) -> None:
        self.removed = Counter(
            "wgkex_worker_peers_removed",
            "Peers of ours that the cleanup has removed, by reason; a node that comes back gets a new one.",
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
            "Runs of the cleanup: completed; held, because more than half of the active peers would have gone at once; "
            "failed, because the kernel could not be read, or refused a change.",
            ["result"],
            registry=registry,
        )
        self.held = Gauge(
            "wgkex_worker_cleanup_held_peers",
            "Peers that the last run of the cleanup has held back for the next one to agree: after a jump of the clock "
            "they only look old.",
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
