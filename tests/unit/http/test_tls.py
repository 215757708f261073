"""A listener's certificate is renewed while it serves."""

import asyncio
import contextlib
import socket
import ssl
import tracemalloc
from pathlib import Path
from typing import NoReturn

import pytest
import structlog

from tests.helpers import read_answer, request, settle, until
from tests.integration.certificates import Certificates, make_certificates
from tests.unit.http.public.application import Broker
from wgkex_ops.config import Listen, ServerTls
from wgkex_ops.config.limits import ConnectionLimits
from wgkex_ops.errors import ConfigError
from wgkex_ops.http import listening
from wgkex_ops.http.connections import Connections
from wgkex_ops.http.public.app import PATH_READY
from wgkex_ops.http.server import serve
from wgkex_ops.http.tls import Certificate, NewestContext


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def files(certificates: Certificates, tmp_path: Path) -> ServerTls:
    """A certificate with its key, in files that may be overwritten."""
    files = ServerTls.model_construct(cert_file=tmp_path / "broker.crt", key_file=tmp_path / "broker.key")
    for file in (files.cert_file, files.key_file):
        file.write_bytes(certificates.server.read_bytes())
    return files


async def serial(listen: Listen, certificates: Certificates) -> tuple[int, object]:
    """The status of a response, and the number of the certificate that it came with."""
    context = ssl.create_default_context(cafile=certificates.authority)
    reader, writer = await asyncio.open_connection(listen.host, listen.port, ssl=context)
    try:
        writer.write(request("GET", PATH_READY))
        answer = await read_answer(reader)
        return answer.status, writer.get_extra_info("peercert")["serialNumber"]
    finally:
        writer.close()


async def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(
    certificates: Certificates, files: ServerTls
) -> None:
    tls = Certificate(files, "broker_listen.tls")
    async with serve(Broker().app, Listen(port=0), ssl_context=tls.context) as listen:
        status, first = await serial(listen, certificates)
        assert status == 200
        certificates.renew_server(files.cert_file, 30)
        files.key_file.write_bytes(files.cert_file.read_bytes())
        _, second = await serial(listen, certificates)
        assert second != first
        with structlog.testing.capture_logs() as events:
            files.key_file.write_text("broken")
            assert await serial(listen, certificates) == (200, second)
            assert await serial(listen, certificates) == (200, second)
            files.key_file.unlink()
            assert await serial(listen, certificates) == (200, second)
        assert [event["event"] for event in events] == ["certificate_rejected"] * 2


def test_a_certificate_that_cannot_be_used_is_an_error_that_names_the_setting(files: ServerTls) -> None:
    files.key_file.write_text("broken")
    with pytest.raises(ConfigError) as error:
        Certificate(files, "broker_listen.tls")
    (problem,) = error.value.problems
    assert problem.startswith("broker_listen.tls: its files cannot be used: ")


@pytest.mark.parametrize("sent", [b"", request("GET", "/")], ids=["nothing", "no TLS"])
async def test_who_agrees_on_no_tls_is_cut_and_counts_until_then(
    files: ServerTls, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(listening, "_HANDSHAKE_TIMEOUT", 0.2)
    tls = Certificate(files, "broker_listen.tls")
    async with serve(Broker().app, Listen(port=0), ssl_context=tls.context) as listen:
        reader, writer = await asyncio.open_connection(listen.host, listen.port)
        writer.write(sent)
        await reader.read()
        writer.close()
        assert (await serial(listen, certificates))[0] == 200


async def test_a_response_over_tls_is_over_once_it_is_sent(files: ServerTls, certificates: Certificates) -> None:
    """A client that has all of it, and says nothing more, is not one that does not read."""
    context = ssl.create_default_context(cafile=certificates.authority)
    tls = Certificate(files, "broker_listen.tls")
    async with asyncio.timeout(4):
        async with serve(Broker().app, Listen(port=0), ssl_context=tls.context, shutdown_timeout=5.0) as listen:
            closed, writer = await asyncio.open_connection(listen.host, listen.port, ssl=context)
            writer.write(request("GET", PATH_READY))
            await read_answer(closed)
            assert await closed.read() == b""
            idle, other = await asyncio.open_connection(listen.host, listen.port, ssl=context)
            other.write(request("GET", PATH_READY, close=False))
            await read_answer(idle)
        # A request that was still in progress would have had its five seconds.
        writer.close()
        other.close()


async def test_a_client_that_says_no_goodbye_does_not_hold_up_the_end(
    files: ServerTls, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_GOODBYE_TIMEOUT", 60.0)
    context = ssl.create_default_context(cafile=certificates.authority)
    tls = Certificate(files, "broker_listen.tls")

    def ask(listen: Listen) -> ssl.SSLSocket:
        plain = socket.create_connection((listen.host, listen.port))
        client = context.wrap_socket(plain, server_hostname=listen.host)
        client.sendall(request("GET", PATH_READY))
        assert client.recv(10_000)
        return client

    async with asyncio.timeout(4):
        async with serve(Broker().app, Listen(port=0), ssl_context=tls.context) as listen:
            client = await asyncio.to_thread(ask, listen)
    client.close()


async def test_a_crash_before_the_handshake_leaves_nothing_open(caplog: pytest.LogCaptureFixture) -> None:
    def newest() -> NoReturn:
        raise ZeroDivisionError

    connections = Connections(ConnectionLimits(), lambda _reason: None)
    context = NewestContext(newest)
    async with asyncio.timeout(4):
        async with serve(Broker().app, Listen(port=0), ssl_context=context, connections=connections) as listen:
            reader, writer = await asyncio.open_connection(listen.host, listen.port)
            assert await reader.read() == b""
            writer.close()
            assert not len(connections)
    assert "ZeroDivisionError" in caplog.text


async def test_a_client_before_its_handshake_costs_little_memory(files: ServerTls) -> None:
    tls = Certificate(files, "broker_listen.tls")
    connections = Connections(ConnectionLimits(), lambda _reason: None)
    async with serve(Broker().app, Listen(port=0), ssl_context=tls.context, connections=connections) as listen:
        with contextlib.ExitStack() as stack:
            tracemalloc.start()
            stack.callback(tracemalloc.stop)
            for _ in range(20):
                stack.enter_context(socket.create_connection((listen.host, listen.port)))
            await until(lambda: len(connections) == 20)
            await settle()
            used, _ = tracemalloc.get_traced_memory()
    assert used < 20 * 100_000


async def test_listeners_may_share_a_port() -> None:
    async with (
        serve(Broker().app, Listen(port=0), reuse_port=True) as first,
        serve(Broker().app, first, reuse_port=True) as second,
    ):
        assert first == second
