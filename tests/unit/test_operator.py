"""The operator listener: metrics in both formats, health, readiness, and a page with links."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.registry import Collector

from tests.helpers import Answer, request, send
from wgkex_ops.config import Listen
from wgkex_ops.http.listener import serve
from wgkex_ops.http.operator import OperatorPages, create_operator_app


class Process:
    """What the pages are told."""

    def __init__(self, name: str = "gw04", facts: Mapping[str, str] | None = None) -> None:
        self.registry = CollectorRegistry()
        self.problems: list[str] = []
        self.refreshed = 0
        self.gauge = Gauge("wgkex_refreshed", "How often.", registry=self.registry)
        Counter("wgkex_things", "Things.", registry=self.registry).inc(3)
        pages = OperatorPages(
            component="worker",
            name=name,
            registry=self.registry,
            problems=lambda: self.problems,
            refresh=self._refresh,
            facts=facts,
        )
        self.app = create_operator_app(pages)
        self.listen = Listen(port=0)

    async def _refresh(self) -> None:
        await asyncio.sleep(0)
        self.refreshed += 1
        self.gauge.set(self.refreshed)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Process"]:
        async with serve(self.app, Listen(port=0), shutdown_timeout=0.0) as self.listen:
            yield self

    async def get(self, path: str, *headers: str) -> Answer:
        return await send(self.listen, request("GET", path, None, *headers))


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    async with Process().serving() as process:
        yield process


async def test_metrics_are_in_the_text_format_for_whoever_asks_for_nothing(process: Process) -> None:
    answer = await process.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "content-encoding" not in answer.headers
    lines = answer.body.decode().splitlines()
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
async def test_metrics_are_in_openmetrics_for_whoever_accepts_it(process: Process, accept: str) -> None:
    answer = await process.get("/metrics", f"Accept: {accept}")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=")
    lines = answer.body.decode().splitlines()
    assert "# TYPE wgkex_things counter" in lines
    assert lines[-1] == "# EOF"


@pytest.mark.parametrize(
    "accept", ["*/*", "text/html", "", ";;;=,", "x" * 1000, "application/openmetrics-text;version=x"]
)
async def test_odd_accept_headers_get_metrics_all_the_same(process: Process, accept: str) -> None:
    answer = await process.get("/metrics", f"Accept: {accept}")
    assert answer.status == 200
    assert b"wgkex_things_total 3.0" in answer.body


async def test_metrics_are_compressed_for_whoever_accepts_it(process: Process) -> None:
    for number in range(1000):
        Gauge(f"wgkex_filler_{number}", "Makes it long.", registry=process.registry)
    answer = await process.get("/metrics", "Accept-Encoding: gzip")
    assert answer.headers["content-encoding"] == "gzip"
    plain = gzip.decompress(answer.body)
    assert b"wgkex_things_total 3.0" in plain
    assert len(answer.body) < len(plain) / 5


async def test_metrics_of_many_megabytes_are_compressed(process: Process) -> None:
    gauge = Gauge("wgkex_filler", "Makes it long.", ["number"], registry=process.registry)
    for number in range(50_000):
        gauge.labels(f"{number:064}")
    answer = await process.get("/metrics", "Accept-Encoding: gzip")
    assert len(gzip.decompress(answer.body)) > 4_000_000


async def test_metrics_can_be_asked_for_by_name(process: Process) -> None:
    answer = await process.get("/metrics?name[]=wgkex_things_total")
    assert b"wgkex_things_total" in answer.body
    assert b"wgkex_refreshed" not in answer.body


async def test_metrics_are_refreshed_once_per_scrape_and_for_nothing_else(process: Process) -> None:
    for path in ("/", "/-/healthy", "/-/ready", "/nothing"):
        await process.get(path)
    assert process.refreshed == 0
    for number in (1, 2, 3):
        answer = await process.get("/metrics")
        assert process.refreshed == number
        assert f"wgkex_refreshed {number}.0" in answer.body.decode().splitlines()


async def test_process_is_healthy_even_if_it_is_not_ready(process: Process) -> None:
    process.problems = ["something is missing"]
    answer = await process.get("/-/healthy")
    assert (answer.status, answer.body) == (200, b"healthy\n")


async def test_ready_process_says_so(process: Process) -> None:
    answer = await process.get("/-/ready")
    assert (answer.status, answer.body) == (200, b"ready\n")


async def test_process_that_is_not_ready_says_why_in_sentences(process: Process) -> None:
    process.problems = ["wg-welt is missing", "there is no connection with the MQTT server"]
    answer = await process.get("/-/ready")
    assert answer.status == 503
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.body == (b"not ready: wg-welt is missing\nnot ready: there is no connection with the MQTT server\n")
    process.problems = []
    assert (await process.get("/-/ready")).status == 200


async def test_landing_page_has_links_and_tells_the_state(process: Process) -> None:
    answer = await process.get("/")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = answer.body.decode()
    assert "<title>wgkex-ops worker gw04</title>" in page
    assert "<dt>State</dt><dd>ready</dd>" in page
    for path in ("/metrics", "/-/healthy", "/-/ready"):
        assert f'<a href="{path}">' in page
        assert (await process.get(path)).status == 200
    process.problems = ["wg-welt is missing"]
    page = (await process.get("/")).body.decode()
    assert "<dt>State</dt><dd>not ready</dd>" in page
    assert "<li>wg-welt is missing</li>" in page


async def test_landing_page_escapes_whatever_names_contain() -> None:
    hostile = "</title><script>alert('1')</script>&\""
    process = Process(hostile, {f"H{hostile}": f"T{hostile}"})
    process.problems = [f"P{hostile}"]
    async with process.serving():
        page = (await process.get("/")).body.decode()
    assert "<script" not in page
    escaped = "&lt;/title&gt;&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&amp;&quot;"
    assert f"<title>wgkex-ops worker {escaped}</title>" in page
    assert f"<dt>H{escaped}</dt><dd>T{escaped}</dd>" in page
    assert f"<li>P{escaped}</li>" in page


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/-/", "/api/v1/wg/key/exchange", "/debug/pprof"])
async def test_unknown_path_is_404(process: Process, path: str) -> None:
    answer = await process.get(path)
    assert answer.status == 404
    assert answer.json["error"]["reason"] == "not_found"


async def test_only_reading_is_allowed(process: Process) -> None:
    answer = await send(process.listen, request("POST", "/metrics", b""))
    assert (answer.status, answer.headers["allow"]) == (405, "GET,HEAD")
    answer = await send(process.listen, request("HEAD", "/-/ready"), head_only=True)
    assert answer.status == 200


async def test_scrape_that_crashes_is_503_and_logged() -> None:
    class Broken(Collector):
        def collect(self) -> Iterator[Metric]:
            raise ZeroDivisionError("the secret of the stack")

        def describe(self) -> Iterator[Metric]:
            yield from ()

    async with Process().serving() as process:
        process.registry.register(Broken())
        with structlog.testing.capture_logs() as events:
            answer = await process.get("/metrics")
        assert answer.status == 503
        assert b"secret" not in answer.body
        assert [(event["event"], event["path"], type(event["exc_info"])) for event in events] == [
            ("request_crashed", "/metrics", ZeroDivisionError)
        ]
        # It goes on serving.
        assert (await process.get("/-/healthy")).status == 200


async def test_address_in_use_is_an_error_that_names_it(process: Process) -> None:
    with pytest.raises(OSError, match=str(process.listen.port)):
        async with serve(Process().app, process.listen):
            pass
