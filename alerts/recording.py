"""Recording rules: rates for the objective, the gateways as all brokers together see them, and active peers."""

from collections.abc import Mapping
from typing import Final

from alerts.settings import SLO_WINDOWS, Settings, milliseconds

# Rates over longer windows read many samples and change slowly.
_LONGEST_FAST: Final = "1h"

ONLINE: Final = "worker:wgkex_broker_worker_online:max"
PEERS: Final = "worker:wgkex_broker_worker_peers:avg"
TARGET: Final = "worker:wgkex_broker_worker_target_peers:avg"
SHARE: Final = "worker:wgkex_broker_worker_target_peers:share"
ACTIVE: Final = "instance:wgkex_worker_peers_active:sum"
ACTIVE_EVERYWHERE: Final = "network:wgkex_worker_peers_active:sum"

Rule = Mapping[str, object]


def failures_rate(window: str) -> str:
    """Name of the recorded rate of failed keys, over a nominal window."""
    return f"instance:wgkex_broker_key_failures:rate{window}"


def valid_rate(window: str) -> str:
    """Name of the recorded rate of valid keys, over a nominal window."""
    return f"instance:wgkex_broker_keys_valid:rate{window}"


def recording_groups(settings: Settings) -> list[Rule]:
    """The groups of recording rules."""
    limit = milliseconds(_LONGEST_FAST)
    fast = [window for window in SLO_WINDOWS if milliseconds(window) <= limit]
    slow = [window for window in SLO_WINDOWS if milliseconds(window) > limit]
    return [
        {"name": "wgkex-slo-rates", "rules": [rule for window in fast for rule in _rates(settings, window)]},
        {
            "name": "wgkex-slo-rates-long",
            "interval": settings.span(settings.slow_interval),
            "rules": [rule for window in slow for rule in _rates(settings, window)],
        },
        {"name": "wgkex-gateways", "rules": _gateways(settings)},
        {"name": "wgkex-peers", "rules": _peers(settings)},
    ]


def active(settings: Settings) -> str:
    """Selector of the active peers, by gateway and domain."""
    return f'wgkex_worker_peers{{{settings.worker}, state="active"}}'


def _peers(settings: Settings) -> list[Rule]:
    """Active peers, over all domains, of each gateway and of the network.

    The first is for what has just happened, and averages over less time. A gateway that is not scraped is in neither.
    """
    recent = f"avg_over_time({active(settings)}[{settings.window(settings.lost_recent)}])"
    bridged = f"avg_over_time({active(settings)}[{settings.window(settings.gap)}])"
    return [
        {"record": ACTIVE, "expr": f"sum {settings.by('job', 'instance')} ({recent})"},
        {"record": ACTIVE_EVERYWHERE, "expr": settings.over_all("sum", bridged)},
    ]


def _rates(settings: Settings, window: str) -> list[Rule]:
    """Failed keys, and valid keys: failed or accepted. Mistakes of senders are in neither."""
    selector = f"{{{settings.broker}}}[{settings.window(window)}]"
    by = settings.by("job", "instance")
    failures = f"sum {by} (rate(wgkex_broker_key_failures_total{selector}))"
    published = f"sum {by} (rate(wgkex_broker_keys_published_total{selector}))"
    return [
        {"record": failures_rate(window), "expr": failures},
        {"record": valid_rate(window), "expr": f"{published}\n+\n{failures}"},
    ]


def _gateways(settings: Settings) -> list[Rule]:
    """Each broker reports all gateways, so the reports of brokers are never summed.

    A broker without a connection keeps old reports, and does not count. A gateway's share is what its target would be
    if only the gateways that are online existed: the others take over the peers of those that are offline. Peers of a
    gateway of weight 0 belong to no share.
    """
    gap = settings.window(settings.gap)
    on_instance = settings.on("job", "instance")
    connected = f"and {on_instance} max_over_time(wgkex_mqtt_connected{{{settings.broker}}}[{gap}]) == 1"
    known = f'{settings.broker}, worker!="unknown"'
    by_worker, on_worker = settings.by("job", "worker"), settings.on("job", "worker")
    by_job, on_job = settings.by("job"), settings.on("job")
    online = f"and {on_worker} {ONLINE} > 0"
    return [
        {
            "record": ONLINE,
            "expr": (
                f"max {by_worker} (\n"
                f"  max_over_time(wgkex_broker_worker_online{{{settings.broker}}}[{gap}])\n"
                f"  {connected}\n"
                ")"
            ),
        },
        {
            "record": PEERS,
            "expr": (
                f"avg {by_worker} (\n"
                f"  sum {settings.by('job', 'instance', 'worker')} (\n"
                f"    avg_over_time(wgkex_broker_worker_peers{{{known}}}[{gap}])\n"
                "  )\n"
                f"  {connected}\n"
                ")\n"
                f"{online}"
            ),
        },
        {
            "record": TARGET,
            "expr": (
                f"avg {by_worker} (\n"
                f"  avg_over_time(wgkex_broker_worker_target_peers{{{known}}}[{gap}])\n"
                f"  {connected}\n"
                ")\n"
                f"{online}"
            ),
        },
        {
            "record": SHARE,
            "expr": (
                f"{TARGET}\n"
                f"/ {on_job} group_left () sum {by_job} ({TARGET})\n"
                f"* {on_job} group_left () sum {by_job} ({PEERS} and {on_worker} {TARGET} > 0)"
            ),
        },
    ]
