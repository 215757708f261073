"""Instruments of the worker: what became of the keys from the bus, and of the operations on the kernel."""

from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from wgkex_ops.model.changes import Operation
from wgkex_ops.model.names import UNKNOWN

REJECTION_REASONS: Final = (
    "malformed_topic",
    "retained_key",
    "unknown_domain",
    "invalid_public_key",
    "small_order_public_key",
    "own_key",
    "static_key",
    "denied_key",
    "not_allowed_key",
    "live_elsewhere",
    "address_taken",
    "table_full",
)
# From a local bus to the 10 s that nodes bear, and on to the minute after which they ask again.
_PROPAGATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# A wrong clock of a broker must not spoil the sum for good.
_LONGEST_PROPAGATION: Final = 86_400.0
RECEIPT_RESULTS: Final = ("installed", "failed")
OTHER: Final = "other"
# Errors that mean something to an operator; all others are OTHER.
ERRORS: Final = frozenset(
    (
        "EPERM",
        "ENOENT",
        "ESRCH",
        "ENODEV",
        "ENOMEM",
        "ENOBUFS",
        "EINVAL",
        "EEXIST",
        "EBUSY",
        "ENETDOWN",
        "ENETUNREACH",
        "EOPNOTSUPP",
        "ETIMEDOUT",
        "EINTR",
    )
)


class ConsumerMetrics:
    """What became of each key from the bus.

    Every message moves `received`, and in the end exactly one of `deduplicated`, `rejections`, `installed` and
    `install_failures`; in between it is part of `queue_length`.

    Args:
        registry: where the instruments live.
        domains: names of the configured domains.
        queue_capacity: how many keys may wait.
        max_peers: how many peers a domain may have.
    """

    def __init__(
        self, registry: CollectorRegistry, domains: Iterable[str], queue_capacity: int, max_peers: int
    ) -> None:
        self.received = Counter(
            "wgkex_worker_messages_received",
            "Keys for this worker that arrived on MQTT, valid or not.",
            ["domain"],
            registry=registry,
        )
        self.deduplicated = Counter(
            "wgkex_worker_messages_deduplicated",
            "Keys that were merged with the same key already waiting for the kernel.",
            ["domain"],
            registry=registry,
        )
        self.rejections = Counter(
            "wgkex_worker_message_rejections",
            "Keys that were refused, by reason. live_elsewhere, address_taken: a client requests another node's key; "
            "denied_key, not_allowed_key: the key lists; "
            "table_full: the domain has worker.max_peers peers, and none of them may go; any other one: another "
            "program than a broker writes to the bus.",
            ["reason"],
            registry=registry,
        )
        self.queue_length = Gauge(
            "wgkex_worker_queue_length",
            "Keys waiting for the kernel, those that will be tried again included.",
            registry=registry,
        )
        self.queue_capacity = Gauge(
            "wgkex_worker_queue_capacity",
            "How many keys may wait; beyond that, no more are taken from the MQTT server until there is room.",
            registry=registry,
        )
        self.installed = Counter(
            "wgkex_worker_peers_installed",
            "Installations that completed: peer, route and FDB entry, new or refreshed.",
            ["domain"],
            registry=registry,
        )
        self.install_failures = Counter(
            "wgkex_worker_peer_install_failures",
            "Keys that were given up after all attempts: their nodes have no tunnel until they request them again.",
            ["domain"],
            registry=registry,
        )
        self.evicted = Counter(
            "wgkex_worker_peers_evicted",
            "Peers that never connected, removed for newer keys because the domain has worker.max_peers of them: "
            "somebody requests keys that no node has, or the limit is too low.",
            ["domain"],
            registry=registry,
        )
        self.limit = Gauge(
            "wgkex_worker_peers_limit",
            "How many peers a domain may have (worker.max_peers).",
            ["domain"],
            registry=registry,
        )
        self._propagation = Histogram(
            "wgkex_worker_key_propagation_seconds",
            "From a key's acceptance at the broker to its installation here, by two clocks: without NTP on both "
            "hosts it means nothing. Nodes bear 10 s.",
            buckets=_PROPAGATION_BUCKETS,
            registry=registry,
        )
        self.queue_capacity.set(queue_capacity)
        for domain in domains:
            self.received.labels(domain)
            self.deduplicated.labels(domain)
            self.installed.labels(domain)
            self.install_failures.labels(domain)
            self.evicted.labels(domain)
            self.limit.labels(domain).set(max_peers)
        self.received.labels(UNKNOWN)
        for reason in REJECTION_REASONS:
            self.rejections.labels(reason)

    def observe_propagation(self, ways: Iterable[tuple[float, Sequence[str]]]) -> None:
        """Take note of how long keys were on their way.

        Args:
            ways: of keys that arrived together, the seconds by two clocks (below 0 they disagree, and beyond a day one
                of them is wrong) and the ids of the submissions that offered it. The first one of the slowest key
                that has any becomes the exemplar.
        """
        # Only the latest exemplar of a bucket is ever read, and one costs more than all else here.
        known = list(ways)
        slowest = max((way for way in known if way[1]), default=None)
        for way in known:
            seconds, request_ids = way
            exemplar = {"request_id": request_ids[0]} if way is slowest else None
            self._propagation.observe(min(max(0.0, seconds), _LONGEST_PROPAGATION), exemplar)


class SessionMetrics:
    """Which nodes really connect."""

    def __init__(self, registry: CollectorRegistry, domains: Iterable[str]) -> None:
        self.started = Counter(
            "wgkex_worker_peer_sessions_started",
            "Peers that became active: a handshake without one in the 180 s before. Nodes are assigned to a gateway, "
            "and no session begins: its UDP port is blocked, or it installs no keys.",
            ["domain"],
            registry=registry,
        )
        for domain in domains:
            self.started.labels(domain)


class ReceiptMetrics:
    """What became of the receipts, which report to brokers what became of each key."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sent = Counter(
            "wgkex_worker_receipts",
            "Receipts that the MQTT server has acknowledged; they report that a key is installed here, or given up.",
            ["result"],
            registry=registry,
        )
        self.failures = Counter(
            "wgkex_worker_receipt_failures",
            "Receipts that could not be sent. The key is not in danger: its broker sends it again.",
            registry=registry,
        )
        for result in RECEIPT_RESULTS:
            self.sent.labels(result)


class NetlinkMetrics:
    """What the dataplane did: an observer of its operations."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._operations = Counter(
            "wgkex_worker_netlink_operations",
            "Single operations on the kernel, failed ones included.",
            ["operation"],
            registry=registry,
        )
        self._failures = Counter(
            "wgkex_worker_netlink_operation_failures",
            "Single operations that the kernel refused, by its error.",
            ["operation", "error"],
            registry=registry,
        )
        self._duration = Histogram(
            "wgkex_worker_netlink_operation_duration_seconds",
            "How long one batch of operations, or one dump, took.",
            ["operation"],
            buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
            registry=registry,
        )
        for operation in Operation:
            self._operations.labels(operation)
            self._duration.labels(operation)
            for error in (*ERRORS, OTHER):
                self._failures.labels(operation, error)

    def observe(self, operation: Operation, count: int, errors: Sequence[str], seconds: float) -> None:
        """Take note of one batch; see `dataplane.OperationObserver`."""
        self._operations.labels(operation).inc(count)
        self._duration.labels(operation).observe(seconds)
        for error in errors:
            self._failures.labels(operation, error if error in ERRORS else OTHER).inc()
