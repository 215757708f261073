"""Instruments of the session with the MQTT server."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

# Why an attempt to connect failed.
FAILURE_REASONS: Final = ("unreachable", "tls", "timed_out", "closed", "refused", "subscription_refused")


class CertificateExpiry(Collector):
    """A gauge without a series until it is set: 0 would be a certificate that has expired."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._expiry: float | None = None
        registry.register(self)

    def set(self, expiry: float | None) -> None:
        """Show another certificate: until when it is valid, in seconds since the epoch; None if that is not known."""
        self._expiry = expiry

    def collect(self) -> Iterator[Metric]:
        """Yield the family, with its one series if there is one."""
        family = GaugeMetricFamily(
            "wgkex_mqtt_certificate_expiry_timestamp_seconds",
            "Until when the certificate is valid that the MQTT server showed last; its issuers may expire before. "
            "After that no process can connect again. Absent without TLS.",
            labels=(),
        )
        if self._expiry is not None:
            family.add_metric((), self._expiry)
        yield family


class MqttMetrics:
    """The same for broker and worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connected = Gauge(
            "wgkex_mqtt_connected",
            "1 while the session with the MQTT server is up; at 0 this process can neither publish nor receive keys.",
            registry=registry,
        )
        self.connects = Counter(
            "wgkex_mqtt_connects", "Connections made with the MQTT server, the first one included.", registry=registry
        )
        self.disconnects = Counter(
            "wgkex_mqtt_disconnects",
            "Connections lost with the MQTT server; many of them mean a bad network, or two processes with one name.",
            registry=registry,
        )
        self.connection_failures = Counter(
            "wgkex_mqtt_connection_failures",
            "Attempts to connect to the MQTT server that failed, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in FAILURE_REASONS:
            self.connection_failures.labels(reason)
        self.publishes_in_flight = Gauge(
            "wgkex_mqtt_publishes_in_flight",
            "Messages sent to the MQTT server that it has not acknowledged yet; a plateau means that it hangs.",
            registry=registry,
        )
        self.messages_dropped = Counter(
            "wgkex_mqtt_messages_dropped",
            "Messages with QoS 0 that were dropped because more arrived than this process could handle.",
            registry=registry,
        )
        self.last_message_received = Gauge(
            "wgkex_mqtt_last_message_received_timestamp_seconds",
            "When the last message came from the MQTT server; 0 before the first one.",
            registry=registry,
        )
        self.certificate_expiry = CertificateExpiry(registry)
