"""WGKex / Worker: keys from the bus to the kernel, and the kernel's peers."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from alerts.settings import milliseconds
from grafana import colours, shared
from grafana.page import Section, dashboard
from grafana.panels import SMALL, Head, heatmap, lines, stat, timeline
from grafana.queries import LIMITS, age, by, increase, quantile, rate, ratio, series
from grafana.styles import bad_from, coloured, up_or_down
from grafana.targets import buckets, line, number
from wgkex_ops.metrics.cleanup import RESULTS
from wgkex_ops.metrics.worker import REJECTION_REASONS
from wgkex_ops.model.peers import REMOVAL_REASONS

_RECEIVED = "wgkex_worker_messages_received_total"
_OPERATIONS = "wgkex_worker_netlink_operations_total"
_OPERATION_FAILURES = "wgkex_worker_netlink_operation_failures_total"
_OPERATION_DURATION = "wgkex_worker_netlink_operation_duration_seconds"
_PROPAGATION = "wgkex_worker_key_propagation_seconds"
_AGES = "wgkex_worker_peer_handshake_age_seconds"


def _state() -> Section:
    success = series("wgkex_worker_collector_success")
    return Section(
        "State",
        [
            shared.targets_up(
                "worker",
                "Workers",
                "Workers that answer Prometheus, and those that did within a day but do not now. A gateway without its"
                " worker keeps its tunnels but takes no new nodes. See WgkexTargetDown in the runbook.",
            ),
            shared.mqtt_connected("worker"),
            stat(
                Head(
                    "Fullest queue",
                    "How full the queue of keys that wait for the kernel is, on the gateway where it is worst. Over"
                    " 80 %: the kernel does not keep up. See the operations below, and WgkexQueueNearFull.",
                    "percentunit",
                    4,
                    SMALL,
                ),
                [
                    number(
                        f"max({series('wgkex_worker_queue_length')} / {series('wgkex_worker_queue_capacity')})",
                        "fullest",
                    )
                ],
                bad_from(warning=LIMITS.queue_ratio),
                decimals=1,
            ),
            stat(
                Head(
                    "Incomplete peers",
                    "Peers that lack a part in the kernel: WireGuard peer, route or FDB entry. Their nodes have no mesh"
                    " until they ask again. More than 0 for minutes: see which part below, and who else changes it.",
                    "none",
                    4,
                    SMALL,
                ),
                [number(by("", series("wgkex_worker_incomplete_peers")), "incomplete")],
                bad_from(warning=1),
                decimals=0,
            ),
            stat(
                Head(
                    "Keys given up",
                    "Keys per second that could not be installed after all attempts. Their nodes have no tunnel until"
                    " they ask again. More than 0: see the failed operations by error below.",
                    "cps",
                    4,
                    SMALL,
                ),
                [number(by("", rate("wgkex_worker_peer_install_failures_total")), "given up")],
                bad_from(critical=0.001),
            ),
            shared.good_and_bad(
                Head(
                    "Collectors",
                    "Collectors that could read the kernel for the last scrape. One that failed leaves the metrics of"
                    " peers blind: look at the worker's log. See WgkexCollectorFailing in the runbook.",
                    "none",
                    4,
                    SMALL,
                ),
                ("working", f"sum({success})"),
                ("failing", f"count({success}) - sum({success})"),
            ),
        ],
    )


def _intake() -> Section:
    outcomes = {
        "received": _RECEIVED,
        "merged": "wgkex_worker_messages_deduplicated_total",
        "installed": "wgkex_worker_peers_installed_total",
        "rejected": "wgkex_worker_message_rejections_total",
        "failed": "wgkex_worker_peer_install_failures_total",
    }
    return Section(
        "Intake",
        [
            lines(
                Head(
                    "Keys per second",
                    "Keys that arrived on MQTT, and what became of them. Merged: the same key was already waiting. The"
                    " others add up to received; while they lag behind, the queue grows. Failed rises: see the"
                    " operations below.",
                    "cps",
                    12,
                ),
                [line(by("", rate(metric)), outcome) for outcome, metric in outcomes.items()],
                overrides=coloured(colours.OUTCOMES, outcomes),
            ),
            lines(
                Head(
                    "Received by domain",
                    "Keys that arrived on MQTT, over all gateways: each gateway counts each key. Nothing arrives though"
                    " the brokers publish: the worker's session or the access list of the MQTT server.",
                    "cps",
                    12,
                ),
                [line(by("domain", rate(_RECEIVED)), "{{domain}}")],
                stacked=True,
            ),
            lines(
                Head(
                    "Queue by gateway",
                    "Keys that wait for the kernel, those that will be tried again included. It rises and stays: the"
                    " kernel is slow or refuses, see the operations below. The capacity is in the panel Fullest queue.",
                    "none",
                ),
                [line(by("instance", series("wgkex_worker_queue_length"), "max"), "{{instance}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Installed by domain",
                    "Installations that completed: WireGuard peer, route and FDB entry, new or refreshed. One domain"
                    " stays at 0 while its keys arrive: its interfaces, see below.",
                    "cps",
                ),
                [line(by("domain", rate("wgkex_worker_peers_installed_total")), "{{domain}}")],
                stacked=True,
            ),
            shared.by_reason(
                Head(
                    "Rejections by reason",
                    "Keys that were refused. The broker checks the same, so others write to the bus if this moves: look"
                    " at the MQTT server's access list. own_key and static_key: somebody tries to take a gateway's or"
                    " another service's place.",
                    "cps",
                ),
                by("reason", rate("wgkex_worker_message_rejections_total")),
                REJECTION_REASONS,
            ),
        ],
    )


def _propagation() -> Section:
    return Section(
        "Propagation",
        [
            heatmap(
                Head(
                    "From the broker to the kernel",
                    "From a key's acceptance at the broker to its installation on a gateway, by two clocks: without NTP"
                    " on both hosts it means nothing. A second band high above: keys that were tried again.",
                    "s",
                    12,
                ),
                buckets(by("le", rate(f"{_PROPAGATION}_bucket")), exemplars=True),
            ),
            shared.quantiles(
                Head(
                    "From the broker to the kernel, quantiles",
                    "The same as p50 and p99. Nodes bear 10 s, the line. p99 above it: see the queue and the"
                    " operations, and the latency by gateway on the Broker dashboard, which needs no NTP.",
                    "s",
                    12,
                ),
                _PROPAGATION,
                critical=LIMITS.slow_seconds,
                exemplars=True,
            ),
        ],
    )


def _kernel() -> Section:
    return Section(
        "Kernel",
        [
            lines(
                Head(
                    "Operations",
                    "Single operations on the kernel, failed ones included. A dump is one reading of all peers, routes"
                    " and entries; it follows the scrapes, and many of them are scrapes that come too often.",
                    "ops",
                ),
                [line(by("operation", rate(_OPERATIONS)), "{{operation}}")],
            ),
            lines(
                Head(
                    "Failed operations by error",
                    "Operations that the kernel refused. ENODEV: the interface is gone. EPERM: the worker lacks"
                    " CAP_NET_ADMIN. ENOBUFS or ENOSPC: a limit of the kernel. Others: its log.",
                    "ops",
                ),
                [line(by("error", rate(_OPERATION_FAILURES)), "{{error}}")],
                stacked=True,
            ),
            lines(
                Head(
                    "Failed share by operation",
                    "Refused operations over all. Over 5 % and ten of them in half an hour open a ticket: see"
                    " WgkexNetlinkFailing in the runbook, and the errors to the left.",
                    "percentunit",
                ),
                [
                    line(
                        ratio(by("operation", rate(_OPERATION_FAILURES)), by("operation", rate(_OPERATIONS))),
                        "{{operation}}",
                    )
                ],
                thresholds=bad_from(warning=LIMITS.netlink_ratio),
                maximum=1,
            ),
            heatmap(
                Head(
                    "Duration of operations",
                    "How long batches and dumps take, all together. A second band far above the usual one: the kernel"
                    " or another program holds the lock of the interfaces now and then.",
                    "s",
                    12,
                ),
                buckets(by("le", rate(f"{_OPERATION_DURATION}_bucket"))),
            ),
            lines(
                Head(
                    "Duration of operations, p99",
                    "How long one batch, or one dump, takes. Dumps grow with the number of peers. All rise together:"
                    " the machine is busy, see its CPU and softirqs.",
                    "s",
                    12,
                ),
                [
                    line(
                        quantile(0.99, _OPERATION_DURATION, labels="operation"),
                        "{{operation}}",
                    )
                ],
            ),
        ],
    )


def _peers() -> Section:
    newest = age("wgkex_worker_newest_handshake_timestamp_seconds", labels="domain")
    return Section(
        "Peers",
        [
            shared.peers_by_state(),
            lines(
                Head(
                    "Active peers by domain",
                    "Peers with a handshake within 180 s, over all gateways. One domain falls: its nodes or its"
                    " interfaces. All fall: the gateways' uplinks.",
                    "none",
                    6,
                ),
                [line(by("domain", series("wgkex_worker_peers", 'state="active"')), "{{domain}}")],
                stacked=True,
                decimals=0,
            ),
            lines(
                Head(
                    "Active peers by gateway",
                    "Peers with a handshake within 180 s. One gateway loses many at once: see WgkexWorkerPeersLost in"
                    " the runbook. They should come up on the others within minutes.",
                    "none",
                    6,
                ),
                [line(by("instance", series("wgkex_worker_peers", 'state="active"')), "{{instance}}")],
                stacked=True,
                decimals=0,
            ),
            heatmap(
                Head(
                    "Age of handshakes",
                    "How long ago the peers' last handshakes are at each moment, never left out. Live tunnels are below"
                    " 180 s. A band that climbs to the right is a crowd of nodes that went away together.",
                    "s",
                    12,
                ),
                buckets(by("le", series(f"{_AGES}_bucket"))),
            ),
            shared.ages(
                Head(
                    "Age of handshakes, quantiles",
                    "The same as p50 and p90. The line is 180 s, where WireGuard gives a session up. p50 above it: half"
                    " of the peers have no tunnel, see WgkexHandshakesStale in the runbook.",
                    "s",
                    6,
                ),
                _AGES,
            ),
            lines(
                Head(
                    "Newest handshake by domain",
                    "How long ago any peer of the domain last shook hands, on any gateway. With some dozens of nodes it"
                    " stays within seconds. It climbs: no node of this domain gets through.",
                    "s",
                    6,
                ),
                [line(newest, "{{domain}}")],
                thresholds=bad_from(warning=180),
            ),
        ],
    )


def _completeness() -> Section:
    return Section(
        "Interfaces, routes and FDB entries",
        [
            lines(
                Head(
                    "Peers, routes and FDB entries",
                    "Over all gateways and domains. The three lines should lie on each other; where one departs, nodes"
                    " have a tunnel but no mesh, see the missing parts to the right. A steady gap below peers are those"
                    " of others: static ones, and what the older wgkex has left.",
                    "none",
                ),
                [
                    line(by("", series("wgkex_worker_peers")), "peers"),
                    line(by("", series("wgkex_worker_routes")), "routes"),
                    line(by("", series("wgkex_worker_fdb_entries")), "FDB entries"),
                ],
                decimals=0,
            ),
            lines(
                Head(
                    "Incomplete peers by missing part",
                    "Peers that lack a part. Routes missing: another daemon, or networkd, removes what it does not"
                    " know. FDB entries missing: the VXLAN interface was made anew. See WgkexPeersIncomplete.",
                    "none",
                ),
                [line(by("domain, missing", series("wgkex_worker_incomplete_peers")), "{{domain}} {{missing}}")],
                thresholds=bad_from(warning=1),
                stacked=True,
                decimals=0,
            ),
            timeline(
                Head(
                    "Interfaces",
                    "Each WireGuard and VXLAN interface on each gateway. Down: its nodes have no mesh there, bring it"
                    " up; the worker goes on by itself. See WgkexInterfaceDown in the runbook.",
                    "none",
                ),
                [
                    line(
                        by("instance, interface", series("wgkex_worker_interface_up"), "min"),
                        "{{instance}} {{interface}}",
                    )
                ],
                up_or_down(),
            ),
        ],
    )


def _cleanup() -> Section:
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
                    "Failed: the kernel could not be read, or refused a change. Read peers_not_removed and snapshot_failed"
                    " in the worker's log.",
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


def _memory() -> Section:
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


def _collectors() -> Section:
    return Section(
        "Collectors",
        [
            timeline(
                Head(
                    "Collectors",
                    "Whether the collector could read the kernel for each scrape. While it fails, the panels of peers"
                    " have gaps, and their alerts are blind: look at the worker's log.",
                    "none",
                    12,
                ),
                [
                    line(
                        by("instance, collector", series("wgkex_worker_collector_success"), "min"),
                        "{{instance}} {{collector}}",
                    )
                ],
                up_or_down("working", "failing"),
            ),
            lines(
                Head(
                    "Duration of collecting",
                    "How long reading the kernel took for a scrape. It grows with the number of peers. Near the"
                    " scrape_timeout of Prometheus (10 s unless set): raise that, or scrape less often.",
                    "s",
                    12,
                ),
                [
                    line(
                        by("instance, collector", series("wgkex_worker_collector_duration_seconds"), "max"),
                        "{{instance}} {{collector}}",
                    )
                ],
            ),
        ],
    )


def build() -> Dashboard:
    """For whoever runs the gateways."""
    return dashboard(
        "wgkex-worker",
        "Worker",
        "Keys on their way from MQTT to the kernel, and what the kernel says of its peers.",
        [
            _state(),
            _intake(),
            _propagation(),
            _kernel(),
            _peers(),
            _completeness(),
            _cleanup(),
            _memory(),
            _collectors(),
        ],
    )
