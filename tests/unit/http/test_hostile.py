"""Clients that send too much, too slowly, or never read: what a listener does with their connections."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import structlog
from aiohttp import web

from tests.helpers import connection, in_chunks, read_answer, request, send, until
from tests.unit.http.public.application import Broker, submission
from wgkex_ops.config import Listen
from wgkex_ops.config.limits import ConnectionLimits
from wgkex_ops.http import listening, server
from wgkex_ops.http.connections import Connections
from wgkex_ops.http.listening import most_connections
from wgkex_ops.http.public.app import PATH_READY, PATH_V1
from wgkex_ops.http.server import REQUESTS_PER_CONNECTION, serve

FAST = 0.1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients have a tenth of a second."""
    for name in ("CLIENT_TIMEOUT", "IDLE_TIMEOUT", "_LINGERING_TIME"):
        monkeypatch.setattr(server, name, FAST)
    monkeypatch.setattr(server, "_SLOW_EVERY", FAST / 5)


@contextlib.asynccontextmanager
async def counted() -> AsyncIterator[tuple[Listen, list[str], list[web.BaseRequest]]]:
    """A listener, why connections were cut, and the requests that it got; it serves them slowly."""
    cut: list[str] = []
    requests: list[web.BaseRequest] = []

    async def handler(received: web.BaseRequest) -> web.Response:
        requests.append(received)
        await asyncio.sleep(3 * FAST)
        return web.Response(body=bytes(10_000_000))

    connections = Connections(ConnectionLimits(total=16), cut.append)
    async with serve(handler, Listen(port=0), connections=connections) as listen:
        yield listen, cut, requests


@pytest.mark.parametrize("sent", [b"", b"POST / HT", request("POST", "/")[:-2]], ids=["nothing", "line", "head"])
async def test_a_head_that_does_not_end_ends_its_connection(impatient: None, sent: bytes) -> None:
    async with counted() as (listen, cut, requests), connection(listen) as (reader, writer):
        writer.write(sent)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert cut == ["slow"]
        assert not requests


async def test_bytes_that_drip_gain_no_time(impatient: None) -> None:
    async with counted() as (listen, cut, _), connection(listen) as (_, writer):
        for byte in request("POST", "/" + "x" * 100):
            if cut:
                break
            writer.write(bytes((byte,)))
            await asyncio.sleep(FAST / 20)
        assert cut == ["slow"]


async def test_the_time_is_for_a_client_and_not_for_us(impatient: None) -> None:
    async with counted() as (listen, cut, _), connection(listen) as (reader, writer):
        writer.write(request("GET", "/"))
        assert (await read_answer(reader)).status == 200
        assert not cut


async def test_a_second_head_has_its_time_as_well(impatient: None) -> None:
    async with counted() as (listen, cut, _), connection(listen) as (reader, writer):
        writer.write(request("GET", "/", close=False))
        await read_answer(reader)
        writer.write(b"GET")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert cut == ["slow"]


async def test_an_idle_connection_ends(impatient: None) -> None:
    async with counted() as (listen, cut, _), connection(listen) as (reader, writer):
        writer.write(request("GET", "/", close=False))
        await read_answer(reader)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert cut == ["slow"]


async def test_who_does_not_read_gets_no_further_response_and_is_cut(impatient: None) -> None:
    async with counted() as (listen, cut, requests):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        with client:
            await asyncio.get_running_loop().sock_connect(client, (listen.host, listen.port))
            # The kernel takes some of the responses off the server.
            await asyncio.get_running_loop().sock_sendall(client, request("GET", "/", close=False) * 9)
            await until(lambda: bool(cut))
        assert cut == ["slow"]
        assert len(requests) <= 9


async def test_a_request_that_came_with_the_client_that_needs_room_is_served() -> None:
    async def handler(received: web.BaseRequest) -> web.Response:
        return web.Response(body=await received.read())

    connections = Connections(ConnectionLimits.model_construct(total=2, per_network=2), lambda _reason: None)
    async with (
        serve(handler, Listen(port=0), connections=connections) as listen,
        connection(listen) as (reader, writer),
    ):
        with contextlib.ExitStack() as stack:
            # It was used longest ago.
            writer.write(request("POST", "/", b"first", close=False))
            assert (await read_answer(reader)).body == b"first"
            stack.enter_context(socket.create_connection((listen.host, listen.port)))
            await until(lambda: len(connections) == 2)
            writer.write(request("POST", "/", b"second", close=False))
            stack.enter_context(socket.create_connection((listen.host, listen.port)))
            assert (await read_answer(reader)).body == b"second"


