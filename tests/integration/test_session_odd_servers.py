"""A session and servers that are silent, close, refuse, know only MQTT 3.1.1, or are no MQTT servers."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from tests.integration.certificates import Certificates
from tests.integration.inprocess import client
from tests.integration.loopback import LOOPBACK, eventually
from tests.integration.sessions import only_failure
from wgkex_ops.demo.embedded import mqtt_server

WELCOME = bytes.fromhex("2003000000")  # a CONNACK of MQTT 5 without properties
NOT_AUTHORIZED = bytes.fromhex("2003008700")


ServeClient = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def tcp_server(serve_client: ServeClient, certificates: Certificates | None = None) -> AsyncIterator[int]:
    """Something that listens, with TLS if it has certificates, and is not an MQTT server. Yields its port."""
    context = None
    if certificates is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.server)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve_client(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_silent_server_times_out() -> None:
    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_server(stay_silent) as port, client(port, connected=False, connect_timeout=0.2) as tester:
        await tester.failed("timed_out", times=2)


async def test_a_server_that_does_not_answer_the_subscriptions_times_out() -> None:
    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WELCOME)
        await reader.read()
        await reader.read()

    async with (
        tcp_server(welcome) as port,
        client(port, connected=False, connect_timeout=0.2, subscriptions=["some/topic"]) as tester,
    ):
        await tester.failed("timed_out", times=2)


async def test_a_server_that_closes_at_once_is_logged_once_with_a_hint() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    with capture_logs() as logs:
        async with tcp_server(close) as port, client(port, connected=False) as tester:
            await tester.failed("closed", times=3)
    # The same failure is logged once, not at each attempt.
    line = only_failure(logs)
    assert line["log_level"] == "warning"
    assert line["reason"] == "closed"
    assert "mqtt.version" in line["detail"]


async def test_a_server_that_knows_only_mqtt_3_1_1_works_with_that_and_else_is_logged_with_a_hint() -> None:
    async with mqtt_server() as port:
        async with client(port, version="3.1.1") as tester:
            await tester.publish("some/topic")
        with capture_logs() as logs:
            async with client(port, connected=False, connect_timeout=0.5) as tester:
                # It asks for no further attempt, and keeps the connection.
                await tester.failed("timed_out")
    assert "mqtt.version" in only_failure(logs)["detail"]


@pytest.mark.parametrize(
    ("response", "subscriptions"),
    [
        pytest.param(WELCOME, [], id="welcome"),
        pytest.param(WELCOME, ["some/topic"], id="welcome-but-no-subscription"),
        pytest.param(WELCOME + b"\xe0\x01\x8e", ["some/topic"], id="welcome-and-disconnect"),
        pytest.param(WELCOME + b"\x40\x00\x40\x01\x00\x90\x00\x30\x00\xf0\x00\x00\x00", [], id="welcome-and-nonsense"),
        pytest.param(b"\x20\x00", [], id="empty-answer"),
        pytest.param(b"\x20\x04\x00\x00\x01\xff", [], id="unknown-property"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", [], id="http"),
        pytest.param(b"\xff" * 100, [], id="noise"),
    ],
)
async def test_a_server_that_sends_anything_and_closes_ends_nothing(response: bytes, subscriptions: list[str]) -> None:
    attempts = 0

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await reader.read(1)
        writer.write(response)

    async with (
        tcp_server(respond) as port,
        client(port, connected=False, connect_timeout=0.5, subscriptions=subscriptions),
    ):
        await eventually(lambda: attempts == 4, "attempts that go on")


@pytest.mark.parametrize("encrypted", [False, True], ids=["tcp", "tls"])
async def test_a_refusal_counts_as_that_even_if_the_server_closes_in_the_same_moment(
    certificates: Certificates, encrypted: bool
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(NOT_AUTHORIZED)

    tls = {"ca_file": certificates.authority} if encrypted else False
    async with (
        tcp_server(refuse, certificates if encrypted else None) as port,
        client(port, connected=False, tls=tls) as tester,
    ):
        await tester.failed("refused", times=3)
        assert tester.metric("connection_failures_total", reason="closed") == 0
