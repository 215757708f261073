"""What a node submits: from the bytes of a request to a domain and a key, or the reason why it is refused."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from wgkex_ops.errors import InvalidPublicKeyError
from wgkex_ops.http.public.responses import RejectedError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.locations import parse_location

# A submission has about 120 bytes.
BODY_LIMIT: Final = 4096
# Nodes send their body in one piece; a client that takes longer only wants to hold the connection.
BODY_TIMEOUT: Final = 10.0

MALFORMED_JSON: Final = "malformed_json"


@dataclass(frozen=True, slots=True)
class Submission:
    """A valid key of a configured domain.

    Attributes:
        canary: whether it is a canary's, which asks all the time although it gets its tunnel.
        location: where the node would like its gateway to be, in lower case; None if it does not say so.
    """

    domain: Domain
    key: PublicKey
    canary: bool = False
    location: str | None = None


async def read_body(content: StreamReader) -> bytes:
    """Read a request's body, with a content length or in chunks, whatever its content type.

    Raises:
        RejectedError: it has more than BODY_LIMIT bytes, is not complete in time, or its encoding is broken.
        ConnectionError: the client has gone.
    """
    body = bytearray()
    try:
        if content.is_eof() and content.total_bytes <= BODY_LIMIT:
            # All of it came with the head, as nodes send it.
            return content.read_nowait()
        async with asyncio.timeout(BODY_TIMEOUT):
            async for piece in content.iter_any():
                body += piece
                if len(body) > BODY_LIMIT:
                    raise RejectedError("too_large", f"the body has more than {BODY_LIMIT} bytes")
    except TimeoutError:
        raise RejectedError(MALFORMED_JSON, f"the body was not complete after {BODY_TIMEOUT:g} s") from None
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise RejectedError(MALFORMED_JSON, "the body's transfer encoding is broken") from error
    except OSError as error:
        # For example EHOSTUNREACH, which is not a ConnectionError.
        raise ConnectionResetError("the client has gone") from error
    return bytes(body)


def parse_submission(body: bytes, domains: Mapping[str, Domain], location: str | None = None) -> Submission:
    """Read ``{"domain": …, "public_key": …}``, perhaps with ``"canary": true`` and ``"location": …``.

    Other members are ignored, as they always were; so are these two by old brokers. A location that is none is no
    reason to refuse a node.

    Args:
        body: of the request.
        domains: configured domains by name.
        location: what counts if the body names none.

    Raises:
        RejectedError: what is wrong; the first thing in the order JSON, members, domain, key.
    """
    document = _parse_json(body)
    if not isinstance(document, dict):
        raise RejectedError(MALFORMED_JSON, "the body is JSON, but not an object")
    name = _text_member(document, "domain", "unknown_domain")
    domain = domains.get(name)
    text = _text_member(document, "public_key", InvalidPublicKeyError.reason, domain)
    try:
        key = PublicKey.parse(text)
    except InvalidPublicKeyError as error:
        if domain is None:
            raise _unknown_domain() from error
        raise RejectedError(error.reason, str(error), domain=domain) from error
    if domain is None:
        raise _unknown_domain(key)
    named = document.get("location")
    return Submission(domain, key, document.get("canary") is True, parse_location(location if named is None else named))


def _unknown_domain(key: PublicKey | None = None) -> RejectedError:
    return RejectedError("unknown_domain", "the domain is not served here", key=key)


def _parse_json(body: bytes) -> Any:  # noqa: ANN401  JSON can be anything
    try:
        return _DECODER.decode(body.decode("utf-8"))
    # A body full of brackets exhausts the parser's stack.
    except (ValueError, RecursionError):
        raise RejectedError(MALFORMED_JSON, "the body is not valid JSON") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object with a member twice: two readers might take two different keys from it."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise RejectedError(MALFORMED_JSON, "the body names a member twice")
    return members


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_members)


def _text_member(document: dict[str, Any], name: str, reason: str, domain: Domain | None = None) -> str:
    if name not in document:
        raise RejectedError("missing_field", f"the member {name} is missing", domain=domain)
    value = document[name]
    if not isinstance(value, str):
        raise RejectedError(reason, f"the member {name} is not a string", domain=domain)
    return value
