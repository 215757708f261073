"""The key exchange itself: one submission in, one answer out, and every one of them counted."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog
from aiohttp import web

from wgkex_ops.bus.messages import Origin
from wgkex_ops.errors import BusError
from wgkex_ops.http.gateways.confirmations import Handover, Outstanding
from wgkex_ops.http.gateways.registry import Choice
from wgkex_ops.http.public.responses import (
    RejectedError,
    accepted_answer,
    crashed_answer,
    endpoint_answer,
    error_answer,
    unavailable_answer,
)
from wgkex_ops.http.public.submission import Submission, parse_submission, read_body
from wgkex_ops.metrics.broker import KeyMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.names import UNKNOWN

_log = structlog.get_logger(__name__)


class PublishKey(Protocol):
    """Hands a key over to the workers of its domain.

    Returns when the MQTT server has acknowledged, or raises BusError.
    """

    def __call__(self, submission: Submission, origin: Origin) -> Awaitable[None]: ...


# Finds the answer to a submission whose key has been published, or None.
_FindAnswer = Callable[[Handover], Awaitable[web.Response | None]]


class KeyExchange:
    """Serves both versions of the key exchange.

    Args:
        domains: configured domains by name.
        publish: hands a key over.
        outstanding: holds each key until the workers have told what became of it.
        assign: finds the gateway for a node whose key has been published, or None.
        metrics: what became of the keys.
    """

    def __init__(
        self,
        *,
        domains: Mapping[str, Domain],
        publish: PublishKey,
        outstanding: Outstanding,
        assign: Callable[[Handover], Awaitable[Choice | None]],
        metrics: KeyMetrics,
    ) -> None:
        self._domains = domains
        self._publish = publish
        self._outstanding = outstanding
        self._assign = assign
        self._metrics = metrics

    async def serve_v1(self, request: web.Request) -> web.Response:
        """`POST /api/v1/wg/key/exchange`."""
        return await self._serve(request, "v1", _accept)

    async def serve_v2(self, request: web.Request) -> web.Response:
        """`POST /api/v2/wg/key/exchange`.

        The key is published before a gateway is chosen: a node that gets no gateway asks version 1 at once and picks
        one itself, and its key should be there by then.
        """
        return await self._serve(request, "v2", self._answer_with_gateway)

    async def _serve(self, request: web.Request, api_version: str, answer: _FindAnswer) -> web.Response:
        """Serve one submission, and move exactly one of published, rejections and failures."""
        domain: Domain | None = None
        try:
            submission = parse_submission(await read_body(request.content), self._domains)
            domain = submission.domain
            response = await self._hand_over(submission, api_version, answer)
        except RejectedError as error:
            domain = error.domain
            self._metrics.rejections.labels(error.reason).inc()
            _log.info("key_rejected", reason=error.reason, api_version=api_version)
            response = error_answer(error.status, error.reason, str(error))
        except ConnectionError:
            # The sender has gone: nobody gets an answer.
            raise
        except Exception:  # noqa: BLE001  the outermost edge of a request
            _log.exception("key_exchange_crashed", api_version=api_version)
            self._metrics.failures.labels("internal").inc()
            response = crashed_answer()
        self._metrics.requests.labels(api_version, domain.name if domain else UNKNOWN).inc()
        return response

    async def _hand_over(self, submission: Submission, api_version: str, answer: _FindAnswer) -> web.Response:
        """Publish a valid key, and then, not before, find the answer; there may be none, if no gateway is there.

        Only a key whose node is told that all is well stays outstanding: the others are sent again by their nodes.
        """
        start = time.perf_counter()
        request_id = structlog.contextvars.get_contextvars()["request_id"]
        handover = self._outstanding.begin(submission, request_id, time.time())
        response = None
        try:
            await self._publish(submission, handover.origin)
            self._metrics.publish_duration.observe(time.perf_counter() - start, {"request_id": request_id})
            self._outstanding.acknowledge(handover)
            response = await answer(handover)
        except BusError as error:
            return self._fail(error.reason, str(error), submission)
        finally:
            if response is None:
                self._outstanding.drop(handover)
        if response is None:
            return self._fail("no_worker", "there is no gateway for this domain at the moment", submission)
        self._metrics.published.labels(submission.domain.name).inc()
        _log.info(
            "key_accepted", api_version=api_version, domain=submission.domain.name, public_key=str(submission.key)
        )
        return response

    def _fail(self, reason: str, message: str, submission: Submission) -> web.Response:
        self._metrics.failures.labels(reason).inc()
        _log.warning("key_failed", reason=reason, domain=submission.domain.name, public_key=str(submission.key))
        return unavailable_answer(reason, message)

    async def _answer_with_gateway(self, handover: Handover) -> web.Response | None:
        choice = await self._assign(handover)
        return endpoint_answer(choice.endpoint) if choice is not None else None


async def _accept(_handover: Handover) -> web.Response:
    return accepted_answer()
