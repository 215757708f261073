"""What is known of the gateways: pure, fed with what workers and brokers publish."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from wgkex_ops.bus.asking import Answering
from wgkex_ops.bus.messages import BrokerStatus, ConnectedPeers, Endpoint, WorkerData, WorkerEvent, WorkerStatus
from wgkex_ops.model.inspection import BrokerAnswer, GatewayAnswer
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.names import UNKNOWN

# Workers may be unlisted, but any client of the MQTT server could invent any number of them.
UNLISTED_LIMIT: Final = 64
BROKERS_LIMIT: Final = 64


@dataclass(slots=True)
class Assigned:
    """Nodes that were sent to a gateway, each once, however often it asks.

    Attributes:
        count: how many they are, each of them counted once per broker.
    """

    count: int = 0
    _nodes: dict[bytes, int] = field(default_factory=dict)

    def add(self, node: bytes, brokers: int) -> None:
        """Add a node by its key (32 bytes)."""
        if node not in self._nodes:
            self._nodes[node] = brokers
            self.count += brokers

    def remove(self, node: bytes) -> None:
        """Remove a node, which may not be there."""
        self.count -= self._nodes.pop(node, 0)


@dataclass(slots=True)
class Gateway:
    """What is known of one worker.

    Attributes:
        online: by its status.
        status_since: when it became so, or was heard again to be online, by the caller's clock.
        absent: whether it is offline for so long that its peers have gone elsewhere.
        endpoints: how nodes reach it, by domain.
        reported: connected peers as last reported, by domain; None if the worker does not know.
        assigned: nodes that were sent there since that report, by domain.
        reserved: nodes that wait for its receipt and may be sent there, by domain; counted once per broker.
        last_seen: when it was last heard, by the caller's clock; None if never.
        version: of its software; empty if it is not known.
    """

    online: bool = False
    status_since: float = 0.0
    absent: bool = False
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    reported: dict[str, int | None] = field(default_factory=dict)
    assigned: dict[str, Assigned] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)
    last_seen: float | None = None
    version: str = ""

    def peers_in(self, domain: str) -> int:
        """Reported peers of a domain, with the nodes assigned since and those that it is reserved for."""
        if self.absent:
            return 0
        assigned = self.assigned.get(domain)
        return (self.reported.get(domain) or 0) + (assigned.count if assigned else 0) + self.reserved.get(domain, 0)

    @property
    def peers(self) -> int:
        """The same over all domains."""
        return sum(
            self.peers_in(domain) for domain in self.reported.keys() | self.assigned.keys() | self.reserved.keys()
        )

    @property
    def confirming(self) -> bool:
        """Whether it sends a receipt for each key."""
        return any(endpoint.receipts for endpoint in self.endpoints.values())

    @property
    def answers(self) -> bool:
        """Whether it answers questions: what is too old for them has neither receipts nor a version."""
        return self.confirming or bool(self.version)

    @property
    def draining(self) -> bool:
        """Whether an operator has asked for no new nodes, in any domain.

        While it takes nodes of one, data that says so is retained of another one that it no longer serves.
        """
        takes_nodes = any(
            not endpoint.draining and self.reported.get(domain) is not None
            for domain, endpoint in self.endpoints.items()
        )
        return not takes_nodes and any(endpoint.draining for endpoint in self.endpoints.values())

    def takes_nodes_of(self, domain: str) -> bool:
        """Whether nodes of a domain can be sent there (contract, section 4)."""
        return self.online and self.reported.get(domain) is not None and domain in self.endpoints


class UnknownOriginError(Exception):
    """An event names a domain or a worker that is not known here.

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
        only_listed: whether workers without a configured weight are unknown.
    """

    def __init__(self, weights: Mapping[str, float], domains: Collection[str], *, only_listed: bool = False) -> None:
        self._weights = weights
        # With no weights at all, or with nothing but zeros, the sum is 1.
        self._sum_of_weights = sum(weights.values()) or 1
        self._domains = frozenset(domains)
        self._unlisted_limit = 0 if only_listed else UNLISTED_LIMIT
        self._gateways: dict[str, Gateway] = {worker: Gateway() for worker in weights}
        self._brokers: dict[str, float] = {}
        self._broker_versions: dict[str, str] = {}

    @property
    def workers(self) -> Mapping[str, Gateway]:
        """All workers that are listed or were heard."""
        return self._gateways

    @property
    def brokers(self) -> Collection[str]:
        """Names of the brokers that are online by their status."""
        return self._brokers.keys()

    @property
    def broker_versions(self) -> Mapping[str, str]:
        """The versions of all brokers that were heard, online or not; empty texts for those that are not known."""
        return self._broker_versions

    @property
    def brokers_online(self) -> int:
        """Brokers that assign nodes, this one included even before its own status has come back."""
        return max(1, len(self._brokers))

    @property
    def total(self) -> int:
        """Peers of all workers, those included that are not offline for long."""
        return sum(gateway.peers for gateway in self._gateways.values())

    def label(self, worker: str) -> str:
        """A worker's name as a metric label: where workers are listed, all others share one."""
        return worker if worker in self._weights or not self._weights else UNKNOWN

    def share(self, worker: str) -> float:
        """The part of all peers that a worker's weight asks for (contract, section 4)."""
        return self._weights.get(worker, 1) / self._sum_of_weights

    def wants_nodes(self, worker: str) -> bool:
        """Whether a worker's weight lets new nodes be sent there: 0 means none, unless all are 0."""
        return self._weights.get(worker, 1) > 0 or not any(self._weights.values())

    def targets(self) -> dict[str, float]:
        """The peers that each worker's weight asks for, to compare with those that it has.

        They add up to the peers that there are, also with workers that are not listed, whose shares exceed 1. A worker
        that is offline for long, or drains, has no share.
        """
        shares = {
            worker: 0 if gateway.absent or gateway.draining else self.share(worker)
            for worker, gateway in self._gateways.items()
        }
        scale = self.total / (sum(shares.values()) or 1)
        return {worker: share * scale for worker, share in shares.items()}

    def update(self, event: WorkerEvent, heard_at: float) -> None:
        """Take in what a worker or a broker has published.

        Args:
            event: the message.
            heard_at: when it was published at the latest, by the caller's clock. For a retained message, that is the
                beginning of the connection that brought it.

        Raises:
            UnknownOriginError: it names a domain that is not configured, or comes from an unlisted worker too many.
        """
        match event:
            case BrokerStatus(broker, online, version):
                self._update_broker(broker, online, version, heard_at)
            case WorkerStatus(worker, online, version):
                gateway = self._gateway(worker, heard_at)
                if gateway.online != online or online:
                    gateway.status_since = heard_at
                gateway.online = online
                gateway.absent = gateway.absent and not online
                # A last will has none.
                gateway.version = version or ("" if online else gateway.version)
            case WorkerData(worker, domain, endpoint):
                gateway = self._gateway_in(worker, domain, heard_at)
                if endpoint is None:
                    gateway.endpoints.pop(domain, None)
                else:
                    gateway.endpoints[domain] = endpoint
            case ConnectedPeers(worker, domain, peers):
                gateway = self._gateway_in(worker, domain, heard_at)
                gateway.reported[domain] = peers
                gateway.assigned.pop(domain, None)

    def forget_before(self, moment: float) -> None:
        """Forget what was last heard before a moment, but not the workers' names.

        After a reconnect the server sends again whatever it has retained. A gateway that is not among that may have
        died while the server was away, and its last will with it.
        """
        for worker, gateway in self._gateways.items():
            if gateway.last_seen is not None and gateway.last_seen < moment:
                self._gateways[worker] = Gateway()
        self._brokers = {broker: heard_at for broker, heard_at in self._brokers.items() if heard_at >= moment}

    def mark_absent(self, before: float) -> None:
        """Count no peers any more of the workers that went offline before a moment: they have other gateways."""
        for gateway in self._gateways.values():
            gateway.absent = not gateway.online and gateway.status_since < before

    def assign(self, worker: str, domain: str, key: PublicKey) -> None:
        """Count a node at a gateway until the gateway's next report, and no longer where it was sent before.

        Every broker assumes that each of the others has just sent a node there, too.
        """
        for gateway in self._gateways.values():
            if domain in gateway.assigned:
                gateway.assigned[domain].remove(key.raw)
        self._gateways[worker].assigned.setdefault(domain, Assigned()).add(key.raw, self.brokers_online)

    @contextlib.contextmanager
    def reserving(self, worker: str, domain: str) -> Iterator[None]:
        """Count a node at a gateway while the context lasts, as it will be counted if it is sent there."""
        reserved, count = self._gateways[worker].reserved, self.brokers_online
        reserved[domain] = reserved.get(domain, 0) + count
        try:
            yield
        finally:
            reserved[domain] -= count

    def answering(self) -> frozenset[Answering]:
        """The workers and brokers that are online and should answer questions."""
        workers = {
            (GatewayAnswer, worker) for worker, gateway in self._gateways.items() if gateway.online and gateway.answers
        }
        brokers = {(BrokerAnswer, broker) for broker in self._brokers if self._broker_versions.get(broker)}
        return frozenset({*workers, *brokers})

    def unable(self) -> frozenset[str]:
        """The workers and brokers that are online and cannot be asked: too old, or MQTT 3.1.1."""
        workers = {worker for worker, gateway in self._gateways.items() if gateway.online and not gateway.answers}
        return frozenset({*workers, *(broker for broker in self._brokers if not self._broker_versions.get(broker))})

    def confirming(self, domain: str) -> frozenset[str]:
        """The workers of a domain that are online and send a receipt for each key."""
        return frozenset(
            worker
            for worker, gateway in self._gateways.items()
            if gateway.online and domain in gateway.endpoints and gateway.endpoints[domain].receipts
        )

    def online_in(self, domain: str, since: float) -> dict[str, float]:
        """The workers of a domain that are online by a status not older than a moment, with the time of that status."""
        return {
            worker: gateway.status_since
            for worker, gateway in self._gateways.items()
            if gateway.online and gateway.status_since >= since and domain in gateway.endpoints
        }

    def _update_broker(self, broker: str, online: bool, version: str, heard_at: float) -> None:
        self._brokers.pop(broker, None)
        if online and len(self._brokers) < BROKERS_LIMIT:
            self._brokers[broker] = heard_at
        if broker in self._broker_versions or len(self._broker_versions) < BROKERS_LIMIT:
            self._broker_versions[broker] = version or ("" if online else self._broker_versions.get(broker, ""))

    def _gateway_in(self, worker: str, domain: str, heard_at: float) -> Gateway:
        if domain not in self._domains:
            raise UnknownOriginError("unknown_domain")
        return self._gateway(worker, heard_at)

    def _gateway(self, worker: str, heard_at: float) -> Gateway:
        gateway = self._gateways.get(worker)
        if gateway is None:
            if len(self._gateways) - len(self._weights) >= self._unlisted_limit:
                raise UnknownOriginError("unknown_worker")
            gateway = self._gateways[worker] = Gateway()
        if gateway.last_seen is None:
            gateway.status_since = heard_at
        gateway.last_seen = heard_at
        return gateway
