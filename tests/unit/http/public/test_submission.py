"""Bodies that are refused: wrong, too large, too slow, broken."""

import asyncio
import errno
import gzip
import zlib
from typing import Final

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import TransferEncodingError
from aiohttp.web import RequestPayloadError

from tests.fakes import run_in_virtual_time
from tests.helpers import WELT, Answer, connection, in_chunks, key, read_answer, request, send, until
from tests.unit.http.public.application import (
    PATHS,
    VERSIONS,
    Broker,
    accepted,
    assert_error,
    padded,
    rejected,
    submission,
)
from tests.unit.http.public.bad_bodies import BAD_BODIES, BadBody
from wgkex_ops.http.public.app import PATH_V1, PATH_V2
from wgkex_ops.http.public.responses import RejectedError
from wgkex_ops.http.public.submission import BODY_LIMIT, BODY_TIMEOUT, read_body


def test_all_rejected_keys_of_the_vectors_are_tried() -> None:
    assert sum(name.startswith("key: ") for name in BAD_BODIES) == 16 + 14


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("chunked", [False, True], ids=("length", "chunked"))
@pytest.mark.parametrize("bad", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_bad_input_is_400_and_nothing_is_published(
    broker: Broker, no_tracebacks: None, bad: BadBody, chunked: bool, version: str
) -> None:
    answer = await send(broker.listen, request("POST", PATHS[version], bad.body, chunked=chunked))
    assert_error(answer, 400, bad.reason)
    assert broker.moved() == rejected(version, bad.reason, bad.domain)
    assert broker.bus.published == []


async def test_responses_never_repeat_what_the_client_sent(broker: Broker) -> None:
    for body in (submission("<script>"), submission(public_key="<script>"), b"<script>"):
        answer = await send(broker.listen, request("POST", PATH_V1, body))
        assert answer.status == 400
        assert b"script" not in answer.body


async def test_canary_is_served_and_not_counted_as_a_node(broker: Broker) -> None:
    def nodes() -> float | None:
        name = "wgkex_broker_key_first_requests_total"
        return broker.registry.get_sample_value(name, {"domain": WELT.name})

    for number, canary in enumerate((True, 1, "true", None)):
        body = submission(public_key=str(key(number)), canary=canary)
        assert (await send(broker.listen, request("POST", PATH_V2, body))).status == 200
    # Nothing else than true is true.
    assert nodes() == 3


async def test_other_members_are_ignored(broker: Broker) -> None:
    body = submission(hostname="x", nested={"domain": 1, "list": [{"public_key": 2}]}, number=float("nan"))
    assert (await send(broker.listen, request("POST", PATH_V1, body))).status == 200
    assert broker.moved() == accepted("v1")


# --- how large, how long


@pytest.mark.parametrize("chunked", [False, True], ids=("length", "chunked"))
async def test_body_of_4096_bytes_is_accepted(broker: Broker, chunked: bool) -> None:
    assert BODY_LIMIT == 4096
    answer = await send(broker.listen, request("POST", PATH_V1, padded(4096), chunked=chunked))
    assert answer.status == 200
    assert broker.moved() == accepted("v1")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("length", [4097, 10_000_000], ids=("4097", "10MB"))
@pytest.mark.parametrize("chunked", [False, True], ids=("length", "chunked"))
async def test_longer_body_is_413(
    broker: Broker, no_tracebacks: None, version: str, length: int, chunked: bool
) -> None:
    answer = await send(broker.listen, request("POST", PATHS[version], padded(length), chunked=chunked))
    assert_error(answer, 413, "too_large")
    assert broker.moved() == rejected(version, "too_large")
    assert broker.bus.published == []


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"1000\r\n" + b" " * 0x1000 + b"\r\n"], ids=("tiny", "large"))
async def test_fast_body_without_an_end_is_413(broker: Broker, no_tracebacks: None, chunk: bytes) -> None:
    async with connection(broker.listen) as (reader, writer):
        writer.write(request("POST", PATH_V1, b"", chunked=True).removesuffix(b"0\r\n\r\n"))
        answering = asyncio.ensure_future(read_answer(reader))
        while not answering.done():
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)
        assert_error(answering.result(), 413, "too_large")
    assert broker.moved() == rejected("v1", "too_large")


