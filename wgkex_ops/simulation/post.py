"""POSTs keys as the wget of a node does, many at a time: with a form's content type, in chunks, a connection each.

The canary's client (`probe/post.py`) says more about what goes wrong, and takes three times as much processor time.
"""

import asyncio
import http.client
import io
import json
import resource
import ssl
import time
from typing import Final, NamedTuple, Protocol
from urllib.parse import urlsplit

# A node waits so many seconds.
RESPONSE_TIMEOUT: Final = 10.0
# Files that are no connections: of the event loop, of name resolution, and those that are being closed.
_OTHER_FILES: Final = 64
_FEWEST_CONNECTIONS: Final = 16


class Response(NamedTuple):
    """An HTTP response, and how many seconds it took, from before the connection to the last byte."""

    status: int
    body: bytes
    seconds: float


class Post(Protocol):
    """POSTs a key; raises OSError if there is no response, TimeoutError in time, ValueError if it is not HTTP."""

    async def __call__(self, api_version: int, domain: str, key: object, client: str) -> Response: ...


class BrokerClient:
    """POSTs keys to one broker.

    It seems to be a load balancer, behind which each node has an address of its own. A broker believes that of
    `broker.trusted_proxies`.

    Args:
        url: of the broker, without a path of ours.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (80 if self._tls is None else 443)
        self._path = parts.path.rstrip("/")
        self._headers = (
            f"Host: {parts.netloc}\r\n"
            "User-Agent: wgkex-ops-simulate\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            "Transfer-Encoding: chunked\r\n"
            "Connection: close\r\n"
        )
        # One more would fail, and not wait.
        self._free = asyncio.Semaphore(available_connections())

    async def __call__(self, api_version: int, domain: str, key: object, client: str) -> Response:
        """POST a key, as soon as this process may open one more connection; see `Post`.

        Args:
            api_version: 1 or 2.
            domain: the node's.
            key: the node's.
            client: the node's address.
        """
        body = json.dumps({"domain": domain, "public_key": str(key)}).encode()
        request = (
            f"POST {self._path}/api/v{api_version}/wg/key/exchange HTTP/1.1\r\n"
            f"{self._headers}X-Forwarded-For: {client}\r\n\r\n{len(body):x}\r\n"
        )
        async with self._free:
            began = time.perf_counter()
            async with asyncio.timeout(RESPONSE_TIMEOUT):
                received = await self._exchange(b"%b%b\r\n0\r\n\r\n" % (request.encode(), body))
            seconds = time.perf_counter() - began
        return Response(*_parse(received), seconds)

    async def _exchange(self, request: bytes) -> bytes:
        """Everything that comes back until the connection ends."""
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            # Nothing is left to be sent, and the next one waits for the file descriptor.
            writer.transport.abort()


def available_connections() -> int:
    """How many connections this process may have at the same time (`ulimit -n`), with some files left for all else."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        files = 1 << 20
    return max(_FEWEST_CONNECTIONS, files - _OTHER_FILES)


class _Received:
    """Bytes in the place of a socket, for the parser of the standard library."""

    def __init__(self, received: bytes) -> None:
        self._file = io.BytesIO(received)

    def makefile(self, _mode: str) -> io.BytesIO:
        return self._file


def _parse(received: bytes) -> tuple[int, bytes]:
    """Status and body. A proxy may send the body in chunks."""
    response = http.client.HTTPResponse(_Received(received), method="POST")  # type: ignore[arg-type]  # it uses no more
    try:
        response.begin()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise ValueError("what came is not an HTTP response") from error
