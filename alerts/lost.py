"""Alerts about peers that were active: of one gateway, and of the whole network."""

from alerts.alert import Alert
from alerts.recording import ACTIVE, ACTIVE_EVERYWHERE, active
from alerts.settings import Settings


def worker_peers_lost(settings: Settings) -> Alert:
    """Of a gateway, of one domain on it, or after its reboot.

    A peer becomes inactive 60 to 180 s after its port is closed, since its last handshake was up to 120 s before that.
    With the average and the hold this alert comes within 14 minutes.
    """
    return Alert(
        name="WgkexWorkerPeersLost",
        severity="warning",
        expr=(
            f"(\n{_indented(_lost_or_nobody_back(settings))}\n)\n"
            # There, losing them is what somebody wants, and that nobody comes back.
            f"unless {settings.on('job', 'instance')} {_drained(settings)}"
        ),
        hold="10m",
        summary="A gateway has lost most of its active peers.",
        description=(
            "{{ $labels.instance }} has {{ $value | humanizePercentage }} of the active peers{{ with $labels.domain }} "
            f"of domain {{{{ . }}}}{{{{ end }}}} that it had {settings.span(settings.lost_window)} ago, or before its "
            "reboot. Their nodes look for another gateway, or have no mesh. First check the gateway's uplink and its "
            "WireGuard ports."
        ),
    )


def _lost_or_nobody_back(settings: Settings) -> str:
    instance, gateway = settings.on("job", "instance"), _lost(settings)
    return (
        f"(\n{_indented(gateway)}\n  or\n"
        # One alert for a gateway that has lost the peers of all its domains.
        f"{_indented(_lost_in_domain(settings))}\n  unless {instance} (\n{_indented(gateway, 4)}\n  )\n)\n"
        f"unless {instance} (\n{_indented(_rebooted(settings))}\n)\n"
        f"or\n{_nobody_back(settings)}"
    )


def _drained(settings: Settings) -> str:
    """Gateways that drain, or did when they lost their peers."""
    return f"max_over_time(wgkex_worker_draining{{{settings.worker}}}[{settings.window(settings.lost_window)}]) == 1"


def _indented(text: str, spaces: int = 2) -> str:
    return "\n".join(f"{'':{spaces}}{line}" for line in text.splitlines())


def _importance(settings: Settings, average: str) -> str:
    """How many lost peers are more than chance, where gateways have so many on average."""
    return f"clamp_min({settings.lost_part:g} * {average}, {settings.lost_min_peers})"


def _lost(settings: Settings) -> str:
    """Over all domains, because they share an uplink. How many are of importance depends on the other gateways."""
    before = f"avg_over_time({ACTIVE}[{settings.window(settings.gap)}] offset {settings.span(settings.lost_window)})"
    average = settings.over_all("avg", before)
    return (
        f"{ACTIVE} / {before} < {settings.lost_ratio:g}\n"
        f"and {before} - {ACTIVE}\n"
        f"  >= {settings.on()} group_left () {_importance(settings, average)}"
    )


def _lost_in_domain(settings: Settings) -> str:
    """A domain has a port of its own, which a firewall can close. It is compared with itself on other gateways."""
    by, ago = settings.by("job", "instance", "domain"), settings.span(settings.lost_window)
    now = f"sum {by} (avg_over_time({active(settings)}[{settings.window(settings.lost_recent)}]))"
    before = f"sum {by} (avg_over_time({active(settings)}[{settings.window(settings.gap)}] offset {ago}))"
    average = f"avg {settings.by('domain')} (\n    {before}\n  )"
    return (
        f"{now}\n  / {before}\n  < {settings.lost_domain_ratio:g}\n"
        f"and {before}\n  - {now}\n"
        f"  >= {settings.on('domain')} group_left () {_importance(settings, average)}"
    )


def _rebooted(settings: Settings) -> str:
    """Gateways whose nodes have found another one by then.

    Such a gateway is recognized by a worker that has started, and hardly any peer that ever connected: the kernel has
    lost them, and the journal restores them without a handshake. After a mere restart of the worker they are still in
    the kernel. Peers that never connected are not counted: the cleanup removes many of them at once after each reboot
    of another gateway.
    """
    gap, short = settings.window(settings.gap), settings.window(settings.short_gap)
    window, ago = settings.window(settings.lost_window), settings.span(settings.lost_window)
    by = settings.by("job", "instance")
    connected = f'wgkex_worker_peers{{{settings.worker}, state!="never"}}'
    fewest = f"min_over_time(sum {by} (max_over_time({connected}[{short}]))[{window}:{short}])"
    before = f"sum {by} (avg_over_time({connected}[{gap}] offset {ago}))"
    started = f"changes(process_start_time_seconds{{{settings.worker}}}[{window}])"
    return f"{fewest}\n/ {before}\n< {settings.lost_ratio:g}\nand {settings.on('job', 'instance')} {started} > 0"


