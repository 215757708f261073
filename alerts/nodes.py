"""Alerts about nodes that were sent to a gateway, and whether they get a tunnel there."""

from alerts.alert import Alert
from alerts.recording import PEERS
from alerts.recording_nodes import ASSIGNED, NETWORK_PEERS, RETURNED, RETURNED_RATIO, WINDOW
from alerts.settings import Settings

_BLACK_HOLE = "WgkexGatewayBlackHole"
# A node that keeps asking is counted at a gateway every 15 minutes, and up to some minutes later where it is sent to
# several in turn. Where all nodes began at the same time, the counts pause for so long; the outage does not.
_PAUSE = "10m"


def nodes(settings: Settings) -> list[Alert]:
    """Nodes that come back, tunnels that do not begin, and mesh traffic that is missing."""
    return [
        _black_hole_everywhere(settings),
        _black_hole(settings),
        _no_new_sessions(settings),
        _vxlan_silent(settings),
    ]


def _black_hole_everywhere(settings: Settings) -> Alert:
    """No gateway keeps its nodes, and they are a good part of the network.

    A few routers behind a firewall that blocks UDP come back for ever, from one gateway after the other. In the night
    they are the only ones, and must page nobody. Gateways are not summed: each of these routers visits all of them.
    """
    by, on = settings.by("job"), settings.on("job")
    most = f"max {by} ({RETURNED})"
    memory = settings.window(settings.nodes_memory)
    return Alert(
        name=_BLACK_HOLE,
        severity="critical",
        expr=(
            f"{most} >= {settings.nodes_min}\n"
            f"unless {on} ({RETURNED_RATIO} <= {settings.returned_ratio:g})\n"
            f"unless {on} ({most} < {on} {settings.network_part:g} * max_over_time({NETWORK_PEERS}[{memory}]))"
        ),
        hold="5m",
        keep=_PAUSE,
        summary="Nodes come back from every gateway.",
        description=(
            '{{ $value | printf "%.0f" }} nodes or more came back to ask again within 5 minutes of being sent to a '
            f"gateway, all within {settings.span(WINDOW)}, and no gateway keeps most of its nodes. They have no tunnel "
            "and no mesh. First check what all gateways share: a firewall, the uplink, their WireGuard keys, the "
            "firmware."
        ),
    )


def _black_hole(settings: Settings) -> Alert:
    """A gateway without handshakes has the fewest peers, so nodes are sent there first."""
    on = settings.on("job", "worker")
    memory = settings.window(settings.nodes_memory)
    return Alert(
        name=_BLACK_HOLE,
        severity="warning",
        expr=(
            f"{RETURNED_RATIO} > {settings.returned_ratio:g}\n"
            f"and {on} {RETURNED} >= {settings.nodes_min}\n"
            f"unless {on} ({RETURNED} < {on} {settings.nodes_part:g} * max_over_time({PEERS}[{memory}]))"
        ),
        hold="5m",
        keep=_PAUSE,
        summary="Most nodes come back from a gateway.",
        description=(
            "{{ $value | humanizePercentage }} of the nodes that were sent to gateway {{ $labels.worker }} asked again "
            "within 5 minutes: they got no tunnel there. They are sent to another gateway then, minutes late. First "
            "check from outside whether UDP reaches the gateway's WireGuard ports."
        ),
    )


def _no_new_sessions(settings: Settings) -> Alert:
    """For the window and the hold no session begins: longer than a node is counted that came and connected.

    So nodes that come all at once, and connect, fire nothing in the silence that follows. A gateway whose worker is not
    scraped has no sessions to compare, and alerts of its own.
    """
    window, memory = settings.window(settings.sessions_window), settings.window(settings.nodes_memory)
    on = settings.on("job", "worker")
    started = f"increase(wgkex_worker_peer_sessions_started_total{{{settings.worker}}}[{window}])"
    return Alert(
        name="WgkexNoNewSessions",
        severity="warning",
        expr=(
            f"{ASSIGNED} >= {settings.nodes_min}\n"
            f"unless {on} ({ASSIGNED} < {on} {settings.nodes_part:g} * max_over_time({PEERS}[{memory}]))\n"
            f"and {settings.on('worker')} (\n"
            f"  max_over_time(wgkex_worker_info{{{settings.worker}}}[{settings.window(settings.gap)}])\n"
            f"  * {settings.on('job', 'instance')} group_left ()\n"
            f"  sum {settings.by('job', 'instance')} ({started})\n"
            "  == 0\n"
            ")"
        ),
        hold="10m",
        keep=_PAUSE,
        summary="Nodes are sent to a gateway, and none connects.",
        description=(
            '{{ $value | printf "%.0f" }} nodes were sent to gateway {{ $labels.worker }} within '
            f"{settings.span(WINDOW)}, and no session began there. They have no tunnel until they are sent elsewhere. "
            "First check on the gateway whether packets reach its WireGuard ports, then whether peers are installed."
        ),
    )


def _vxlan_silent(settings: Settings) -> Alert:
    """Batman-adv sends some packets each second in both directions. A canary alone is no mesh, hence the minimum."""
    gap = settings.window(settings.gap)
    selector = f'{{{settings.worker}, interface=~"vx-.*"}}[{gap}]'

    def silent(counter: str, direction: str) -> str:
        return f'label_replace(increase({counter}{selector}) == 0, "direction", "{direction}", "", "")'

    active = f'min_over_time(wgkex_worker_peers{{{settings.worker}, state="active"}}[{gap}])'
    return Alert(
        name="WgkexVxlanSilent",
        severity="warning",
        expr=(
            "(\n"
            f"  {silent('wgkex_worker_interface_receive_bytes_total', 'in')}\n"
            "  or\n"
            f"  {silent('wgkex_worker_interface_transmit_bytes_total', 'out')}\n"
            ")\n"
            f"and {settings.on('job', 'instance', 'domain')} {active} >= {settings.vxlan_min_peers}"
        ),
        hold="10m",
        summary="Active peers, and nothing over VXLAN.",
        description=(
            "On {{ $labels.instance }} nodes of domain {{ $labels.domain }} have a tunnel, and {{ $labels.interface }} "
            "carries nothing in the direction {{ $labels.direction }}. Users have no mesh, though all looks well. "
            "First check whether {{ $labels.interface }} is in the batman-adv interface, then its port and FDB entries."
        ),
    )
