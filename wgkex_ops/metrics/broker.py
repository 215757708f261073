"""Instruments of the broker: what became of the keys, of the HTTP requests, and what is known of the gateways."""

from collections.abc import Iterable
from time import monotonic
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from wgkex_ops.metrics.children import Children, Exemplars
from wgkex_ops.model.names import UNKNOWN

API_VERSIONS: Final = ("v1", "v2")
REJECTION_REASONS: Final = (
    "malformed_json",
    "missing_field",
    "invalid_public_key",
    "small_order_public_key",
    "unknown_domain",
    "denied_key",
    "not_allowed_key",
    "too_large",
    "rate_limited",
)
RATE_LIMITS: Final = ("key", "network", "new_keys", "broker")
FAILURE_REASONS: Final = ("mqtt_disconnected", "publish_refused", "publish_timeout", "no_worker", "internal")

# From a local server's round trip to the longest that a node waits (10 s).
_LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# Status codes of the exchange, of what load balancers ask, and where no handler is for the path or the method.
_HANDLER_CODES: Final = ("200", "400", "403", "413", "429", "503")
_READY_CODES: Final = ("200", "503")
_ROUTER_CODES: Final = ("404", "405")


class KeyMetrics:
    """What became of each submitted key.

    Every submission that gets a response is counted in `requests` and in exactly one of `published`, `rejections` and
    `failures`.

    Args:
        registry: where the instruments live.
        domains: names of the configured domains.
    """

    def __init__(self, registry: CollectorRegistry, domains: Iterable[str]) -> None:
        domains = tuple(domains)
        self.requests = Counter(
            "wgkex_broker_key_requests",
            "Key submissions that got a response. The domain is unknown where the submission names none of ours.",
            ["api_version", "domain"],
            registry=registry,
        )
        self.rejections = Counter(
            "wgkex_broker_key_rejections",
            "Key submissions refused because they were wrong, by reason. They never count against the service.",
            ["reason"],
            registry=registry,
        )
        self.failures = Counter(
            "wgkex_broker_key_failures",
            "Valid key submissions that could not be served, by reason: nodes without a tunnel, and the fault is ours.",
            ["reason"],
            registry=registry,
        )
        self.published = Counter(
            "wgkex_broker_keys_published",
            "Key submissions that got a success, after the MQTT server had acknowledged the key.",
            ["domain"],
            registry=registry,
        )
        self.publish_duration = Histogram(
            "wgkex_broker_key_publish_duration_seconds",
            "From a parsed submission to the acknowledgement of the MQTT server; what nodes wait for.",
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self.rate_limited = Counter(
            "wgkex_broker_rate_limited",
            "Key submissions refused because there were too many, by the limit: of a key, of a client's network, of "
            "new keys, of the whole broker.",
            ["limit"],
            registry=registry,
        )
        for domain in domains:
            self.published.labels(domain)
        for limit in RATE_LIMITS:
            self.rate_limited.labels(limit)
        for api_version in API_VERSIONS:
            for domain in (*domains, UNKNOWN):
                self.requests.labels(api_version, domain)
        for reason in REJECTION_REASONS:
            self.rejections.labels(reason)
        for reason in FAILURE_REASONS:
            self.failures.labels(reason)
        self._requests = Children(self.requests)
        self._rejections = Children(self.rejections)
        self._published = Children(self.published)
        self._rate_limited = Children(self.rate_limited)
        self._exemplars = Exemplars()

    def respond(self, api_version: str, domain: str) -> None:
        """Count a submission that gets a response."""
        self._requests[api_version, domain].inc()

    def reject(self, reason: str) -> None:
        """Count a submission that is refused."""
        self._rejections[(reason,)].inc()

    def limit(self, limit: str) -> None:
        """Count a submission that is refused because there are too many; `reject` counts it as well."""
        self._rate_limited[(limit,)].inc()

    def publish(self, domain: str, seconds: float, request_id: str) -> None:
        """Count a submission that gets a success.

        Args:
            domain: of the key.
            seconds: from the parsed submission to the acknowledgement of the MQTT server.
            request_id: of the submission, for the exemplar.
        """
        self._published[(domain,)].inc()
        self.publish_duration.observe(seconds, self._exemplars.choose(seconds, request_id, monotonic()))


class ReceiptMetrics:
    """What gateways have done with the keys, by their receipts, and what is done about missing receipts.

    Args:
        registry: where the instruments live.
        workers: names of the configured workers, as `GatewayMetrics` has them.
        domains: names of the configured domains.
    """

    def __init__(self, registry: CollectorRegistry, workers: Iterable[str], domains: Iterable[str]) -> None:
        self.install_duration = Histogram(
            "wgkex_broker_key_install_duration_seconds",
            "From a parsed submission to the receipt of a gateway that has installed the key, by this broker's clock.",
            ["worker"],
            buckets=(*_LATENCY_BUCKETS, 30.0, 60.0),
            registry=registry,
        )
        self.install_failures = Counter(
            "wgkex_broker_key_install_failures",
            "Keys that a gateway could not install, by its receipts; the reasons are in its log. Keys that a rule "
            "refuses are not among them: they are no fault of the gateway.",
            ["worker"],
            registry=registry,
        )
        self.timeouts = Counter(
            "wgkex_broker_key_confirmation_timeouts",
            "Version 2 responses that named a gateway whose receipt had not come in time: it is slow, or hangs.",
            ["worker"],
            registry=registry,
        )
        self.republished = Counter(
            "wgkex_broker_keys_republished",
            "Keys sent again to a gateway: it has not confirmed them, or it or the MQTT connection was away.",
            ["worker"],
            registry=registry,
        )
        self.unconfirmed = Counter(
            "wgkex_broker_keys_unconfirmed",
            "Accepted keys that a gateway has never confirmed: it may lack their peers.",
            ["worker"],
            registry=registry,
        )
        self.confirmed_nowhere = Counter(
            "wgkex_broker_keys_confirmed_nowhere",
            "Keys handed to the MQTT server that no gateway of the domain has installed, though some send receipts: "
            "their nodes have no tunnel, whatever response they got.",
            ["domain"],
            registry=registry,
        )
        self.confirming = Gauge(
            "wgkex_broker_worker_confirming",
            "0 while a gateway that promises receipts has confirmed none of the last keys of a domain for a minute: "
            "it installs nothing, or its receipts do not arrive, and version 2 sends nobody there.",
            ["worker"],
            registry=registry,
        )
        self.awaiting = Gauge(
            "wgkex_broker_keys_awaiting_receipts",
            "Accepted keys that at least one gateway has not confirmed yet.",
            registry=registry,
        )
        for domain in domains:
            self.confirmed_nowhere.labels(domain)
        listed = tuple(workers)
        for worker in (*listed, UNKNOWN) if listed else ():
            self.add_worker(worker)
            self.confirming.labels(worker).set(1)

    def add_worker(self, worker: str) -> None:
        """Give a worker its series."""
        self.install_duration.labels(worker)
        for counter in (self.install_failures, self.timeouts, self.republished, self.unconfirmed):
            counter.labels(worker)


class NodeMetrics:
    """Nodes, each counted once however often it asks.

    Args:
        registry: where the instruments live.
        workers: names of the configured workers, as `GatewayMetrics` has them.
        domains: names of the configured domains.
    """

    def __init__(self, registry: CollectorRegistry, workers: Iterable[str], domains: Iterable[str]) -> None:
        self.first_requests = Counter(
            "wgkex_broker_key_first_requests",
            "Valid keys that nobody had asked for in the last 5 minutes: the rate of nodes, not of retries.",
            ["domain"],
            registry=registry,
        )
        self.assigned = Counter(
            "wgkex_broker_worker_assigned_nodes",
            "Nodes that version 2 sent to a gateway. A node that keeps asking counts once in 15 minutes.",
            ["worker"],
            registry=registry,
        )
        self.returned = Counter(
            "wgkex_broker_keys_returned",
            "Of these, nodes that asked again within 5 minutes: they got no tunnel there, and are sent elsewhere.",
            ["worker"],
            registry=registry,
        )
        for domain in domains:
            self.first_requests.labels(domain)
        listed = tuple(workers)
        for worker in (*listed, UNKNOWN) if listed else ():
            self.add_worker(worker)

    def add_worker(self, worker: str) -> None:
        """Give a worker its series."""
        self.assigned.labels(worker)
        self.returned.labels(worker)


class HttpMetrics:
    """Requests on the public listener, and its responses.

    Args:
        registry: where the instruments live.
        handlers: route templates, with the methods that each of them serves.
    """

    METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")

    def __init__(self, registry: CollectorRegistry, handlers: Iterable[tuple[str, str]]) -> None:
        self.requests = Counter(
            "wgkex_broker_http_requests",
            "HTTP requests on the public listener that got a response, by method, route and status code.",
            ["method", "handler", "code"],
            registry=registry,
        )
        self.duration = Histogram(
            "wgkex_broker_http_request_duration_seconds",
            "From the head of a request to its response, by route.",
            ["handler"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self.in_progress = Gauge(
            "wgkex_broker_http_requests_in_progress",
            "HTTP requests on the public listener that are being served now.",
            registry=registry,
        )
        for method, handler in handlers:
            self.duration.labels(handler)
            for code in _HANDLER_CODES if method == "POST" else _READY_CODES:
                self.requests.labels(method, handler, code)
        self.duration.labels(UNKNOWN)
        for method in (*self.METHODS, UNKNOWN):
            for code in _ROUTER_CODES:
                self.requests.labels(method, UNKNOWN, code)
        self._requests = Children(self.requests)
        self._durations = Children(self.duration)
        self._exemplars = Exemplars()

    def count(self, method: str, handler: str, status: int, seconds: float, request_id: str) -> None:
        """Count a request that got a response.

        Args:
            method: as the client wrote it.
            handler: route template; `unknown` for none.
            status: of the response.
            seconds: from the head of the request to the response.
            request_id: of the request, for the exemplar.
        """
        # All methods that no standard knows share a label: clients could invent any number of them.
        label = method if method in self.METHODS else UNKNOWN
        self._requests[label, handler, str(status)].inc()
        exemplar = self._exemplars.choose(seconds, request_id, monotonic())
        self._durations[(handler,)].observe(seconds, exemplar)


class ConnectionMetrics:
    """Connections of the public listener.

    Args:
        registry: where the instruments live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open = Gauge(
            "wgkex_broker_connections",
            "Open connections on the public listener; limits.connections says how many there may be.",
            registry=registry,
        )
        self.refused = Counter(
            "wgkex_broker_connections_refused",
            "Connections that were cut or not accepted: there were too many (total), or too many from one client "
            "network (network), or the client was too slow to send its request or to read the response (slow).",
            ["reason"],
            registry=registry,
        )
        for reason in ("total", "network", "slow"):
            self.refused.labels(reason)


class GatewayMetrics:
    """What the broker knows of the gateways.

    Args:
        registry: where the instruments live.
        workers: names of the configured workers. Where there are some, all others share the label `unknown`; where
            there are none, each gets its series when it is accepted.
        domains: names of the configured domains.
    """

    def __init__(self, registry: CollectorRegistry, workers: Iterable[str], domains: Iterable[str]) -> None:
        self._domains = tuple(domains)
        self.online = Gauge(
            "wgkex_broker_worker_online",
            "1 while a worker's status is online; at 0 no node is sent to that gateway.",
            ["worker"],
            registry=registry,
        )
        self.peers = Gauge(
            "wgkex_broker_worker_peers",
            "Connected peers as a worker last reported, plus what was assigned to it since; 0 if it does not know.",
            ["worker", "domain"],
            registry=registry,
        )
        self.target_peers = Gauge(
            "wgkex_broker_worker_target_peers",
            "Connected peers that a worker's weight asks for; far from its peers, the gateways are unbalanced.",
            ["worker"],
            registry=registry,
        )
        self.last_seen = Gauge(
            "wgkex_broker_worker_last_seen_timestamp_seconds",
            "When a worker was last heard; 0 if never since this broker's start.",
            ["worker"],
            registry=registry,
        )
        self.assignments = Counter(
            "wgkex_broker_worker_assignments",
            "Version 2 responses that named a worker's endpoint.",
            ["worker", "domain"],
            registry=registry,
        )
        self.brokers_online = Gauge(
            "wgkex_broker_brokers_online",
            "Brokers that are online by their status, this one included; each assignment is counted that many times.",
            registry=registry,
        )
        self.messages_rejected = Counter(
            "wgkex_broker_message_rejections",
            "Messages of workers and brokers that were dropped: malformed, of an unknown domain or worker, or receipts "
            "that name another worker than their topic (worker_mismatch): a worker pretends to be another one.",
            ["reason"],
            registry=registry,
        )
        for reason in ("malformed_topic", "malformed_payload", "unknown_domain", "unknown_worker", "worker_mismatch"):
            self.messages_rejected.labels(reason)
        self.brokers_online.set(1)
        listed = tuple(workers)
        for worker in (*listed, UNKNOWN) if listed else ():
            self.add_worker(worker)

    def add_worker(self, worker: str) -> None:
        """Give a worker its series."""
        self.online.labels(worker)
        self.target_peers.labels(worker)
        self.last_seen.labels(worker)
        for domain in self._domains:
            self.peers.labels(worker, domain)
            self.assignments.labels(worker, domain)
