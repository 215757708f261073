"""TLS of a listener with certificates that are renewed while it serves."""

import ssl
from collections.abc import Callable
from typing import Self


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
