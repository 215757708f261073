"""Serves an application on a host and port; errors are JSON even where a request is not valid HTTP."""

import asyncio
import contextlib
import ssl
from asyncio import sslproto
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, NoReturn, cast

import structlog
from aiohttp import StreamReader, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from wgkex_ops.config import Listen
from wgkex_ops.http.connections import OPERATORS_CONNECTIONS, Connections
from wgkex_ops.http.listening import Acceptor, accepting
from wgkex_ops.http.public.responses import crash_response, refusal_response

_log = structlog.get_logger(__name__)

# Serves a request.
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

# aiohttp takes 0 for "as long as the request takes".
_SHORTEST_TIMEOUT: Final = 0.001

# Seconds that a client has for the head of a request, and again to take its response. A node sends all of its request
# in one piece.
CLIENT_TIMEOUT: Final = 10.0
# Longer than a load balancer keeps an idle connection, and no reason to hold one for an hour.
IDLE_TIMEOUT: Final = 75.0
# Then a client may connect again: none keeps its connection for ever.
REQUESTS_PER_CONNECTION: Final = 100
# Requests of one connection that wait for the one before them; routers and load balancers send none of these.
_MOST_WAITING: Final = 8
# Bytes of one request that are not its body: more than the longest head, and a body in the smallest chunks, have. What
# goes on after that are chunk extensions, which mean nothing here.
_MOST_OVERHEAD: Final = 65_536
# Bytes that are read at once. All clients together have that much of each in memory, and asyncio's default is 256 KiB.
_READ_SIZE: Final = 16_384
# TLS has a buffer of its own for each connection, from before the handshake. The MQTT session's gets by with as much.
sslproto.SSLProtocol.max_size = _READ_SIZE
# Seconds that are read on, once it is clear that a body is refused: a client that is still sending would otherwise get
# a reset in place of the response.
_LINGERING_TIME: Final = 2.0
# Seconds between two searches for slow clients.
_SLOW_EVERY: Final = 0.5


class _RequestHandler(web.RequestHandler):
    """One connection."""

    __slots__ = ("_accepted", "_due", "_idle", "_received", "opening")

    def __init__(self, *arguments: Any, loop: asyncio.AbstractEventLoop, **settings: Any) -> None:  # noqa: ANN401  aiohttp's
        super().__init__(*arguments, loop=loop, **settings)
        self.opening: asyncio.Task[bool] | None = None
        self._accepted: asyncio.Transport | None = None
        # When the client should have done what is waited for, by the loop's clock; whether that is its next request, of
        # which nothing has come yet; and how many bytes of the present one have.
        self._due = loop.time() + CLIENT_TIMEOUT
        self._idle = False
        self._received = 0

    def waits_for_client(self) -> bool:
        """Whether its request is not complete, or its response is not taken."""
        if self._current_request is not None:
            return not self._current_request.content.is_eof()
        # A request that has just come is served next, unless the response before it is not taken.
        return self._request_in_progress or not self._messages or not self._messages[0][1].is_eof()

    def is_slow(self, now: float) -> bool:
        """Whether the client should have sent a head, or taken a response, by now. A body has a limit of its own."""
        return self._due <= now and self._current_request is None

    def cut(self) -> None:
        """Close it at once."""
        if self._accepted is not None:
            self._accepted.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def force_close(self) -> None:
        """Close it when what was written is sent."""
        if self.transport is not None and self.transport.is_closing():
            # One over TLS that is closed twice can no longer be cut.
            self.transport = None
        super().force_close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._accepted = cast("asyncio.Transport", transport)
        # asyncio has no parameter for it.
        cast("Any", transport).max_size = _READ_SIZE
        # What the kernel does not take at once, a client has not read: it gets no further response before. With 0,
        # asyncio's TLS takes an empty buffer for a full one.
        self._accepted.set_write_buffer_limits(high=1)
        super().connection_made(transport)
        if self.peername is None:
            # The client has gone while it waited to be accepted. Its request may still be there, but not its address.
            self._accepted.abort()

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._idle = False
            self._due = self._loop.time() + CLIENT_TIMEOUT
        self._received += len(data)
        super().data_received(data)
        if self._messages and not isinstance(broken := self._messages[-1][0], RawRequestMessage):
            # Not HTTP, and what comes after it is none either. The error holds the frame that holds it, and with that
            # all that was read, until the garbage collector comes.
            broken.exc.__traceback__ = None
            self.close()
        if len(self._messages) > _MOST_WAITING:
            # What is behind them gets no response.
            while len(self._messages) > _MOST_WAITING:
                self._messages.pop()
            self.close()
        if self._received > _MOST_OVERHEAD:
            self._refuse_overhead()

    def _refuse_overhead(self) -> None:
        """Read no further where there is next to no body in what comes."""
        if self._current_request is not None:
            content = self._current_request.content
        elif self._messages:
            content = self._messages[0][1]
        else:
            return
        if self._received - content.total_bytes > _MOST_OVERHEAD and not content.is_eof():
            content.set_exception(web.RequestPayloadError("there is more around the body than in it"))
            content.feed_eof()
            self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  it quotes the client
    ) -> web.StreamResponse:
        """Respond to what cannot be read as a request: not logged, as the open internet is full of it. Log a crash.

        An application that does not catch its own crashes would otherwise lose them.
        """
        if isinstance(exc, ConnectionError):
            # The client is gone.
            raise exc
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("request_crashed", method=request.method, path=request.path, exc_info=exc)
            response = crash_response()
            response.force_close()
            return response
        return refusal_response(400)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response; in JSON even if aiohttp refused the request before any middleware saw it."""
        if isinstance(resp, web.HTTPException):
            resp = refusal_response(resp.status, resp.headers.get("Allow", ""))
        if self._close or self._request_count >= REQUESTS_PER_CONNECTION:
            resp.force_close()
        now = self._loop.time()
        self._due = now + CLIENT_TIMEOUT
        finished = await super().finish_response(request, resp, start_time)
        self._due = now + IDLE_TIMEOUT
        self._idle = True
        self._received = 0
        if self._manager is not None:
            cast("_Server", self._manager).accepted.use(self)
        return finished


class _Request(web.BaseRequest):
    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Say nothing about which software serves here."""
        del response.headers[hdrs.SERVER]


