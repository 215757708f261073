"""WGKex / Peers: single peers by their friendly names, where metrics.per_peer is on."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import colours
from grafana.page import Section, dashboard
from grafana.panels import SMALL, Head, lines, stat, table
from grafana.queries import PROCESS, by, named, rate, series, top_of_range, whole_range
from grafana.styles import bad_from, override, steps
from grafana.targets import column, line, number
from grafana.variables import INTERFACE

_INTERFACE = 'interface=~"$interface"'
_HANDSHAKE = "wireguard_peer_last_handshake_timestamp_seconds"
_FROM_PEERS = "wireguard_peer_receive_bytes_total"
_TO_PEERS = "wireguard_peer_transmit_bytes_total"
_KEY = "job, instance, interface, public_key"
_MANY = 10


def _names() -> str:
    """Every peer with a name: the public key where it has none."""
    named = series("wireguard_peer_info", _INTERFACE, 'name!=""')
    nameless = series("wireguard_peer_info", _INTERFACE, 'name=""')
    return f'({named} or label_replace({nameless}, "name", "$1", "public_key", "(.+)"))'


def _or_none(expression: str) -> str:
    """0 where metrics.per_peer is on and there are no peers; no data where it is off."""
    return f"{expression} or 0 * {by('', series('wgkex_worker_peer_series_suppressed'))}"


def _with_name(expression: str, info: str) -> str:
    return f"{expression} * on ({_KEY}) group_left (name) {info}"


def _named(expression: str, operation: str = "sum") -> str:
    return by("name", _with_name(expression, _names()), operation)


def _busiest(counter: str) -> str:
    """The peers with the most traffic in the time that is shown."""
    traffic = _named(rate(counter, _INTERFACE))
    return top_of_range(_MANY, traffic, whole_range(traffic))


def _most_silent() -> str:
    """The peers that are silent longest at the end of the time that is shown."""
    handshake = series(_HANDSHAKE, _INTERFACE)
    now = f"last_over_time(({_named(f'(time() - {handshake})', 'min')})[$__interval:] @ end())"
    return top_of_range(_MANY, _named(f"(time() - {handshake})", "min"), now)


def _state() -> Section:
    handshake = series(_HANDSHAKE, _INTERFACE)
    return Section(
        "State",
        [
            stat(
                Head(
                    "Peers shown",
                    "Peers that have series of their own. None: set metrics.per_peer on the workers, or check whether"
                    " the interface chosen above exists on the chosen gateways.",
                    "none",
                    4,
                    SMALL,
                ),
                [number(_or_none(f"count({series('wireguard_peer_info', _INTERFACE)})"), "peers")],
                steps(colours.NEUTRAL),
            ),
            stat(
                Head(
                    "Peers left out",
                    "Peers beyond metrics.per_peer_limit, of all interfaces; peers with a name come first. More than"
                    " 0: raise the limit if Prometheus can store it, or give names to the peers that matter to you.",
                    "none",
                    4,
                    SMALL,
                ),
                [number(by("", series("wgkex_worker_peer_series_suppressed")), "left out")],
                bad_from(warning=1),
            ),
            stat(
                Head(
                    "Live tunnels",
                    "Peers with a handshake within 180 s. It falls: find them in the table, sorted by the last"
                    " handshake.",
                    "none",
                    4,
                    SMALL,
                ),
                [number(_or_none(f"sum(time() - {handshake} < bool 180)"), "live")],
                steps(colours.CRITICAL, (1, colours.GOOD)),
            ),
            stat(
                Head(
                    "Silent tunnels",
                    "Peers that once had a handshake, but none within 180 s: nodes that are off, or do not reach the"
                    " gateway. Many at once: check the uplink.",
                    "none",
                    4,
                    SMALL,
                ),
                [number(_or_none(f"sum(time() - {handshake} >= bool 180)"), "silent")],
                steps(colours.GOOD, (1, colours.WARNING)),
            ),
            stat(
                Head(
                    "From all peers",
                    "What the gateways receive through the tunnels: the uploads of the mesh. Near the capacity of an"
                    " uplink: find the busiest peers below.",
                    "Bps",
                    4,
                    SMALL,
                ),
                [number(_or_none(by("", rate(_FROM_PEERS, _INTERFACE))), "from peers")],
                steps(colours.NEUTRAL),
            ),
            stat(
                Head(
                    "To all peers",
                    "What the gateways send through the tunnels: the downloads of the mesh. Near the capacity of an"
                    " uplink: find the busiest peers below.",
                    "Bps",
                    4,
                    SMALL,
                ),
                [number(_or_none(by("", rate(_TO_PEERS, _INTERFACE))), "to peers")],
                steps(colours.NEUTRAL),
            ),
        ],
        open=True,
    )


def _traffic() -> Section:
    return Section(
        "Traffic and handshakes",
        [
            lines(
                Head(
                    "From peers, the ten busiest",
                    "What the gateways receive from the ten peers that send most in the time shown, by friendly name."
                    " One that leads for days: ask its owner, or distribute its nodes.",
                    "Bps",
                ),
                [line(_busiest(_FROM_PEERS), "{{name}}")],
            ),
            lines(
                Head(
                    "To peers, the ten busiest",
                    "What the gateways send to the ten peers that receive most in the time shown, by friendly name. One"
                    " that leads for days: ask its owner, or distribute its nodes.",
                    "Bps",
                ),
                [line(_busiest(_TO_PEERS), "{{name}}")],
            ),
            lines(
                Head(
                    "Oldest handshakes, ten peers",
                    "The ten peers that are silent longest at the end of the time shown, by friendly name. If one of"
                    " them matters to you, visit its node. The line is 180 s.",
                    "s",
                ),
                [line(_most_silent(), "{{name}}")],
                thresholds=bad_from(warning=180),
            ),
        ],
        open=True,
    )


def _table() -> Section:
    labels = f"name, {PROCESS}, interface, public_key"
    info = series("wireguard_peer_info", _INTERFACE)
    return Section(
        "Every peer",
        [
            table(
                Head(
                    "Peers",
                    "Every peer with its last handshake and its traffic, the longest silent first. A peer without an"
                    " age never had a handshake. The same key on several gateways is normal: the node uses one.",
                    "Bps",
                    24,
                    14,
                ),
                {
                    "Last handshake": column(
                        by(
                            labels,
                            named(_with_name(f"(time() - {series(_HANDSHAKE, _INTERFACE)})", info), "worker"),
                            "min",
                        )
                    ),
                    "From peer": column(by(labels, named(_with_name(rate(_FROM_PEERS, _INTERFACE), info), "worker"))),
                    "To peer": column(by(labels, named(_with_name(rate(_TO_PEERS, _INTERFACE), info), "worker"))),
                },
                {"name": "Name", PROCESS: "Gateway", "interface": "Interface", "public_key": "Public key"},
                overrides=[
                    override(
                        "Last handshake",
                        unit="s",
                        decimals=0,
                        thresholds=bad_from(warning=180),
                        custom_cellOptions={"type": "color-text"},
                    )
                ],
                sort="Last handshake",
                descending=True,
            )
        ],
    )


def build() -> Dashboard:
    """For operators of single nodes."""
    return dashboard(
        "wgkex-peers",
        "Peers",
        "Single peers by friendly name; shows nothing unless metrics.per_peer is set on the workers.",
        [_state(), _traffic(), _table()],
        [INTERFACE],
    )
