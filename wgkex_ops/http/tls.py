"""TLS of a listener with certificates that are renewed while it serves."""

import ssl
from collections.abc import Callable
from typing import Self

import structlog

from wgkex_ops.config import ServerTls, file_version
from wgkex_ops.errors import ConfigError

_log = structlog.get_logger(__name__)


class NewestContext(ssl.SSLContext):
    """Gives each new connection the newest context, where asyncio wants one context for all connections.

    Args:
        newest: called for each connection; must not raise.
    """

    def __new__(cls, newest: Callable[[], ssl.SSLContext]) -> Self:  # noqa: ARG004  for __init__
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, newest: Callable[[], ssl.SSLContext]) -> None:
        super().__init__()
        self._newest = newest

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin the TLS of a connection."""
        return self._newest().wrap_bio(incoming, outgoing, server_side, server_hostname, session)


class Certificate:
    """A listener's certificate, read again when one of its files has changed. One that cannot be used changes nothing.

    Args:
        config: its files.
        setting: the name of their section, for messages.

    Attributes:
        context: for the listener.

    Raises:
        ConfigError: it cannot be used.
    """

    def __init__(self, config: ServerTls, setting: str) -> None:
        self._config = config
        self._setting = setting
        self._seen = self._versions()
        self._newest = config.ssl_context(setting)
        self.context = NewestContext(self._renewed)

    def _renewed(self) -> ssl.SSLContext:
        versions = self._versions()
        if versions != self._seen:
            self._seen = versions
            try:
                self._newest = self._config.ssl_context(self._setting)
            except ConfigError as error:
                _log.error("certificate_rejected", problems=list(error.problems), detail="the one before is used")
            else:
                _log.info("certificate_read", file=str(self._config.cert_file))
        return self._newest

    def _versions(self) -> tuple[object, object]:
        return file_version(self._config.cert_file), file_version(self._config.key_file)
