"""What people and monitoring see of `wgkex-ops status`."""

from collections.abc import Mapping
from typing import Final

from wgkex_ops.cli.terminal import Shown, coloured, shown_together, table
from wgkex_ops.model.fleet import FleetStatus, GatewayState, GatewayStatus, Severity
from wgkex_ops.model.words import count, duration, things, visible

_STATES: Final[Mapping[GatewayState, tuple[str, Severity]]] = {
    "online": ("online", Severity.OK),
    "draining": ("draining", Severity.OK),
    "partly": ("not all domains", Severity.WARNING),
    "silent": ("confirms nothing", Severity.WARNING),
    "offline": ("offline", Severity.WARNING),
    "unheard": ("not heard of", Severity.WARNING),
}
_GAP: Final = 3  # between two columns
_FIGURES: Final = frozenset(("Peers", "Target", "Gateways"))


def status_tables(status: FleetStatus, width: int) -> Shown:
    """The tables, and what is wrong below them, for a terminal of so many columns."""
    domains = table("Domain", "Gateways", "Peers", right=_FIGURES)
    for domain in status.domains:
        severity = Severity.OK if domain.gateways else Severity.CRITICAL
        domains.add_row(visible(domain.name), coloured(count(domain.gateways), severity), count(domain.peers))
    brokers = table("Broker", "State", "Version")
    for broker in status.brokers:
        state = coloured("online", Severity.OK) if broker.online else coloured("offline", Severity.WARNING)
        brokers.add_row(visible(broker.name), state, broker.version or "-")
    problems = [
        coloured(f"{Severity(one.severity).name}: {one.text}", Severity(one.severity)) for one in status.problems
    ]
    head = coloured(f"{Severity(status.severity).name}: {_summary(status)}", Severity(status.severity))
    source = f"As {visible(status.source)} knows it."
    below = [""] if problems else []
    return shown_together([head, source, "", _gateways(status, width), "", domains, "", brokers, *below, *problems])


def _gateways(status: FleetStatus, width: int) -> Shown:
    """The gateways' table. Where it is too wide, it goes without what matters least; a longer name is folded."""
    columns = {
        "Gateway": [visible(gateway.name) for gateway in status.gateways],
        "State": [_STATES[gateway.state][0] for gateway in status.gateways],
        "Peers": [count(gateway.peers) for gateway in status.gateways],
        "Target": [count(gateway.target) for gateway in status.gateways],
        "Confirms": ["yes" if gateway.confirming else "no" for gateway in status.gateways],
        "Version": [gateway.version or "-" for gateway in status.gateways],
        "Heard": [
            "-" if gateway.last_heard is None else duration(status.at - gateway.last_heard)
            for gateway in status.gateways
        ],
    }
    for least in ("Confirms", "Version", "Heard"):
        if sum(max(map(len, (heading, *cells))) + _GAP for heading, cells in columns.items()) > width:
            del columns[least]
    made = table(*columns, right=_FIGURES)
    for row, gateway in enumerate(status.gateways):
        cells = {heading: texts[row] for heading, texts in columns.items()}
        made.add_row(
            *(
                coloured(text, _STATES[gateway.state][1]) if heading == "State" else text
                for heading, text in cells.items()
            )
        )
    return made


def nagios_line(status: FleetStatus) -> str:
    """A plugin's line, with performance data, which a bar begins."""
    texts = visible("; ".join(problem.text for problem in status.problems) or _summary(status)).replace("|", "/")
    line = f"WGKEX {Severity(status.severity).name} - {texts}"
    if status.severity == Severity.UNKNOWN:
        # A graph would show that all have gone.
        return line
    online = sum(map(_is_online, status.gateways))
    figures = f"gateways_online={online} gateways={len(status.gateways)} peers={_peers(status)}"
    return f"{line} | {figures}"


def _summary(status: FleetStatus) -> str:
    if status.severity == Severity.UNKNOWN:
        return "which gateways are online is not known yet"
    online = sum(map(_is_online, status.gateways))
    draining = [gateway.name for gateway in status.gateways if gateway.state == "draining"]
    drained = f", draining: {', '.join(draining)}" if draining else ""
    gateways, peers = things(len(status.gateways), "gateway"), things(_peers(status), "peer")
    return f"{count(online)} of {gateways} online, {peers}{drained}"


def _is_online(gateway: GatewayStatus) -> bool:
    return gateway.state not in ("offline", "unheard")


def _peers(status: FleetStatus) -> int:
    return sum(gateway.peers for gateway in status.gateways)
