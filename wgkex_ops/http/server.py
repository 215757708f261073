"""Serving an application on a host and port, with JSON even for what is no HTTP."""

import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web

from wgkex_ops.config import Listen
from wgkex_ops.http.public.responses import crash_response, error_response, refusal_response

_log = structlog.get_logger(__name__)


class _RequestHandler(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  it quotes the sender
    ) -> web.StreamResponse:
        """Answer what could not even be read as a request; the open internet is full of it, so it is not logged.

        What crashed here is: an application without a net of its own would otherwise die in silence.
        """
        if isinstance(exc, ConnectionError):
            # The sender has gone: there is nobody to answer.
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
        """Send an answer; in JSON even if aiohttp refused the request before any middleware saw it."""
        if isinstance(resp, web.HTTPException):
            resp = refusal_response(resp)
        return await super().finish_response(request, resp, start_time)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _RequestHandler(self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    __slots__ = ()

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return _Server(server.request_handler, request_factory=server.request_factory, **server._kwargs)  # noqa: SLF001


@contextlib.asynccontextmanager
async def serve(app: web.Application, listen: Listen, **settings: Any) -> AsyncIterator[Listen]:  # noqa: ANN401  aiohttp's
    """Serve an application while the context lasts; at its end, requests in progress are finished first.

    Yields:
        where it really listens, which differs from what was asked for if the port was 0.

    Raises:
        OSError: the address is in use or not ours; the message names it.
    """
    # Compressed bodies stay as they are: no node sends any, and what a few bytes grow to is the sender's choice.
    runner = _Runner(app, access_log=None, auto_decompress=False, **settings)
    await runner.setup()
    try:
        site = web.TCPSite(runner, listen.host, listen.port)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield Listen(host=host, port=port)
    finally:
        await runner.cleanup()
