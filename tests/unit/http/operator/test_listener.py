"""The operator listener: metrics in both formats, health, readiness, and how the page is served."""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import re
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.registry import Collector

from tests.helpers import Answer, request, send
from wgkex_ops.config import Listen, MetricsListen
from wgkex_ops.http.operator.access import Access
from wgkex_ops.http.operator.listener import OperatorPages, create_operator_app
from wgkex_ops.http.operator.page.parts import Page
from wgkex_ops.http.server import serve


class Process:
    """A process, as far as its listener asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.problems: list[str] = []
        self.refreshed = 0
        self.gauge = Gauge("wgkex_refreshed", "How often.", registry=self.registry)
        Counter("wgkex_things", "Things.", registry=self.registry).inc(3)
        pages = OperatorPages(
            registry=self.registry, problems=lambda: self.problems, page=self._page, refresh=self._refresh
        )
        access = Access(MetricsListen(port=0, allowed_hosts=("broker.example.net",)), setting="worker.metrics_listen")
        self.app = create_operator_app(pages, access)
        self.listen = Listen(port=0)

    async def _page(self) -> Page:
        return Page(component="worker", name="gw04", now=0.0, problems=self.problems, facts={})

    async def _refresh(self) -> None:
        await asyncio.sleep(0)
        self.refreshed += 1
        self.gauge.set(self.refreshed)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Process"]:
        async with serve(self.app, Listen(port=0)) as self.listen:
            yield self

    async def get(self, path: str, *headers: str) -> Answer:
        return await send(self.listen, request("GET", path, None, *headers))


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    async with Process().serving() as process:
        yield process


async def test_metrics_are_in_the_text_format_if_a_client_asks_for_nothing(process: Process) -> None:
    response = await process.get("/metrics")
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert "content-encoding" not in response.headers
    lines = response.body.decode().splitlines()
    assert "# TYPE wgkex_refreshed gauge" in lines
    assert "wgkex_refreshed 1.0" in lines
    assert "wgkex_things_total 3.0" in lines
    assert "# EOF" not in lines


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text",
        "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5",
        # As Prometheus 2 and 3 send it.
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        ),
    ],
)
async def test_metrics_are_in_openmetrics_if_a_client_accepts_them(process: Process, accept: str) -> None:
    response = await process.get("/metrics", f"Accept: {accept}")
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=")
    lines = response.body.decode().splitlines()
    assert "# TYPE wgkex_things counter" in lines
    assert lines[-1] == "# EOF"


@pytest.mark.parametrize(
    "accept", ["*/*", "text/html", "", ";;;=,", "x" * 1000, "application/openmetrics-text;version=x"]
)
async def test_odd_accept_headers_get_metrics_all_the_same(process: Process, accept: str) -> None:
    response = await process.get("/metrics", f"Accept: {accept}")
    assert response.status == 200
    assert b"wgkex_things_total 3.0" in response.body


async def test_metrics_are_compressed_if_a_client_accepts_them(process: Process) -> None:
    for number in range(1000):
        Gauge(f"wgkex_filler_{number}", "Makes it long.", registry=process.registry)
    response = await process.get("/metrics", "Accept-Encoding: gzip")
    assert response.headers["content-encoding"] == "gzip"
    plain = gzip.decompress(response.body)
    assert b"wgkex_things_total 3.0" in plain
    assert len(response.body) < len(plain) / 5


async def test_metrics_of_many_megabytes_are_compressed(process: Process) -> None:
    gauge = Gauge("wgkex_filler", "Makes it long.", ["number"], registry=process.registry)
    for number in range(50_000):
        gauge.labels(f"{number:064}")
    response = await process.get("/metrics", "Accept-Encoding: gzip")
    assert len(gzip.decompress(response.body)) > 4_000_000


async def test_metrics_can_be_asked_for_by_name(process: Process) -> None:
    response = await process.get("/metrics?name[]=wgkex_things_total")
    assert b"wgkex_things_total" in response.body
    assert b"wgkex_refreshed" not in response.body


async def test_metrics_are_refreshed_once_per_scrape_and_for_nothing_else(process: Process) -> None:
    for path in ("/", "/-/healthy", "/-/ready", "/nothing"):
        await process.get(path)
    assert process.refreshed == 0
    for number in (1, 2, 3):
        response = await process.get("/metrics")
        assert process.refreshed == number
        assert f"wgkex_refreshed {number}.0" in response.body.decode().splitlines()


async def test_process_is_healthy_even_if_it_is_not_ready(process: Process) -> None:
    process.problems = ["something is missing"]
    response = await process.get("/-/healthy")
    assert (response.status, response.body) == (200, b"healthy\n")


async def test_process_that_is_ready(process: Process) -> None:
    response = await process.get("/-/ready")
    assert (response.status, response.body) == (200, b"ready\n")


async def test_process_that_is_not_ready_shows_why_in_sentences(process: Process) -> None:
    process.problems = ["wg-welt is missing", "there is no connection with the MQTT server"]
    response = await process.get("/-/ready")
    assert response.status == 503
    assert response.headers["content-type"].startswith("text/plain")
    assert response.body == (b"not ready: wg-welt is missing\nnot ready: there is no connection with the MQTT server\n")
    process.problems = []
    assert (await process.get("/-/ready")).status == 200


async def test_page_is_made_anew_for_each_request_and_has_links(process: Process) -> None:
    response = await process.get("/")
    assert response.status == 200
    page = response.body.decode()
    assert "<title>ready: wgkex-ops worker gw04</title>" in page
    for path in ("/metrics", "/-/healthy", "/-/ready"):
        assert f'<a href="{path}">' in page
        assert (await process.get(path)).status == 200
    process.problems = ["wg-welt is missing"]
    page = (await process.get("/")).body.decode()
    assert "<title>not ready: wgkex-ops worker gw04</title>" in page
    assert "wg-welt is missing" in page


async def test_page_may_load_and_run_nothing_and_is_kept_nowhere(process: Process) -> None:
    response = await process.get("/")
    (style,) = re.findall("<style>(.*)</style>", response.body.decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert response.headers["content-security-policy"].split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-store"


async def test_page_can_only_be_read(process: Process) -> None:
    head = await send(process.listen, request("HEAD", "/"), head_only=True)
    assert head.status == 200
    assert int(head.headers["content-length"]) == len((await process.get("/")).body)
    for method in ("POST", "PUT", "DELETE"):
        response = await send(process.listen, request(method, "/", b""))
        assert (response.status, response.headers["allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/-/", "/api/v1/wg/key/exchange", "/debug/pprof"])
async def test_unknown_path_is_404(process: Process, path: str) -> None:
    response = await process.get(path)
    assert response.status == 404
    assert response.json["error"]["reason"] == "not_found"


async def test_only_reading_is_allowed(process: Process) -> None:
    response = await send(process.listen, request("POST", "/metrics", b""))
    assert (response.status, response.headers["allow"]) == (405, "GET,HEAD")
    response = await send(process.listen, request("HEAD", "/-/ready"), head_only=True)
    assert response.status == 200


async def test_scrape_that_crashes_is_503_and_logged() -> None:
    class Broken(Collector):
        def collect(self) -> Iterator[Metric]:
            raise ZeroDivisionError("the secret of the stack")

        def describe(self) -> Iterator[Metric]:
            yield from ()

    async with Process().serving() as process:
        process.registry.register(Broken())
        with structlog.testing.capture_logs() as events:
            response = await process.get("/metrics")
        assert response.status == 503
        assert b"secret" not in response.body
        assert [(event["event"], event["path"], type(event["exc_info"])) for event in events] == [
            ("request_crashed", "/metrics", ZeroDivisionError)
        ]
        # It goes on serving.
        assert (await process.get("/-/healthy")).status == 200