@pytest.mark.parametrize("chunked", [False, True], ids=("length", "chunked"))
def test_slow_body_without_an_end_is_400_after_ten_seconds(no_tracebacks: None, chunked: bool) -> None:
    async def trickle() -> tuple[Answer, float, dict[str, float]]:
        async with Broker().serving() as broker, connection(broker.listen) as (reader, writer):
            head = request("POST", PATH_V1, b" " * 4000)
            writer.write(
                request("POST", PATH_V1, b"", chunked=True).removesuffix(b"0\r\n\r\n") if chunked else head[:-4000]
            )
            now = asyncio.get_running_loop().time
            start = now()
            answering = asyncio.ensure_future(read_answer(reader))
            while not answering.done():
                writer.write(b"1\r\n \r\n" if chunked else b" ")
                await asyncio.wait([answering], timeout=0.3)
            seconds = now() - start
            return answering.result(), seconds, broker.moved()

    answer, seconds, changes = run_in_virtual_time(trickle(), grace=0.005)
    assert_error(answer, 400, "malformed_json")
    assert answer.json["error"]["message"] == "the body was not complete after 10 s"
    assert BODY_TIMEOUT == 10.0
    assert seconds == pytest.approx(10.0, abs=0.5)
    assert changes == rejected("v1", "malformed_json")


BROKEN_CHUNKS: Final = {
    "no number": b"xyz\r\n",
    "negative": b"-1\r\n",
    "huge": b"ffffffffffffffffffff\r\n",
    "too long": b"3\r\nabcd\r\n",
    "trailer": b"0\r\nbroken trailer\r\n\r\n",
    "behind the document": in_chunks(submission()) + b"nonsense\r\n\r\n",
}


@pytest.mark.parametrize("rest", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
async def test_request_with_broken_chunks_is_not_an_http_request(
    broker: Broker, no_tracebacks: None, rest: bytes
) -> None:
    answer = await send(broker.listen, request("POST", PATH_V1, b"", chunked=True).removesuffix(b"0\r\n\r\n") + rest)
    assert_error(answer, 400, "bad_request")
    assert broker.moved() == {}
    assert broker.bus.published == []


@pytest.mark.parametrize("rest", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
def test_chunks_that_break_after_the_head_are_a_bad_body(no_tracebacks: None, rest: bytes) -> None:
    # aiohttp does not let the reader of a body know that no more will come: the response takes BODY_TIMEOUT.
    async def send_in_two() -> tuple[Answer, Broker]:
        async with Broker().serving() as broker, connection(broker.listen) as (reader, writer):
            writer.write(request("POST", PATH_V1, b"", chunked=True).removesuffix(b"0\r\n\r\n"))
            await until(lambda: broker.in_progress() == 1.0)
            writer.write(rest)
            return await read_answer(reader), broker

    answer, broker = run_in_virtual_time(send_in_two(), grace=0.005)
    assert_error(answer, 400, "malformed_json")
    assert broker.moved() == rejected("v1", "malformed_json")
    assert broker.bus.published == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransferEncodingError("x"), RejectedError),
        (RequestPayloadError("x"), RejectedError),
        (ConnectionResetError("x"), ConnectionError),
        (OSError(errno.EHOSTUNREACH, "x"), ConnectionError),
    ],
    ids=("broken encoding", "broken payload", "reset", "unreachable"),
)
async def test_body_that_breaks_off_is_rejected_unless_the_client_has_gone(
    error: Exception, expected: type[Exception]
) -> None:
    content = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
    content.feed_data(b"{")
    content.set_exception(error)
    with pytest.raises(expected):
        await read_body(content)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(submission())),
        ("gzip", b"garbage"),
        ("gzip", gzip.compress(b" " * 50_000_000)[:4096]),
        ("deflate", zlib.compress(submission())),
        ("deflate", b"garbage"),
        ("br", b"garbage"),
        ("zstd", b"garbage"),
        ("quantum", b"garbage"),
    ],
    ids=("gzip", "gzip garbage", "gzip bomb", "deflate", "deflate garbage", "br", "zstd", "unknown"),
)
async def test_compressed_body_is_not_valid_json(
    broker: Broker, no_tracebacks: None, encoding: str, body: bytes
) -> None:
    answer = await send(broker.listen, request("POST", PATH_V1, body, f"Content-Encoding: {encoding}"))
    assert_error(answer, 400, "malformed_json")
    assert broker.moved() == rejected("v1", "malformed_json")
    assert broker.bus.published == []
