"""What several test files share: names from the field, waiting for conditions, a raw HTTP client, metrics."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from wgkex_ops.config import Listen
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.simulation.post import BrokerClient

T = TypeVar("T")

ROOT: Final = Path(__file__).parents[1]
TESTDATA: Final = ROOT / "tests" / "testdata"

WELT: Final = Domain("ffmuc_welt", "wg-welt", "vx-welt")
CITY: Final = Domain("ffmuc_muc_cty", "wg-muc_cty", "vx-muc_cty")
DOMAINS: Final = {domain.name: domain for domain in (WELT, CITY)}

KEY: Final = "o52Ge+Rpj4CUSitVag9mS7pSXUesNM0ESnvj/wwehkg="
OTHER_KEY: Final = "TszFS3oFRdhsJP3K0VOlklGMGYZy+oFCtlaghXJqW2g="


def key(number: int) -> PublicKey:
    """One of many keys, none of them of small order."""
    return PublicKey(b"key" + number.to_bytes(29, "big"))


# --- waiting


async def until(condition: Callable[[], bool], *, every: float = 0.0) -> None:
    """Wait for what has no event of its own to wait for."""
    while not condition():  # noqa: ASYNC110  a condition is no event that one could wait for
        await asyncio.sleep(every)


async def settle() -> None:
    """Let all that can run without input and without a timer run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(coroutine: Coroutine[Any, Any, object]) -> AsyncIterator[asyncio.Task[object]]:
    """A task for the time of the context; if it crashes, the test does."""
    task = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


# --- HTTP


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; the names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401  JSON can be anything
        return json.loads(self.body)


def request(
    method: str, path: str, body: bytes | None = None, *headers: str, chunked: bool = False, close: bool = True
) -> bytes:
    """An HTTP/1.1 request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: broker.example.net", *headers]
    if close:
        lines.append("Connection: close")
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    elif body is not None:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    if body is None:
        return head
    return head + (in_chunks(body) + b"0\r\n\r\n" if chunked else body)


def in_chunks(body: bytes, size: int = 1000) -> bytes:
    """A body in chunked transfer encoding, without the last chunk, which ends it."""
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


@contextlib.asynccontextmanager
async def connection(listen: Listen) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(listen.host, listen.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool = False) -> Answer:
    """Read one answer.

    Raises:
        asyncio.IncompleteReadError: the connection ended before.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    assert "transfer-encoding" not in headers
    length = 0 if head_only else int(headers.get("content-length", "0"))
    return Answer(int(head[0].split(" ")[1]), headers, await reader.readexactly(length))


async def send(listen: Listen, raw: bytes, *, head_only: bool = False) -> Answer:
    """Send a request that ends its connection, and read the one answer and the end."""
    async with connection(listen) as (reader, writer):
        writer.write(raw)
        await writer.drain()
        answer = await read_answer(reader, head_only=head_only)
        assert await reader.read() == b""
        return answer


async def post_key(
    broker: Listen, version: int, domain: str, key: object, client: str = ""
) -> tuple[int, dict[str, Any]]:
    """POST a key as a node does, from any address by default; HTTP status and JSON object of the response.

    Raises:
        OSError: there is no response.
        ValueError: it is not HTTP, or has no JSON.
    """
    client = client or f"198.18.{random.randrange(256)}.{random.randrange(256)}"
    response = await BrokerClient(f"http://{broker}")(version, domain, key, client)
    return response.status, json.loads(response.body)


# --- metrics


def samples(registry: CollectorRegistry, prefix: str = "wgkex_") -> dict[str, float]:
    """All samples, as a Prometheus query names them."""
    return {
        f"{sample.name}{_labels(sample.labels)}": sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name.startswith(prefix) and not sample.name.endswith("_created")
    }


def as_openmetrics(registry: CollectorRegistry) -> str:
    """What a scrape in OpenMetrics shows; that has exemplars."""
    encoded: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
    return encoded.decode()


def moved(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What has changed, and by how much."""
    return {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}


def _labels(labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{{{inner}}}" if inner else ""


class Clock:
    """Stands still unless a test sets it."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def megabytes(pid: int) -> tuple[float, float]:
    """Memory that a process holds now, and at its peak."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["VmRSS"].split()[0]) * 1024 / 1e6, int(fields["VmHWM"].split()[0]) * 1024 / 1e6
