"""The instrument of the broker for nodes that name a location."""

from prometheus_client import CollectorRegistry, Counter


class LocationMetrics:
    """Whether nodes get a gateway where they would like to have one.

    Args:
        registry: where the instrument lives.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        preferences = Counter(
            "wgkex_broker_location_preferences",
            "Version 2 responses to nodes that named the location of a gateway: met if they got one there. Many unmet: "
            "the gateways of a location have more nodes than their share, or take none.",
            ["result"],
            registry=registry,
        )
        self._met, self._unmet = preferences.labels("met"), preferences.labels("unmet")

    def count(self, *, met: bool) -> None:
        """Count a response."""
        (self._met if met else self._unmet).inc()