def _nobody_back(settings: Settings) -> str:
    """A gateway that has rebooted has the fewest peers, so nodes that ask are sent there, and their sessions begin.

    Where nobody asks, as at night, nobody can come back.
    """
    memory, instance = settings.window(settings.lost_memory), settings.on("job", "instance")
    most = f"max_over_time({ACTIVE}[{memory}])"
    least = f"clamp_min({settings.lost_asked_part:g} * {most}, {settings.lost_asked_min})"
    either = "\n  or\n".join(
        _indented(_none_of_the_asking(settings, settings.window(window), least))
        for window in settings.lost_back_windows
    )
    return (
        f"{ACTIVE} / {most} < {settings.lost_ratio:g}\n"
        f"and {most} >= {settings.lost_min_peers}\n"
        f"and {instance} changes(process_start_time_seconds{{{settings.worker}}}[{memory}]) > 0\n"
        f"and {instance} (\n{either}\n)"
    )


def _none_of_the_asking(settings: Settings, window: str, least: str) -> str:
    """Workers that have run for a whole window, in which nodes of their domains asked, and began no session.

    A gateway's own nodes ask while it is away, and are elsewhere then: they leave the window before the alert fires.
    """
    by, instance = settings.by("job", "instance"), settings.on("job", "instance")
    sessions = f"increase(wgkex_worker_peer_sessions_started_total{{{settings.worker}}}[{window}])"
    asked = f"increase(wgkex_broker_key_first_requests_total{{{settings.broker}}}[{window}])"
    return (
        f"sum {by} (\n"
        f"  0 * sum {settings.by('job', 'instance', 'domain')} ({sessions})\n"
        f"  + {settings.on('domain')} group_left () sum {settings.by('domain')} ({asked})\n"
        f")\n  >= {least}\n"
        f"and {instance} sum {by} ({sessions}) == 0\n"
        f"and {instance} changes(process_start_time_seconds{{{settings.worker}}}[{window}]) == 0"
    )


def peers_lost_everywhere(settings: Settings) -> Alert:
    """The sum of all gateways: nodes that move to another gateway are no loss.

    A gateway that does not answer may be down, or only its worker is, and its tunnels stay. So it counts as it last
    was, unless so many requests come that its nodes can have no tunnel; then it has none.
    """
    seen = f"avg_over_time({active(settings)}[{settings.window(settings.gap)}])"
    unseen = f"last_over_time({active(settings)}[{settings.window(settings.everywhere_unseen)}])"
    before = (
        f"max_over_time({ACTIVE_EVERYWHERE}[{settings.window(settings.everywhere_memory)}] "
        f"offset {settings.span(settings.everywhere_offset)})"
    )
    remembered = settings.over_all("sum", f"{seen} or {unseen}")
    visible = f"({ACTIVE_EVERYWHERE} or 0 * {before})"
    window = settings.window(settings.everywhere_asked)
    asked = settings.over_all("sum", f"increase(wgkex_broker_key_requests_total{{{settings.broker}}}[{window}])")
    return Alert(
        name="WgkexPeersLostEverywhere",
        severity="critical",
        expr=(
            "(\n"
            f"  {remembered}\n    / {before} < {settings.everywhere_ratio:g}\n"
            "  or\n"
            f"  {visible} / {before} < {settings.everywhere_ratio:g}\n"
            f"  and {asked}\n    >= {before} - {visible}\n"
            ")\n"
            f"and {before} >= {settings.everywhere_min_peers}"
        ),
        hold="5m",
        summary="The network has lost over half of its active peers.",
        description=(
            "All gateways together have {{ $value | humanizePercentage }} of the active peers that they had "
            f"{settings.span(settings.everywhere_offset)} ago or before. The nodes of the others have no mesh. First "
            "check whether keys are rejected (wgkex_broker_key_rejections_total), then what all gateways have in "
            "common: uplink, firewall, the firmware of the nodes."
        ),
    )
