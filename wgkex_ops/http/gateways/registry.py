"""Which gateway a node is sent to: pure, fed with what workers and brokers say of themselves."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from wgkex_ops.bus.messages import BrokerStatus, ConnectedPeers, Endpoint, WorkerData, WorkerEvent, WorkerStatus

# Workers may be unlisted, but whoever can write to the bus could invent any number of them.
UNLISTED_LIMIT: Final = 64
BROKERS_LIMIT: Final = 64


@dataclass(slots=True)
class Gateway:
    """What is known of one worker.

    Attributes:
        online: by its status.
        endpoints: how nodes reach it, by domain.
        reported: connected peers as last reported, by domain; None if it does not know.
        assigned: peers that were probably sent there since that report, by domain.
        held: peers that may yet be sent there, by domain.
        last_seen: when it was last heard of, by the caller's clock; None if never.
    """

    online: bool = False
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    reported: dict[str, int | None] = field(default_factory=dict)
    assigned: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    last_seen: float | None = None

    def peers_in(self, domain: str) -> int:
        """Reported peers of a domain, those assigned since, and those that may be."""
        return (self.reported.get(domain) or 0) + self.assigned.get(domain, 0) + self.held.get(domain, 0)

    @property
    def peers(self) -> int:
        """The same over all domains."""
        return sum(self.peers_in(domain) for domain in self.reported.keys() | self.assigned.keys() | self.held.keys())


@dataclass(frozen=True, slots=True)
class Choice:
    """The gateway for a node."""

    worker: str
    endpoint: Endpoint


class UnknownOriginError(Exception):
    """An event speaks of a domain or a worker that has no place here.

    Attributes:
        reason: ``unknown_domain`` or ``unknown_worker``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Gateways:
    """All workers of all domains.

    Args:
        weights: configured weights by worker; a worker that is not listed weighs 1.
        domains: names of the configured domains.
    """

    def __init__(self, weights: Mapping[str, float], domains: Collection[str]) -> None:
        self._weights = weights
        # With no weights at all, or with nothing but zeros, the sum is 1.
        self._sum_of_weights = sum(weights.values()) or 1
        self._domains = frozenset(domains)
        self._gateways: dict[str, Gateway] = {worker: Gateway() for worker in weights}
        self._brokers: dict[str, float] = {}

    @property
    def workers(self) -> Mapping[str, Gateway]:
        """All workers that are listed or were heard of."""
        return self._gateways

    @property
    def brokers(self) -> Collection[str]:
        """Names of the brokers that are online by their status."""
        return self._brokers.keys()

    @property
    def brokers_online(self) -> int:
        """Brokers that assign peers, this one included even before it has heard of itself."""
        return max(1, len(self._brokers))

    @property
    def total(self) -> int:
        """Peers of all workers, offline ones included."""
        return sum(gateway.peers for gateway in self._gateways.values())

    def share(self, worker: str) -> float:
        """The part of all peers that a worker's weight asks for."""
        return self._weights.get(worker, 1) / self._sum_of_weights

    def targets(self) -> dict[str, float]:
        """The peers that each worker's weight asks for, for people to compare with.

        They add up to the peers that there are, also with workers that are not listed, whose shares exceed 1.
        """
        shares = {worker: self.share(worker) for worker in self._gateways}
        scale = self.total / (sum(shares.values()) or 1)
        return {worker: share * scale for worker, share in shares.items()}

    def forget_before(self, moment: float) -> None:
        """Drop what was last told before a moment, and keep the workers' names.

        After a reconnect the server tells again whatever it has kept. Who is not among that may have died unseen while
        the server was away, and its last will with it.
        """
        for worker, gateway in self._gateways.items():
            if gateway.last_seen is not None and gateway.last_seen < moment:
                self._gateways[worker] = Gateway()
        self._brokers = {broker: seen for broker, seen in self._brokers.items() if seen >= moment}

    def update(self, event: WorkerEvent, now: float) -> None:
        """Take in what a worker or a broker says of itself, at a moment of the caller's clock.

        Raises:
            UnknownOriginError: it speaks of a domain that is not configured, or is one unlisted worker too many.
        """
        match event:
            case BrokerStatus(broker, online):
                self._update_broker(broker, online, now)
            case WorkerStatus(worker, online):
                self._gateway(worker, now).online = online
            case WorkerData(worker, domain, endpoint):
                gateway = self._gateway_in(worker, domain, now)
                if endpoint is None:
                    gateway.endpoints.pop(domain, None)
                else:
                    gateway.endpoints[domain] = endpoint
            case ConnectedPeers(worker, domain, peers):
                gateway = self._gateway_in(worker, domain, now)
                gateway.reported[domain] = peers
                gateway.assigned.pop(domain, None)

    def choose(self, domain: str, excluded: Collection[str] = ()) -> Choice | None:
        """Choose the best gateway for a node of a domain.

        Of all candidates, the one with the smallest ``peers - share * total``; of equal ones, the first by name. A
        candidate is online, knows its number of peers in the domain, has told how nodes reach it there, and is not
        excluded.

        Returns:
            None if there is no candidate.
        """
        total = self.total
        candidates = [
            (gateway.peers - self.share(worker) * total, worker)
            for worker, gateway in self._gateways.items()
            if gateway.online
            and gateway.reported.get(domain) is not None
            and domain in gateway.endpoints
            and worker not in excluded
        ]
        if not candidates:
            return None
        _, worker = min(candidates)
        return Choice(worker, self._gateways[worker].endpoints[domain])

    def assign(self, worker: str, domain: str) -> None:
        """Count a node at a gateway until that one's next report.

        Every broker assumes that the others, too, have just sent a node there.
        """
        assigned = self._gateways[worker].assigned
        assigned[domain] = assigned.get(domain, 0) + self.brokers_online

    @contextlib.contextmanager
    def holding(self, worker: str, domain: str) -> Iterator[None]:
        """Count a node at a gateway while the context lasts, as it will be if the node is sent there."""
        held, count = self._gateways[worker].held, self.brokers_online
        held[domain] = held.get(domain, 0) + count
        try:
            yield
        finally:
            held[domain] -= count

    def confirming(self, domain: str) -> frozenset[str]:
        """The workers of a domain that are online and tell what becomes of each key."""
        return frozenset(
            worker
            for worker, gateway in self._gateways.items()
            if gateway.online and domain in gateway.endpoints and gateway.endpoints[domain].receipts
        )

    def serves(self, worker: str, domain: str, since: float) -> bool:
        """Whether a worker is there for a domain: online, and heard of since a moment of the caller's clock."""
        gateway = self._gateways.get(worker)
        return (
            gateway is not None
            and gateway.online
            and domain in gateway.endpoints
            and gateway.last_seen is not None
            and gateway.last_seen >= since
        )

    def _update_broker(self, broker: str, online: bool, now: float) -> None:
        self._brokers.pop(broker, None)
        if online and len(self._brokers) < BROKERS_LIMIT:
            self._brokers[broker] = now

    def _gateway_in(self, worker: str, domain: str, now: float) -> Gateway:
        if domain not in self._domains:
            raise UnknownOriginError("unknown_domain")
        return self._gateway(worker, now)

    def _gateway(self, worker: str, now: float) -> Gateway:
        gateway = self._gateways.get(worker)
        if gateway is None:
            if len(self._gateways) - len(self._weights) >= UNLISTED_LIMIT:
                raise UnknownOriginError("unknown_worker")
            gateway = self._gateways[worker] = Gateway()
        gateway.last_seen = now
        return gateway
