"""The public listener: routes, and what every request on it gets."""

import time
from collections.abc import Callable
from typing import Final
from uuid import uuid4

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from wgkex_ops.http.public.exchange import REQUEST_ID, KeyExchange
from wgkex_ops.http.public.responses import crash_response, refusal_response
from wgkex_ops.metrics.broker import HttpMetrics
from wgkex_ops.model.names import UNKNOWN

_log = structlog.get_logger(__name__)

PATH_V1: Final = "/api/v1/wg/key/exchange"
PATH_V2: Final = "/api/v2/wg/key/exchange"
HANDLERS: Final = (("POST", PATH_V1), ("POST", PATH_V2))


def create_app(
    exchange: KeyExchange, metrics: HttpMetrics, stopping: Callable[[], bool] = lambda: False
) -> web.Application:
    """Make the application of the public listener.

    Each request gets an id, which is in all its log lines and in the response's `X-Request-Id`. Each response is JSON.

    Args:
        exchange: serves the requests.
        metrics: count them.
        stopping: whether the process is about to stop: each response is then the last one on its connection, so that
            no client sends its next request into a connection that is being closed.
    """

    async def close_connection(_request: web.Request, response: web.StreamResponse) -> None:
        if stopping():
            response.headers["Connection"] = "close"
            response.force_close()

    app = web.Application(middlewares=[_measure(metrics), _respond_in_json])
    app.router.add_post(PATH_V1, exchange.serve_v1)
    app.router.add_post(PATH_V2, exchange.serve_v2)
    app.on_response_prepare.append(close_connection)
    return app


def _measure(metrics: HttpMetrics) -> Middleware:
    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else UNKNOWN
        request_id = request[REQUEST_ID] = uuid4().hex
        start = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id), metrics.in_progress.track_inprogress():
            response = await handler(request)
        response.headers["X-Request-Id"] = request_id
        # All methods that no standard knows share a label: clients could invent any number of them.
        method = request.method if request.method in metrics.METHODS else UNKNOWN
        metrics.requests.labels(method, route, str(response.status)).inc()
        metrics.duration.labels(route).observe(time.perf_counter() - start, {"request_id": request_id})
        return response

    return measure


@web.middleware
async def _respond_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn aiohttp's own refusals, and whatever crashes, into error objects."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return refusal_response(error)
    except ConnectionError:
        raise
    except Exception:  # noqa: BLE001  the outermost edge of a request
        _log.exception("request_crashed", method=request.method, path=request.path)
        return crash_response()
