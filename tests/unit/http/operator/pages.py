"""A broker and a worker as their pages see them, and a page taken apart."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from ipaddress import ip_network
from typing import Final

from prometheus_client import CollectorRegistry

from tests.helpers import CITY, WELT, Clock, key
from wgkex_ops.bus.messages import ConnectedPeers, Endpoint, WorkerData, WorkerStatus
from wgkex_ops.errors import DataplaneError
from wgkex_ops.http.clients import ForwardingWatch, TrustedProxies
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.gateways.silence import Silences
from wgkex_ops.http.operator.page.broker import BrokerView
from wgkex_ops.http.operator.page.common import MqttView
from wgkex_ops.http.operator.page.history import INTERVAL
from wgkex_ops.http.operator.page.parts import Page
from wgkex_ops.http.operator.page.rendering import Renderer
from wgkex_ops.http.operator.page.worker import WorkerView
from wgkex_ops.metrics.broker import GatewayMetrics, KeyMetrics, NodeMetrics, ReceiptMetrics
from wgkex_ops.metrics.cleanup import CleanupMetrics
from wgkex_ops.metrics.journal import JournalMetrics
from wgkex_ops.metrics.mqtt import MqttMetrics
from wgkex_ops.metrics.worker import ConsumerMetrics, SessionMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import DomainState, Peer, Snapshot

ENDPOINT: Final = Endpoint("gw.example.net", 40000, str(key(1)), "fe80::1", receipts=True)
NAMES: Final = (WELT.name, CITY.name)
UP: Final = DomainState(wg_present=True, wg_up=True, vx_present=True, vx_up=True)
RENDERER: Final = Renderer()

_VOID: Final = frozenset(("meta", "link", "rect", "input"))
# Elements that separate words.
_BLOCKS: Final = frozenset(
    ("p", "div", "ul", "li", "dt", "dd", "tr", "th", "td", "caption", "h1", "h2", "section", "a")
)


class Html(HTMLParser):
    """What a browser would make of a page, as far as tests ask.

    Attributes:
        tags, attributes: all of them, in order.
        names: the text of each `bdi`.
    """

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.names: list[str] = []
        self._text: list[str] = []
        self._tables: dict[str, list[list[list[str]]]] = {}
        self._notices: list[list[str]] = []
        self._open: list[str] = []
        self._heading = ""
        self.feed(page.decode())
        self.close()
        assert self._open == [], "elements that are never closed"

    @property
    def text(self) -> str:
        """All that there is to read, in one line."""
        return _in_one_line(self._text)

    @property
    def notices(self) -> list[str]:
        """What needs attention."""
        return [_in_one_line(notice) for notice in self._notices]

    def table(self, heading: str) -> list[list[str]]:
        """The cells of a table's rows; the first row has the headings of the columns."""
        return [[_in_one_line(cell) for cell in row] for row in self._tables[heading]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "h2":
            self._heading = ""
        elif tag == "table":
            self._tables[self._heading] = []
        elif tag == "tr":
            self._tables[self._heading].append([])
        elif tag in ("th", "td"):
            self._tables[self._heading][-1].append([])
        elif tag == "li" and self._heading == "Needs attention":
            self._notices.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag in _BLOCKS:
            self._add(" ")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag in _BLOCKS:
            self._add(" ")

    def handle_data(self, data: str) -> None:
        if "style" in self._open or "title" in self._open:
            return
        if "h2" in self._open:
            self._heading += data
        elif self._open and self._open[-1] == "bdi":
            self.names.append(data)
        self._add(data)

    def _add(self, text: str) -> None:
        self._text.append(text)
        if {"th", "td"} & set(self._open):
            self._tables[self._heading][-1][-1].append(text)
        elif "li" in self._open and self._heading == "Needs attention":
            self._notices[-1].append(text)


def _in_one_line(pieces: Sequence[str]) -> str:
    return " ".join("".join(pieces).split())


def html(page: Page) -> Html:
    return Html(RENDERER.render(page))


class FakeConnection:
    """Of a session that is connected until a test says otherwise."""

    def __init__(self) -> None:
        self.connected = True
        self.opened_at = time.monotonic() - 7500.0


class CountingGateways(Gateways):
    """Counts how often the sum over all gateways is made."""

    sums = 0

    @property
    def total(self) -> int:
        self.sums += 1
        return super().total


class ABroker:
    """A broker of two domains, without a bus."""

    def __init__(self, listed: Sequence[str] = (), *, weightless: Sequence[str] = ()) -> None:
        registry = CollectorRegistry()
        self.gateways = CountingGateways({name: float(name not in weightless) for name in listed}, NAMES)
        self.silences = Silences(self.gateways)
        self.keys = KeyMetrics(registry, NAMES)
        self.receipts = ReceiptMetrics(registry, listed, NAMES)
        self.nodes = NodeMetrics(registry, listed, NAMES)
        self.gateway_metrics = GatewayMetrics(registry, listed, NAMES)
        self.forwarding = ForwardingWatch(TrustedProxies([ip_network("10.0.0.0/8")]))
        self.connection = FakeConnection()
        self.mqtt_metrics = MqttMetrics(registry)
        self.lists_problem = ""
        self.problems: list[str] = []
        self.clock = Clock()
        self.view = BrokerView(
            name="broker01",
            domains=NAMES,
            listed=listed,
            gateways=self.gateways,
            silences=self.silences,
            keys=self.keys,
            gateway_metrics=self.gateway_metrics,
            receipt_metrics=self.receipts,
            node_metrics=self.nodes,
            forwarding=self.forwarding,
            mqtt=MqttView(self.connection, self.mqtt_metrics, "mqtt.example.net:1883"),
            searchable=True,
            lists_problem=lambda: self.lists_problem,
            problems=lambda: self.problems,
            clock=self.clock,
        )

    def add_gateway(
        self,
        name: str,
        peers: int = 0,
        domains: Sequence[str] = NAMES,
        ago: float = 0,
        *,
        endpoint: Endpoint = ENDPOINT,
        version: str = "",
    ) -> None:
        """A worker reports all there is; of its peers, the same number for each domain."""
        now = time.monotonic() - ago
        for domain in domains:
            self.gateways.update(WorkerData(name, domain, endpoint), now)
            self.gateways.update(ConnectedPeers(name, domain, None if endpoint.draining else peers), now)
        self.gateways.update(WorkerStatus(name, online=True, version=version), now)

    async def shown(self) -> Html:
        return html(await self.view.page())

    def live(self, seconds: float) -> None:
        """Run for some time, with a sample of the counters every ten seconds."""
        for _ in range(int(seconds / INTERVAL)):
            self.clock.now += INTERVAL
            self.view.history.sample()


class AWorker:
    """A worker of two domains whose dataplane is a snapshot, or an error."""

    def __init__(self, *, installs_nothing: bool = False, stale_after: float = 10_800, max_peers: int = 25_000) -> None:
        registry = CollectorRegistry()
        self.keys = ConsumerMetrics(registry, NAMES, 20_000, max_peers)
        self.sessions = SessionMetrics(registry, NAMES)
        # By domain, the seconds without VXLAN traffic.
        self.silence: dict[str, float] = {}
        self.cleanup = CleanupMetrics(registry, NAMES)
        self.journal = JournalMetrics(registry)
        self.journal.up.set(1)
        self.connection = FakeConnection()
        self.lists_problem = ""
        self.draining_since: float | None = None
        self.problems: list[str] = []
        self.now = 1_700_000_000.0
        self.states = dict.fromkeys(NAMES, UP)
        self.error: DataplaneError | None = None
        self.hangs = False
        self.view = WorkerView(
            name="gw01",
            domains=(WELT, CITY),
            stale_after=stale_after,
            installs_nothing=installs_nothing,
            max_peers=max_peers,
            read=self._read,
            keys=self.keys,
            sessions=self.sessions,
            draining_since=lambda: self.draining_since,
            vxlan_silent=lambda seconds: [domain for domain, silence in self.silence.items() if silence >= seconds],
            cleanup=self.cleanup,
            journal=self.journal,
            mqtt=MqttView(self.connection, MqttMetrics(registry), "mqtt.example.net:1883"),
            lists_problem=lambda: self.lists_problem,
            problems=lambda: self.problems,
            read_within=0.01,
            clock=Clock(),
        )

    async def _read(self) -> Snapshot:
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.error:
            raise self.error
        return Snapshot(self.now, self.states)

    def put(self, domain: Domain, *ages: float | None) -> None:
        """Put complete peers with handshakes of these ages in seconds there; None for one without any."""
        keys = [PublicKey(bytes([number + 1] * 32)) for number in range(len(ages))]
        peers = tuple(
            Peer(key.raw, 0.0 if age is None else self.now - age, 0, 0, key.link_local.packed)
            for key, age in zip(keys, ages, strict=True)
        )
        addresses = frozenset(peer.link_local for peer in peers)
        self.states[domain.name] = replace(UP, peers=peers, routes=addresses, fdb_entries=addresses)

    async def shown(self) -> Html:
        return html(await self.view.page())