class _Server(web.Server):
    """Knows each connection until it is closed; aiohttp's own server forgets them before."""

    def __init__(self, handler: Handler, connections: Connections, **settings: Any) -> None:  # noqa: ANN401  aiohttp's
        super().__init__(handler, **settings)
        self.accepted = connections

    def __call__(self) -> _RequestHandler:
        return _RequestHandler(self, loop=self._loop, **self._kwargs)

    def _make_request(
        self,
        message: Any,  # noqa: ANN401  aiohttp does not publish the type
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return _Request(message, payload, protocol, writer, task, self._loop)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.accepted.remove(cast("_RequestHandler", handler))

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  as aiohttp has it
        """Close all connections: after this, none is left that a client could hold open by not reading."""
        try:
            await super().shutdown(timeout)
        finally:
            await self.accepted.close()


class _Runner(web.AppRunner):
    __slots__ = ("_connections",)

    def __init__(self, app: web.Application, connections: Connections, **settings: Any) -> None:  # noqa: ANN401  aiohttp's
        super().__init__(app, **settings)
        self._connections = connections

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        factory = made.request_factory
        return _Server(made.request_handler, self._connections, request_factory=factory, **made._kwargs)  # noqa: SLF001


def _count_nothing(_reason: str) -> None:
    """Only the listener for everybody has metrics."""


def _no_network(_address: str) -> None:
    """All clients share the room that there is."""


@contextlib.asynccontextmanager
async def serve(
    app: web.Application | Handler,
    listen: Listen,
    *,
    setting: str = "",
    ssl_context: ssl.SSLContext | None = None,
    connections: Connections | None = None,
    network_of: Callable[[str], bytes | None] = _no_network,
    reuse_port: bool = False,
    shutdown_timeout: float = 0.0,
    **settings: Any,  # noqa: ANN401  aiohttp's
) -> AsyncIterator[Listen]:
    """Serve an application while the context lasts; when it has ended, all its connections are closed.

    Args:
        app: the application, or what serves each request without one.
        listen: where to listen.
        setting: the name of the setting that this comes from, for the message of an error.
        ssl_context: for TLS; None for plain HTTP.
        connections: limits them; None for as many as operators need.
        network_of: the network that an address counts for; None for no limit of its own.
        reuse_port: whether other processes may listen there as well, and get a share of the connections.
        shutdown_timeout: seconds that a request in progress has to finish at the end, and once more to clean up.
        settings: further arguments of aiohttp's request handler.

    Yields:
        where it really listens, which differs from what was asked for if the port was 0.

    Raises:
        ListenError: the port is in use, the address is not this host's, and the like.
    """
    if connections is None:
        connections = Connections(OPERATORS_CONNECTIONS, _count_nothing)
    # Compressed bodies stay as they are: no node sends any, and a client could make a few bytes grow to any size.
    settings |= {
        "access_log": None,
        "auto_decompress": False,
        "lingering_time": _LINGERING_TIME,
        "read_bufsize": _READ_SIZE,
    }
    timeout = max(shutdown_timeout, _SHORTEST_TIMEOUT)
    runner: web.BaseRunner
    if isinstance(app, web.Application):
        runner = _Runner(app, connections, shutdown_timeout=timeout, **settings)
    else:
        runner = web.ServerRunner(_Server(app, connections, **settings), shutdown_timeout=timeout)
    await runner.setup()
    try:
        acceptor = Acceptor(cast("_Server", runner.server), connections, network_of, ssl_context)
        async with (
            accepting(listen, setting, acceptor, reuse_port=reuse_port) as accepted_at,
            _cutting_slow(connections),
        ):
            yield accepted_at
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _cutting_slow(connections: Connections) -> AsyncIterator[None]:
    """Cut slow clients now and then while the context lasts."""
    loop = asyncio.get_running_loop()

    async def cut() -> NoReturn:
        while True:
            await asyncio.sleep(_SLOW_EVERY)
            connections.cut_slow(loop.time())

    async with asyncio.TaskGroup() as group:
        cutting = group.create_task(cut())
        try:
            yield
        finally:
            cutting.cancel()
