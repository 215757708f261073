"""The gateway that a version 2 answer names: the best one, if it has installed the key."""

import asyncio
from collections.abc import Callable

import structlog
from prometheus_client import Counter

from wgkex_ops.http.gateways.confirmations import Handover
from wgkex_ops.http.gateways.registry import Choice, Gateways

_log = structlog.get_logger(__name__)


class Assigner:
    """Sends nodes to gateways.

    Args:
        gateways: all of them.
        confirm_timeout: seconds to wait for receipts at the most, in all; 0 waits for none.
        assignments: counts the gateways that were named, by worker and domain.
        timeouts: counts the gateways that were named without a receipt although one was waited for, by worker.
        label: a worker's name as a label.
    """

    def __init__(
        self,
        gateways: Gateways,
        *,
        confirm_timeout: float,
        assignments: Counter,
        timeouts: Counter,
        label: Callable[[str], str],
    ) -> None:
        self._gateways = gateways
        self._confirm_timeout = confirm_timeout
        self._assignments = assignments
        self._timeouts = timeouts
        self._label = label

    async def assign(self, handover: Handover) -> Choice | None:
        """Find the gateway for the node of a key that has been published.

        Whoever gave the key up is passed over. While a gateway is waited for, the node counts as one of its peers, so
        that all who come meanwhile do not choose the same one; in the end it does so only where it is sent.

        Returns:
            None if there is no candidate, or all of them have given the key up.
        """
        domain = handover.submission.domain.name
        deadline = asyncio.get_running_loop().time() + self._confirm_timeout
        given_up: set[str] = set()
        while (choice := self._gateways.choose(domain, given_up)) is not None:
            with self._gateways.holding(choice.worker, domain):
                reason = await self._answer(handover, choice, deadline)
            if reason:
                given_up.add(choice.worker)
                continue
            self._gateways.assign(choice.worker, domain)
            self._assignments.labels(self._label(choice.worker), domain).inc()
            _log.debug("gateway_chosen", worker=choice.worker, domain=domain, confirmed=reason is not None)
            return choice
        return None

    async def _answer(self, handover: Handover, choice: Choice, deadline: float) -> str | None:
        """A worker's answer as receipts have it; None if there is none."""
        waiting = self._confirm_timeout > 0 and choice.endpoint.receipts and handover.origin.receipt_to is not None
        if not waiting:
            return handover.answers.get(choice.worker)
        try:
            async with asyncio.timeout_at(deadline):
                return await handover.answer_of(choice.worker)
        except TimeoutError:
            self._timeouts.labels(self._label(choice.worker)).inc()
            return None
