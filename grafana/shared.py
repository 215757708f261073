"""Panels of more than one dashboard."""

from collections.abc import Sequence

from grafana_foundation_sdk.models.dashboard import Panel

from grafana import colours
from grafana.panels import SMALL, Head, lines, stat
from grafana.queries import (
    builds,
    by,
    of,
    per_worker,
    quantile,
    quantile_now,
    series,
)
from grafana.styles import bad_from, coloured, override, steps
from grafana.targets import line, number


def good_and_bad(
    head: Head, good: tuple[str, str], bad: tuple[str, str], *, critical: bool = False, empty: str = "no data"
) -> Panel:
    """Two numbers: how many are well (none is critical), and how many are not.

    Args:
        head: as everywhere.
        good: name and query.
        bad: name and query.
        critical: any bad one is critical, not only a warning.
        empty: what is shown where there is neither.
    """
    return stat(
        head,
        [number(expression, name) for name, expression in (good, bad)],
        bad_from(),
        overrides=[
            override(good[0], thresholds=steps(colours.CRITICAL, (1, colours.GOOD))),
            override(bad[0], thresholds=bad_from(critical=1) if critical else bad_from(warning=1)),
        ],
        empty=empty,
    )


def targets_up(component: str, title: str, description: str, width: int = 4) -> Panel:
    """How many brokers or workers answer Prometheus."""
    up = of(component, series("up"))
    return good_and_bad(
        Head(title, description, "none", width, SMALL),
        ("up", f"sum({up})"),
        ("down", f"count({up}) - sum({up})"),
    )


def mqtt_connected(component: str, width: int = 4) -> Panel:
    """How many processes have a session with the MQTT server."""
    connected = f"({series('wgkex_mqtt_connected')} and on (job, instance) {builds(component)})"
    return good_and_bad(
        Head(
            "MQTT",
            "Processes with and without a connection to the MQTT server. Without one, a broker refuses keys and a"
            " worker gets none. All cut off: check the MQTT server. One cut off: check its log.",
            "none",
            width,
            SMALL,
        ),
        ("connected", f"sum({connected})"),
        ("cut off", f"count({connected}) - sum({connected})"),
    )


def gateways_online(width: int = 4) -> Panel:
    """How many gateways are online for the brokers."""
    online = per_worker("wgkex_broker_worker_online")
    return good_and_bad(
        Head(
            "Gateway status",
            "Gateways online and offline by the status that their workers publish. With none online, every key is"
            " refused. A gateway is offline though its worker is up: check that worker's connection to MQTT.",
            "none",
            width,
            SMALL,
        ),
        ("online", f"sum({online})"),
        ("offline", f"count({online}) - sum({online})"),
    )


def peers_by_state(width: int) -> Panel:
    """All WireGuard peers, stacked by state."""
    return lines(
        Head(
            "Peers by state",
            "WireGuard peers of all gateways. Active: a handshake within 180 s, so the tunnel works. Idle: an older"
            " one. Stale: older than cleanup.stale_after; the cleanup removes ours. Never: none yet; each key goes to"
            " all gateways, so most peers stay like this until the cleanup removes them. Active falls while idle rises:"
            " nodes do not reach the gateways, check uplinks and firewalls.",
            "none",
            width,
        ),
        [line(by("", series("wgkex_worker_peers", f'state="{state}"')), state) for state in colours.PEER_STATES],
        overrides=coloured(colours.PEER_STATES, colours.PEER_STATES),
        stacked=True,
        decimals=0,
    )


def percentile(share: float) -> str:
    """The name of a quantile."""
    return f"p{share * 100:.0f}"


def ages(head: Head, histogram: str, shares: Sequence[float] = (0.5, 0.9)) -> Panel:
    """Quantiles of the handshakes' ages at each moment, and the age at which a WireGuard session ends."""
    return lines(
        head,
        [line(quantile_now(share, histogram), percentile(share)) for share in shares],
        overrides=coloured(colours.QUANTILES, map(percentile, shares)),
        thresholds=bad_from(warning=180),
    )


def quantiles(
    head: Head,
    histogram: str,
    shares: Sequence[float] = (0.5, 0.99),
    *,
    critical: float | None = None,
    exemplars: bool = False,
) -> Panel:
    """Quantiles of a latency over time; `critical` (in the panel's unit) is drawn as a line."""
    return lines(
        head,
        [line(quantile(share, histogram), percentile(share), exemplars=exemplars) for share in shares],
        overrides=coloured(colours.QUANTILES, map(percentile, shares)),
        thresholds=bad_from(critical=critical) if critical is not None else None,
    )


def by_reason(head: Head, query: str, reasons: Sequence[str]) -> Panel:
    """A rate by reason, stacked, each reason in its own colour everywhere."""
    return lines(
        head,
        [line(query, "{{reason}}")],
        overrides=coloured(colours.REASONS, reasons),
        stacked=True,
    )
