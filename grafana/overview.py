"""WGKex / Overview: whether the service works, and which dashboard to open if it does not."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import canary, colours, overview_tunnels, shared
from grafana.page import Section, dashboard
from grafana.panels import Head, alerts, lines
from grafana.queries import LIMITS, burn_rate, by, error_ratio, quantile, rate
from grafana.styles import bad_from, coloured, steps
from grafana.targets import line


def _keys() -> Section:
    outcomes = {
        "submitted": "wgkex_broker_key_requests_total",
        "published": "wgkex_broker_keys_published_total",
        "rejected": "wgkex_broker_key_rejections_total",
        "failed": "wgkex_broker_key_failures_total",
    }
    return Section(
        "Keys and alerts",
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
        ],
        open=True,
    )


def _objective() -> Section:
    return Section(
        "Error budget and latency",
        [
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
    )


def _peers() -> Section:
    return Section(
        "Peers",
        [
            shared.peers_by_state(12),
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
        ],
    )


def build() -> Dashboard:
    """For the operator on call."""
    return dashboard(
        "wgkex-overview",
        "Overview",
        "Whether nodes get their tunnels, and which of the other dashboards to open if they do not.",
        [overview_tunnels.first_screen(), _keys(), _objective(), _peers(), canary.section()],
    )
