"""What is shown of the certificate of the MQTT server. Real ones are in the tests with a real server."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from wgkex_ops.bus.tls import show_certificate
from wgkex_ops.metrics.mqtt import MqttMetrics

EXPIRY = "wgkex_mqtt_certificate_expiry_timestamp_seconds"


class Tls:
    """Of a connection whose server has shown some bytes, or nothing."""

    def __init__(self, shown: bytes | None) -> None:
        self._shown = shown

    def getpeercert(self, *, binary_form: bool) -> bytes | None:
        assert binary_form
        return self._shown


@pytest.mark.parametrize("shown", [None, b"", b"0\x03\x02\x01\x00", b"nonsense"])
def test_a_certificate_that_cannot_be_decoded_is_logged_and_has_no_expiry(shown: bytes | None) -> None:
    registry = CollectorRegistry()
    metrics = MqttMetrics(registry)
    metrics.certificate_expiry.set(1_800_000_000.0)
    with capture_logs() as logs:
        show_certificate(asyncio.BaseTransport({"ssl_object": Tls(shown)}), metrics)
    assert [line["event"] for line in logs] == ["mqtt_certificate_unreadable"]
    assert registry.get_sample_value(EXPIRY) is None


def test_a_connection_without_tls_shows_nothing() -> None:
    registry = CollectorRegistry()
    with capture_logs() as logs:
        show_certificate(asyncio.BaseTransport(), MqttMetrics(registry))
    assert logs == []
    assert registry.get_sample_value(EXPIRY) is None
