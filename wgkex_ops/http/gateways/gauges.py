"""Sets the gauges of the gateways from what is known of them."""

import time
from collections.abc import Collection

from wgkex_ops.http.gateways.confirmations import UnconfirmedKeys
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.gateways.silence import Silences
from wgkex_ops.metrics.broker import GatewayMetrics, NodeMetrics, ReceiptMetrics


class GatewayGauges:
    """Brings the gauges up to date for each scrape.

    Args:
        gateways: what is known.
        keys: the keys that receipts are awaited for.
        silences: the gateways that send none.
        domains: names of the configured domains.
        gateway_metrics: the instruments of the gateways.
        receipt_metrics: the instruments of the receipts.
        node_metrics: the instruments of the nodes.
    """

    def __init__(
        self,
        gateways: Gateways,
        keys: UnconfirmedKeys,
        silences: Silences,
        *,
        domains: Collection[str],
        gateway_metrics: GatewayMetrics,
        receipt_metrics: ReceiptMetrics,
        node_metrics: NodeMetrics,
    ) -> None:
        self._gateways = gateways
        self._keys = keys
        self._silences = silences
        self._domains = domains
        self._gateway_metrics = gateway_metrics
        self._receipt_metrics = receipt_metrics
        self._node_metrics = node_metrics

    async def refresh(self) -> None:
        """Set all gauges; those of unlisted workers to their sums, under one label."""
        self._gateway_metrics.brokers_online.set(self._gateways.brokers_online)
        self._receipt_metrics.awaiting.set(self._keys.awaiting)
        by_label: dict[str, list[str]] = {}
        for worker in self._gateways.workers:
            by_label.setdefault(self._gateways.label(worker), []).append(worker)
        targets = self._gateways.targets()
        for label, workers in by_label.items():
            self._set(label, workers, sum(targets[worker] for worker in workers))

    def _set(self, label: str, workers: Collection[str], target: float) -> None:
        metrics = self._gateway_metrics
        metrics.add_worker(label)
        self._receipt_metrics.add_worker(label)
        self._node_metrics.add_worker(label)
        self._receipt_metrics.confirming.labels(label).set(self._silences.silent.isdisjoint(workers))
        gateways = [self._gateways.workers[worker] for worker in workers]
        metrics.online.labels(label).set(sum(gateway.online for gateway in gateways))
        metrics.target_peers.labels(label).set(target)
        epoch = time.time() - time.monotonic()
        last_seen = (epoch + gateway.last_seen for gateway in gateways if gateway.last_seen is not None)
        metrics.last_seen.labels(label).set(max(last_seen, default=0))
        for domain in self._domains:
            metrics.peers.labels(label, domain).set(sum(gateway.peers_in(domain) for gateway in gateways))
