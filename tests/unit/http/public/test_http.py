"""HTTP itself on the public listener: other paths and methods, connections, and what the internet sends."""

import random
import re

import pytest
from aiohttp import ClientSession

from tests.helpers import KEY, WELT, connection, read_answer, request, send, settle, until
from tests.unit.http.public.application import Broker, assert_error, submission
from wgkex_ops.http.public.app import PATH_READY, PATH_V1, PATH_V2


async def test_100_continue_is_sent_before_the_body_comes(broker: Broker) -> None:
    body = submission()
    raw = request("POST", PATH_V1, body, "Expect: 100-continue")
    async with connection(broker.listen) as (reader, writer):
        writer.write(raw.removesuffix(body))
        assert (await read_answer(reader)).status == 100
        writer.write(body)
        assert (await read_answer(reader)).body == b'{"Message": "OK"}'


@pytest.mark.parametrize("path", [PATH_V1, "/nowhere"])
async def test_other_expectations_are_417(broker: Broker, path: str) -> None:
    answer = await send(broker.listen, request("POST", path, submission(), "Expect: <script>"))
    assert_error(answer, 417, "expectation_failed")
    assert b"script" not in answer.body
    assert broker.moved() == {}


async def test_requests_to_a_proxy_are_404(broker: Broker, no_tracebacks: None) -> None:
    async with connection(broker.listen) as (reader, writer):
        writer.write(b"CONNECT example.net:443 HTTP/1.1\r\nHost: example.net\r\n\r\n")
        assert_error(await read_answer(reader), 404, "not_found")
    answer = await send(broker.listen, request("GET", "http://example.net/"))
    assert_error(answer, 404, "not_found")


async def test_upgrade_to_another_protocol_is_declined(broker: Broker, no_tracebacks: None) -> None:
    headers = ("Connection: upgrade", "Upgrade: websocket")
    async with connection(broker.listen) as (reader, writer):
        writer.write(request("GET", "/", None, *headers, close=False))
        assert_error(await read_answer(reader), 404, "not_found")


@pytest.mark.parametrize("path", [PATH_V1, PATH_V2])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
async def test_other_methods_are_405(broker: Broker, no_tracebacks: None, path: str, method: str) -> None:
    answer = await send(broker.listen, request(method, path, submission()), head_only=method == "HEAD")
    if method == "HEAD":
        assert answer.status == 405
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
    else:
        assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert broker.moved() == {}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/",
        "/metrics",
        "/-/healthy",
        "/-/ready",
        "/api/v1/wg/key/exchange/",
        "/api/v3/wg/key/exchange",
        "/API/v1/wg/key/exchange",
        "//api/v1/wg/key/exchange",
        "/api/v1/../v1/wg/key/exchange/x",
        "/%00",
        "/%ff",
        "/?a=1",
        "/" + "x" * 5000,
    ],
    ids=lambda path: path[:40],
)
async def test_other_paths_are_404(broker: Broker, no_tracebacks: None, method: str, path: str) -> None:
    answer = await send(broker.listen, request(method, path, submission() if method == "POST" else None))
    assert_error(answer, 404, "not_found")
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert broker.moved() == {}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_load_balancers_learn_whether_to_send_nodes_here(
    broker: Broker, no_tracebacks: None, method: str
) -> None:
    answer = await send(broker.listen, request(method, PATH_READY, None), head_only=method == "HEAD")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    broker.problems += ["shutting down", "there is no connection with the MQTT server"]
    refusal = await send(broker.listen, request(method, PATH_READY, None), head_only=method == "HEAD")
    assert refusal.status == 503
    assert int(refusal.headers["retry-after"]) > 0
    if method == "GET":
        assert answer.json == {"ready": True}
        assert refusal.json == {"ready": False, "reasons": broker.problems}
    assert broker.moved() == {}


async def test_nothing_is_posted_to_what_load_balancers_ask(broker: Broker) -> None:
    answer = await send(broker.listen, request("POST", PATH_READY, submission()))
    assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"


