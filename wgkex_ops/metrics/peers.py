"""Series of single peers: opt-in, and never more of them than configured."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import Peer, Snapshot

_LABELS: Final = ("interface", "public_key")


class PeerSeries:
    """Makes the series. There is no endpoint in them: it is personal data, and changes all the time.

    Args:
        limit: how many peers of a domain get series; more of them make Prometheus slow.
        names: reads the friendly names by key (32 bytes).
    """

    def __init__(self, limit: int, names: Callable[[], Mapping[bytes, str]]) -> None:
        self._limit = limit
        self._names = names

    def families(self, snapshot: Snapshot, domains: Sequence[Domain]) -> list[Metric]:
        """The metric families for a snapshot."""
        suppressed = GaugeMetricFamily(
            "wgkex_worker_peer_series_suppressed",
            "Peers that have no series of their own, because there are more than metrics.per_peer_limit.",
            labels=["domain"],
        )
        info = GaugeMetricFamily(
            "wireguard_peer_info",
            "Always 1; the friendly name of a peer, empty if it has none.",
            labels=[*_LABELS, "name"],
        )
        handshake = GaugeMetricFamily(
            "wireguard_peer_last_handshake_timestamp_seconds",
            "When a peer's last handshake was; absent if it never had one.",
            labels=_LABELS,
        )
        received = CounterMetricFamily(
            "wireguard_peer_receive_bytes", "Bytes received from a peer through its tunnel.", labels=_LABELS
        )
        sent = CounterMetricFamily(
            "wireguard_peer_transmit_bytes", "Bytes sent to a peer through its tunnel.", labels=_LABELS
        )
        names = self._names()
        for domain in domains:
            peers = snapshot.domains[domain.name].peers
            shown = self._choose(peers, names)
            suppressed.add_metric([domain.name], len(peers) - len(shown))
            for peer in shown:
                labels = [domain.wg, str(PublicKey(peer.public_key))]
                info.add_metric([*labels, names.get(peer.public_key, "")], 1)
                if peer.handshake:
                    handshake.add_metric(labels, peer.handshake)
                received.add_metric(labels, peer.receive_bytes)
                sent.add_metric(labels, peer.transmit_bytes)
        return [suppressed, info, handshake, received, sent]

    def _choose(self, peers: Sequence[Peer], names: Mapping[bytes, str]) -> Sequence[Peer]:
        """Those with a name first, as an operator cares for them; then in the kernel's order, which changes little."""
        if len(peers) <= self._limit:
            return peers
        return sorted(peers, key=lambda peer: peer.public_key not in names)[: self._limit]
