"""TLS towards the MQTT server."""

import ssl

from wgkex_ops.config import TlsConfig


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
