"""Metrics of peers and interfaces, made anew from a snapshot of the dataplane for each scrape."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeHistogramMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from wgkex_ops.errors import DataplaneError
from wgkex_ops.metrics.peers import PeerSeries
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import STATES, Snapshot, find_incomplete, handshake_age, peer_state

AGE_BUCKETS: Final = (30, 60, 120, 180, 300, 600, 1800, 3600, 10_800, 86_400)

_COLLECTOR: Final = "wireguard"


class WireGuardCollector(Collector):
    """Shows what a snapshot has. Knows no netlink: it is given a function that reads one.

    Args:
        read: reads a snapshot; a DataplaneError shows as a failed collector.
        domains: the configured domains.
        stale_after: the age of a handshake, in seconds, at which the cleanup removes a peer.
        peer_series: makes series of single peers; None for none.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Snapshot]],
        domains: Sequence[Domain],
        *,
        stale_after: float,
        peer_series: PeerSeries | None = None,
    ) -> None:
        self._read = read
        self._domains = domains
        self._stale_after = stale_after
        self._peer_series = peer_series
        self._snapshot: Snapshot | None = None
        self._seconds = 0.0

    async def refresh(self) -> None:
        """Read a new snapshot, off the event loop, for the scrape that follows. Never raises for the dataplane."""
        start = time.perf_counter()
        try:
            self._snapshot = await self._read()
        except DataplaneError:
            # Old numbers would look like a healthy gateway.
            self._snapshot = None
        self._seconds = time.perf_counter() - start

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families; only those of the collector itself when the snapshot could not be read."""
        # Another scrape may bring another snapshot meanwhile, from another thread.
        snapshot, seconds = self._snapshot, self._seconds
        success = GaugeMetricFamily(
            "wgkex_worker_collector_success",
            "1 if the collector could read the kernel for this scrape; at 0 the metrics of peers are missing.",
            labels=["collector"],
        )
        success.add_metric([_COLLECTOR], 0.0 if snapshot is None else 1.0)
        yield success
        duration = GaugeMetricFamily(
            "wgkex_worker_collector_duration_seconds",
            "How long the collector took to read the kernel for this scrape.",
            labels=["collector"],
        )
        duration.add_metric([_COLLECTOR], seconds)
        yield duration
        if snapshot is not None:
            yield from self._peer_families(snapshot)
            yield from self._interface_families(snapshot)
            yield from self._traffic_families(snapshot)
            yield self._drift_family(snapshot)
            if self._peer_series is not None:
                yield from self._peer_series.families(snapshot, self._domains)

    def describe(self) -> Iterator[Metric]:
        """Nothing is read when the collector is registered."""
        yield from ()

    def _peer_families(self, snapshot: Snapshot) -> Iterator[Metric]:
        peers = GaugeMetricFamily(
            "wgkex_worker_peers",
            "WireGuard peers by state: active had a handshake within 180 s, idle within the stale limit, stale before "
            "that, never had none yet.",
            labels=["domain", "state"],
        )
        ages = GaugeHistogramMetricFamily(
            "wgkex_worker_peer_handshake_age_seconds",
            "Ages of the peers' last handshakes right now, without peers that never had one.",
            labels=["domain"],
        )
        newest = GaugeMetricFamily(
            "wgkex_worker_newest_handshake_timestamp_seconds",
            "When the latest handshake of any peer was; absent while there was none.",
            labels=["domain"],
        )
        for domain in self._domains:
            listed = snapshot.domains[domain.name].peers
            known = [age for peer in listed if (age := handshake_age(peer, snapshot.taken_at)) is not None]
            states = Counter(peer_state(age, self._stale_after) for age in known)
            states["never"] = len(listed) - len(known)
            for state in STATES:
                peers.add_metric([domain.name, state], states[state])
            ages.add_metric([domain.name], buckets=_buckets(known), gsum_value=sum(known))
            if known:
                newest.add_metric([domain.name], max(peer.handshake for peer in listed))
        yield from (peers, ages, newest)

    def _interface_families(self, snapshot: Snapshot) -> Iterator[Metric]:
        routes = GaugeMetricFamily(
            "wgkex_worker_routes",
            "Routes to peers that this service has put there, known by their protocol number.",
            labels=["domain"],
        )
        fdb_entries = GaugeMetricFamily(
            "wgkex_worker_fdb_entries",
            "VXLAN FDB entries towards these peers; as many as routes if nothing is amiss.",
            labels=["domain"],
        )
        up = GaugeMetricFamily(
            "wgkex_worker_interface_up",
            "1 if a domain's WireGuard or VXLAN interface is there and up; at 0 its nodes have no mesh here.",
            labels=["domain", "interface"],
        )
        for domain in self._domains:
            state = snapshot.domains[domain.name]
            routes.add_metric([domain.name], len(state.routes))
            fdb_entries.add_metric([domain.name], len(state.fdb_entries & state.routes))
            up.add_metric([domain.name, domain.wg], float(state.wg_up))
            up.add_metric([domain.name, domain.vx], float(state.vx_up))
        yield from (routes, fdb_entries, up)

    def _traffic_families(self, snapshot: Snapshot) -> Iterator[Metric]:
        received = CounterMetricFamily(
            "wgkex_worker_interface_receive_bytes",
            "Bytes received over a domain's WireGuard or VXLAN interface. Active peers and nothing over VXLAN: their "
            "nodes have a tunnel and no mesh. Absent while there is no such interface; it begins anew with each one.",
            labels=["domain", "interface"],
        )
        sent = CounterMetricFamily(
            "wgkex_worker_interface_transmit_bytes",
            "Bytes sent over a domain's WireGuard or VXLAN interface. Absent while there is no such interface; it "
            "begins anew with each one.",
            labels=["domain", "interface"],
        )
        for domain in self._domains:
            state = snapshot.domains[domain.name]
            for interface, traffic in ((domain.wg, state.wg_traffic), (domain.vx, state.vx_traffic)):
                if traffic is not None:
                    received.add_metric([domain.name, interface], traffic.receive_bytes)
                    sent.add_metric([domain.name, interface], traffic.transmit_bytes)
        yield from (received, sent)

    def _drift_family(self, snapshot: Snapshot) -> Metric:
        incomplete = GaugeMetricFamily(
            "wgkex_worker_incomplete_peers",
            "Peers of this service that lack a part. Without route or FDB entry a node has no mesh here; without "
            "the peer itself, a route is left over that leads to no peer. The worker repairs them within a minute.",
            labels=["domain", "missing"],
        )
        found = find_incomplete(snapshot)
        for domain in self._domains:
            drift = found[domain.name]
            for missing, addresses in (("peer", drift.peer), ("route", drift.route), ("fdb", drift.fdb)):
                incomplete.add_metric([domain.name, missing], len(addresses))
        return incomplete


def _buckets(ages: Sequence[float]) -> list[tuple[str, float]]:
    """Cumulative buckets with inclusive upper bounds, as exposition formats have them."""
    counts = [0] * (len(AGE_BUCKETS) + 1)
    for age in ages:
        counts[bisect_left(AGE_BUCKETS, age)] += 1
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*(f"{bound}.0" for bound in AGE_BUCKETS), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
