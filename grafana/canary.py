"""Panels of the canary: a node in software that asks for a tunnel like any other one."""

from grafana_foundation_sdk.models.dashboard import Panel

from grafana import colours, shared
from grafana.page import Section
from grafana.panels import SMALL, Head, lines, table, timeline
from grafana.queries import by, increase, rate, series
from grafana.styles import bad_from, coloured, from_on, override, up_or_down
from grafana.targets import column, line
from wgkex_ops.model.rounds import BEARABLE, PHASES

_NONE = "No canary"
# A point in time that is 0 is that long ago at least.
_NEVER = 1e9
_SUCCESS = "wgkex_probe_success"


def state() -> Panel:
    """In how many domains the canary got its tunnel."""
    success = series(_SUCCESS)
    return shared.good_and_bad(
        Head(
            "Canary",
            "Domains in which the canary got a tunnel and its mesh in its last round, and those in which it did not:"
            " nodes get none there. See WgkexProbeFailing in the runbook, and the section Canary below. No canary:"
            " docs/canary.md shows how to run one.",
            "none",
            4,
            SMALL,
        ),
        ("working", f"sum({success})"),
        ("failing", f"count({success}) - sum({success})"),
        critical=True,
        empty=_NONE,
    )


def section() -> Section:
    """What the canary found, by domain and gateway."""
    return Section("Canary", [_rounds(), _gateways(), _phases(), _failures(), _pace()])


def _rounds() -> Panel:
    return timeline(
        Head(
            "Last round by domain",
            "Whether the canary got a tunnel and its mesh in its last round. Failing: nodes of this domain get none, at"
            " least at the gateway that it was sent to.",
            "none",
        ),
        [line(by("domain", series(_SUCCESS), "min"), "{{domain}}")],
        up_or_down("working", "failing"),
        empty=_NONE,
    )


def _gateways() -> Panel:
    last = by("domain, gateway", series("wgkex_probe_last_success_timestamp_seconds"), "max")
    return table(
        Head(
            "Last success by gateway",
            "Since the last round that succeeded, by domain and gateway, the oldest first. One gateway is old in all"
            " domains: the gateway. One domain is old on all gateways: the domain, or its mesh. The canary goes from"
            " one gateway to the next, so minutes are normal.",
            "s",
        ),
        {"Last success": column(f"time() - {last}")},
        {"domain": "Domain", "gateway": "Gateway"},
        overrides=[
            override(
                "Last success",
                decimals=0,
                mappings=from_on(_NEVER, "never", colours.CRITICAL),
                thresholds=bad_from(warning=1800),
                custom_cellOptions={"type": "color-text"},
            )
        ],
        sort="Last success",
        descending=True,
        empty=_NONE,
    )


def _phases() -> Panel:
    return lines(
        Head(
            "Duration of phases",
            "How long each phase of the last round took, in the slowest domain. A line ends: no domain completed this"
            f" phase. The line across is what a node bears, {BEARABLE:g} s. Handshake near 5 s: the gateway installs"
            " the key after the node's first try.",
            "s",
        ),
        [line(by("", series("wgkex_probe_duration_seconds", f'phase="{phase}"'), "max"), phase) for phase in PHASES],
        overrides=coloured(colours.PHASES, PHASES),
        thresholds=bad_from(critical=BEARABLE),
        empty=_NONE,
    )


def _failures() -> Panel:
    return lines(
        Head(
            "Failed rounds by phase",
            "Rounds in the last 20 minutes that ended in this phase. Post: the brokers gave no endpoint. Handshake: the"
            " key is not on the gateway, or its UDP port is blocked. VXLAN: a tunnel, and no mesh behind it.",
            "none",
            12,
        ),
        [line(by("phase", increase("wgkex_probe_failures_total")), "{{phase}}", few=True)],
        overrides=coloured(colours.PHASES, PHASES),
        stacked=True,
        decimals=0,
        empty=_NONE,
    )


def _pace() -> Panel:
    return lines(
        Head(
            "Rounds by domain",
            "Rounds that ended, a minute, whatever came of them. A line falls to 0: the canary hangs, and the panels"
            " above show what was, not what is. Check its log.",
            "cpm",
            12,
        ),
        [line(f"60 * {by('domain', rate('wgkex_probe_rounds_total'))}", "{{domain}}", few=True)],
        empty=_NONE,
    )