async def test_query_does_not_matter(broker: Broker) -> None:
    assert (await send(broker.listen, request("POST", PATH_V1 + "?domain=x", submission()))).status == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\ngarbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)) + b"\r\n\r\n",
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"x" * 10_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: 1\r\n" % number for number in range(1000)) + b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=(
        "text",
        "TLS hello",
        "zeros",
        "incomplete line",
        "version",
        "no colon",
        "NUL in a header",
        "long line",
        "long header",
        "many headers",
        "negative length",
        "two lengths",
        "length and chunks",
        "HTTP/2",
    ),
)
async def test_garbage_instead_of_http_is_400(broker: Broker, no_tracebacks: None, raw: bytes) -> None:
    async with connection(broker.listen) as (reader, writer):
        writer.write(raw)
        answer = await read_answer(reader)
        assert await reader.read() == b""
    assert_error(answer, 400, "bad_request")
    assert broker.moved() == {}
    assert broker.bus.published == []


@pytest.mark.parametrize("garbage", [random.Random(seed).randbytes(2000) for seed in range(20)], ids=range(20))
async def test_random_bytes_are_never_more_than_a_400(broker: Broker, no_tracebacks: None, garbage: bytes) -> None:
    async with connection(broker.listen) as (reader, writer):
        writer.write(garbage + b"\r\n\r\n")
        answer = await read_answer(reader)
    assert_error(answer, 400, "bad_request")
    # It goes on serving.
    assert (await send(broker.listen, request("POST", PATH_V1, submission()))).status == 200


@pytest.mark.parametrize("abort", [False, True], ids=("closes", "resets"))
async def test_client_that_leaves_in_the_middle_of_the_body_counts_nothing(
    broker: Broker, no_tracebacks: None, abort: bool
) -> None:
    body = submission()
    async with connection(broker.listen) as (_, writer):
        writer.write(request("POST", PATH_V1, body).removesuffix(body) + body[:20])
        await until(lambda: broker.in_progress() == 1.0)
        if abort:
            writer.transport.abort()
    await until(lambda: broker.in_progress() == 0.0)
    await settle()
    assert broker.moved() == {}
    assert broker.bus.published == []
    assert (await send(broker.listen, request("POST", PATH_V1, body))).status == 200


async def test_client_of_http_1_0_is_served_and_the_connection_ends(broker: Broker) -> None:
    body = submission()
    async with connection(broker.listen) as (reader, writer):
        writer.write(f"POST {PATH_V1} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await read_answer(reader)
        assert answer.body == b'{"Message": "OK"}'
        assert await reader.read() == b""


async def test_one_connection_serves_many_requests(broker: Broker) -> None:
    async with connection(broker.listen) as (reader, writer):
        request_ids = set()
        for path, body, status in (
            (PATH_V1, submission(), 200),
            (PATH_V2, submission("x"), 400),
            (PATH_V2, submission(), 200),
            ("/x", b"", 404),
        ):
            writer.write(request("POST", path, body, close=False))
            answer = await read_answer(reader)
            assert answer.status == status
            request_ids.add(answer.headers["x-request-id"])
        assert len(request_ids) == 4
        # No node sends what no handler takes.
        assert await reader.read() == b""


async def test_pipelined_requests_get_their_responses_in_order(broker: Broker) -> None:
    async with connection(broker.listen) as (reader, writer):
        writer.write(
            request("POST", PATH_V1, submission(), close=False)
            + request("POST", PATH_V1, submission("x"), close=False, chunked=True)
            + request("POST", PATH_V2, submission(), close=False)
            + request("GET", "/nothing")
        )
        answers = [await read_answer(reader) for _ in range(4)]
        assert await reader.read() == b""
    assert [answer.status for answer in answers] == [200, 400, 200, 404]
    assert answers[0].body == b'{"Message": "OK"}'
    assert "Endpoint" in answers[2].json
    assert len(broker.bus.published) == 2


async def test_ordinary_http_client_is_served(broker: Broker) -> None:
    async with ClientSession(f"http://{broker.listen}") as session:
        async with session.post(PATH_V1, json={"domain": WELT.name, "public_key": KEY}) as response:
            assert (response.status, await response.json()) == (200, {"Message": "OK"})
        async with session.post(PATH_V2, data=submission()) as response:
            assert response.status == 200


async def test_each_response_ends_its_connection_while_the_process_stops() -> None:
    stopping = False
    async with Broker(lambda: stopping).serving() as broker, connection(broker.listen) as (reader, writer):
        for stopping in (False, True):
            writer.write(request("POST", PATH_V1, submission(), close=False))
            answer = await read_answer(reader)
            assert answer.status == 200
            assert answer.headers.get("connection") == ("close" if stopping else None)
        assert await reader.read() == b""
