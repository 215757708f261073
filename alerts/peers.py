"""Alerts about the peers of gateways."""

from alerts.alert import Alert
from alerts.settings import Settings


def peers(settings: Settings) -> list[Alert]:
    """Peers that are incomplete, silent, lost, or not removed."""
    return [
        _peers_incomplete(settings),
        _handshakes_stale(settings),
        _peers_lost(settings),
        _cleanup_stalled(settings),
    ]


def _peers_incomplete(settings: Settings) -> Alert:
    return Alert(
        name="WgkexPeersIncomplete",
        severity="warning",
        expr=f"min_over_time(wgkex_worker_incomplete_peers{{{settings.worker}}}[{settings.window(settings.gap)}]) > 0",
        hold="10m",
        summary="Peers lack a part, and stay without it.",
        description=(
            "On {{ $labels.instance }} at least {{ $value }} peers of domain {{ $labels.domain }} lack their "
            "{{ $labels.missing }}. Without route or FDB entry their routers may have a tunnel, but no mesh; without a "
            "peer a route is left over, which nobody feels. The worker puts parts back within about 2 minutes, and it "
            "does not help. Look first for peers_not_put_back in its log, then whether something else changes peers, "
            "routes or FDB entries on this host."
        ),
    )


def _handshakes_stale(settings: Settings) -> Alert:
    """By domain, as a domain is an interface and a port of its own.

    Stale peers are not counted. Those of ours are removed some minutes later, so that to count them would tell of an
    outage for hardly any longer. What stays stale for ever is not ours, or protected: peers that the older wgkex has
    left on a gateway, and that nobody has taken over, would be a ticket without end.
    """
    gap = settings.window(settings.gap)

    def peers(states: str) -> str:
        return (
            "sum by (job, instance, domain) "
            f"(avg_over_time(wgkex_worker_peers{{{settings.worker}, state{states}}}[{gap}]))"
        )

    active, connected = peers('="active"'), peers('=~"active|idle"')
    return Alert(
        name="WgkexHandshakesStale",
        severity="warning",
        expr=f"{active}\n/ {connected}\n< {settings.stale_ratio:g}\nand {connected} >= {settings.stale_min_peers}",
        hold="15m",
        summary="Most peers of a gateway have stopped talking.",
        description=(
            "On {{ $labels.instance }} only {{ $value | humanizePercentage }} of the peers of domain "
            "{{ $labels.domain }} that were connected within cleanup.stale_after still are. The others' routers have "
            "lost their tunnel or moved to another gateway. Look first whether UDP reaches the domain's WireGuard port "
            "from outside."
        ),
    )


def _peers_lost(settings: Settings) -> Alert:
    """Over all domains, as an uplink has them all.

    The routers of a gateway that reboots have found another one meanwhile. There, the worker has started, and found
    hardly any peer that ever connected: the kernel has forgotten them, and the journal brings them back without a
    handshake. A worker that merely starts anew finds them in the kernel. Peers that never connected are not counted, as
    the cleanup removes many of them at once, after each reboot of another gateway.
    """
    gap, short = settings.window(settings.gap), settings.window(settings.short_gap)
    window, ago = settings.window(settings.lost_window), settings.span(settings.lost_window)
    active, connected = (
        f"wgkex_worker_peers{{{settings.worker}, state{state}}}" for state in ('="active"', '!="never"')
    )
    before, all_before = (
        f"sum by (job, instance) (avg_over_time({series}[{gap}] offset {ago}))" for series in (active, connected)
    )
    fewest = f"min_over_time(sum by (job, instance) (max_over_time({connected}[{short}]))[{window}:{short}])"
    started = f"changes(process_start_time_seconds{{{settings.worker}}}[{window}])"
    return Alert(
        name="WgkexWorkerPeersLost",
        severity="warning",
        expr=(
            f"sum by (job, instance) (avg_over_time({active}[{gap}]))\n/ {before}\n< {settings.lost_ratio:g}\n"
            f"and {before} >= {settings.lost_min_peers}\n"
            f"unless (\n  {fewest}\n  / {all_before}\n  < {settings.lost_ratio:g}\n"
            f"  and on (job, instance) {started} > 0\n)"
        ),
        hold="10m",
        summary="A gateway has lost most of its active peers.",
        description=(
            "{{ $labels.instance }} has {{ $value | humanizePercentage }} of the active peers that it had "
            f"{settings.span(settings.lost_window)} ago. Their routers are looking for another gateway, or have no "
            "mesh. Look first at the gateway's uplink and at its WireGuard ports."
        ),
    )


def _cleanup_stalled(settings: Settings) -> Alert:
    """The time of the last one is what it was that long ago. So Prometheus' clock and the gateway's are not compared.

    It is 0 before a worker's first one: then it is the start that has to be that long ago.
    """
    success = (
        f"wgkex_worker_cleanup_last_success_timestamp_seconds{{{settings.worker}}}[{settings.window(settings.gap)}]"
    )
    window, ago = settings.window(settings.cleanup_window), settings.span(settings.cleanup_window)
    return Alert(
        name="WgkexCleanupStalled",
        severity="warning",
        expr=(
            f"max_over_time({success})\n== max_over_time({success} offset {ago})\n"
            f"unless on (job, instance) changes(process_start_time_seconds{{{settings.worker}}}[{window}]) > 0"
        ),
        hold="10m",
        summary="A worker does not finish its cleanup any more.",
        description=(
            f"{{{{ $labels.instance }}}} has finished no cleanup for {ago}: peers whose routers have gone stay in its "
            "kernel. Users feel nothing, but everything that reads the kernel gets slower. Look first for "
            "peers_not_removed and snapshot_failed in the worker's log."
        ),
    )
