"""The broker's answers towards nodes: all of them JSON."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from wgkex_ops.domains import Domain
from wgkex_ops.topics import Endpoint

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
