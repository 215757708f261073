"""The broker's answers towards nodes: all of them JSON."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from wgkex_ops.bus.messages import Endpoint
from wgkex_ops.model.domains import Domain

# What aiohttp refuses by itself, before or instead of a handler.
_REFUSALS: Final = {
    404: ("not_found", "there is nothing under this path"),
    405: ("method_not_allowed", "this path does not take this method"),
    417: ("expectation_failed", "the only expectation that can be met is 100-continue"),
}

# Nodes ask again once a minute whatever we say; this is for everybody else.
RETRY_AFTER_SECONDS: Final = 30


class RejectedError(Exception):
    """A submission that is refused through a fault of its sender.

    Attributes:
        reason: slug for the error object and the metric label.
        status: HTTP status, 400 or 413.
        domain: the configured domain that it was meant for, as far as that could be told.
    """

    def __init__(self, reason: str, message: str, status: int = 400, domain: Domain | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.domain = domain


def error_answer(status: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error object: what is wrong in a sentence, and a slug for programs."""
    return web.json_response({"error": {"message": message, "reason": reason}}, status=status, headers=headers)


def refusal_answer(error: web.HTTPException) -> web.Response:
    """A refusal of aiohttp's own."""
    reason, message = _REFUSALS.get(error.status, ("http_error", "the request was refused"))
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return error_answer(error.status, reason, message, headers)


def crashed_answer() -> web.Response:
    """Our own mistake; what it was is in the log, not here."""
    return unavailable_answer("internal", "something went wrong here; try again later")


def unavailable_answer(reason: str, message: str) -> web.Response:
    """The key could not be handed over; nodes try version 1 at once, and again in a minute."""
    return error_answer(503, reason, message, {"Retry-After": str(RETRY_AFTER_SECONDS)})


def accepted_answer() -> web.Response:
    """Version 1: the key is on its way to all gateways."""
    return web.json_response({"Message": "OK"})


def endpoint_answer(endpoint: Endpoint) -> web.Response:
    """Version 2: the gateway that the node is to use. `Port` is a string, since nodes read it with a shell."""
    return web.json_response(
        {
            "Endpoint": {
                "Address": endpoint.address,
                "Port": str(endpoint.port),
                "AllowedIPs": [endpoint.link_address],
                "PublicKey": endpoint.public_key,
            }
        }
    )
