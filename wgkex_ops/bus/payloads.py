"""Rules for all topics and payloads of the bus. Pure."""

import json
from typing import Final, TypeVar

import msgspec

from wgkex_ops.errors import InvalidMessageError
from wgkex_ops.model.names import ALL_WORKERS

_T = TypeVar("_T")

# Names of hosts have 253 characters at the most (RFC 1035). What is not printable would reach logs and labels; the
# others separate levels of a topic, or are wildcards (MQTT 5, section 4.7.1).
_NAME_LIMIT: Final = 253
_NOT_IN_NAMES: Final = frozenset("/+#")
# The JSON of a worker's data has a few hundred bytes; more is not worth the time to parse it.
_PAYLOAD_LIMIT: Final = 4096
# Not msgspec's JSON: old brokers have always got spaces, and nothing but ASCII.
_JSON: Final = json.JSONEncoder(check_circular=False)


def is_name(level: str) -> bool:
    """Whether a level of a topic can be a name."""
    return 0 < len(level) <= _NAME_LIMIT and level.isprintable() and _NOT_IN_NAMES.isdisjoint(level)


def is_worker(name: str) -> bool:
    """Whether a worker may have this name; one called ALL_WORKERS would be taken for all of them."""
    return is_name(name) and name != ALL_WORKERS


def encode(value: msgspec.Struct) -> bytes:
    """Encode a JSON object."""
    return _JSON.encode(msgspec.to_builtins(value)).encode()


def decode(kind: type[_T], payload: bytes, what: str, limit: int = _PAYLOAD_LIMIT) -> _T:
    """Decode a JSON object that somebody else has published.

    Args:
        kind: what it should be.
        payload: the message.
        what: its name in the error.
        limit: bytes that it may have.

    Raises:
        InvalidMessageError: reason ``malformed_payload``.
    """
    if len(payload) > limit:
        raise malformed_payload(f"{what} has more than {limit} bytes")
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed_payload(f"{what} is not valid: {error}") from None


def malformed_payload(detail: str) -> InvalidMessageError:
    """Make the error for a payload that breaks a rule."""
    return InvalidMessageError("malformed_payload", detail)
