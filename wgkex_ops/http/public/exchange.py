"""The key exchange: one submission in, one HTTP response out, and each of them counted."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
from aiohttp import web

from wgkex_ops.errors import BusError
from wgkex_ops.http.clients import ForwardingWatch, TrustedProxies, network_of
from wgkex_ops.http.gateways.choice import Choice
from wgkex_ops.http.gateways.confirmations import UnconfirmedKey, UnconfirmedKeys
from wgkex_ops.http.gateways.nodes import RecentNodes
from wgkex_ops.http.gateways.requests import RecentRequest, RecentRequests
from wgkex_ops.http.public.limits import Limits, RateLimitedError
from wgkex_ops.http.public.responses import (
    RejectedError,
    accepted_response,
    crash_response,
    endpoint_response,
    error_response,
)
from wgkex_ops.http.public.submission import Submission, parse_submission, read_body
from wgkex_ops.logs import LineBatch, LineSample
from wgkex_ops.metrics.broker import KeyMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.names import DENIED_KEY, NOT_ALLOWED_KEY, UNKNOWN

_log = structlog.get_logger(__name__)

# What a key is told that the operators' lists refuse.
_LISTED: Final = {
    DENIED_KEY: "the operators have denied this key",
    NOT_ALLOWED_KEY: "the operators have not allowed this key in the domain",
}

# Where a load balancer, or a node, names a location outside of the body.
_LOCATION: Final = "X-Location"

# Makes the response to a submission whose key has been published, by the location that it names; None if there is no
# gateway for its node.
_Respond = Callable[[UnconfirmedKey, RecentRequest, str | None], Awaitable[web.Response | None]]


class KeyExchange:
    """Serves both versions of the key exchange.

    Args:
        domains: configured domains by name.
        proxies: who is believed about the client of a request.
        lists: the operators' key lists in force.
        limits: how much each client may ask for.
        nodes: knows which nodes have asked lately.
        requests: keeps the latest ones, for operators.
        unconfirmed: keeps each key until the gateways have confirmed it.
        send: publishes a key; returns when the MQTT server has acknowledged, or raises BusError.
        assign: finds the gateway for the node of a key that has been published, by the location that it names; None
            if there is no gateway.
        metrics: what became of the keys.

    Attributes:
        forwarding: whether a load balancer does not say whom it forwards for.
    """

    def __init__(
        self,
        *,
        domains: Mapping[str, Domain],
        proxies: TrustedProxies,
        lists: Callable[[], KeyLists],
        limits: Limits,
        nodes: RecentNodes,
        requests: RecentRequests,
        unconfirmed: UnconfirmedKeys,
        send: Callable[[UnconfirmedKey], Awaitable[None]],
        assign: Callable[[UnconfirmedKey, str | None], Awaitable[Choice | None]],
        metrics: KeyMetrics,
    ) -> None:
        self._domains = domains
        self._proxies = proxies
        self._lists = lists
        self._limits = limits
        self.forwarding = ForwardingWatch(proxies)
        self._nodes = nodes
        self._requests = requests
        self._unconfirmed = unconfirmed
        self._send = send
        self._assign = assign
        self._metrics = metrics
        self._accepted = LineBatch(__name__, "key_accepted")
        self._rejected = LineSample(__name__, "key_rejected")

    async def serve_v1(self, request: web.BaseRequest, request_id: str) -> web.Response:
        """`POST /api/v1/wg/key/exchange`."""
        return await self._serve(request, request_id, 1, _accept)

    async def serve_v2(self, request: web.BaseRequest, request_id: str) -> web.Response:
        """`POST /api/v2/wg/key/exchange`.

        The key is published before a gateway is chosen: a node that gets no gateway asks version 1 at once and picks
        one itself, and its key should be there by then.
        """
        return await self._serve(request, request_id, 2, self._name_gateway)

    async def _serve(
        self, request: web.BaseRequest, request_id: str, api_version: int, respond: _Respond
    ) -> web.Response:
        """Serve one submission, and count it as exactly one of published, rejections and failures."""
        domain: Domain | None = None
        submission: Submission | None = None
        try:
            peer, client = self._origin(request)
            network = network_of(client)
            # Before anything else is done for it.
            self._limits.request(network)
            body = await read_body(request.content)
            submission = parse_submission(body, self._domains, request.headers.get(_LOCATION))
            domain = submission.domain
            self._check_lists(submission)
            self._limits.key(domain, submission.key)
            if not self._nodes.knows(domain, submission.key):
                self._limits.new_key(domain, network)
                self.forwarding.note(peer, client)
            response = await self._hand_over(submission, request_id, api_version, respond)
        except RejectedError as error:
            domain = error.domain
            self._metrics.reject(error.reason)
            if isinstance(error, RateLimitedError):
                self._metrics.limit(error.limit)
            context = self._context(submission, request_id) if submission else {"request_id": request_id}
            if (key := submission.key if submission else error.key) is not None:
                self._requests.refuse(key.raw, domain.name if domain else "", api_version, request_id, error.reason)
            self._rejected.add(error.reason, {"api_version": f"v{api_version}", **context})
            response = error_response(error.reason, str(error))
        except ConnectionError:
            # The client has gone, and gets no response.
            raise
        except Exception:  # noqa: BLE001  the outermost edge of a request
            _log.exception("key_exchange_crashed", api_version=f"v{api_version}", request_id=request_id)
            self._metrics.failures.labels("internal").inc()
            response = crash_response()
        self._metrics.respond(f"v{api_version}", domain.name if domain else UNKNOWN)
        return response

    def _check_lists(self, submission: Submission) -> None:
        domain = submission.domain
        if reason := self._lists().refusal(domain.name, submission.key.raw, time.time()):
            raise RejectedError(reason, _LISTED[reason], domain)

    def _origin(self, request: web.BaseRequest) -> tuple[str, str]:
        """The address that has opened the connection, and the one that the request comes from."""
        peer, headers = request.remote or "", request.headers
        # Some proxies add a header of their own, and do not extend the one that is there.
        forwarded_for = ",".join(headers.getall("X-Forwarded-For", ()))
        return peer, self._proxies.client(peer, forwarded_for, headers.get("X-Real-IP", ""))

    async def _hand_over(
        self, submission: Submission, request_id: str, api_version: int, respond: _Respond
    ) -> web.Response:
        """Publish a valid key, and only then make the response.

        A key whose response is not 200 does not remain among the unconfirmed ones: its node sends it again.
        """
        start = time.perf_counter()
        self._nodes.ask(submission.domain, submission.key, counted=not submission.canary)
        key = self._unconfirmed.add(submission.domain, submission.key, request_id, time.time(), api_version)
        request = self._requests.take(key)
        response = None
        try:
            await self._send(key)
            acknowledged_after = time.perf_counter() - start
            self._unconfirmed.accept(key)
            response = await respond(key, request, submission.location)
        except BusError as error:
            request.failure = error.reason
            return self._fail(error.reason, str(error), submission, request_id)
        except Exception:
            request.failure = "internal"
            raise
        finally:
            if response is None:
                self._unconfirmed.drop(key)
        if response is None:
            request.failure = "no_worker"
            message = "there is no gateway for this domain at the moment"
            return self._fail("no_worker", message, submission, request_id)
        self._metrics.publish(submission.domain.name, acknowledged_after, request_id)
        self._accepted.add({"api_version": f"v{api_version}", **self._context(submission, request_id)})
        return response

    async def _name_gateway(
        self, key: UnconfirmedKey, request: RecentRequest, location: str | None
    ) -> web.Response | None:
        choice = await self._assign(key, location)
        if choice is None:
            return None
        request.named = choice.worker
        return endpoint_response(choice.endpoint)

    def _fail(self, reason: str, message: str, submission: Submission, request_id: str) -> web.Response:
        self._metrics.failures.labels(reason).inc()
        _log.warning("key_failed", reason=reason, **self._context(submission, request_id))
        return error_response(reason, message)

    def _context(self, submission: Submission, request_id: str) -> dict[str, object]:
        """What is logged of a submission."""
        return {**self._lists().describe(submission.domain.name, submission.key), "request_id": request_id}


async def _accept(_key: UnconfirmedKey, _request: RecentRequest, _location: str | None) -> web.Response:
    return accepted_response()
