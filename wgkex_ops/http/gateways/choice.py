"""The gateway that a version 2 response names: the best one, if it has installed the key."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter

from wgkex_ops.bus.messages import Endpoint
from wgkex_ops.http.gateways.confirmations import UnconfirmedKey
from wgkex_ops.http.gateways.nodes import RecentNodes
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.gateways.silence import Silences
from wgkex_ops.metrics.locations import LocationMetrics

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """The gateway for a node."""

    worker: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Locations:
    """Where the gateways are.

    Attributes:
        of_workers: the location of each worker that has one, in lower case.
        tolerance: how far a gateway of the location that a node names may be from the balance, as a share.
    """

    of_workers: Mapping[str, str] = field(default_factory=dict)
    tolerance: float = 0.0

    def workers_at(self, location: str | None) -> Collection[str]:
        """The workers at a location, which may be one that no gateway has."""
        if location is None:
            return ()
        return [worker for worker, there in self.of_workers.items() if there == location]


def choose(
    gateways: Gateways,
    domain: str,
    excluded: Collection[str] = (),
    preferred: Collection[str] = (),
    tolerance: float = 0.0,
) -> Choice | None:
    """Choose the best gateway for a node of a domain (contract, section 4).

    Of all gateways that take nodes of the domain, have a weight, and are not excluded, it is the one with the smallest
    ``peers - share * total``; of equal ones, the first by name.

    A preferred one comes first while it has less than ``balanced * (1 + tolerance) + 1`` peers, where ``balanced`` is
    the number with which it would be exactly as good as the best one. The 1 is there as peers are whole, and targets
    are not.

    Returns:
        None if there is no such gateway.
    """
    total = gateways.total
    candidates = [
        (gateway.peers - gateways.share(worker) * total, worker)
        for worker, gateway in gateways.workers.items()
        if gateway.takes_nodes_of(domain) and gateways.wants_nodes(worker) and worker not in excluded
    ]
    if not candidates:
        return None
    best = min(candidates)
    near = [
        (score, worker)
        for score, worker in candidates
        if worker in preferred and _is_balanced(gateways.workers[worker].peers, score - best[0], tolerance)
    ]
    _, worker = min(near, default=best)
    return Choice(worker, gateways.workers[worker].endpoints[domain])


def _is_balanced(peers: int, excess: float, tolerance: float) -> bool:
    return peers < (peers - excess) * (1 + tolerance) + 1


class Assigner:
    """Sends nodes to gateways.

    Args:
        gateways: all of them.
        nodes: where each node was sent to before.
        silences: the gateways that send no receipts.
        locations: where the gateways are.
        confirm_timeout: seconds to wait for receipts, all in all; 0 waits for none.
        assignments: counts the gateways that were named, by worker and domain.
        timeouts: counts the gateways that were named although their receipt did not come in time, by worker.
        preferences: counts the nodes that named a location of some gateway, by whether they got one there.
    """

    def __init__(
        self,
        gateways: Gateways,
        nodes: RecentNodes,
        silences: Silences,
        *,
        locations: Locations,
        confirm_timeout: float,
        assignments: Counter,
        timeouts: Counter,
        preferences: LocationMetrics,
    ) -> None:
        self._gateways = gateways
        self._nodes = nodes
        self._silences = silences
        self._locations = locations
        self._confirm_timeout = confirm_timeout
        self._assignments = assignments
        self._timeouts = timeouts
        self._preferences = preferences

    async def assign(self, key: UnconfirmedKey, location: str | None = None) -> Choice | None:
        """Find the gateway for the node of a key that has been published.

        A gateway that gave the key up is passed over. So are, while there is another one, gateways that send no
        receipts, and those that the node comes back from: of these, the one that it was sent to first is next. Of what
        is left, gateways at the location that the node names come first, as far as the balance allows.

        While a receipt is awaited, the node counts as one of that gateway's peers, so that not all nodes that come
        meanwhile choose the same one; then only where it is sent.

        Returns:
            None if no gateway takes nodes of the domain, or all of those have given the key up.
        """
        domain = key.domain.name
        deadline = asyncio.get_running_loop().time() + self._confirm_timeout
        visited = self._nodes.come_back(key.domain, key.public_key)
        preferred = self._locations.workers_at(location)
        gave_up: set[str] = set()
        while (choice := self._best(domain, gave_up, visited, preferred)) is not None:
            with self._gateways.reserving(choice.worker, domain):
                reason = await self._receipt(key, choice, deadline)
            if reason:
                gave_up.add(choice.worker)
                continue
            self._gateways.assign(choice.worker, domain, key.public_key)
            self._nodes.send(key.domain, key.public_key, choice.worker)
            self._assignments.labels(self._gateways.label(choice.worker), domain).inc()
            if preferred:
                self._preferences.count(met=choice.worker in preferred)
            _log.debug(
                "gateway_chosen",
                worker=choice.worker,
                domain=domain,
                confirmed=reason is not None,
                request_id=key.origin.request_id,
            )
            return choice
        return None

    def _best(
        self, domain: str, gave_up: set[str], visited: Sequence[str], preferred: Collection[str]
    ) -> Choice | None:
        for silent in (self._silences.silent_in(domain), ()):
            for first in range(len(visited) + 1):
                excluded = gave_up.union(silent, visited[first:])
                choice = choose(self._gateways, domain, excluded, preferred, self._locations.tolerance)
                if choice is not None:
                    return choice
        return None

    async def _receipt(self, key: UnconfirmedKey, choice: Choice, deadline: float) -> str | None:
        """The gateway's receipt as `UnconfirmedKey.receipts` has it; None if it did not come in time."""
        waits = self._confirm_timeout > 0 and choice.endpoint.receipts and key.origin.receipt_to is not None
        if not waits:
            return key.receipts.get(choice.worker)
        try:
            async with asyncio.timeout_at(deadline):
                return await key.receipt_of(choice.worker)
        except TimeoutError:
            self._timeouts.labels(self._gateways.label(choice.worker)).inc()
            return None
