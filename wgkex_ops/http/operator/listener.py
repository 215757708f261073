"""The operators' listener of both processes: metrics, health, and a page for people. Never on the public listener."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry

from wgkex_ops.http.operator.access import Access
from wgkex_ops.http.operator.exposition import metrics_handler
from wgkex_ops.http.operator.page.parts import Page
from wgkex_ops.http.operator.page.rendering import Renderer


async def _nothing() -> None:
    """Most metrics are always up to date."""


@dataclass(frozen=True, slots=True)
class OperatorPages:
    """What the listener shows.

    Attributes:
        registry: of `/metrics`.
        problems: why this process is not ready, a sentence each; empty if it is.
        page: makes the page of this moment; must not block the event loop.
        refresh: brings the metrics up to date before each scrape; must not block the event loop, nor raise.
    """

    registry: CollectorRegistry
    problems: Callable[[], Sequence[str]]
    page: Callable[[], Awaitable[Page]]
    refresh: Callable[[], Awaitable[None]] = _nothing


def create_operator_app(pages: OperatorPages, access: Access) -> web.Application:
    """Make the application of the operators' listener: what it shows, and to whom. All of it can only be read."""
    renderer = Renderer()

    async def healthy(_request: web.Request) -> web.Response:
        return web.Response(text="healthy\n")

    async def ready(_request: web.Request) -> web.Response:
        problems = pages.problems()
        if problems:
            return web.Response(status=503, text="".join(f"not ready: {problem}\n" for problem in problems))
        return web.Response(text="ready\n")

    async def overview(_request: web.Request) -> web.Response:
        page = await pages.page()
        return web.Response(body=await asyncio.to_thread(renderer.render, page), headers=renderer.headers)

    app = web.Application(middlewares=[access.check])
    app.on_response_prepare.append(access.add_headers)
    app.router.add_get("/metrics", metrics_handler(pages.registry, pages.refresh))
    app.router.add_get("/-/healthy", healthy)
    app.router.add_get("/-/ready", ready)
    app.router.add_get("/", overview)
    return app
