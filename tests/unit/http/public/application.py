"""The public application with real gateways and a fake bus, and what every test of it needs."""

import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from tests.helpers import DOMAINS, KEY, OTHER_KEY, WELT, Answer, moved, samples
from wgkex_ops.bus.messages import ConnectedPeers, Endpoint, Origin, WorkerData, WorkerStatus
from wgkex_ops.config import Listen
from wgkex_ops.config.limits import LimitsConfig
from wgkex_ops.errors import BusError, NoSubscribersError, NotConnectedError, PublishRefusedError, PublishTimeoutError
from wgkex_ops.http.clients import TrustedProxies
from wgkex_ops.http.gateways.choice import Assigner, Locations
from wgkex_ops.http.gateways.confirmations import UnconfirmedKey, UnconfirmedKeys
from wgkex_ops.http.gateways.nodes import RecentNodes
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.gateways.requests import RecentRequests
from wgkex_ops.http.gateways.silence import Silences
from wgkex_ops.http.public.app import HANDLERS, PATH_V1, PATH_V2, PublicApp
from wgkex_ops.http.public.exchange import KeyExchange
from wgkex_ops.http.public.limits import Limits
from wgkex_ops.http.public.submission import Submission
from wgkex_ops.http.server import serve
from wgkex_ops.metrics.broker import HttpMetrics, KeyMetrics, NodeMetrics, ReceiptMetrics
from wgkex_ops.metrics.locations import LocationMetrics
from wgkex_ops.model.key_lists import KeyLists

PATHS: Final = {"v1": PATH_V1, "v2": PATH_V2}
VERSIONS: Final = tuple(PATHS)
ENDPOINT: Final = Endpoint("gw04.example.net", 40011, OTHER_KEY, "fe80::27c:16ff:fec0:6c74")

BUS_ERRORS: Final = [
    (NotConnectedError("there is no connection"), "mqtt_disconnected"),
    (PublishRefusedError(0x87), "publish_refused"),
    (NoSubscribersError("no client has subscribed"), "no_worker"),
    (PublishTimeoutError("no acknowledgement in time"), "publish_timeout"),
    (BusError("something else"), "internal"),
]


@dataclass
class Bus:
    """Takes keys in the place of the MQTT server, or fails as it does."""

    published: list[Submission] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    error: Exception | None = None
    while_publishing: Callable[[Origin], None] = lambda _origin: None

    async def send(self, key: UnconfirmedKey) -> None:
        self.while_publishing(key.origin)
        if self.error is not None:
            raise self.error
        self.published.append(Submission(key.domain, key.public_key))
        self.origins.append(key.origin)


class Broker:
    """The public application with its own registry, and one gateway in WELT."""

    def __init__(self, stopping: Callable[[], bool] = lambda: False, limits: LimitsConfig | None = None) -> None:
        self.bus = Bus()
        self.gateways = Gateways({}, DOMAINS)
        self.registry = CollectorRegistry()
        metrics = ReceiptMetrics(self.registry, [], DOMAINS)
        silences = Silences(self.gateways)
        nodes = RecentNodes(self.gateways, NodeMetrics(self.registry, [], DOMAINS))
        self.unconfirmed = UnconfirmedKeys(self.gateways, silences, receipt_topic="wgkex/receipts/b1", metrics=metrics)
        assigner = Assigner(
            self.gateways,
            nodes,
            silences,
            locations=Locations({"gw04": "north", "gw05": "south"}, 0.1),
            confirm_timeout=0.75,
            assignments=Counter("assignments", "x", ["worker", "domain"], registry=self.registry),
            timeouts=metrics.timeouts,
            preferences=LocationMetrics(self.registry),
        )
        self.lists = KeyLists()
        self.requests = RecentRequests(DOMAINS)
        self.exchange = KeyExchange(
            domains=DOMAINS,
            proxies=TrustedProxies([ip_network("127.0.0.0/8")]),
            lists=lambda: self.lists,
            limits=Limits(limits or LimitsConfig()),
            nodes=nodes,
            requests=self.requests,
            unconfirmed=self.unconfirmed,
            send=self.bus.send,
            assign=assigner.assign,
            metrics=KeyMetrics(self.registry, DOMAINS),
        )
        self.problems: list[str] = []
        self.app = PublicApp(self.exchange, HttpMetrics(self.registry, HANDLERS), lambda: self.problems, stopping)
        self.listen = Listen(port=0)
        for event in (
            WorkerStatus("gw04", online=True),
            WorkerData("gw04", WELT.name, ENDPOINT),
            ConnectedPeers("gw04", WELT.name, 7),
        ):
            self.gateways.update(event, 0.0)
        self._before = samples(self.registry)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Broker"]:
        async with serve(self.app, Listen(port=0), shutdown_timeout=1.0) as self.listen:
            yield self

    def moved(self) -> dict[str, float]:
        """What has become of the keys, by all counters that count each submission."""
        changes = moved(self._before, samples(self.registry))
        pattern = re.compile(r"wgkex_broker_keys?_(?!first_requests|returned)\w+_total\b")
        return {name: change for name, change in changes.items() if pattern.match(name)}

    def in_progress(self) -> float | None:
        return self.registry.get_sample_value("wgkex_broker_http_requests_in_progress")


def submission(domain: object = WELT.name, public_key: object = KEY, **extra: object) -> bytes:
    return json.dumps({"domain": domain, "public_key": public_key, **extra}).encode()


def padded(length: int) -> bytes:
    """A valid submission of so many bytes."""
    body = submission(padding="")
    return body.replace(b'""', b'"' + b"x" * (length - len(body)) + b'"')


def assert_error(answer: Answer, status: int, reason: str) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json.keys() == {"error"}
    assert answer.json["error"].keys() == {"message", "reason"}
    assert answer.json["error"]["reason"] == reason
    assert re.fullmatch(r"[a-z].{10,}", answer.json["error"]["message"])


def rejected(version: str, reason: str, domain: str = "unknown") -> dict[str, float]:
    """The counters that one rejected submission moves."""
    return {
        f'wgkex_broker_key_requests_total{{api_version="{version}",domain="{domain}"}}': 1.0,
        f'wgkex_broker_key_rejections_total{{reason="{reason}"}}': 1.0,
    }


def accepted(version: str) -> dict[str, float]:
    return {
        f'wgkex_broker_key_requests_total{{api_version="{version}",domain="{WELT.name}"}}': 1.0,
        f'wgkex_broker_keys_published_total{{domain="{WELT.name}"}}': 1.0,
    }


def failed(version: str, reason: str) -> dict[str, float]:
    return {
        f'wgkex_broker_key_requests_total{{api_version="{version}",domain="{WELT.name}"}}': 1.0,
        f'wgkex_broker_key_failures_total{{reason="{reason}"}}': 1.0,
    }
