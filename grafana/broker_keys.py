"""Rows of the broker's dashboard: keys from the POST to the receipt of the gateway."""

from grafana_foundation_sdk.models.dashboard import Panel

from grafana import colours, nodes, shared
from grafana.page import Section
from grafana.panels import Head, heatmap, lines, timeline
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
from grafana.styles import bad_from, coloured, up_or_down
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
                    "Keys with a successful response, after the acknowledgement of the MQTT server. One domain falls"
                    " while others do not: its nodes do not reach the brokers.",
                    "reqps",
                ),
                [line(by("domain", rate("wgkex_broker_keys_published_total")), "{{domain}}")],
                stacked=True,
            ),
            lines(
                Head(
                    "Submissions by API version",
                    "Version 1 goes to all gateways, version 2 names one. You can give up version 1 when its line"
                    " stays at 0.",
                    "reqps",
                ),
                [line(by("api_version", rate(_SUBMISSIONS)), "{{api_version}}")],
                stacked=True,
            ),
            shared.by_reason(
                Head(
                    "Rejections by reason",
                    "Keys rejected because of a mistake of the sender. They use up no error budget. One reason rises"
                    " steadily: a firmware is broken; find it by the request ids in the log. A burst: a test or an"
                    " attack.",
                    "reqps",
                    8,
                ),
                by("reason", rate(_REJECTIONS)),
                REJECTION_REASONS,
            ),
            lines(
                Head(
                    "Rejected share",
                    "Rejections over all submissions. Over a quarter for half an hour, with enough submissions, opens"
                    " a ticket: see WgkexKeyRejectionsHigh in the runbook, and the reasons to the left.",
                    "percentunit",
                    8,
                ),
                [line(ratio(by("", rate(_REJECTIONS)), by("", rate(_SUBMISSIONS))), "rejected")],
                overrides=coloured(colours.OUTCOMES, ["rejected"]),
                thresholds=bad_from(warning=LIMITS.rejections_ratio),
                maximum=1,
            ),
            lines(
                Head(
                    "Refused by limits",
                    "Keys refused because there were too many, by the limit: of one key, of a client's network, of new"
                    " keys, of the broker. network rises alone: an abuser, or a load balancer that does not say for"
                    " whom it forwards; see WgkexRateLimitingHigh in the runbook.",
                    "reqps",
                    8,
                ),
                [line(by("limit", rate("wgkex_broker_rate_limited_total")), "{{limit}}")],
                stacked=True,
            ),
        ],
    )


def failures() -> Panel:
    """Valid keys that could not be served."""
    return shared.by_reason(
        Head(
            "Failures by reason",
            "Valid keys that failed: they use up the error budget. mqtt_disconnected, publish_refused and"
            " publish_timeout: the MQTT server or the way to it. no_worker: no gateway has subscribed."
            " internal: a bug of ours, its traceback is in the log.",
            "reqps",
        ),
        by("reason", rate(_FAILURES)),
        FAILURE_REASONS,
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
                    " band above the usual one: the server stalls now and then, check its disk and its load.",
                    "s",
                    12,
                ),
                buckets(by("le", rate(f"{_PUBLISH}_bucket")), exemplars=True),
            ),
            shared.quantiles(
                Head(
                    "Latency of publishing, quantiles",
                    "The same as p50 and p99. The line is the default of broker.publish_timeout, after which a node"
                    " gets 503. p99 near it: check the MQTT server before nodes are refused.",
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
                    "From a parsed submission to the receipt of a gateway that has installed the key, by one clock."
                    " Nodes wait 10 s. A band above: a gateway is slow, the graph on the right shows which.",
                    "s",
                    12,
                ),
                buckets(by("le", rate(f"{_INSTALL}_bucket")), exemplars=True),
            ),
            lines(
                Head(
                    "From POST to the kernel by gateway, p99",
                    "The same for each gateway. One rises: check its queue and its kernel on the Worker dashboard. All"
                    " rise: check the MQTT server. See WgkexInstallSlow in the runbook.",
                    "s",
                    12,
                ),
                [line(quantile(0.99, _INSTALL, CONFIGURED, labels="worker"), "{{worker}}", exemplars=True)],
                thresholds=bad_from(critical=LIMITS.slow_seconds),
            ),
            lines(
                Head(
                    "Failed installations by gateway",
                    "Keys that a gateway has given up; version 2 then names another gateway. Only one gateway fails:"
                    " the reason is in its log (peer_given_up), and in the errors of netlink operations.",
                    "cps",
                ),
                [line(by("worker", rate("wgkex_broker_key_install_failures_total", CONFIGURED)), "{{worker}}")],
                thresholds=bad_from(warning=1),
            ),
            lines(
                Head(
                    "Named without confirmation, by gateway",
                    "Responses of version 2 that named a gateway before it had confirmed the key, after"
                    " broker.confirm_timeout. It rises: the gateway is slow, or the access rules of the MQTT server"
                    " stop its receipts.",
                    "cps",
                ),
                [line(by("worker", rate("wgkex_broker_key_confirmation_timeouts_total", CONFIGURED)), "{{worker}}")],
                thresholds=bad_from(warning=1),
            ),
            lines(
                Head(
                    "Keys without a receipt",
                    "Accepted keys that not all gateways have confirmed yet, and how many were sent again or never"
                    " confirmed. A broker sends them again after 5, 15, 35 and 75 s. Unconfirmed rises: check whether"
                    " a worker hangs.",
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


def lost_nodes() -> Section:
    """Nodes that get no tunnel, by gateway and by domain."""
    return Section(
        "Nodes without a tunnel",
        [
            nodes.returned_by_gateway(),
            nodes.nowhere_by_domain(),
            timeline(
                Head(
                    "Receipts by gateway",
                    "Silent: the gateway promises receipts and has confirmed none of the last five keys of a domain for"
                    " a minute, so version 2 sends nobody there. Check whether its worker hangs, and what the access"
                    " rules of the MQTT server let it read.",
                    "none",
                ),
                [line(by("worker", series("wgkex_broker_worker_confirming", CONFIGURED), "min"), "{{worker}}")],
                up_or_down("confirming", "silent"),
            ),
        ],
    )
