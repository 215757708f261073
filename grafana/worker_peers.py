"""Rows of the worker's dashboard: the peers in the kernel."""

from grafana_foundation_sdk.models.dashboard import Panel

from grafana import shared
from grafana.page import Section
from grafana.panels import Head, heatmap, lines, timeline
from grafana.queries import PROCESS, age, by, by_process, increase, named, rate, series
from grafana.styles import bad_from, up_or_down
from grafana.targets import buckets, line

_AGES = "wgkex_worker_peer_handshake_age_seconds"
_USED = (
    f"{by('job, instance, domain', series('wgkex_worker_peers'))}"
    f" / on (job, instance, domain) {series('wgkex_worker_peers_limit')}"
)


def peers() -> Section:
    """Active peers, and their handshakes."""
    newest = age("wgkex_worker_newest_handshake_timestamp_seconds", labels="domain")
    return Section(
        "Peers",
        [
            lines(
                Head(
                    "Active peers by domain",
                    "Peers with a handshake within 180 s, over all gateways. One domain falls: check its nodes or its"
                    " interfaces. All fall: check the gateways' uplinks.",
                    "none",
                    12,
                ),
                [line(by("domain", series("wgkex_worker_peers", 'state="active"')), "{{domain}}")],
                stacked=True,
                decimals=0,
            ),
            lines(
                Head(
                    "Active peers by gateway",
                    "Peers with a handshake within 180 s. One gateway loses many at once: see WgkexWorkerPeersLost in"
                    " the runbook. They should appear on the others within minutes.",
                    "none",
                    12,
                ),
                [line(by_process(series("wgkex_worker_peers", 'state="active"'), "worker"), "{{process}}")],
                stacked=True,
                decimals=0,
            ),
            heatmap(
                Head(
                    "Age of handshakes",
                    "Time since the last handshakes of the peers at each moment, without those that never had one."
                    " Live tunnels are below 180 s. A band that climbs to the right: many nodes left together.",
                    "s",
                    12,
                ),
                buckets(by("le", series(f"{_AGES}_bucket"))),
            ),
            shared.ages(
                Head(
                    "Age of handshakes, quantiles",
                    "The same as p50 and p90. The line is 180 s, where a WireGuard session ends. p50 above it: half of"
                    " the peers have no tunnel, see WgkexHandshakesStale in the runbook.",
                    "s",
                    6,
                ),
                _AGES,
            ),
            lines(
                Head(
                    "Newest handshake by domain",
                    "Time since the latest handshake of any peer of the domain, on any gateway. With some dozens of"
                    " nodes it stays within seconds. It climbs: no node of this domain gets through.",
                    "s",
                    6,
                ),
                [line(newest, "{{domain}}")],
                thresholds=bad_from(warning=180),
            ),
            lines(
                Head(
                    "Used room",
                    "Peers of a domain on a gateway, of the worker.max_peers that it may have. Near 1 with few active"
                    " peers: somebody requests keys that no node has. See WgkexTableFull in the runbook.",
                    "percentunit",
                    8,
                ),
                [line(f"({named(_USED, 'worker')})", "{{process}} {{domain}}")],
                thresholds=bad_from(warning=0.9),
                maximum=1,
            ),
            lines(
                Head(
                    "Evicted",
                    "Peers that never connected and had to go for newer keys, as their domain has worker.max_peers of"
                    " them. See WgkexTableFull in the runbook.",
                    "none",
                    8,
                ),
                [line(by("domain", increase("wgkex_worker_peers_evicted_total")), "{{domain}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Draining",
                    "1 while an operator has taken a gateway out of service: brokers send no new nodes there. Over a"
                    " day: see WgkexDrainForgotten in the runbook.",
                    "none",
                    8,
                ),
                [line(named(series("wgkex_worker_draining"), "worker"), "{{process}}")],
                maximum=1,
                decimals=0,
            ),
        ],
    )


def connectivity() -> Section:
    """Which nodes connect, and what they exchange."""
    return Section(
        "Sessions and traffic",
        [
            lines(
                Head(
                    "Sessions that began",
                    "Peers that became active, by domain. At 0 while brokers assign nodes to these gateways: no node"
                    " gets through. Check the UDP port of WireGuard, and whether keys are installed.",
                    "none",
                ),
                [line(by("domain", increase("wgkex_worker_peer_sessions_started_total")), "{{domain}}")],
                decimals=0,
            ),
            _traffic("WireGuard", "wg", "All that nodes exchange with these gateways, the mesh included."),
            _traffic(
                "VXLAN",
                "vx",
                "The mesh inside of WireGuard. Active peers, and nothing here: nodes have a tunnel and no mesh. Check"
                " whether batman-adv has the interface, and whether a firewall drops VXLAN.",
            ),
        ],
    )


def _traffic(kind: str, prefix: str, meaning: str) -> Panel:
    interfaces = f'interface=~"{prefix}-.+"'
    received, sent = (
        by("domain", rate(f"wgkex_worker_interface_{direction}_bytes_total", interfaces))
        for direction in ("receive", "transmit")
    )
    return lines(
        Head(f"{kind} traffic", f"Bytes a second over the {kind} interfaces, by domain. {meaning}", "Bps"),
        [line(received, "{{domain}} received"), line(sent, "{{domain}} sent")],
    )


def completeness() -> Section:
    """Interfaces, and the parts that a peer needs."""
    return Section(
        "Interfaces, routes and FDB entries",
        [
            lines(
                Head(
                    "Peers, routes and FDB entries",
                    "Over all gateways and domains. The three lines should coincide. If one departs, nodes have a"
                    " tunnel but no mesh: see the missing parts to the right. A steady gap below peers: peers that are"
                    " not ours, static ones or those of the older wgkex.",
                    "none",
                ),
                [
                    line(by("", series("wgkex_worker_peers")), "peers"),
                    line(by("", series("wgkex_worker_routes")), "routes"),
                    line(by("", series("wgkex_worker_fdb_entries")), "FDB entries"),
                ],
                decimals=0,
            ),
            lines(
                Head(
                    "Incomplete peers by missing part",
                    "Peers that lack a part. route: another program, or networkd, removes routes that it does not"
                    " know. fdb: the VXLAN interface was created anew. See WgkexPeersIncomplete in the runbook.",
                    "none",
                ),
                [line(by("domain, missing", series("wgkex_worker_incomplete_peers")), "{{domain}} {{missing}}")],
                thresholds=bad_from(warning=1),
                stacked=True,
                decimals=0,
            ),
            timeline(
                Head(
                    "Interfaces",
                    "Each WireGuard and VXLAN interface on each gateway. Down: its nodes have no mesh there, bring it"
                    " up; the worker then goes on by itself. See WgkexInterfaceDown in the runbook.",
                    "none",
                ),
                [
                    line(
                        by(f"{PROCESS}, interface", named(series("wgkex_worker_interface_up"), "worker"), "min"),
                        "{{process}} {{interface}}",
                    )
                ],
                up_or_down(),
            ),
        ],
    )
