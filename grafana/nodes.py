"""Panels of more than one dashboard: whether nodes get a tunnel, and at which gateways they do not."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Panel

from grafana import colours
from grafana.panels import NORMAL, Head, lines, table
from grafana.queries import (
    CONFIGURED,
    LIMITS,
    age,
    by,
    by_process,
    increase,
    per_worker,
    quantile,
    rate,
    returned_share,
    series,
    unconfirmed_share,
    worker_peers,
)
from grafana.styles import Override, bad_from, override, steps, texts, to_dashboard
from grafana.targets import column, line

NEW: Final = "wgkex_broker_key_first_requests_total"
SENT: Final = "wgkex_broker_worker_assigned_nodes_total"
SESSIONS: Final = "wgkex_worker_peer_sessions_started_total"
NOWHERE: Final = "wgkex_broker_keys_confirmed_nowhere_total"

# Shares of keys and of nodes: what one broken router causes, and what opens a ticket or pages.
UNCONFIRMED: Final = bad_from(warning=0.01, critical=0.05)
RETURNED: Final = bad_from(warning=0.25, critical=0.5)

_STATES: Final = ((2, "serving", colours.GOOD), (1, "silent", colours.CRITICAL), (0, "offline", colours.CRITICAL))


def new_nodes(width: int = 8) -> Panel:
    """Nodes that ask, by domain."""
    return lines(
        Head(
            "New nodes by domain",
            "Nodes that ask for the first time within 5 minutes, without retries, a minute. A wave: a gateway or an"
            " uplink has failed. None at an hour that usually has some: nodes do not reach the brokers. See"
            " WgkexKeyRateZero in the runbook.",
            "cpm",
            width,
        ),
        [line(f"60 * {by('domain', rate(NEW))}", "{{domain}}", few=True)],
        stacked=True,
    )


def unconfirmed_by_gateway(width: int = 8) -> Panel:
    """Keys that gateways did not confirm."""
    return lines(
        Head(
            "Keys without confirmation by gateway",
            "Of the accepted keys, those that a gateway never confirmed or could not install, over 20 minutes: it may"
            " lack their peers. One gateway: check its worker. All: check what the access rules of the MQTT server let"
            " workers read.",
            "percentunit",
            width,
        ),
        [line(unconfirmed_share("worker"), "{{worker}}", few=True)],
        thresholds=UNCONFIRMED,
        maximum=1,
    )


def returned_by_gateway(width: int = 8) -> Panel:
    """Nodes that got no tunnel at the gateway that they were sent to."""
    return lines(
        Head(
            "Nodes that come back by gateway",
            "Of the nodes that version 2 sent to a gateway, those that asked again within 5 minutes: they got no"
            " tunnel there. Over half: the gateway completes no handshakes. Check its WireGuard ports from outside.",
            "percentunit",
            width,
        ),
        [line(returned_share("worker"), "{{worker}}", few=True)],
        thresholds=RETURNED,
        maximum=1,
    )


def sessions(width: int = 8) -> Panel:
    """Nodes that really connect."""
    return lines(
        Head(
            "Sessions begun by gateway",
            "Sessions of WireGuard that began, a minute: nodes that really connect. None while brokers send nodes here:"
            " check the gateway's WireGuard ports from outside, and whether keys are installed. See WgkexNoNewSessions"
            " in the runbook.",
            "cpm",
            width,
        ),
        [line(f"60 * {by_process(rate(SESSIONS), 'worker')}", "{{process}}", few=True)],
        stacked=True,
    )


def nowhere_by_domain(width: int = 8) -> Panel:
    """Keys that no gateway installed."""
    return lines(
        Head(
            "Keys confirmed by no gateway, by domain",
            "Keys in the last 20 minutes that no gateway of the domain has installed, though some send receipts. Their"
            " nodes have no tunnel, whatever response they got. Check the access rules of the MQTT server, then the"
            " domain's interfaces on the gateways.",
            "none",
            width,
        ),
        [line(by("domain", increase(NOWHERE)), "{{domain}}", few=True)],
        thresholds=bad_from(critical=5),
        stacked=True,
        decimals=0,
        at_least=6,
    )


def sessions_by_gateway() -> str:
    """Sessions that began, under the name that brokers have for a gateway; none for one that shows no name."""
    info = series("wgkex_worker_info")
    return by("worker", f"{increase(SESSIONS)} * on (job, instance) group_left (worker) {info}")


def _looks() -> list[Override]:
    """How the columns of the gateways look."""
    text = {"type": "color-text"}
    off = LIMITS.imbalance_ratio
    shares = {"Without confirmation": UNCONFIRMED, "Come back": RETURNED}
    return [
        override("Gateway", links=[to_dashboard("wgkex-worker", "Its Worker dashboard", "job", "instance")]),
        override("State", mappings=texts(_STATES), custom_cellOptions=text),
        *(
            override(name, unit="percentunit", decimals=0, thresholds=limits, custom_cellOptions=text)
            for name, limits in shares.items()
        ),
        override("Nodes sent", decimals=0),
        override("Sessions begun", decimals=0),
        override("Install p99", unit="s", thresholds=bad_from(critical=LIMITS.slow_seconds), custom_cellOptions=text),
        override("Target", decimals=0),
        override(
            "Deviation",
            unit="percentunit",
            decimals=0,
            thresholds=steps(colours.WARNING, (-off, colours.GOOD), (off, colours.WARNING), least=-1),
            custom_cellOptions=text,
        ),
        override("Last message", unit="s", decimals=0),
    ]


def gateways(height: int = NORMAL) -> Panel:
    """Every gateway, what the brokers send to it, and what becomes of that."""
    target = per_worker("wgkex_broker_worker_target_peers")
    online = per_worker("wgkex_broker_worker_online")
    confirming = by("worker", series("wgkex_broker_worker_confirming", CONFIGURED), "min")
    return table(
        Head(
            "Gateways",
            "What the brokers know of each gateway, with a link to its Worker dashboard. Silent: it promises receipts"
            " and sends none, so version 2 sends nobody there. Nodes and sessions are those of the last 20 minutes."
            " Nodes but no sessions, or many that come back: check its WireGuard ports from outside. Deviation is how"
            " far its peers are from what its weight asks for: while one gateway is offline, the others have more. Far"
            " off for hours with all online: nodes do not use the gateway that they get, or the weights are wrong.",
            "none",
            24,
            height,
        ),
        {
            "State": column(f"{online} + ({online} * {confirming} or {online})"),
            "Without confirmation": column(unconfirmed_share("worker", CONFIGURED), few=True),
            "Come back": column(returned_share("worker"), few=True),
            "Nodes sent": column(by("worker", increase(SENT, CONFIGURED)), few=True),
            "Sessions begun": column(sessions_by_gateway(), few=True),
            "Install p99": column(
                quantile(0.99, "wgkex_broker_key_install_duration_seconds", CONFIGURED, labels="worker"), few=True
            ),
            "Peers": column(worker_peers()),
            "Target": column(target),
            "Deviation": column(f"({worker_peers()} - {target}) / clamp_min({target}, 1)"),
            "Last message": column(age("wgkex_broker_worker_last_seen_timestamp_seconds", CONFIGURED, labels="worker")),
            "Scraped": column(by("worker, job, instance", series("wgkex_worker_info"), "max")),
        },
        {"worker": "Gateway", "job": "Job", "instance": "Instance"},
        overrides=_looks(),
        sort="Gateway",
        concealed=("Job", "Instance", "Scraped"),
    )
