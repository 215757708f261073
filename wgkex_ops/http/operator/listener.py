"""The operators' listener of both processes: metrics, health, and a page for people. Never on the public listener."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from wgkex_ops.http.operator.access import Access
from wgkex_ops.http.operator.exposition import metrics_handler
from wgkex_ops.http.operator.page.parts import Page
from wgkex_ops.http.operator.page.rendering import Renderer
from wgkex_ops.model.fleet import FleetStatus


async def _nothing() -> None:
    """Most metrics are always up to date."""


@dataclass(frozen=True, slots=True)
class OperatorPages:
    """What the listener shows.

    Attributes:
        registry: of `/metrics`.
        problems: why this process is not ready, a sentence each; empty if it is.
        page: makes the page of this moment; must not block the event loop.
        status: what the broker knows of the fleet; None elsewhere.
        search: makes the page for what was typed into the search box; None for no box. As `page`.
        refresh: brings the metrics up to date before each scrape; must not block the event loop, nor raise.
    """

    registry: CollectorRegistry
    problems: Callable[[], Sequence[str]]
    page: Callable[[], Awaitable[Page]]
    refresh: Callable[[], Awaitable[None]] = _nothing
    status: Callable[[], FleetStatus] | None = None
    search: Callable[[str], Awaitable[Page]] | None = None


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
        return await show(await pages.page())

    async def show(page: Page) -> web.Response:
        return web.Response(body=await asyncio.to_thread(renderer.render, page), headers=renderer.headers)

    app = web.Application(middlewares=[access.check])
    app.on_response_prepare.append(access.add_headers)
    app.router.add_get("/metrics", metrics_handler(pages.registry, pages.refresh))
    app.router.add_get("/-/healthy", healthy)
    app.router.add_get("/-/ready", ready)
    app.router.add_get("/", overview)
    if (status := pages.status) is not None:

        async def fleet(_request: web.Request) -> web.Response:
            return web.Response(body=msgspec.json.encode(status()), content_type="application/json")

        app.router.add_get("/status.json", fleet)
    if (search := pages.search) is not None:

        async def peer(request: web.Request) -> web.Response:
            return await show(await search(request.query.get("q", "")))

        app.router.add_get("/peer", peer)
    return app