async def test_a_connection_serves_so_many_requests(broker: Broker) -> None:
    async with connection(broker.listen) as (reader, writer):
        for number in range(1, REQUESTS_PER_CONNECTION + 1):
            writer.write(request("GET", PATH_READY, close=False))
            answer = await read_answer(reader)
            assert (answer.headers.get("connection") == "close") == (number == REQUESTS_PER_CONNECTION)
        assert await reader.read() == b""


async def test_what_is_behind_too_many_pipelined_requests_is_not_served(broker: Broker) -> None:
    async with connection(broker.listen) as (reader, writer):
        writer.write(request("POST", PATH_V1, submission("x"), close=False) * 50)
        answers = 0
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                await read_answer(reader)
                answers += 1
        assert 1 <= answers <= 10


@pytest.mark.parametrize(
    "body",
    [b"1;" + b"x" * 100_000 + b"\r\n{\r\n0\r\n\r\n", (b"1;" + b"x" * 40 + b"\r\n{\r\n") * 3000 + b"0\r\n\r\n"],
    ids=["one", "many"],
)
async def test_chunk_extensions_are_no_way_around_the_limit_of_the_body(broker: Broker, body: bytes) -> None:
    head = request("POST", PATH_V1, None, "Transfer-Encoding: chunked", close=False)
    async with connection(broker.listen) as (reader, writer):
        writer.write(head + body)
        answer = await read_answer(reader)
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_a_short_extension_means_nothing(broker: Broker) -> None:
    body = submission()
    chunks = b"%x;name=value\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with connection(broker.listen) as (reader, writer):
        writer.write(request("POST", PATH_V1, None, "Transfer-Encoding: chunked") + chunks)
        assert (await read_answer(reader)).status == 200


async def test_the_smallest_chunks_are_served(broker: Broker) -> None:
    body = submission(padding="x" * 3000)
    async with connection(broker.listen) as (reader, writer):
        writer.write(request("POST", PATH_V1, None, "Transfer-Encoding: chunked") + in_chunks(body, 1) + b"0\r\n\r\n")
        assert (await read_answer(reader)).status == 200


@pytest.mark.parametrize(
    ("version", "encodings"),
    [
        ("1.1", ["x, chunked"]),
        ("1.1", ["gzip, chunked"]),
        ("1.1", ["chunked, chunked"]),
        ("1.1", ["identity"]),
        ("1.1", ["chunked", "chunked"]),
        ("1.0", ["chunked"]),
    ],
)
async def test_other_transfer_encodings_are_400(broker: Broker, version: str, encodings: list[str]) -> None:
    head = request("POST", PATH_V1, None, *(f"Transfer-Encoding: {encoding}" for encoding in encodings), close=False)
    body = submission()
    async with connection(broker.listen) as (reader, writer):
        writer.write(head.replace(b"HTTP/1.1", f"HTTP/{version}".encode()) + in_chunks(body) + b"0\r\n\r\n")
        answer = await read_answer(reader)
        assert (answer.status, answer.json["error"]["reason"]) == (400, "bad_request")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    assert not broker.bus.published


async def test_no_response_names_its_software(broker: Broker) -> None:
    for raw in (request("GET", PATH_READY), request("GET", "/nothing"), b"nonsense\r\n\r\n"):
        async with connection(broker.listen) as (reader, writer):
            writer.write(raw)
            assert "server" not in (await read_answer(reader)).headers


async def test_a_client_that_is_gone_before_it_is_accepted_is_not_served(broker: Broker, no_tracebacks: None) -> None:
    """Its address is gone as well: no limit could count it."""
    with socket.create_connection((broker.listen.host, broker.listen.port)) as client:
        client.sendall(request("POST", PATH_V1, submission()))
        # A reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert (await send(broker.listen, request("GET", PATH_READY))).status == 200
    assert not broker.moved()


async def test_accepting_goes_on_when_there_are_descriptors_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = socket.socket.accept

    def exhausted(_self: socket.socket) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(listening, "_EXHAUSTED_PAUSE", FAST / 10)
    with structlog.testing.capture_logs() as events:
        monkeypatch.setattr(socket.socket, "accept", exhausted)
        async with connection(broker.listen) as (reader, writer):
            writer.write(request("GET", PATH_READY))
            await until(lambda: bool(events))
            await asyncio.sleep(FAST)
            monkeypatch.setattr(socket.socket, "accept", accept)
            assert (await read_answer(reader)).status == 200
    assert [event["event"] for event in events] == ["accept_failed"]


def test_connections_leave_descriptors_for_all_else() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
        assert most_connections(ConnectionLimits()).total == 800
        assert most_connections(ConnectionLimits(total=100)).total == 100
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        assert most_connections(ConnectionLimits()).total == 16
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
