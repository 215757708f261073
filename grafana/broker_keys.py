"""Rows of the broker's dashboard: keys from the POST to the receipt of the gateway."""

from grafana import colours, shared
from grafana.page import Section
from grafana.panels import Head, heatmap, lines
from grafana.queries import (
    CONFIGURED,
    LIMITS,
    by,
    increase,
    quantile,
    rate,
    ratio,
    series,
)
from grafana.styles import bad_from, coloured
from grafana.targets import buckets, line
from wgkex_ops.metrics.broker import FAILURE_REASONS, REJECTION_REASONS

_SUBMISSIONS = "wgkex_broker_key_requests_total"
_REJECTIONS = "wgkex_broker_key_rejections_total"
_FAILURES = "wgkex_broker_key_failures_total"
_PUBLISH = "wgkex_broker_key_publish_duration_seconds"
_INSTALL = "wgkex_broker_key_install_duration_seconds"


def keys() -> Section:
    """Submissions, and what became of them."""
    return Section(
        "Keys",
        [
            lines(
                Head(
                    "Submissions by domain",
                    "Keys that nodes submit. Unknown: the sender named none of our domains; if that rises after a"
                    " change, a domain is missing in the configuration.",
                    "reqps",
                ),
                [line(by("domain", rate(_SUBMISSIONS)), "{{domain}}")],
                stacked=True,
            ),
            lines(
                Head(
                    "Published by domain",
                    "Keys answered with success, after the MQTT server had acknowledged them. One domain falls while"
                    " others do not: its nodes have lost their way to the brokers.",
                    "reqps",
                ),
                [line(by("domain", rate("wgkex_broker_keys_published_total")), "{{domain}}")],
                stacked=True,
            ),
            lines(
                Head(
                    "Submissions by API version",
                    "Version 1 goes to all gateways, version 2 names one. Version 1 can be given up when its line"
                    " stays at 0.",
                    "reqps",
                ),
                [line(by("api_version", rate(_SUBMISSIONS)), "{{api_version}}")],
                stacked=True,
            ),
            shared.by_reason(
                Head(
                    "Failures by reason",
                    "Valid keys that could not be served: this is what the error budget is spent on. mqtt_disconnected,"
                    " publish_refused and publish_timeout: the MQTT server or the way to it. no_worker: no gateway"
                    " listens. internal: a fault of ours, its traceback is in the log.",
                    "reqps",
                ),
                by("reason", rate(_FAILURES)),
                FAILURE_REASONS,
            ),
            shared.by_reason(
                Head(
                    "Rejections by reason",
                    "Keys refused through a fault of the sender. They cost no error budget. One reason rises steadily:"
                    " a firmware sends nonsense; find it by the log's request ids. In a burst: somebody plays.",
                    "reqps",
                ),
                by("reason", rate(_REJECTIONS)),
                REJECTION_REASONS,
            ),
            lines(
                Head(
                    "Rejected share",
                    "Rejections over all submissions. Over a quarter for half an hour, at a real volume, opens a"
                    " ticket: see WgkexKeyRejectionsHigh in the runbook, and the reasons to the left.",
                    "percentunit",
                ),
                [line(ratio(by("", rate(_REJECTIONS)), by("", rate(_SUBMISSIONS))), "rejected")],
                overrides=coloured(colours.OUTCOMES, ["rejected"]),
                thresholds=bad_from(warning=LIMITS.rejections_ratio),
                maximum=1,
            ),
        ],
    )


def publishing() -> Section:
    """The way to the MQTT server."""
    return Section(
        "Publishing",
        [
            heatmap(
                Head(
                    "Latency of publishing",
                    "From a parsed submission to the acknowledgement of the MQTT server; nodes wait for it. A second"
                    " band above the usual one: the server stalls now and then, look at its disk and its load.",
                    "s",
                    12,
                ),
                buckets(by("le", rate(f"{_PUBLISH}_bucket")), exemplars=True),
            ),
            shared.quantiles(
                Head(
                    "Latency of publishing, quantiles",
                    "The same as p50 and p99. The line is the default of broker.publish_timeout, after which a node is"
                    " told to come back later. p99 near it: look at the MQTT server before nodes are turned away.",
                    "s",
                    12,
                ),
                _PUBLISH,
                critical=3,
                exemplars=True,
            ),
        ],
    )


def receipts() -> Section:
    """What the gateways report about keys."""
    return Section(
        "Receipts of the gateways",
        [
            heatmap(
                Head(
                    "From POST to the kernel",
                    "From a parsed submission to a gateway's word that it has installed the key, by one clock. Nodes"
                    " bear 10 s. A band above: a gateway is slow, see which one on the right.",
                    "s",
                    12,
                ),
                buckets(by("le", rate(f"{_INSTALL}_bucket")), exemplars=True),
            ),
            lines(
                Head(
                    "From POST to the kernel by gateway, p99",
                    "The same for each gateway. One rises: look at its queue and its kernel on the Worker dashboard."
                    " All rise: the MQTT server. See WgkexInstallSlow in the runbook.",
                    "s",
                    12,
                ),
                [line(quantile(0.99, _INSTALL, CONFIGURED, labels="worker"), "{{worker}}", exemplars=True)],
                thresholds=bad_from(critical=LIMITS.slow_seconds),
            ),
            lines(
                Head(
                    "Failed installations by gateway",
                    "Keys that a gateway has given up. Version 2 names another gateway then. If a gateway fails alone,"
                    " the reason is in its log (peer_given_up), and in the errors of netlink operations.",
                    "cps",
                ),
                [line(by("worker", rate("wgkex_broker_key_install_failures_total", CONFIGURED)), "{{worker}}")],
                thresholds=bad_from(warning=1),
            ),
            lines(
                Head(
                    "Named without its word, by gateway",
                    "Version 2 answers that named a gateway before it had confirmed the key, after"
                    " broker.confirm_timeout. It rises: the gateway is slow, or its receipts do not get through the"
                    " access rules of the MQTT server.",
                    "cps",
                ),
                [line(by("worker", rate("wgkex_broker_key_confirmation_timeouts_total", CONFIGURED)), "{{worker}}")],
                thresholds=bad_from(warning=1),
            ),
            lines(
                Head(
                    "Keys without a receipt",
                    "Accepted keys that not all gateways have confirmed yet, and how many were sent again or given up"
                    " unconfirmed. Unconfirmed keys mean a gateway that takes none: look whether its worker hangs.",
                    "none",
                ),
                [
                    line(by("", series("wgkex_broker_keys_awaiting_receipts")), "awaiting"),
                    line(by("", increase("wgkex_broker_keys_republished_total")), "sent again"),
                    line(by("", increase("wgkex_broker_keys_unconfirmed_total")), "unconfirmed"),
                ],
                decimals=0,
            ),
        ],
    )
