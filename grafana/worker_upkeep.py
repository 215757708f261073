"""Rows of the worker's dashboard: cleanup, journal, repairs."""

from alerts.settings import milliseconds
from grafana import colours
from grafana.page import Section
from grafana.panels import Head, lines, timeline
from grafana.queries import LIMITS, age, by, by_process, increase, named, quantile, rate, series
from grafana.styles import bad_from, coloured, up_or_down
from grafana.targets import line
from wgkex_ops.metrics.cleanup import RESULTS
from wgkex_ops.model.peers import REMOVAL_REASONS


def cleanup() -> Section:
    """Peers that the cleanup removes."""
    return Section(
        "Cleanup",
        [
            lines(
                Head(
                    "Removed by reason",
                    "Peers that the cleanup has removed. stale: no handshake for cleanup.stale_after; a peak: many"
                    " nodes left together, hours ago. never_connected: the node sent its key, and uses another"
                    " gateway; many of them some minutes after many keys are normal.",
                    "none",
                ),
                [line(by("reason", increase("wgkex_worker_peers_removed_total")), "{{reason}}")],
                overrides=coloured(colours.REMOVALS, REMOVAL_REASONS),
                decimals=0,
            ),
            lines(
                Head(
                    "Peers taken over",
                    "Peers of the older wgkex that became ours, by domain, where cleanup.adopt is on. When it stays at"
                    " 0, all are taken over: switch cleanup.adopt off again.",
                    "none",
                ),
                [line(by("domain", increase("wgkex_worker_peers_adopted_total")), "{{domain}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Cleanups by result",
                    "Completed or failed. Failed: the kernel could not be read, or refused a change. Check the"
                    " worker's log for peers_not_removed and snapshot_failed.",
                    "none",
                ),
                [line(by("result", increase("wgkex_worker_cleanup_runs_total")), "{{result}}")],
                overrides=coloured(colours.OUTCOMES, RESULTS),
                decimals=0,
            ),
            lines(
                Head(
                    "Time since the last cleanup",
                    "Since the last completed cleanup, by gateway; no line before the first one. It rises to"
                    " cleanup.interval (10 minutes by default) and falls. It rises further towards the line: see"
                    " WgkexCleanupStalled in the runbook.",
                    "s",
                    24,
                ),
                [
                    line(
                        named(
                            age("wgkex_worker_cleanup_last_success_timestamp_seconds", labels="job, instance"), "worker"
                        ),
                        "{{process}}",
                    )
                ],
                thresholds=bad_from(warning=milliseconds(LIMITS.cleanup_window) / 1000),
            ),
        ],
    )


def memory() -> Section:
    """Journal, repairs and receipts."""
    return Section(
        "Journal, repairs and receipts",
        [
            timeline(
                Head(
                    "Journal",
                    "Whether each gateway can write its journal, the list of its peers. While it cannot, it does not"
                    " restore them after a reboot: check for a full disk, see WgkexJournalFailing in the runbook.",
                    "none",
                ),
                [line(by_process(series("wgkex_worker_journal_up"), "worker", operation="min"), "{{process}}")],
                up_or_down("writing", "failing"),
            ),
            lines(
                Head(
                    "Peers in the journal",
                    "Peers that each gateway would restore after a reboot. It should follow the gateway's own peers."
                    " At 0 with peers in the kernel, the journal has just been begun anew.",
                    "none",
                ),
                [line(by_process(series("wgkex_worker_journal_entries"), "worker"), "{{process}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Writing the journal, p99",
                    "How long one transaction takes until it is on the disk. A gateway confirms a key only afterwards."
                    " It rises: the disk is slow or full.",
                    "s",
                ),
                [
                    line(
                        named(
                            quantile(0.99, "wgkex_worker_journal_write_duration_seconds", labels="job, instance"),
                            "worker",
                        ),
                        "{{process}}",
                    ),
                ],
                thresholds=bad_from(warning=1),
            ),
            lines(
                Head(
                    "Failures of the journal",
                    "Operations on the journal that failed, by gateway. Any: check the worker's log, whether the disk"
                    " is full or the file is damaged.",
                    "cps",
                    6,
                ),
                [line(by_process(rate("wgkex_worker_journal_failures_total"), "worker"), "{{process}}")],
                thresholds=bad_from(warning=1),
            ),
            lines(
                Head(
                    "Peers restored",
                    "Peers restored from the journal: after a reboot, or when an interface was created anew. A peak"
                    " without either: another program empties the interfaces.",
                    "none",
                    6,
                ),
                [line(by("domain", increase("wgkex_worker_peers_restored_total")), "{{domain}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Repairs by missing part",
                    "Parts of peers that the worker has repaired. A line that never ends: a program on the host"
                    " removes routes, FDB entries or peers again and again; find it. See WgkexPeersIncomplete in the"
                    " runbook.",
                    "none",
                    6,
                ),
                [line(by("missing", increase("wgkex_worker_drift_repairs_total")), "{{missing}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Receipts",
                    "Receipts that workers sent to brokers about keys, and receipts that could not be sent. Their keys"
                    " are not lost: the broker sends them again. Many: check the access rules of the MQTT server.",
                    "cps",
                    6,
                ),
                [
                    line(by("result", rate("wgkex_worker_receipts_total")), "{{result}}"),
                    line(by("", rate("wgkex_worker_receipt_failures_total")), "not sent"),
                ],
                overrides=coloured(colours.OUTCOMES, ("installed", "failed")),
            ),
        ],
    )
