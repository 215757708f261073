"""TLS of our listeners: their certificates, in files that are renewed while a process runs."""

import ssl
from pathlib import Path

from wgkex_ops.config.fields import ReadableFile
from wgkex_ops.config.section import Section
from wgkex_ops.errors import ConfigError


class ServerTls(Section):
    """A certificate and its key, both PEM."""

    cert_file: ReadableFile
    key_file: ReadableFile

    def ssl_context(self, setting: str) -> ssl.SSLContext:
        """Read the certificate.

        Args:
            setting: the name of this section, for the message of an error.

        Raises:
            ConfigError: it cannot be used.
        """
        try:
            return server_context(self.cert_file, self.key_file)
        except OSError as error:  # SSLError is one
            raise ConfigError([f"{setting}: its files cannot be used: {error}"]) from error


def server_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """Make a listener's context, for TLS 1.2 and newer.

    Raises:
        OSError: a file is missing or is not what it should be (ssl.SSLError is an OSError).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Without a password OpenSSL would ask for one on the terminal.
    context.load_cert_chain(cert_file, key_file, password="")
    return context
