"""Rows of the worker's dashboard: cleanup, journal, repairs."""

from alerts.settings import milliseconds
from grafana import colours
from grafana.page import Section
from grafana.panels import Head, lines, timeline
from grafana.queries import LIMITS, age, by, increase, quantile, rate, series
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
                    "Peers that the cleanup has removed. stale: no handshake for cleanup.stale_after; a peak is a crowd"
                    " that went away hours ago. never_connected: the node asked, and uses another gateway; many of them"
                    " some minutes after a crowd of keys are normal.",
                    "none",
                ),
                [line(by("reason", increase("wgkex_worker_peers_removed_total")), "{{reason}}")],
                overrides=coloured(colours.REMOVALS, REMOVAL_REASONS),
                decimals=0,
            ),
            lines(
                Head(
                    "Peers taken over",
                    "Peers of the older wgkex that became ours, by domain, where cleanup.adopt is on. Once it stays at"
                    " 0 all are taken over: switch cleanup.adopt off again.",
                    "none",
                ),
                [line(by("domain", increase("wgkex_worker_peers_adopted_total")), "{{domain}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Cleanups by result",
                    "Failed: the kernel could not be read, or refused a change. Read peers_not_removed and"
                    " snapshot_failed in the worker's log.",
                    "none",
                ),
                [line(by("result", increase("wgkex_worker_cleanup_runs_total")), "{{result}}")],
                overrides=coloured(colours.OUTCOMES, RESULTS),
                decimals=0,
            ),
            lines(
                Head(
                    "Time since the last cleanup",
                    "Since a cleanup was completed, by gateway; nothing before the first one. It goes up to"
                    " cleanup.interval (10 minutes unless set) and falls. It climbs on towards the line: see"
                    " WgkexCleanupStalled in the runbook.",
                    "s",
                    24,
                ),
                [line(age("wgkex_worker_cleanup_last_success_timestamp_seconds", labels="instance"), "{{instance}}")],
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
                    "Whether each gateway can write down its peers. While it cannot, a reboot brings none of them back:"
                    " look for a full disk, see WgkexJournalFailing in the runbook.",
                    "none",
                ),
                [line(by("instance", series("wgkex_worker_journal_up"), "min"), "{{instance}}")],
                up_or_down("writing", "failing"),
            ),
            lines(
                Head(
                    "Peers in the journal",
                    "What each gateway would put back after a reboot, and some that are older. It should follow the"
                    " gateway's peers; at 0 with peers in the kernel the journal has just been begun anew.",
                    "none",
                ),
                [line(by("instance", series("wgkex_worker_journal_entries")), "{{instance}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Writing the journal, p99",
                    "How long one transaction takes, and how often one fails. Keys wait for it before they are"
                    " acknowledged. It rises: the disk is slow or full.",
                    "s",
                ),
                [
                    line(
                        quantile(0.99, "wgkex_worker_journal_write_duration_seconds", labels="instance"), "{{instance}}"
                    ),
                ],
                thresholds=bad_from(warning=1),
            ),
            lines(
                Head(
                    "Failures of the journal",
                    "Operations on the journal that failed, by gateway. Any: read the worker's log, it says whether the"
                    " disk is full or the file was damaged and set aside.",
                    "cps",
                    6,
                ),
                [line(by("instance", rate("wgkex_worker_journal_failures_total")), "{{instance}}")],
                thresholds=bad_from(warning=1),
            ),
            lines(
                Head(
                    "Peers put back",
                    "Peers that came back from the journal: after a reboot, or when an interface was made anew. A peak"
                    " without either means that somebody empties the interfaces.",
                    "none",
                    6,
                ),
                [line(by("domain", increase("wgkex_worker_peers_restored_total")), "{{domain}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Repairs by missing part",
                    "Parts of peers that the worker has put back. A line that never ends: something on the host removes"
                    " routes, FDB entries or peers again and again; find it. See WgkexPeersIncomplete.",
                    "none",
                    6,
                ),
                [line(by("missing", increase("wgkex_worker_drift_repairs_total")), "{{missing}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Receipts",
                    "What the workers have told the brokers about keys, and receipts that could not be sent. Those are"
                    " not lost keys: the broker asks again. Many: look at the access rules of the MQTT server.",
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
