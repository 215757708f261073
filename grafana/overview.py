"""WGKex / Overview: whether the service works, and which dashboard to open if it does not."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import colours, shared
from grafana.page import Section, dashboard
from grafana.panels import SMALL, Head, alerts, lines, stat
from grafana.queries import LIMITS, budget_left, burn_rate, by, error_ratio, quantile, rate, series
from grafana.styles import bad_from, coloured, steps
from grafana.targets import line, number


def _state() -> Section:
    up = series("wgkex_worker_interface_up")
    return Section(
        "State",
        [
            shared.targets_up(
                "broker",
                "Brokers",
                "Brokers that answer Prometheus, and those that did within a day but do not now. With none up, no node"
                " gets a tunnel: start one. See WgkexBrokerDown in the runbook.",
            ),
            shared.targets_up(
                "worker",
                "Workers",
                "Workers that answer Prometheus, and those that did within a day but do not now. A gateway without its"
                " worker keeps its tunnels, but takes no new nodes. See WgkexTargetDown in the runbook.",
            ),
            shared.mqtt_connected(""),
            shared.gateways_online(),
            shared.good_and_bad(
                Head(
                    "Interfaces",
                    "WireGuard and VXLAN interfaces of the domains on the gateways. One that is down or missing cuts"
                    " off all nodes of its domain there: bring it up. See WgkexInterfaceDown in the runbook.",
                    "none",
                    4,
                    SMALL,
                ),
                ("up", f"sum({up})"),
                ("down", f"count({up}) - sum({up})"),
                critical=True,
            ),
            stat(
                Head(
                    "Error budget left",
                    "What is left of the failures that 99.9 % over 30 days allows. With data of fewer days, the missing"
                    " ones count as without failures, and as busy as the others. Failures are ours; mistakes of senders"
                    " do not count. Below a quarter: put off risky changes. At 0: make repairs before anything else.",
                    "percentunit",
                    4,
                    SMALL,
                ),
                [number(budget_left(), "left")],
                steps(colours.CRITICAL, (0.001, colours.WARNING), (0.25, colours.GOOD)),
                decimals=1,
            ),
        ],
        open=True,
    )


def _keys() -> Section:
    outcomes = {
        "submitted": "wgkex_broker_key_requests_total",
        "published": "wgkex_broker_keys_published_total",
        "rejected": "wgkex_broker_key_rejections_total",
        "failed": "wgkex_broker_key_failures_total",
    }
    return Section(
        "Keys",
        [
            lines(
                Head(
                    "Keys per second",
                    "Submissions at all brokers, and their results: each one is published, rejected (the sender's"
                    " mistake) or failed (ours). Failed rises: check the reason on the Broker dashboard. Submitted"
                    " falls to 0: nodes do not reach the brokers.",
                    "reqps",
                    12,
                ),
                [line(by("", rate(metric)), outcome) for outcome, metric in outcomes.items()],
                overrides=coloured(colours.OUTCOMES, outcomes),
            ),
            alerts(
                Head(
                    "Alerts",
                    "Alerts of this service that fire or are about to. Each has a section in the runbook: open it from"
                    " the alert, or from the link at the top. The data source must let Grafana list its alerts.",
                    "none",
                    12,
                ),
                '{service="wgkex", severity!="none"}',
            ),
            lines(
                Head(
                    "Error budget burn",
                    "How many times as fast as 99.9 % over 30 days allows failures come, over several windows. At 1"
                    " the budget just lasts. The 1h line above 14.4 and the 6h line above 6 page; 1d above 3 and 3d"
                    " above 1 open a ticket. Check the reason of the failures on the Broker dashboard.",
                    "none",
                    8,
                ),
                [line(burn_rate(burn.long), burn.long) for burn in LIMITS.burns],
                thresholds=steps(
                    colours.GOOD,
                    *sorted(
                        (burn.factor, colours.CRITICAL if burn.severity == "critical" else colours.WARNING)
                        for burn in LIMITS.burns
                    ),
                ),
                at_least=1.5,
            ),
            lines(
                Head(
                    "Failed share of valid keys",
                    "Failures over valid submissions in the last 5 minutes. The line is what 99.9 % allows. Above it"
                    " for long, the budget shrinks: check the reasons on the Broker dashboard.",
                    "percentunit",
                    8,
                ),
                [line(error_ratio("5m"), "failed")],
                overrides=coloured(colours.OUTCOMES, ["failed"]),
                thresholds=bad_from(critical=LIMITS.budget),
                at_least=2 * LIMITS.budget,
            ),
            lines(
                Head(
                    "Latency of keys, p99",
                    "Publish: from a parsed submission to the acknowledgement of the MQTT server, for which a node"
                    " waits. Install: from the same moment to the receipt of a gateway that has installed the key."
                    " Nodes wait 10 s. Publish rises: check the MQTT server. Only install rises: check the workers'"
                    " queues.",
                    "s",
                    8,
                ),
                [
                    line(quantile(0.99, "wgkex_broker_key_publish_duration_seconds"), "publish", exemplars=True),
                    line(quantile(0.99, "wgkex_broker_key_install_duration_seconds"), "install", exemplars=True),
                ],
                thresholds=bad_from(critical=LIMITS.slow_seconds),
            ),
        ],
        open=True,
    )


def _peers() -> Section:
    return Section(
        "Peers and gateways",
        [
            shared.peers_by_state(),
            shared.ages(
                Head(
                    "Age of handshakes",
                    "Time since the last handshakes of the peers; a live tunnel has one about every two minutes. The"
                    " line is 180 s, where a WireGuard session ends. p50 above it: half of the peers have no tunnel."
                    " Peers that never had a handshake are left out.",
                    "s",
                    12,
                ),
                "wgkex_worker_peer_handshake_age_seconds",
            ),
            shared.gateways(),
        ],
    )


def build() -> Dashboard:
    """For the operator on call."""
    return dashboard(
        "wgkex-overview",
        "Overview",
        "Whether nodes get their tunnels, and which of the other dashboards to open if they do not.",
        [_state(), _keys(), _peers()],
    )
