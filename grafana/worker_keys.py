"""Rows of the worker's dashboard: keys on their way from MQTT to the kernel."""

from grafana_foundation_sdk.models.dashboard import Panel

from grafana import colours, shared
from grafana.page import Section
from grafana.panels import Head, heatmap, lines
from grafana.queries import LIMITS, by, by_process, quantile, rate, ratio, series
from grafana.styles import bad_from, coloured
from grafana.targets import buckets, line
from wgkex_ops.metrics.worker import REJECTION_REASONS

_RECEIVED = "wgkex_worker_messages_received_total"
_OPERATIONS = "wgkex_worker_netlink_operations_total"
_OPERATION_FAILURES = "wgkex_worker_netlink_operation_failures_total"
_OPERATION_DURATION = "wgkex_worker_netlink_operation_duration_seconds"
_PROPAGATION = "wgkex_worker_key_propagation_seconds"


def outcomes() -> Panel:
    """Keys from MQTT, and what became of them."""
    counted = {
        "received": _RECEIVED,
        "merged": "wgkex_worker_messages_deduplicated_total",
        "installed": "wgkex_worker_peers_installed_total",
        "rejected": "wgkex_worker_message_rejections_total",
        "failed": "wgkex_worker_peer_install_failures_total",
    }
    return lines(
        Head(
            "Keys per second",
            "Keys that arrived on MQTT, and their outcomes. Merged: the same key was already waiting. The others add up"
            " to received; while they lag behind, the queue grows. Failed rises: see the operations below.",
            "cps",
        ),
        [line(by("", rate(metric)), outcome) for outcome, metric in counted.items()],
        overrides=coloured(colours.OUTCOMES, counted),
    )


def intake() -> Section:
    """Keys from MQTT, by domain and gateway."""
    return Section(
        "Intake",
        [
            lines(
                Head(
                    "Received by domain",
                    "Keys that arrived on MQTT, over all gateways: each gateway counts each key. None arrive though"
                    " the brokers publish: check the worker's connection, and the access rules of the MQTT server.",
                    "cps",
                    12,
                ),
                [line(by("domain", rate(_RECEIVED)), "{{domain}}")],
                stacked=True,
            ),
            lines(
                Head(
                    "Queue by gateway",
                    "Keys that wait for the kernel, including those for another attempt. It rises and stays: the"
                    " kernel is slow or refuses, see the operations below. The panel Fullest queue compares it with"
                    " the capacity.",
                    "none",
                    12,
                ),
                [line(by_process(series("wgkex_worker_queue_length"), "worker", operation="max"), "{{process}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Installed by domain",
                    "Installations that completed: WireGuard peer, route and FDB entry, new or refreshed. One domain"
                    " stays at 0 while its keys arrive: check its interfaces, see below.",
                    "cps",
                    12,
                ),
                [line(by("domain", rate("wgkex_worker_peers_installed_total")), "{{domain}}")],
                stacked=True,
            ),
            shared.by_reason(
                Head(
                    "Rejections by reason",
                    "Keys that workers refused. live_elsewhere: the key has a live session in another domain of the"
                    " gateway. address_taken: its derived address belongs to another live peer. Both: a client"
                    " requests another node's key, see WgkexKeyRejectionsHigh in the runbook. table_full: see"
                    " WgkexTableFull. Other reasons: another program than a broker writes to the bus, check the access"
                    " rules of the MQTT server.",
                    "cps",
                    12,
                ),
                by("reason", rate("wgkex_worker_message_rejections_total")),
                REJECTION_REASONS,
            ),
        ],
    )


def propagation() -> Section:
    """The time from the broker to the kernel."""
    return Section(
        "Propagation",
        [
            heatmap(
                Head(
                    "From the broker to the kernel",
                    "From a key's acceptance at the broker to its installation on a gateway, by two clocks: it means"
                    " nothing without NTP on both hosts. A second band high above: keys that needed another attempt.",
                    "s",
                    12,
                ),
                buckets(by("le", rate(f"{_PROPAGATION}_bucket")), exemplars=True),
            ),
            shared.quantiles(
                Head(
                    "From the broker to the kernel, quantiles",
                    "The same as p50 and p99. The line is the 10 s that nodes wait. p99 above it: see the queue and"
                    " the operations, and the latency by gateway on the Broker dashboard, which needs no NTP.",
                    "s",
                    12,
                ),
                _PROPAGATION,
                critical=LIMITS.slow_seconds,
                exemplars=True,
            ),
        ],
    )


def kernel() -> Section:
    """Operations on the kernel."""
    return Section(
        "Kernel",
        [
            lines(
                Head(
                    "Operations",
                    "Single operations on the kernel, including failed ones. A dump reads all peers, routes and"
                    " entries; scrapes cause them, so many dumps mean too frequent scrapes.",
                    "ops",
                ),
                [line(by("operation", rate(_OPERATIONS)), "{{operation}}")],
            ),
            lines(
                Head(
                    "Failed operations by error",
                    "Operations that the kernel refused. ENODEV: the interface is gone. EPERM: the worker lacks"
                    " CAP_NET_ADMIN. ENOBUFS or ENOSPC: a limit of the kernel. Others: check the worker's log.",
                    "ops",
                ),
                [line(by("error", rate(_OPERATION_FAILURES)), "{{error}}")],
                stacked=True,
            ),
            lines(
                Head(
                    "Failed share by operation",
                    "Refused operations over all. Over 5 %, and ten of them in half an hour, open a ticket: see"
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
                    " the host is busy, check its CPU and softirqs.",
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
