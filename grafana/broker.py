"""WGKex / Broker: HTTP, submitted keys, and the gateways as brokers see them."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import broker_keys, colours, nodes, shared
from grafana.page import Section, dashboard
from grafana.panels import SMALL, Head, lines, stat
from grafana.queries import (
    LIMITS,
    age,
    by,
    by_process,
    named,
    per_worker,
    quantile,
    rate,
    series,
    worker_peers,
)
from grafana.styles import bad_from, coloured, coloured_matching, dashed, steps
from grafana.targets import line, number

_MESSAGE_REJECTION_REASONS = (
    "malformed_topic",
    "malformed_payload",
    "unknown_domain",
    "unknown_worker",
    "worker_mismatch",
)


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
                    "Brokers that see each other on MQTT, by the one that sees the fewest. Fewer than are up: one is"
                    " cut off, and the others choose gateways without counting it.",
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
                    "New nodes",
                    "Nodes a minute that ask for the first time within 5 minutes, over all brokers. None at an hour"
                    " that usually has some: nodes do not reach the brokers. Check DNS, the load balancer, the"
                    " certificate.",
                    "cpm",
                    4,
                    SMALL,
                ),
                [number(f"60 * {by('', rate(nodes.NEW))}", "nodes", few=True)],
                steps(colours.NEUTRAL),
            ),
            stat(
                Head(
                    "Served now",
                    "HTTP requests in progress. A plateau: the brokers wait for the MQTT server, or clients hold"
                    " connections open.",
                    "none",
                    4,
                    SMALL,
                ),
                [number(by("", series("wgkex_broker_http_requests_in_progress")), "requests")],
                bad_from(warning=100),
            ),
            nodes.new_nodes(),
            broker_keys.failures(),
            nodes.unconfirmed_by_gateway(),
        ],
        open=True,
    )


def _http() -> Section:
    requests = "wgkex_broker_http_requests_total"
    return Section(
        "HTTP",
        [
            lines(
                Head(
                    "Requests by route",
                    "Requests on the public listener with a response. Unknown is a path without a route; if it grows,"
                    " a scanner is at work, and a limit at the load balancer helps.",
                    "reqps",
                ),
                [line(by("handler", rate(requests)), "{{handler}}")],
                stacked=True,
            ),
            lines(
                Head(
                    "Responses by status",
                    "4xx are mistakes of the sender, 5xx are ours. 503 rises: MQTT is down, or no gateway is online,"
                    " see the failures below. 400 rises: see the rejections. 404: a scanner looks for other services.",
                    "reqps",
                ),
                [line(by("code", rate(requests)), "{{code}}")],
                overrides=coloured_matching(colours.CODES),
                stacked=True,
            ),
            lines(
                Head(
                    "Duration by route, p99",
                    "From the head of a request to its response. Nodes give up after 10 s. If it follows the latency"
                    " of publishing, check the MQTT server; if not, the broker's CPU on the Runtime dashboard.",
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
            lines(
                Head(
                    "Connections",
                    "Open connections on the public listener. Near limits.connections.total for long: clients hold them"
                    " without a request; see the panel to the right.",
                    "none",
                    12,
                ),
                [line(by_process(series("wgkex_broker_connections"), "broker"), "{{process}}")],
            ),
            lines(
                Head(
                    "Connections cut",
                    "Connections that were cut or not accepted. slow: clients that send no request, or read no"
                    " response. network: one client has too many. total: the listener is full, and the"
                    " connection goes that has waited longest for its client.",
                    "cps",
                    12,
                ),
                [line(by("reason", rate("wgkex_broker_connections_refused_total")), "{{reason}}")],
                stacked=True,
            ),
        ],
    )


def _gateways() -> Section:
    return Section(
        "Gateways",
        [
            nodes.gateways(),
            lines(
                Head(
                    "Peers and targets by gateway",
                    "Connected peers, and dashed what each gateway's weight asks for. A gateway far below its target:"
                    " nodes are sent there but do not connect. All below: nodes use version 1.",
                    "none",
                    6,
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
                    "Responses of version 2 that named a gateway, over all brokers. A gateway gets none though it is"
                    " online: its weight is 0, or it has more peers than its share.",
                    "reqps",
                    6,
                ),
                [line(by("worker", rate("wgkex_broker_worker_assignments_total")), "{{worker}}")],
                stacked=True,
            ),
            lines(
                Head(
                    "Nodes that name a location",
                    "Responses of version 2 to nodes that named the location of a gateway. unmet: their gateway is"
                    " elsewhere, because those of the location have more peers than broker.location_tolerance allows,"
                    " or take no nodes.",
                    "reqps",
                    6,
                ),
                [line(by("result", rate("wgkex_broker_location_preferences_total")), "{{result}}")],
                overrides=coloured(colours.PREFERENCES, colours.PREFERENCES),
                stacked=True,
            ),
            shared.by_reason(
                Head(
                    "Dropped messages of gateways",
                    "Messages of workers and brokers that brokers dropped. unknown_worker or unknown_domain: a gateway"
                    " is missing in the configuration. malformed: another program writes to the bus. worker_mismatch: a"
                    " worker sends receipts in the name of another one.",
                    "cps",
                    6,
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
                    "Connections gained and lost",
                    "Per minute. Many: the network loses packets, or two processes with one name disconnect each"
                    " other: see WgkexMQTTFlapping in the runbook.",
                    "cpm",
                    6,
                ),
                [
                    line(f"60 * {by('', rate('wgkex_mqtt_connects_total'))}", "gained"),
                    line(f"60 * {by('', rate('wgkex_mqtt_disconnects_total'))}", "lost"),
                ],
                overrides=coloured(colours.CONNECTIONS, colours.CONNECTIONS),
            ),
            lines(
                Head(
                    "Failed attempts to connect",
                    "Per minute, by reason. unreachable or timed_out: the network, or the server is down. tls: a"
                    " certificate has expired. refused or subscription_refused: user, password, or access rules.",
                    "cpm",
                    6,
                ),
                [line(f"60 * {by('reason', rate('wgkex_mqtt_connection_failures_total'))}", "{{reason}}")],
                stacked=True,
            ),
            lines(
                Head(
                    "Unacknowledged messages",
                    "Sent to the MQTT server and not yet acknowledged. A plateau: the server hangs, and nodes get 503"
                    " until it responds again.",
                    "none",
                    4,
                ),
                [line(by_process(series("wgkex_mqtt_publishes_in_flight")), "{{process}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Dropped messages",
                    "Messages dropped because more arrived than a process could handle. Any is too many: a key may be"
                    " lost until its node sends it again. Check that process's CPU.",
                    "cps",
                    4,
                ),
                [line(by_process(rate("wgkex_mqtt_messages_dropped_total")), "{{process}}")],
            ),
            lines(
                Head(
                    "Age of the last message",
                    "Time since the last message from the MQTT server. The gateways report every minute, so a broker"
                    " that receives nothing for longer is cut off, though it seems connected. A worker receives only"
                    " keys.",
                    "s",
                    4,
                ),
                [
                    line(
                        named(age("wgkex_mqtt_last_message_received_timestamp_seconds", labels="job, instance")),
                        "{{process}}",
                    )
                ],
            ),
        ],
    )


def build() -> Dashboard:
    """For operators of brokers."""
    return dashboard(
        "wgkex-broker",
        "Broker",
        "Requests, keys, the latency that nodes feel, the gateways as brokers see them, and MQTT.",
        [
            _state(),
            broker_keys.lost_nodes(),
            _gateways(),
            broker_keys.keys(),
            broker_keys.receipts(),
            broker_keys.publishing(),
            _http(),
            _mqtt(),
        ],
    )
