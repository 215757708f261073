"""What the canary POSTs, and what it makes of what comes back."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest

from tests.helpers import KEY, WELT, key
from wgkex_ops.bus.messages import Endpoint
from wgkex_ops.errors import RoundFailedError
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.probe.post import parse_version_1, parse_version_2, post_key

ENDPOINT: Final[dict[str, Any]] = {
    "Address": "gw04.example.net",
    "Port": "40011",
    "AllowedIPs": ["fe80::27c:16ff:fec0:6c74"],
    "PublicKey": KEY,
}
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.asynccontextmanager
async def broker(*responses: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Something that listens and sends these bytes, whatever it gets; the URL, and what it got."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n0\r\n\r\n")
        got.append(request)
        with contextlib.suppress(ConnectionError):
            writer.write(responses[min(len(got), len(responses)) - 1])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", got


async def failure(response: bytes) -> str:
    async with broker(response) as (url, _):
        with pytest.raises(RoundFailedError) as error:
            await post_key(url, 2, WELT.name, key(1), canary=True)
    return str(error.value).replace(url, "URL")


@pytest.mark.parametrize("version", [1, 2])
async def test_the_request_is_that_of_the_firmware(version: int) -> None:
    async with broker(OK) as (url, got):
        assert await post_key(f"{url}/behind", version, WELT.name, PublicKey.parse(KEY), canary=True) == b"{}"
    [request] = got
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert first == f"POST /behind/api/v{version}/wg/key/exchange HTTP/1.1"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert headers["transfer-encoding"] == "chunked"
    assert "content-length" not in headers
    assert "accept-encoding" not in headers
    size, _, rest = body.partition(b"\r\n")
    content = rest[: int(size, 16)]
    assert json.loads(content) == {"domain": WELT.name, "public_key": KEY, "canary": True}
    # Only true is true to a broker.
    assert b'"canary": true' in content
    assert rest[int(size, 16) :] == b"\r\n0\r\n\r\n"


async def test_the_request_names_the_location() -> None:
    async with broker(OK) as (url, got):
        await post_key(url, 2, WELT.name, PublicKey.parse(KEY), canary=False, location="north")
    assert json.dumps({"domain": WELT.name, "public_key": KEY, "location": "north"}).encode() in got[0]


async def test_a_refusal_is_shown_with_its_reason() -> None:
    body = b'{"error": {"message": "no gateway could be chosen", "reason": "no_worker"}}'
    response = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    assert await failure(response) == (
        "the broker at URL refused the key: HTTP status 503, no_worker: no gateway could be chosen"
    )


@pytest.mark.parametrize("status", [201, 202, 204, 301, 302, 307, 400, 429, 500, 502])
async def test_only_200_is_success_and_nothing_is_followed(status: int) -> None:
    response = b"HTTP/1.1 %d X\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n" % status
    assert await failure(response) == f"the broker at URL refused the key: HTTP status {status}"


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (b"", "it closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "what came is not an HTTP response"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "what came is not an HTTP response"),
        (b"\x00" * 5000, "what came is not an HTTP response"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "what came is not an HTTP response"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"fffff\r\n" + b" " * 0xFFFFF,
            "it is longer than 65536 bytes",
        ),
        (
            b"HTTP/1.1 503 X\r\nContent-Length: 100000\r\n\r\n" + b" " * 100_000,
            "it is longer than 65536 bytes",
        ),
    ],
    ids=["nothing", "too short", "SSH", "zeros", "long header", "long in chunks", "long refusal"],
)
async def test_what_is_no_response_of_a_broker_is_a_failure_in_words(response: bytes, why: str) -> None:
    assert await failure(response) == f"no response of the broker at URL: {why}"


async def test_a_broker_that_is_away_is_a_failure_in_words() -> None:
    async with broker(OK) as (url, _):
        pass
    with pytest.raises(RoundFailedError, match=f"^no response of the broker at {url}: Connection refused$"):
        await post_key(url, 2, WELT.name, key(1), canary=True)


async def test_a_name_without_an_address_is_a_failure_in_words() -> None:
    with pytest.raises(RoundFailedError, match=r"at http://b\.invalid: its name has no address$"):
        await post_key("http://b.invalid", 2, WELT.name, key(1), canary=True)


async def test_tls_that_is_none_is_a_failure_in_words() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(RoundFailedError, match=f"^no response of the broker at {url}: TLS failed: "):
            await post_key(url, 2, WELT.name, key(1), canary=True)


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202e", "|x=1", "x" * 10_000])
async def test_a_text_of_the_broker_can_neither_command_a_terminal_nor_fill_it(text: str) -> None:
    body = json.dumps({"error": {"message": text, "reason": text}}).encode()
    shown = await failure(b"HTTP/1.1 400 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert shown.isprintable()
    assert len(shown) < 600


# --- bodies


def changed(**members: Any) -> bytes:  # noqa: ANN401  anything may come
    return json.dumps({"Endpoint": {**ENDPOINT, **members}}).encode()


def test_an_endpoint_is_read() -> None:
    assert parse_version_2(changed(Further=1)) == Endpoint("gw04.example.net", 40011, KEY, "fe80::27c:16ff:fec0:6c74")


UNUSABLE: Final = "the broker's response has an Endpoint that no node can use"
UNREADABLE: Final = "no node can read the broker's response: "


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "the broker's response has no Endpoint"),
        (b'{"Endpoint": null}', "the broker's response has no Endpoint"),
        (b'{"Message": "OK"}', "the broker's response has a Message: nodes take it for version 1, and set no gateway"),
        (
            json.dumps({"Message": "OK", "Endpoint": ENDPOINT}).encode(),
            "the broker's response has a Message: nodes take it for version 1, and set no gateway",
        ),
        (b"", UNREADABLE),
        (b"[]", UNREADABLE),
        (b"\xff\xfe{}", UNREADABLE),
        (b"[" * 60_000, UNREADABLE),
        (b'{"Endpoint": {}}', UNREADABLE),
        (changed(Port=40011), UNREADABLE),
        (changed(AllowedIPs="fe80::1"), UNREADABLE),
        (changed(Port=""), UNUSABLE),
        (changed(Port="0"), UNUSABLE),
        (changed(Port="65536"), UNUSABLE),
        (changed(Port="+80"), UNUSABLE),
        (changed(Port="\u0664\u0664"), UNUSABLE),
        (changed(Port="9" * 10_000), UNUSABLE),
        (changed(Address=""), UNUSABLE),
        (changed(Address="gw04; reboot"), UNUSABLE),
        (changed(Address="x" * 254), UNUSABLE),
        (changed(Address="gw04\n"), UNUSABLE),
        (changed(AllowedIPs=[]), UNUSABLE),
        (changed(AllowedIPs=["fe80::1", "fe80::2"]), UNUSABLE),
        (changed(AllowedIPs=["fe80::1/128"]), UNUSABLE),
        (changed(AllowedIPs=["10.0.0.1"]), UNUSABLE),
        (changed(AllowedIPs=["fe80::1%eth0"]), UNUSABLE),
        (changed(PublicKey="x"), UNUSABLE),
        (changed(PublicKey="A" * 43 + "="), UNUSABLE),
    ],
)
def test_a_body_without_a_usable_endpoint_is_a_failure(body: bytes, message: str) -> None:
    with pytest.raises(RoundFailedError, match=f"^{re.escape(message)}") as error:
        parse_version_2(body)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (parse_version_1, b"{}"),
        (parse_version_1, b'{"Message": "Error"}'),
        (parse_version_1, b'{"Message": ["OK"]}'),
        (parse_version_1, b"OK"),
    ],
)
def test_version_1_has_one_good_body(parse: Callable[[bytes], None], body: bytes) -> None:
    parse_version_1(b'{"Message": "OK"}')
    with pytest.raises(RoundFailedError):
        parse(body)
