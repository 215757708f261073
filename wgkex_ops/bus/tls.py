"""TLS towards the MQTT server, and when its certificate expires; cryptography decodes that."""

import asyncio
import ssl

import structlog
from cryptography import x509

from wgkex_ops.config import TlsConfig
from wgkex_ops.metrics.mqtt import MqttMetrics

_log = structlog.get_logger(__name__)


def ssl_context(config: TlsConfig) -> ssl.SSLContext:
    """Read the certificates; done for each connection, so that renewed ones are used without a restart.

    Raises:
        OSError: a file is missing or is not what it should be (ssl.SSLError is an OSError).
    """
    context = ssl.create_default_context(cafile=config.ca_file)
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.cert_file is not None:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(config.cert_file, config.key_file, password="")
    return context


def show_certificate(transport: asyncio.BaseTransport, metrics: MqttMetrics) -> None:
    """Show until when the certificate of a new connection's server is valid; nothing without TLS."""
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return
    # Decoded, Python has it only where it is verified.
    encoded = tls.getpeercert(binary_form=True)
    try:
        expiry = x509.load_der_x509_certificate(encoded).not_valid_after_utc.timestamp()
    except (TypeError, ValueError, x509.InvalidVersion) as error:
        # OpenSSL accepts some that are not as they should be, and the connection works.
        _log.warning("mqtt_certificate_unreadable", detail=str(error))
        expiry = None
    metrics.certificate_expiry.set(expiry)
