"""Alerts about the peers of gateways."""

from alerts.alert import Alert
from alerts.lost import peers_lost_everywhere, worker_peers_lost
from alerts.recording import active as active_peers
from alerts.settings import Settings


def peers(settings: Settings) -> list[Alert]:
    """Peers that are incomplete, silent, lost, or not removed."""
    return [
        _peers_incomplete(settings),
        _handshakes_stale(settings),
        worker_peers_lost(settings),
        peers_lost_everywhere(settings),
        _cleanup_stalled(settings),
        _table_full(settings),
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
            "{{ $labels.missing }}. Without route or FDB entry their nodes may have a tunnel, but no mesh; "
            "without a peer, a route is left over, which users do not notice. The worker repairs peers once a "
            "minute, and that does not help. First check its log for peers_not_repaired, then whether another "
            "program changes peers, routes or FDB entries on this host."
        ),
    )


def _handshakes_stale(settings: Settings) -> Alert:
    """By domain, as a domain is an interface and a port of its own.

    Stale peers are not counted. The cleanup removes ours some minutes later, so counting them would prolong the alert
    hardly at all. Peers that stay stale are not ours, or protected: peers of the older wgkex that were never taken over
    would be a ticket without end.

    Nodes that move to another gateway leave a silent peer behind, and others come in their place. So the active peers
    must have become fewer as well.
    """
    gap = settings.window(settings.gap)

    def peers(states: str) -> str:
        return (
            f"sum {settings.by('job', 'instance', 'domain')} "
            f"(avg_over_time(wgkex_worker_peers{{{settings.worker}, state{states}}}[{gap}]))"
        )

    memory = settings.window(settings.stale_memory)
    most = f"sum {settings.by('job', 'instance', 'domain')} (max_over_time({active_peers(settings)}[{memory}]))"
    active, idle, connected = peers('="active"'), peers('="idle"'), peers('=~"active|idle"')
    return Alert(
        name="WgkexHandshakesStale",
        severity="warning",
        expr=(
            f"{active}\n/ {connected}\n< {settings.stale_ratio:g}\n"
            f"and {idle} - {active} >= {settings.stale_min_surplus}\n"
            f"and {active} < {settings.stale_ratio:g} * {most}\n"
            f"and {most} - {active} >= {settings.stale_deviations:g} * sqrt({most})"
        ),
        hold="15m",
        summary="Most peers of a domain on a gateway are silent.",
        description=(
            "On {{ $labels.instance }} only {{ $value | humanizePercentage }} of the peers of domain "
            "{{ $labels.domain }} that were connected within cleanup.stale_after still are. The nodes of the "
            "others have lost their tunnel or use another gateway. First check whether UDP reaches the domain's "
            "WireGuard port from outside."
        ),
    )


def _cleanup_stalled(settings: Settings) -> Alert:
    """The time of the last cleanup is the same as that long ago: this compares no clocks of two hosts.

    The time is 0 before a worker's first cleanup; then the start must be that long ago.
    """
    success = (
        f"wgkex_worker_cleanup_last_success_timestamp_seconds{{{settings.worker}}}[{settings.window(settings.gap)}]"
    )
    window, ago = settings.window(settings.cleanup_window), settings.span(settings.cleanup_window)
    started = f"changes(process_start_time_seconds{{{settings.worker}}}[{window}])"
    return Alert(
        name="WgkexCleanupStalled",
        severity="warning",
        expr=(
            f"max_over_time({success})\n== max_over_time({success} offset {ago})\n"
            f"unless {settings.on('job', 'instance')} {started} > 0"
        ),
        hold="10m",
        summary="A worker does not complete its cleanup any more.",
        description=(
            f"{{{{ $labels.instance }}}} has completed no cleanup for {ago}: the peers of departed nodes stay in its "
            "kernel. Users notice nothing, but everything that reads the kernel gets slower. First check the "
            "worker's log for peers_not_removed and snapshot_failed."
        ),
    )


def _table_full(settings: Settings) -> Alert:
    """Peers that had to go, or keys that were refused for want of room."""
    window = settings.window(settings.table_window)
    evicted = f"increase(wgkex_worker_peers_evicted_total{{{settings.worker}}}[{window}])"
    refused = f'increase(wgkex_worker_message_rejections_total{{{settings.worker}, reason="table_full"}}[{window}])'
    return Alert(
        name="WgkexTableFull",
        severity="warning",
        expr=f"sum {settings.by('job', 'instance')} ({evicted})\n"
        f"+ {settings.on('job', 'instance')} sum {settings.by('job', 'instance')} ({refused}) > 0",
        hold="5m",
        summary="A gateway has no room for new peers.",
        description=(
            f"{{{{ $labels.instance }}}} has had to remove peers that never connected, or to refuse keys, "
            f"{{{{ $value | humanize }}}} in {settings.span(settings.table_window)}: a domain has worker.max_peers of "
            "them. Nodes that are connected notice nothing; new ones may get no tunnel. First check on the brokers' "
            "dashboard whether somebody requests keys without end (new_keys, network), and in wgkex_worker_peers how "
            "many of the peers never connected."
        ),
    )
