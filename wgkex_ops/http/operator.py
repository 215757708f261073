"""The operator listener of both processes: metrics, health, and a page with links. Never on the public listener."""

import html
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry

from wgkex_ops.http.exposition import metrics_handler


async def _nothing() -> None:
    """Most metrics are always up to date."""


@dataclass(frozen=True, slots=True)
class OperatorPages:
    """What the pages are about.

    Attributes:
        component: ``broker`` or ``worker``.
        name: of this process.
        registry: what `/metrics` shows.
        problems: why this process is not ready, a sentence each; empty if it is.
        refresh: brings the metrics up to date before each scrape; must not block the event loop, nor raise.
        facts: what the landing page tells besides, by heading.
    """

    component: str
    name: str
    registry: CollectorRegistry
    problems: Callable[[], Sequence[str]]
    refresh: Callable[[], Awaitable[None]] = _nothing
    facts: Mapping[str, str] | None = None


def create_operator_app(pages: OperatorPages) -> web.Application:
    """Make the application of the operator listener."""

    async def healthy(_request: web.Request) -> web.Response:
        return web.Response(text="healthy\n")

    async def ready(_request: web.Request) -> web.Response:
        problems = pages.problems()
        if problems:
            return web.Response(status=503, text="".join(f"not ready: {problem}\n" for problem in problems))
        return web.Response(text="ready\n")

    async def landing(_request: web.Request) -> web.Response:
        return web.Response(text=_landing_page(pages), content_type="text/html")

    app = web.Application()
    app.router.add_get("/metrics", metrics_handler(pages.registry, pages.refresh))
    app.router.add_get("/-/healthy", healthy)
    app.router.add_get("/-/ready", ready)
    app.router.add_get("/", landing)
    return app


def _landing_page(pages: OperatorPages) -> str:
    title = f"wgkex-ops {html.escape(pages.component)} {html.escape(pages.name)}"
    problems = pages.problems()
    state = "ready" if not problems else "not ready"
    listed = "".join(f"<li>{html.escape(problem)}</li>" for problem in problems)
    facts = "".join(
        f"<dt>{html.escape(heading)}</dt><dd>{html.escape(text)}</dd>"
        for heading, text in {"State": state, **(pages.facts or {})}.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>body {{ font-family: system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }}
dt {{ font-weight: bold }} dd {{ margin: 0 0 .5rem }}</style>
</head>
<body>
<h1>{title}</h1>
<dl>{facts}</dl>
<ul>{listed}</ul>
<p><a href="/metrics">Metrics</a> · <a href="/-/healthy">Healthy</a> · <a href="/-/ready">Ready</a></p>
</body>
</html>
"""
