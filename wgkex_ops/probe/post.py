"""POSTs a key as the firmware does: with a form's content type, in chunks, without a length. Only 200 is success."""

import errno
import json
import os
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp import hdrs

from wgkex_ops.bus.messages import Endpoint, is_usable
from wgkex_ops.errors import RoundFailedError
from wgkex_ops.model.keys import PublicKey

# Far more than a response has.
_LONGEST_BODY: Final = 65_536
# How much of a text from elsewhere goes into a message.
_SHOWN: Final = 200
# What a node's shell puts behind an address; more digits are no port.
_LONGEST_PORT: Final = 5


class _ErrorDetail(msgspec.Struct):
    message: str
    reason: str


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail


class _Endpoint(msgspec.Struct, rename="pascal"):
    address: str
    port: str
    public_key: str
    allowed_ips: list[str] = msgspec.field(name="AllowedIPs")


class _Body(msgspec.Struct, rename="pascal"):
    endpoint: _Endpoint | None = None
    # Of any type: that it is there means something.
    message: Any = None


async def post_key(
    url: str, api_version: int, domain: str, key: PublicKey, *, canary: bool, location: str | None = None
) -> bytes:
    """POST a key.

    Args:
        url: of the broker, without a path of ours.
        api_version: 1 or 2.
        domain: the name of the key's.
        key: the key.
        canary: whether it is a canary's. Brokers serve it like any other node, but count it as none.
        location: where version 2 should look for a gateway first; None for anywhere.

    Returns:
        the body of the response, which has the status 200.

    Raises:
        RoundFailedError: there is no response, or another one; the message is for the operator.
    """
    address = f"{url}/api/v{api_version}/wg/key/exchange"
    headers = {
        hdrs.CONTENT_TYPE: "application/x-www-form-urlencoded",
        hdrs.USER_AGENT: f"wgkex-ops-{'probe' if canary else 'register'}/{version('wgkex-ops')}",
    }
    document: dict[str, object] = {"domain": domain, "public_key": str(key)}
    # Old brokers ignore both.
    if canary:
        document["canary"] = True
    if location is not None:
        document["location"] = location
    try:
        async with (
            aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=(hdrs.ACCEPT_ENCODING,)) as session,
            session.post(
                address,
                data=_chunks(json.dumps(document).encode()),
                headers=headers,
                allow_redirects=False,
            ) as response,
        ):
            status, body = response.status, await _read(response.content)
    except (aiohttp.ClientError, ValueError, OSError) as error:
        raise RoundFailedError(f"no response of the broker at {url}: {_why(error)}") from error
    if status != HTTPStatus.OK:
        raise RoundFailedError(f"the broker at {url} refused the key: {_refusal(status, body)}")
    return body


def parse_version_1(body: bytes) -> None:
    """Check the body of a response to version 1.

    Raises:
        RoundFailedError: no node takes it for success.
    """
    if _decode(body).message != "OK":
        raise RoundFailedError("the broker's response is not that of version 1: a node takes it for a failure")


def parse_version_2(body: bytes) -> Endpoint:
    """Read the endpoint in the body of a response to version 2.

    Raises:
        RoundFailedError: a node finds none there.
    """
    found = _decode(body)
    if found.message is not None:
        raise RoundFailedError("the broker's response has a Message: nodes take it for version 1, and set no gateway")
    if found.endpoint is None:
        raise RoundFailedError("the broker's response has no Endpoint")
    given = found.endpoint
    port = (
        int(given.port) if given.port.isascii() and given.port.isdecimal() and len(given.port) <= _LONGEST_PORT else 0
    )
    [link_address] = given.allowed_ips if len(given.allowed_ips) == 1 else [""]
    endpoint = Endpoint(given.address, port, given.public_key, link_address)
    if not is_usable(endpoint):
        raise RoundFailedError("the broker's response has an Endpoint that no node can use")
    return endpoint


def parse_refusal(body: bytes) -> tuple[str, str] | None:
    """Reason and message of the error object in the body of a response; None if there is no such object."""
    try:
        error = msgspec.json.decode(body, type=_ErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return error.reason, error.message


def shown(text: str) -> str:
    """A text from elsewhere for a message: short, on one line, and nothing that a terminal obeys."""
    return "".join(character if character.isprintable() else "?" for character in text[:_SHOWN])


def _decode(body: bytes) -> _Body:
    try:
        return msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RoundFailedError(f"no node can read the broker's response: {shown(str(error))}") from None


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    # Without a known length the client sends it in chunks.
    yield body


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = b""
    async for piece in content.iter_any():
        body += piece
        if len(body) > _LONGEST_BODY:
            raise ValueError(f"it is longer than {_LONGEST_BODY} bytes")
    return body


def _refusal(status: int, body: bytes) -> str:
    found = parse_refusal(body)
    return f"HTTP status {status}" + (f", {shown(found[0])}: {shown(found[1])}" if found else "")


def _why(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            why = "its name has no address"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            why = f"TLS failed: {shown(str(error))}"
        case aiohttp.ServerDisconnectedError():
            why = "it closed the connection"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            why = "what came is not an HTTP response"
        case OSError(errno=int(code)) if code in errno.errorcode:
            why = os.strerror(code)
        case ValueError():
            why = shown(str(error))
        case _:
            why = type(error).__name__
    return why
