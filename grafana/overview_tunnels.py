"""The first screen of the overview: whether nodes get tunnels, and if not, where."""

from collections.abc import Callable

from grafana_foundation_sdk.models.dashboard import Panel, ThresholdsConfig

from grafana import canary, colours, nodes, shared
from grafana.page import Section
from grafana.panels import SMALL, Head, lines, stat
from grafana.queries import (
    budget_left,
    by,
    increase,
    rate,
    returned_share,
    series,
    unconfirmed_share,
    worst,
)
from grafana.styles import bad_from, coloured, steps
from grafana.targets import line, number


def first_screen() -> Section:
    """All of it, without a heading: 12 of its lines fit on a screen of 1366x768, all 20 on one of 1920x1080."""
    return Section(
        "",
        [
            _sessions_per_node(),
            _share(
                "Keys without confirmation",
                "Of the accepted keys, those that gateways never confirmed or could not install, over 20 minutes: in"
                " all, and at the worst gateway. Over 5 %: nodes have no tunnel, whatever response they got. See"
                " WgkexKeysUnconfirmed in the runbook.",
                unconfirmed_share,
                nodes.UNCONFIRMED,
            ),
            _share(
                "Nodes that come back",
                "Of the nodes that version 2 sent to a gateway, those that asked again within 5 minutes, over 20"
                " minutes: in all, and at the worst gateway. They got no tunnel there. See WgkexGatewayBlackHole in the"
                " runbook.",
                returned_share,
                nodes.RETURNED,
            ),
            stat(
                Head(
                    "Confirmed by no gateway",
                    "Keys in the last 20 minutes that no gateway of their domain has installed. Each is a node without"
                    " a tunnel. The graph below shows the domains; check the access rules of the MQTT server, then"
                    " the workers.",
                    "none",
                    4,
                    SMALL,
                ),
                [number(by("", increase(nodes.NOWHERE)), "keys", few=True)],
                bad_from(warning=1, critical=5),
                decimals=0,
            ),
            canary.state(),
            _budget(),
            *_processes(),
            nodes.gateways(height=6),
            _nodes(),
            nodes.unconfirmed_by_gateway(),
            nodes.nowhere_by_domain(),
        ],
    )


def _sessions_per_node() -> Panel:
    begun, asked = by("", increase(nodes.SESSIONS)), by("", increase(nodes.NEW))
    return stat(
        Head(
            "Sessions per new node",
            "Sessions of WireGuard that began, for each node that asked for the first time, over 20 minutes. About 1:"
            " nodes get their tunnels. Far below: nodes ask and do not connect; the other numbers and the table show"
            " where. Above 1: nodes also connect anew without asking.",
            "none",
            4,
            SMALL,
        ),
        [number(f"{begun} / ({asked} > 0)", "sessions", few=True)],
        steps(colours.CRITICAL, (0.25, colours.WARNING), (0.6, colours.GOOD)),
        decimals=2,
        empty="no new nodes",
    )


def _share(title: str, description: str, share: Callable[[str], str], limits: ThresholdsConfig) -> Panel:
    """A share in all, and at the gateway where it is highest."""
    return stat(
        Head(title, description, "percentunit", 4, SMALL),
        [number(share(""), "in all", few=True), number(worst(share("worker")), "{{worker}}", few=True)],
        limits,
        decimals=0,
    )


def _budget() -> Panel:
    return stat(
        Head(
            "Error budget left",
            "What is left of the failures that 99.9 % over 30 days allows. With data of fewer days, the missing ones"
            " count as without failures, and as busy as the others. Failures are ours; mistakes of senders do not"
            " count. Below a quarter: put off risky changes. At 0: make repairs before anything else.",
            "percentunit",
            4,
            SMALL,
        ),
        [number(budget_left(), "left")],
        steps(colours.CRITICAL, (0.001, colours.WARNING), (0.25, colours.GOOD)),
        decimals=1,
    )


def _processes() -> list[Panel]:
    up = series("wgkex_worker_interface_up")
    confirming = by("worker", series("wgkex_broker_worker_confirming", 'worker!="unknown"'), "min")
    return [
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
                "Receipts",
                "Gateways that confirm keys, and silent ones: they promise receipts, and have confirmed none of the"
                " last five keys of a domain for a minute. Version 2 sends nobody there. Check whether the worker"
                " hangs, and what the access rules of the MQTT server let it read.",
                "none",
                4,
                SMALL,
            ),
            ("confirming", f"sum({confirming})"),
            ("silent", f"count({confirming}) - sum({confirming})"),
            critical=True,
        ),
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
    ]


def _nodes() -> Panel:
    counted = {
        "ask": nodes.NEW,
        "sent to gateways": nodes.SENT,
        "sessions begun": nodes.SESSIONS,
    }
    return lines(
        Head(
            "Nodes per minute",
            "Nodes that ask for the first time, nodes that version 2 sends to gateways, and sessions of WireGuard that"
            " begin. Sessions fall while the others do not: nodes get no tunnels. Sent rises above ask: nodes come back"
            " and are sent elsewhere. With version 1 nobody is sent.",
            "cpm",
        ),
        [line(f"60 * {by('', rate(metric))}", name, few=True) for name, metric in counted.items()],
        overrides=coloured(colours.NODES, counted),
    )
