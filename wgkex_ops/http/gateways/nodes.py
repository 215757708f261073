"""The nodes that have asked lately: which are new, which come back, and which gateways they were sent to. No I/O.

A node that asks again shortly after it was sent to a gateway has got no tunnel there: it is sent to another one.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.metrics.broker import NodeMetrics
from wgkex_ops.metrics.children import Children
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

# Seconds. A node without a tunnel asks once a minute: one that was not heard for so long has had a tunnel meanwhile.
REMEMBERED_FOR: Final = 300.0
# Seconds within which a node counts once for a gateway, however often it is sent there: so the counts of a window of
# this length are numbers of nodes, and a router that asks a hundred times a minute is one.
COUNTED_ONCE_IN: Final = 900.0
# A node takes about 1 KB here. Twice as many as the largest gateway has; invented keys displace the oldest ones.
LIMIT: Final = 40_000

_NEVER: Final = -float("inf")


@dataclass(slots=True)
class _Visit:
    """That a node was sent to a gateway, with the times at which that was last counted."""

    sent_at: float
    counted_at: float = _NEVER
    returned_at: float = _NEVER


@dataclass(slots=True)
class _Node:
    """A node that keeps asking; its visits by worker, the latest one last. Canaries are not counted."""

    asked_at: float
    counted: bool
    visits: dict[str, _Visit] = field(default_factory=dict)


class RecentNodes:
    """Remembers a node for as long as it keeps asking, and REMEMBERED_FOR afterwards; at most LIMIT of them.

    Args:
        gateways: give the workers their labels.
        metrics: the instruments that are kept up to date.
        clock: seconds, never set back.
    """

    def __init__(self, gateways: Gateways, metrics: NodeMetrics, clock: Callable[[], float] = monotonic) -> None:
        self._gateways = gateways
        self._metrics = metrics
        self._clock = clock
        # By domain and key (32 bytes). The one that asked longest ago comes first; a plain dict looks for it behind all
        # that it has deleted.
        self._nodes: OrderedDict[tuple[str, bytes], _Node] = OrderedDict()
        self._first_requests = Children(metrics.first_requests)

    def __len__(self) -> int:
        return len(self._nodes)

    def knows(self, domain: Domain, key: PublicKey) -> bool:
        """Whether a node has asked within REMEMBERED_FOR."""
        node = self._nodes.get((domain.name, key.raw))
        return node is not None and self._clock() - node.asked_at <= REMEMBERED_FOR

    def ask(self, domain: Domain, key: PublicKey, *, counted: bool = True) -> None:
        """Note that a node asks, by either version; it counts if it has not done so within REMEMBERED_FOR.

        Args:
            domain: the node's.
            key: the node's.
            counted: False for a canary: it asks again and again although it gets its tunnel.
        """
        now = self._clock()
        self._forget(now - REMEMBERED_FOR)
        node = self._nodes.pop((domain.name, key.raw), None)
        if node is None:
            if counted:
                self._first_requests[(domain.name,)].inc()
            node = _Node(now, counted)
            if len(self._nodes) >= LIMIT:
                self._nodes.popitem(last=False)
        node.asked_at = now
        self._nodes[domain.name, key.raw] = node

    def come_back(self, domain: Domain, key: PublicKey) -> Sequence[str]:
        """Note that a node wants to be sent to a gateway.

        Returns:
            the workers that it was sent to while it kept asking, the latest one last. If that was within
            REMEMBERED_FOR, the node counts as one that comes back from there.
        """
        node = self._nodes.get((domain.name, key.raw))
        if node is None or not node.visits:
            return ()
        now = self._clock()
        worker, visit = next(reversed(node.visits.items()))
        if node.counted and now - visit.sent_at <= REMEMBERED_FOR and now - visit.returned_at > COUNTED_ONCE_IN:
            visit.returned_at = now
            self._metrics.returned.labels(self._gateways.label(worker)).inc()
        return tuple(node.visits)

    def send(self, domain: Domain, key: PublicKey, worker: str) -> None:
        """Note that a node is sent to a gateway."""
        node = self._nodes.get((domain.name, key.raw))
        if node is None:
            # Displaced while its receipt was awaited.
            return
        now = self._clock()
        visit = node.visits.pop(worker, None) or _Visit(now)
        visit.sent_at = now
        node.visits[worker] = visit
        if node.counted and now - visit.counted_at > COUNTED_ONCE_IN:
            visit.counted_at = now
            self._metrics.assigned.labels(self._gateways.label(worker)).inc()

    def _forget(self, before: float) -> None:
        while self._nodes:
            if next(iter(self._nodes.values())).asked_at >= before:
                return
            self._nodes.popitem(last=False)
