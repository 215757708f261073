"""The broker's HTTP responses to nodes: all of them JSON."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from aiohttp import web

from wgkex_ops.bus.messages import Endpoint
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

# Every reason that an error object can have, with its HTTP status; docs/protocol.md says what each of them means.
REASONS: Final[Mapping[str, int]] = {
    "malformed_json": 400,
    "missing_field": 400,
    "unknown_domain": 400,
    "invalid_public_key": 400,
    "small_order_public_key": 400,
    "bad_request": 400,
    "denied_key": 403,
    "not_allowed_key": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_large": 413,
    "expectation_failed": 417,
    "rate_limited": 429,
    "mqtt_disconnected": 503,
    "publish_refused": 503,
    "publish_timeout": 503,
    "no_worker": 503,
    "internal": 503,
}

# What is refused before or instead of a handler, by its status.
_REFUSALS: Final = {
    400: ("bad_request", "this is not an HTTP request that can be understood"),
    404: ("not_found", "there is nothing under this path"),
    405: ("method_not_allowed", "this path does not support this method"),
    417: ("expectation_failed", "the only expectation that can be met is 100-continue"),
}

_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_OK: Final = b'{"Message": "OK"}'

# The statuses of what a client may well try again. Nodes send their key again once a minute, whatever the response
# says; the seconds are for all other clients.
_TEMPORARY: Final = (429, 503)
_RETRY: Final = {"Retry-After": "30"}


class RejectedError(Exception):
    """A submission that is refused, because it is wrong.

    Attributes:
        reason: one of REASONS, for the error object and the metric label.
        domain: the configured domain that it names, as far as that is known.
        key: that it names, where only the domain is wrong.
    """

    def __init__(self, reason: str, message: str, domain: Domain | None = None, key: PublicKey | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.domain = domain
        self.key = key


def error_response(reason: str, message: str, headers: Mapping[str, str] = _NO_HEADERS) -> web.Response:
    """An error object, with the status of its reason.

    Args:
        reason: one of REASONS.
        message: what is wrong, in a sentence.
        headers: further headers.
    """
    return _json({"error": {"message": message, "reason": reason}}, REASONS[reason], headers)


def refusal_response(status: int, allow: str = "") -> web.Response:
    """A request that no handler takes, or that aiohttp itself refuses. No node sends one: the connection ends.

    Args:
        status: 404, 405, 417, or any other one that aiohttp gives.
        allow: the methods that the path supports, for 405.
    """
    reason, message = _REFUSALS.get(status, ("bad_request", "the request was refused"))
    response = error_response(reason, message, {"Allow": allow} if allow else _NO_HEADERS)
    response.force_close()
    return response


def crash_response() -> web.Response:
    """A bug of ours; the log has it."""
    return error_response("internal", "something went wrong here; try again later")


def accepted_response() -> web.Response:
    """Version 1: the key is on its way to all gateways."""
    return web.Response(body=_OK, headers=_JSON)


def endpoint_response(endpoint: Endpoint) -> web.Response:
    """Version 2: the gateway that the node is to use. `Port` is a string, since nodes read it with a shell."""
    return _json(
        {
            "Endpoint": {
                "Address": endpoint.address,
                "Port": str(endpoint.port),
                "AllowedIPs": [endpoint.link_address],
                "PublicKey": endpoint.public_key,
            }
        }
    )


def ready_response(problems: Sequence[str]) -> web.Response:
    """Whether a load balancer should send requests here, and if not, why."""
    if problems:
        return _json({"ready": False, "reasons": list(problems)}, 503)
    return _json({"ready": True})


def _json(document: object, status: int = 200, headers: Mapping[str, str] = _NO_HEADERS) -> web.Response:
    retry = _RETRY if status in _TEMPORARY else _NO_HEADERS
    return web.Response(body=json.dumps(document).encode(), status=status, headers={**_JSON, **retry, **headers})
