"""Recording rules about hosts and processes: how far clocks are off, and what memory and peers were over hours."""

from typing import Final

from alerts.recording import Rule
from alerts.settings import Settings

SKEW: Final = "instance:wgkex_time_seconds:skew"
# Over a quarter of a day, which is part of the names.
QUARTER: Final = "6h"
LOWEST_MEMORY: Final = f"instance:wgkex_process_resident_memory_bytes:min{QUARTER}"
OWN_PEERS: Final = f"instance:wgkex_peers:avg{QUARTER}"


def host_recording_groups(settings: Settings) -> list[Rule]:
    """The groups of recording rules."""
    quarter = settings.window(QUARTER)
    return [
        {"name": "wgkex-clocks", "rules": [_skew(settings)]},
        {
            "name": "wgkex-memory",
            "interval": settings.span(settings.slow_interval),
            "rules": [
                {
                    "record": LOWEST_MEMORY,
                    "expr": f"min_over_time(process_resident_memory_bytes{{{settings.every}}}[{quarter}])",
                },
                _own_peers(settings, quarter),
            ],
        },
    ]


def _skew(settings: Settings) -> Rule:
    """Seconds by which a host's clock is ahead of that of Prometheus; a slow scrape adds its duration."""
    clock = f"wgkex_time_seconds{{{settings.every}}}"
    return {"record": SKEW, "expr": f"{clock}\n- timestamp({clock})"}


def _own_peers(settings: Settings, quarter: str) -> Rule:
    """Peers that a process keeps account of: a worker its own ones, a broker those of all gateways."""
    peers = (
        f"sum {settings.by('job', 'instance')} (avg_over_time({series}[{quarter}]))"
        for series in (
            f"wgkex_worker_peers{{{settings.worker}}}",
            f"wgkex_broker_worker_peers{{{settings.broker}}}",
        )
    )
    return {"record": OWN_PEERS, "expr": "\nor\n".join(peers)}
