"""What a simulated node POSTs, and what it makes of what comes back."""

import asyncio
import contextlib
import resource
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import KEY, WELT, until
from tests.integration.certificates import make_certificates
from wgkex_ops.simulation.post import BrokerClient, available_connections

CLIENT: Final = "198.18.0.7"
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Something that listens; host and port."""
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as listener:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"


def sending(response: bytes, requests: list[bytes] | None = None) -> Serve:
    """Send these bytes, whatever comes, and end the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n0\r\n\r\n")
        if requests is not None:
            requests.append(request)
        writer.write(response)
        writer.close()

    return serve


async def body_of(response: bytes) -> tuple[int, bytes]:
    async with server(sending(response)) as address:
        found = await BrokerClient(f"http://{address}")(2, WELT.name, KEY, CLIENT)
    assert found.seconds > 0
    return found.status, found.body


async def test_the_request_is_that_of_the_firmware_behind_a_load_balancer() -> None:
    requests: list[bytes] = []
    async with server(sending(OK, requests)) as address:
        await BrokerClient(f"http://{address}/behind/")(1, WELT.name, KEY, CLIENT)
    body = f'{{"domain": "{WELT.name}", "public_key": "{KEY}"}}'
    [request] = requests
    assert request.decode().split("\r\n") == [
        "POST /behind/api/v1/wg/key/exchange HTTP/1.1",
        f"Host: {address}",
        "User-Agent: wgkex-ops-simulate",
        "Content-Type: application/x-www-form-urlencoded",
        "Transfer-Encoding: chunked",
        "Connection: close",
        f"X-Forwarded-For: {CLIENT}",
        "",
        f"{len(body):x}",
        body,
        "0",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (OK, (200, b"{}")),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nnone", (503, b"none")),
        # As proxies send it.
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", (200, b"{}")),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n<html>", (502, b"<html>")),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n", (302, b"")),
    ],
    ids=["length", "refusal", "chunks", "until the end", "redirection"],
)
async def test_a_response_is_read_and_not_followed(response: bytes, expected: tuple[int, bytes]) -> None:
    assert await body_of(response) == expected


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}",
    ],
    ids=["nothing", "SSH", "too short", "a part of a chunk"],
)
async def test_what_is_no_response_is_an_error(response: bytes) -> None:
    with pytest.raises(ValueError, match="not an HTTP response"):
        await body_of(response)


async def test_tls_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = make_certificates(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates.server)
    async with server(sending(OK), tls) as address:
        with pytest.raises(ssl.SSLCertVerificationError):
            await BrokerClient(f"https://{address}")(2, WELT.name, KEY, CLIENT)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        assert (await BrokerClient(f"https://{address}")(2, WELT.name, KEY, CLIENT)).status == 200


@contextlib.contextmanager
def files(count: int) -> Iterator[None]:
    """Let this process have so many files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_who_finds_no_file_descriptor_waits_for_one() -> None:
    arrived = open_now = most = 0
    may_go = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived, open_now, most
        await reader.readuntil(b"\r\n0\r\n\r\n")
        arrived += 1
        open_now += 1
        most = max(most, open_now)
        await may_go.wait()
        open_now -= 1
        writer.write(OK)
        writer.close()

    async with server(serve) as address:
        # Only while it counts them: the server's ends are files of this process, too.
        with files(100):
            post = BrokerClient(f"http://{address}")
        waiting = [asyncio.create_task(post(2, WELT.name, KEY, CLIENT)) for _ in range(100)]
        await until(lambda: open_now == 36)
        may_go.set()
        responses = await asyncio.gather(*waiting)
    assert {response.status for response in responses} == {200}
    assert (arrived, most) == (100, 36)


@pytest.mark.parametrize(("count", "connections"), [(1024, 960), (20, 16)])
def test_some_files_are_left_for_all_else(count: int, connections: int) -> None:
    with files(count):
        assert available_connections() == connections
