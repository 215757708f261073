"""Alerts about keys on their way through the brokers."""

from functools import partial

from alerts.alert import Alert
from alerts.recording import failures_rate, valid_rate
from alerts.settings import Burn, Settings


def keys(settings: Settings) -> list[Alert]:
    """Keys that fail, do not come, are rejected, or are too many."""
    burns = (_burn(settings, burn) for burn in settings.burns)
    return [*burns, _key_rate_zero(settings), _rejections(settings), _rate_limiting(settings)]


def _burn(settings: Settings, burn: Burn) -> Alert:
    total = partial(settings.over_all, "sum")

    def ratio(window: str) -> str:
        return f"{total(failures_rate(window))} / {total(valid_rate(window))}"

    failures = total(f"increase(wgkex_broker_key_failures_total{{{settings.broker}}}[{settings.window(burn.long)}])")
    limit = f"({burn.factor:g} * {settings.budget:g})"
    outage = 'ALERTS{alertname="WgkexMQTTDown", alertstate="firing", service="wgkex"}'
    return Alert(
        name="WgkexKeyErrorBudgetBurn",
        severity=burn.severity,
        # In a small network one failed key is a large part of all, hence the minimum. An outage of the MQTT server has
        # an alert of its own; without the last line, the short window would page again when that one resolves.
        expr=(
            f"{ratio(burn.long)} > {limit}\n"
            f"and {ratio(burn.short)} > {limit}\n"
            f"and {failures} >= {settings.burn_min_failures}\n"
            f"unless {settings.on()} max_over_time({outage}[{settings.window(burn.short)}]) == 1"
        ),
        hold=burn.hold,
        summary="Too many valid keys fail.",
        description=(
            "{{ $value | humanizePercentage }} of the valid keys of the last "
            f"{burn.long} failed, and it goes on; the objective allows {settings.budget * 100:g}% over 30 days. "
            "The nodes of these keys wait for a tunnel, and send their key again. First check which reason of "
            "wgkex_broker_key_failures_total grows."
        ),
        labels={"long_window": burn.long, "short_window": burn.short},
    )


def _key_rate_zero(settings: Settings) -> Alert:
    """Nodes, not keys: one that repeats its key is neither an expectation for tomorrow, nor hides that no other comes.

    The canary repeats its keys, too.
    """
    window = settings.window(settings.zero_window)
    increase = settings.over_all(
        "sum", f"increase(wgkex_broker_key_first_requests_total{{{settings.broker}}}[{window}])"
    )
    yesterday = f"[{settings.window(settings.zero_span)}:{window}] offset {settings.span(settings.zero_offset)}"
    return Alert(
        name="WgkexKeyRateZero",
        severity="critical",
        # Nodes come in bursts when a gateway starts. Only a steady stream yesterday is expected today.
        expr=f"min_over_time({increase}{yesterday}) >= {settings.zero_min_nodes}\nand {increase} == 0",
        hold="15m",
        summary="No node asks for a tunnel, though some did at this time yesterday.",
        description=(
            f"No node has begun to ask within {settings.span(settings.zero_window)}; at this time yesterday "
            '{{ $value | printf "%.0f" }} or more did in each such period. Nodes that boot or have lost their tunnel '
            "get none. First check whether requests arrive (wgkex_broker_key_requests_total). If none do, check DNS, "
            "TLS and the proxy in front of the brokers; if they do, check the reasons of rejections."
        ),
    )


def _rejections(settings: Settings) -> Alert:
    """Wrong keys; those that were too many have an alert of their own."""
    window = settings.window(settings.rejections_window)
    total = partial(settings.over_all, "sum")
    rejections = f'wgkex_broker_key_rejections_total{{{settings.broker}, reason!="rate_limited"}}[{window}]'
    requests = f"wgkex_broker_key_requests_total{{{settings.broker}}}[{window}]"
    return Alert(
        name="WgkexKeyRejectionsHigh",
        severity="warning",
        expr=(
            f"{total(f'rate({rejections})')}\n"
            f"/ {total(f'rate({requests})')}\n"
            f"> {settings.rejections_ratio:g}\n"
            f"and {total(f'increase({rejections})')} >= {settings.rejections_min_keys}"
        ),
        hold="30m",
        summary="Many keys are rejected.",
        description=(
            "{{ $value | humanizePercentage }} of the submitted keys are rejected because of a mistake of the "
            "sender. If it is a firmware or a new domain, its nodes get no tunnel; if it is a flood, users notice "
            "nothing. First check which reason of wgkex_broker_key_rejections_total grows."
        ),
    )


def _rate_limiting(settings: Settings) -> Alert:
    """Of all brokers together; or from single networks, at a rate that the ratio of a large network could hide."""
    window = settings.window(settings.limited_window)
    total = partial(settings.over_all, "sum")
    limited = f"wgkex_broker_rate_limited_total{{{settings.broker}}}[{window}]"
    of_networks = f'wgkex_broker_rate_limited_total{{{settings.broker}, limit="network"}}[{window}]'
    requests = f"wgkex_broker_key_requests_total{{{settings.broker}}}[{window}]"
    ratio = f"{total(f'rate({limited})')}\n/ {total(f'rate({requests})')}"
    return Alert(
        name="WgkexRateLimitingHigh",
        severity="warning",
        expr=(
            f"{ratio}\n"
            f"> {settings.limited_ratio:g}\n"
            f"and {total(f'increase({limited})')} >= {settings.limited_min_keys}\n"
            f"or ({ratio})\n"
            f"and {total(f'rate({of_networks})')} >= {settings.limited_network_per_second:g}"
        ),
        hold="15m",
        summary="Many keys are refused because there are too many.",
        description=(
            "{{ $value | humanizePercentage }} of the submissions are refused with status 429. If it is an abuser, "
            "nodes notice nothing; if a load balancer does not say for whom it forwards, nodes get no tunnel. First "
            "check which limit of wgkex_broker_rate_limited_total it is, and whether the broker's page names a load "
            "balancer."
        ),
    )
