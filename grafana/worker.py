"""WGKex / Worker: keys from the bus to the kernel, and the kernel's peers."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import nodes, shared, worker_keys, worker_peers, worker_upkeep
from grafana.page import Section, dashboard
from grafana.panels import SMALL, Head, lines, stat, timeline
from grafana.queries import LIMITS, PROCESS, by, named, rate, series
from grafana.styles import bad_from, up_or_down
from grafana.targets import line, number


def _state() -> Section:
    success = series("wgkex_worker_collector_success")
    return Section(
        "State",
        [
            shared.targets_up(
                "worker",
                "Workers",
                "Workers that answer Prometheus, and those that did within a day but do not now. A gateway without its"
                " worker keeps its tunnels, but takes no new nodes. See WgkexTargetDown in the runbook.",
            ),
            shared.mqtt_connected("worker"),
            stat(
                Head(
                    "Fullest queue",
                    "How full the queue of keys that wait for the kernel is, on the worst gateway. Over 80 %: the"
                    " kernel does not keep up. See the operations below, and WgkexQueueNearFull in the runbook.",
                    "percentunit",
                    4,
                    SMALL,
                ),
                [
                    number(
                        f"max({series('wgkex_worker_queue_length')} / {series('wgkex_worker_queue_capacity')})",
                        "fullest",
                    )
                ],
                bad_from(warning=LIMITS.queue_ratio),
                decimals=1,
            ),
            stat(
                Head(
                    "Incomplete peers",
                    "Peers that lack a part in the kernel: WireGuard peer, route or FDB entry. Their nodes have no"
                    " mesh until the worker repairs them, once a minute. More than 0 for minutes: see"
                    " WgkexPeersIncomplete in the runbook.",
                    "none",
                    4,
                    SMALL,
                ),
                [number(by("", series("wgkex_worker_incomplete_peers")), "incomplete")],
                bad_from(warning=1),
                decimals=0,
            ),
            stat(
                Head(
                    "Keys given up",
                    "Keys per second that could not be installed after all attempts. Their nodes have no tunnel until"
                    " they send their key again. More than 0: see the failed operations by error below.",
                    "cps",
                    4,
                    SMALL,
                ),
                [number(by("", rate("wgkex_worker_peer_install_failures_total")), "given up")],
                bad_from(critical=0.001),
            ),
            shared.good_and_bad(
                Head(
                    "Collectors",
                    "Collectors that could read the kernel for the last scrape. If one fails, the metrics of peers are"
                    " blind: check the worker's log. See WgkexCollectorFailing in the runbook.",
                    "none",
                    4,
                    SMALL,
                ),
                ("working", f"sum({success})"),
                ("failing", f"count({success}) - sum({success})"),
            ),
            worker_keys.outcomes(),
            nodes.sessions(),
            shared.peers_by_state(8),
        ],
        open=True,
    )


def _by_collector(name: str, operation: str) -> str:
    return by(f"{PROCESS}, collector", named(series(name), "worker"), operation)


def _collectors() -> Section:
    return Section(
        "Collectors",
        [
            timeline(
                Head(
                    "Collectors",
                    "Whether the collector could read the kernel for each scrape. While it fails, the panels of peers"
                    " have gaps and their alerts are blind: check the worker's log.",
                    "none",
                    12,
                ),
                [
                    line(
                        _by_collector("wgkex_worker_collector_success", "min"),
                        "{{process}} {{collector}}",
                    )
                ],
                up_or_down("working", "failing"),
            ),
            lines(
                Head(
                    "Duration of collecting",
                    "How long reading the kernel took for a scrape. It grows with the number of peers. Near the"
                    " scrape_timeout of Prometheus (10 s by default): raise that, or scrape less often.",
                    "s",
                    12,
                ),
                [
                    line(
                        _by_collector("wgkex_worker_collector_duration_seconds", "max"),
                        "{{process}} {{collector}}",
                    )
                ],
            ),
        ],
    )


def build() -> Dashboard:
    """For operators of gateways."""
    return dashboard(
        "wgkex-worker",
        "Worker",
        "Keys on their way from MQTT to the kernel, and the peers in the kernel.",
        [
            _state(),
            worker_keys.intake(),
            worker_keys.propagation(),
            worker_keys.kernel(),
            worker_peers.peers(),
            worker_peers.connectivity(),
            worker_peers.completeness(),
            worker_upkeep.cleanup(),
            worker_upkeep.memory(),
            _collectors(),
        ],
    )
