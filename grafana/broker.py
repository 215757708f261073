"""WGKex / Broker: HTTP, the keys that come in, and what is known of the gateways."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import colours, shared
from grafana.page import Section, dashboard
from grafana.panels import SMALL, Head, heatmap, lines, stat
from grafana.queries import (
    CONFIGURED,
    LIMITS,
    age,
    by,
    increase,
    per_worker,
    quantile,
    rate,
    ratio,
    series,
    worker_peers,
)
from grafana.styles import bad_from, coloured, coloured_matching, dashed, steps
from grafana.targets import buckets, line, number
from wgkex_ops.metrics.broker import FAILURE_REASONS, REJECTION_REASONS

_MESSAGE_REJECTION_REASONS = ("malformed_topic", "malformed_payload", "unknown_domain", "unknown_worker")

_SUBMISSIONS = "wgkex_broker_key_requests_total"
_REJECTIONS = "wgkex_broker_key_rejections_total"
_FAILURES = "wgkex_broker_key_failures_total"
_PUBLISH = "wgkex_broker_key_publish_duration_seconds"
_INSTALL = "wgkex_broker_key_install_duration_seconds"


def _state() -> Section:
    online = series("wgkex_broker_brokers_online")
    return Section(
        "State",
        [
            shared.targets_up(
                "broker",
                "Brokers",
                "Brokers that answer Prometheus, and those that did within a day but do not now. With none up, no node"
                " gets a tunnel: start one. See WgkexBrokerDown in the runbook.",
            ),
            stat(
                Head(
                    "Brokers online by MQTT",
                    "Brokers that see each other on MQTT, by the one that sees the fewest. Less than those that are"
                    " up: one is cut off, and gateways are shared out without it.",
                    "none",
                    4,
                    SMALL,
                ),
                [number(by("", online, "min"), "online")],
                steps(colours.CRITICAL, (1, colours.GOOD)),
            ),
            shared.mqtt_connected("broker"),
            shared.gateways_online(),
            stat(
                Head(
                    "Submissions",
                    "Keys that nodes submit, over all brokers. None at all at an hour when there are always some:"
                    " nodes do not reach the brokers. Look at DNS, the load balancer, the certificate.",
                    "reqps",
                    4,
                    SMALL,
                ),
                [number(by("", rate(_SUBMISSIONS)), "submitted")],
                steps(colours.NEUTRAL),
            ),
            stat(
                Head(
                    "Served now",
                    "HTTP requests that are being served at this moment. A plateau: the brokers wait for the MQTT"
                    " server, or somebody holds connections open.",
                    "none",
                    4,
                    SMALL,
                ),
                [number(by("", series("wgkex_broker_http_requests_in_progress")), "requests")],
                bad_from(warning=100),
            ),
        ],
    )


def _http() -> Section:
    requests = "wgkex_broker_http_requests_total"
    return Section(
        "HTTP",
        [
            lines(
                Head(
                    "Requests by route",
                    "Answered requests on the public listener. Unknown is what no route serves; if that grows, somebody"
                    " tries things out, and a limit at the load balancer helps.",
                    "reqps",
                ),
                [line(by("handler", rate(requests)), "{{handler}}")],
                stacked=True,
            ),
            lines(
                Head(
                    "Answers by status",
                    "4xx are the sender's fault, 5xx ours. 503 rises: MQTT is away, or no gateway is online, see the"
                    " failures below. 400 rises: see the rejections. 404: somebody looks for other things.",
                    "reqps",
                ),
                [line(by("code", rate(requests)), "{{code}}")],
                overrides=coloured_matching(colours.CODES),
                stacked=True,
            ),
            lines(
                Head(
                    "Duration by route, p99",
                    "From the head of a request to its answer. Nodes give up after 10 s. If it follows the latency of"
                    " publishing, look at the MQTT server; if not, at the broker's CPU on the Runtime dashboard.",
                    "s",
                ),
                [
                    line(
                        quantile(0.99, "wgkex_broker_http_request_duration_seconds", labels="handler"),
                        "{{handler}}",
                    )
                ],
                thresholds=bad_from(critical=LIMITS.slow_seconds),
            ),
        ],
    )


def _keys() -> Section:
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


def _publishing() -> Section:
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


def _receipts() -> Section:
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


def _gateways() -> Section:
    return Section(
        "Gateways",
        [
            shared.gateways(),
            lines(
                Head(
                    "Peers and targets by gateway",
                    "Connected peers, and dashed what each gateway's weight asks for. A gateway far below its target:"
                    " nodes are sent there but do not connect. All below: nodes use version 1.",
                    "none",
                ),
                [
                    line(worker_peers(), "{{worker}}"),
                    line(per_worker("wgkex_broker_worker_target_peers"), "{{worker}} target"),
                ],
                overrides=[dashed(".+ target")],
                decimals=0,
            ),
            lines(
                Head(
                    "Assignments by gateway",
                    "Answers of version 2 that named a gateway, over all brokers. A gateway that gets none though it is"
                    " online has a weight of 0, or more peers than its share.",
                    "reqps",
                ),
                [line(by("worker", rate("wgkex_broker_worker_assignments_total")), "{{worker}}")],
                stacked=True,
            ),
            shared.by_reason(
                Head(
                    "Dropped messages of gateways",
                    "Messages of workers and brokers that were dropped by the brokers. unknown_worker or"
                    " unknown_domain: a gateway is missing in the configuration. malformed: somebody else writes to"
                    " the bus.",
                    "cps",
                ),
                by("reason", rate("wgkex_broker_message_rejections_total")),
                _MESSAGE_REJECTION_REASONS,
            ),
        ],
    )


def _mqtt() -> Section:
    return Section(
        "MQTT, of brokers and workers",
        [
            lines(
                Head(
                    "Sessions gained and lost",
                    "Per minute. Many of them mean a bad link, or two processes with one name, which throw each other"
                    " out in turns: see WgkexMQTTFlapping in the runbook.",
                    "cpm",
                    6,
                ),
                [
                    line(f"60 * {by('', rate('wgkex_mqtt_connects_total'))}", "gained"),
                    line(f"60 * {by('', rate('wgkex_mqtt_disconnects_total'))}", "lost"),
                ],
                overrides=coloured(colours.SESSIONS, colours.SESSIONS),
            ),
            lines(
                Head(
                    "Failed attempts to connect",
                    "Per minute, by reason. unreachable or timed_out: the network, or the server is down. tls: a"
                    " certificate has run out. refused or subscription_refused: user, password, or access list.",
                    "cpm",
                    6,
                ),
                [line(f"60 * {by('reason', rate('wgkex_mqtt_connection_failures_total'))}", "{{reason}}")],
                stacked=True,
            ),
            lines(
                Head(
                    "Unacknowledged messages",
                    "Sent to the MQTT server and not yet acknowledged. A plateau means that the server hangs: nodes"
                    " read 503 until it answers again.",
                    "none",
                    4,
                ),
                [line(by("instance", series("wgkex_mqtt_publishes_in_flight")), "{{instance}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Dropped messages",
                    "Messages thrown away because more arrived than a process could work on. Any is too many: a key"
                    " may be lost until its node asks again. Look at that process's CPU.",
                    "cps",
                    4,
                ),
                [line(by("instance", rate("wgkex_mqtt_messages_dropped_total")), "{{instance}}")],
            ),
            lines(
                Head(
                    "Age of the last message",
                    "How long ago the last message came from the MQTT server. The gateways report every minute, so a"
                    " broker that hears nothing for longer is cut off, though its session looks alive. A worker hears"
                    " only of keys.",
                    "s",
                    4,
                ),
                [
                    line(
                        age("wgkex_mqtt_last_message_received_timestamp_seconds", labels="job, instance"),
                        "{{instance}}",
                    )
                ],
            ),
        ],
    )


def build() -> Dashboard:
    """For whoever runs the brokers."""
    return dashboard(
        "wgkex-broker",
        "Broker",
        "Requests, keys, the latency that nodes feel, the gateways as brokers see them, and MQTT.",
        [_state(), _http(), _keys(), _publishing(), _receipts(), _gateways(), _mqtt()],
    )
