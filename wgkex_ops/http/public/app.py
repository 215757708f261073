"""The public listener: routes, and what every request on it gets."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from secrets import token_hex
from typing import Final

import structlog
from aiohttp import HttpVersion11, hdrs, web

from wgkex_ops.http.public.exchange import KeyExchange
from wgkex_ops.http.public.responses import crash_response, ready_response, refusal_response
from wgkex_ops.metrics.broker import HttpMetrics
from wgkex_ops.model.names import UNKNOWN

_log = structlog.get_logger(__name__)

PATH_V1: Final = "/api/v1/wg/key/exchange"
PATH_V2: Final = "/api/v2/wg/key/exchange"
PATH_READY: Final = "/api"
HANDLERS: Final = (("POST", PATH_V1), ("POST", PATH_V2), ("GET", PATH_READY), ("HEAD", PATH_READY))

# Serves a request, whose id it gets.
_Handler = Callable[[web.BaseRequest, str], Awaitable[web.Response]]


class PublicApp:
    """Serves the public listener. An aiohttp application would do the same for more than the exchange itself costs.

    Each request gets an id, which is in all its log lines and in the response's `X-Request-Id`. Each response is JSON.

    Args:
        exchange: serves the submissions.
        metrics: count the requests.
        problems: why this process should get no requests now, a sentence each; empty if it should. Load balancers ask
            for them by `GET /api`.
        stopping: whether the process is about to stop: each response is then the last one on its connection, so that
            no client sends its next request into a connection that is being closed.
    """

    def __init__(
        self,
        exchange: KeyExchange,
        metrics: HttpMetrics,
        problems: Callable[[], Sequence[str]],
        stopping: Callable[[], bool],
    ) -> None:
        self._routes: Mapping[str, Mapping[str, _Handler]] = {
            PATH_V1: {"POST": exchange.serve_v1},
            PATH_V2: {"POST": exchange.serve_v2},
            PATH_READY: {"GET": self._serve_ready, "HEAD": self._serve_ready},
        }
        self._problems = problems
        self._metrics = metrics
        self._stopping = stopping
        self._in_progress = 0
        metrics.in_progress.set_function(lambda: self._in_progress)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request."""
        start = time.perf_counter()
        request_id = token_hex(16)
        # As it was sent; only with a query, or as a proxy gets it, it has to be taken apart.
        path = request.raw_path if request.raw_path in self._routes else request.path
        handlers = self._routes.get(path, {})
        handler = handlers.get(request.method)
        self._in_progress += 1
        try:
            if hdrs.TRANSFER_ENCODING in request.headers and not _understands_encoding(request):
                response = refusal_response(400)
            elif hdrs.EXPECT in request.headers and not await _meets_expectation(request):
                response = refusal_response(417)
            elif handler is not None:
                response = await self._respond(handler, request, request_id)
            elif handlers:
                response = refusal_response(405, ", ".join(handlers))
            else:
                response = refusal_response(404)
        finally:
            self._in_progress -= 1
        response.headers["X-Request-Id"] = request_id
        if self._stopping():
            response.force_close()
        route = path if handler is not None else UNKNOWN
        self._metrics.count(request.method, route, response.status, time.perf_counter() - start, request_id)
        return response

    async def _serve_ready(self, _request: web.BaseRequest, _request_id: str) -> web.Response:
        return ready_response(self._problems())

    async def _respond(self, handler: _Handler, request: web.BaseRequest, request_id: str) -> web.Response:
        try:
            return await handler(request, request_id)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001  the outermost edge of a request
            _log.exception("request_crashed", method=request.method, path=request.path, request_id=request_id)
            return crash_response()


def _understands_encoding(request: web.BaseRequest) -> bool:
    """Whether the body comes in chunks, and nothing else: all else is read by some as another body (RFC 9112, 6.1)."""
    encodings = request.headers.getall(hdrs.TRANSFER_ENCODING)
    return request.version == HttpVersion11 and [encoding.lower() for encoding in encodings] == ["chunked"]


async def _meets_expectation(request: web.BaseRequest) -> bool:
    """Let a client send its body that waits for our consent (RFC 9110, section 10.1.1); one of HTTP/1.0 does not."""
    if request.version != HttpVersion11:
        return True
    if request.headers[hdrs.EXPECT].lower() != "100-continue":
        return False
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
    return True
