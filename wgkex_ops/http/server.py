"""Serves an application on a host and port; errors are JSON even where a request is not valid HTTP."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, cast

import structlog
from aiohttp import web

from wgkex_ops.config import Listen
from wgkex_ops.errors import ListenError
from wgkex_ops.http.public.responses import crash_response, error_response, refusal_response

_log = structlog.get_logger(__name__)

# Serves a request.
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

# aiohttp takes 0 for "as long as the request takes".
_SHORTEST_TIMEOUT: Final = 0.001

# Why one cannot listen somewhere, and which part of the setting to change.
_LISTEN_ERRORS: Final = {
    errno.EADDRINUSE: ("another program uses this port", "port"),
    errno.EACCES: ("this user may not use this port", "port"),
    errno.EADDRNOTAVAIL: ("this host does not have this address", "host"),
}


class _RequestHandler(web.RequestHandler):
    __slots__ = ()

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
        else:
            response = error_response("bad_request", "this is not an HTTP request that can be understood")
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response; in JSON even if aiohttp refused the request before any middleware saw it."""
        if isinstance(resp, web.HTTPException):
            resp = refusal_response(resp.status, resp.headers.get("Allow", ""))
        return await super().finish_response(request, resp, start_time)


class _Server(web.Server):
    """Knows each transport that it has accepted until that is closed; aiohttp's own server forgets them before."""

    def __init__(self, handler: Handler, **settings: Any) -> None:  # noqa: ANN401  aiohttp's
        super().__init__(handler, **settings)
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}
        self._all_closed = asyncio.Event()
        self._all_closed.set()

    def __call__(self) -> web.RequestHandler:
        return _RequestHandler(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open[handler] = transport
        self._all_closed.clear()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        del self._open[handler]
        if not self._open:
            self._all_closed.set()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  as aiohttp has it
        """Close all connections: after this, none is left that a client could hold open by not reading."""
        try:
            await super().shutdown(timeout)
        finally:
            for transport in self._open.values():
                transport.abort()
            # That takes an iteration of the event loop, whatever a client does.
            await self._all_closed.wait()


class _Runner(web.AppRunner):
    __slots__ = ()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, **made._kwargs)  # noqa: SLF001


@contextlib.asynccontextmanager
async def serve(
    app: web.Application | Handler,
    listen: Listen,
    *,
    setting: str = "",
    ssl_context: ssl.SSLContext | None = None,
    shutdown_timeout: float = 0.0,
    **settings: Any,  # noqa: ANN401  aiohttp's
) -> AsyncIterator[Listen]:
    """Serve an application while the context lasts; when it has ended, all its connections are closed.

    Args:
        app: the application, or what serves each request without one.
        listen: where to listen.
        setting: the name of the setting that this comes from, for the message of an error.
        ssl_context: for TLS; None for plain HTTP.
        shutdown_timeout: seconds that a request in progress has to finish at the end, and once more to clean up.
        settings: further arguments of aiohttp's request handler.

    Yields:
        where it really listens, which differs from what was asked for if the port was 0.

    Raises:
        ListenError: the port is in use, the address is not this host's, and the like.
    """
    # Compressed bodies stay as they are: no node sends any, and a client could make a few bytes grow to any size.
    settings |= {"access_log": None, "auto_decompress": False}
    timeout = max(shutdown_timeout, _SHORTEST_TIMEOUT)
    runner: web.BaseRunner
    if isinstance(app, web.Application):
        runner = _Runner(app, shutdown_timeout=timeout, **settings)
    else:
        runner = web.ServerRunner(_Server(app, **settings), shutdown_timeout=timeout)
    await runner.setup()
    try:
        async with _listening(runner, listen, setting, ssl_context) as (host, port):
            yield Listen(host=host, port=port)
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _listening(
    runner: web.BaseRunner, listen: Listen, setting: str, ssl_context: ssl.SSLContext | None
) -> AsyncIterator[tuple[str, int]]:
    """Accept connections while the context lasts."""
    loop = asyncio.get_running_loop()
    handlers = cast("web.Server", runner.server)  # there is one since its set-up
    try:
        server = await loop.create_server(handlers, listen.host, listen.port, ssl=ssl_context)
    except OSError as error:
        raise ListenError(_explain(error, listen, setting)) from error
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        # asyncio makes a transport one iteration after it has accepted a connection. If the server were closed in
        # between, it would drop the transport half made, and with its socket open.
        for listening in server.sockets:
            loop.remove_reader(listening)
        await asyncio.sleep(0)
        server.close()


def _explain(error: OSError, listen: Listen, setting: str) -> str:
    if isinstance(error, socket.gaierror):
        reason, part = "this name has no address", "host"
    else:
        # From Python 3.13 on asyncio leaves the number out for addresses that this host does not have.
        code = error.errno or errno.EADDRNOTAVAIL
        reason, part = _LISTEN_ERRORS.get(code, (os.strerror(code), "port"))
    advice = f"; to use another one, set {setting}.{part}" if setting else ""
    return f"cannot listen on {listen}: {reason}{advice}"
