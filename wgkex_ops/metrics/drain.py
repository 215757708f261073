"""The instrument of a gateway that is taken out of service."""

from prometheus_client import CollectorRegistry, Gauge


class DrainMetrics:
    """Whether this gateway drains."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.draining = Gauge(
            "wgkex_worker_draining",
            "1 while this gateway drains: an operator has asked that brokers send no new nodes here "
            "(wgkex-ops undrain ends it).",
            registry=registry,
        )
