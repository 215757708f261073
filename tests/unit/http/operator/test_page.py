"""What the pages say: of a broker and of a worker, in good times and bad ones, whatever names the bus may bring."""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from typing import Final

import pytest
from prometheus_client import CollectorRegistry

from tests.helpers import CITY, WELT, key
from wgkex_ops.bus.messages import ConnectedPeers, Endpoint, WorkerData, WorkerEvent, WorkerStatus
from wgkex_ops.errors import DataplaneError
from wgkex_ops.http.gateways.choice import choose
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.operator.page.broker import BrokerPage, BrokerView
from wgkex_ops.http.operator.page.history import INTERVAL
from wgkex_ops.http.operator.page.parts import CountRow, MqttView, Notice, Page, Tone
from wgkex_ops.http.operator.page.rendering import Renderer
from wgkex_ops.http.operator.page.worker import DomainRow, WorkerPage, WorkerView
from wgkex_ops.metrics.broker import GatewayMetrics, KeyMetrics
from wgkex_ops.metrics.cleanup import CleanupMetrics
from wgkex_ops.metrics.mqtt import MqttMetrics
from wgkex_ops.metrics.worker import ConsumerMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import DomainState, Peer, Snapshot

ENDPOINT: Final = Endpoint("gw.example.net", 40000, str(key(1)), "fe80::1")
NAMES: Final = (WELT.name, CITY.name)
VOID: Final = frozenset(("meta", "link", "rect"))


class Html(HTMLParser):
    """A page taken apart: what a browser would make of it, as far as tests ask."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.names: list[str] = []
        self.words: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self.open == [], "elements that are never closed"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open or "title" in self.open:
            return
        self.words.append(data)
        if self.open and self.open[-1] == "bdi":
            self.names.append(data)


RENDERER: Final = Renderer()


def html(page: Page) -> Html:
    return Html(RENDERER.render(page))


class FakeLink:
    """A session that only tells its state."""

    def __init__(self) -> None:
        self.connected = True
        self.opened_at = time.monotonic() - 7500.0


class Clock:
    """Stands still unless it is moved by hand."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


class CountingGateways(Gateways):
    """Tells how often the sum over all gateways was made."""

    sums = 0

    @property
    def total(self) -> int:
        self.sums += 1
        return super().total


class ABroker:
    """A broker of two domains, without a bus."""

    def __init__(self, listed: Sequence[str] = ()) -> None:
        registry = CollectorRegistry()
        self.gateways = CountingGateways(dict.fromkeys(listed, 1.0), NAMES)
        self.keys = KeyMetrics(registry, NAMES)
        self.gateway_metrics = GatewayMetrics(registry, listed, NAMES)
        self.link = FakeLink()
        self.mqtt_metrics = MqttMetrics(registry)
        self.problems: list[str] = []
        self.clock = Clock()
        self.view = BrokerView(
            name="broker01",
            domains=NAMES,
            listed=listed,
            gateways=self.gateways,
            keys=self.keys,
            gateway_metrics=self.gateway_metrics,
            mqtt=MqttView(self.link, self.mqtt_metrics, "mqtt.example.net:1883"),
            problems=lambda: self.problems,
            clock=self.clock,
        )

    def add_gateway(self, name: str, peers: int = 0, domains: Sequence[str] = NAMES, ago: float = 0) -> None:
        """A worker tells all there is to tell; of its peers, the same number for each domain."""
        now = time.monotonic() - ago
        for domain in domains:
            self.gateways.update(WorkerData(name, domain, ENDPOINT), now)
            self.gateways.update(ConnectedPeers(name, domain, peers), now)
        self.gateways.update(WorkerStatus(name, online=True), now)

    async def page(self) -> BrokerPage:
        return await self.view.page()

    def live(self, seconds: float) -> None:
        """Run for some time, and look at the counters every ten seconds."""
        for _ in range(int(seconds / INTERVAL)):
            self.clock.now += INTERVAL
            self.view.history.look()


class AWorker:
    """A worker of two domains whose dataplane is a snapshot, or an error."""

    def __init__(self, *, installs_nothing: bool = False) -> None:
        registry = CollectorRegistry()
        self.keys = ConsumerMetrics(registry, NAMES, 20_000)
        self.cleanup = CleanupMetrics(registry, NAMES)
        self.link = FakeLink()
        self.problems: list[str] = []
        self.now = 1_700_000_000.0
        self.states = dict.fromkeys(NAMES, UP)
        self.error: DataplaneError | None = None
        self.hangs = False
        self.view = WorkerView(
            name="gw01",
            domains=(WELT, CITY),
            stale_after=10_800,
            installs_nothing=installs_nothing,
            read=self._read,
            keys=self.keys,
            cleanup=self.cleanup,
            mqtt=MqttView(self.link, MqttMetrics(registry), "mqtt.example.net:1883"),
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

    async def page(self) -> WorkerPage:
        return await self.view.page()

    async def row(self, domain: Domain) -> DomainRow:
        (row,) = (row for row in (await self.page()).domains if row.name == domain.name)
        return row


UP: Final = DomainState(wg_present=True, wg_up=True, vx_present=True, vx_up=True)


def texts(notices: Sequence[Notice]) -> list[str]:
    return [notice.text for notice in notices]


def by_heading(rows: Sequence[CountRow]) -> dict[str, tuple[int, ...]]:
    return {row.heading: row.counts for row in rows}


# --- the broker


async def test_a_broker_that_has_just_started_and_knows_nobody() -> None:
    page = await ABroker().page()
    seen = html(page)
    assert "✓ Ready" in seen.text
    assert "No gateway has been heard of yet, and none is listed" in seen.text
    assert texts(page.notices) == ["No gateway is online: there is none that nodes could be sent to"]
    assert page.columns == ("since start (0 s)",)
    assert by_heading(page.keys) == {
        "Accepted": (0,),
        "Rejected: the sender's fault": (0,),
        "Failed: our fault": (0,),
    }
    assert "Connected since 2 h 5 min ago" in seen.text
    assert "Other brokers online 0" in seen.text
    for path in ("/metrics", "/-/ready", "/-/healthy"):
        assert ("href", path) in seen.attributes


async def test_a_broker_that_is_not_ready_says_why() -> None:
    broker = ABroker()
    broker.problems = ["there is no connection with the MQTT server"]
    broker.link.connected = False
    broker.mqtt_metrics.connection_failures.labels("refused").inc(3)
    page = await broker.page()
    assert "Without a connection to MQTT nothing new is heard of gateways" in texts(page.notices)
    seen = html(page)
    assert "✗ Not ready" in seen.text
    assert "there is no connection with the MQTT server" in seen.names
    assert "not connected" in seen.text
    assert "Failed attempts 3 refused since the start, 0 s ago" in seen.text


async def test_gateways_have_their_state_in_words() -> None:
    broker = ABroker(["gw01", "gw02", "gw03", "gw04"])
    broker.add_gateway("gw01", peers=20, ago=75)
    broker.add_gateway("gw02", peers=30)
    broker.gateways.update(WorkerStatus("gw02", online=False), time.monotonic())
    broker.add_gateway("gw04", domains=[WELT.name])
    page = await broker.page()
    assert [(row.name, row.state, row.peers, row.target, row.takes_none) for row in page.gateways] == [
        ("gw01", "online", 40, 25, ()),
        ("gw02", "offline", 60, 25, ()),
        ("gw03", "not heard of", None, 25, ()),
        ("gw04", "online", 0, 25, (CITY.name,)),
    ]
    assert page.scale == 60
    assert {(notice.text, notice.names) for notice in page.notices} == {
        ("Offline", ("gw02",)),
        ("Not heard of", ("gw03",)),
        ("Online, but not ready for nodes of all domains", ("gw04",)),
    }
    seen = html(page)
    assert "gw01 ✓ online 40, target 25 1 min ago" in seen.text
    assert "gw02 ✗ offline 60, target 25 0 s ago" in seen.text
    assert "gw03 ! not heard of unknown , target 25 never" in seen.text
    assert f"gw04 ✓ online not ready for nodes of {CITY.name} 0, target 25" in seen.text
    assert "2 of 4" in seen.text


async def test_assignments_and_accepted_keys_are_shown_where_they_belong() -> None:
    broker = ABroker()
    broker.add_gateway("gw01")
    broker.gateway_metrics.assignments.labels("gw01", WELT.name).inc(3)
    broker.gateway_metrics.assignments.labels("gw01", CITY.name).inc(4)
    broker.keys.published.labels(CITY.name).inc(1234)
    page = await broker.page()
    assert page.gateways[0].assigned == (7,)
    assert [(row.name, row.gateways, row.accepted) for row in page.domains] == [
        (WELT.name, 1, (0,)),
        (CITY.name, 1, (1234,)),
    ]
    assert page.shared == ()
    assert f"{CITY.name} 1 0 1,234" in html(page).text


async def test_gateways_that_are_not_listed_are_counted_together() -> None:
    broker = ABroker(["gw01"])
    for name in ("gw01", "stranger1", "stranger2"):
        broker.add_gateway(name)
    broker.gateway_metrics.assignments.labels("unknown", WELT.name).inc(5)
    page = await broker.page()
    assert [(row.listed, row.assigned) for row in page.gateways] == [(True, (0,)), (False, None), (False, None)]
    assert page.shared == (5,)
    assert "Not listed under workers, so they weigh 1" in texts(page.notices)
    seen = html(page)
    assert "They were assigned 5 nodes since start (0 s)." in seen.text
    assert "stranger1 not listed ✓ online" in seen.text


async def test_rejections_and_failures_are_told_by_reason_and_only_failures_are_alarming() -> None:
    broker = ABroker()
    broker.add_gateway("gw01")
    broker.keys.rejections.labels("malformed_json").inc(2)
    broker.keys.rejections.labels("too_large").inc(7)
    page = await broker.page()
    assert page.notices == ()
    broker.keys.failures.labels("publish_timeout").inc(4)
    broker.gateway_metrics.messages_rejected.labels("malformed_payload").inc()
    page = await broker.page()
    assert [(row.heading, row.counts, row.tone, row.detail) for row in page.keys] == [
        ("Accepted", (0,), Tone.PLAIN, False),
        ("Rejected: the sender's fault", (9,), Tone.PLAIN, False),
        ("too large", (7,), Tone.PLAIN, True),
        ("malformed json", (2,), Tone.PLAIN, True),
        ("Failed: our fault", (4,), Tone.BAD, False),
        ("publish timeout", (4,), Tone.PLAIN, True),
    ]
    assert texts(page.notices) == [
        "4 keys failed since the start, 0 s ago: 4 publish timeout",
        "1 message of workers or brokers was refused since the start, 0 s ago; the log says why",
    ]


@pytest.mark.parametrize("domain", [WELT, CITY])
async def test_a_domain_has_a_gateway_on_the_page_exactly_if_its_nodes_would_get_one(domain: Domain) -> None:
    told: tuple[WorkerEvent, ...] = (
        WorkerData("gw01", WELT.name, ENDPOINT),
        ConnectedPeers("gw01", WELT.name, 3),
        WorkerStatus("gw01", online=True),
    )
    for events in (events for number in range(4) for events in combinations(told, number)):
        broker = ABroker()
        for event in events:
            broker.gateways.update(event, time.monotonic())
        (row,) = (row for row in (await broker.page()).domains if row.name == domain.name)
        assert row.gateways == (choose(broker.gateways, domain.name) is not None)


async def test_a_domain_without_a_gateway_is_told_if_others_have_one() -> None:
    broker = ABroker()
    broker.add_gateway("gw01", domains=[WELT.name])
    page = await broker.page()
    assert page.notices[0] == Notice(Tone.BAD, "Domains without any gateway", (CITY.name,))
    assert f"{CITY.name} ✗ none 0 0" in html(page).text


# --- the last minutes


async def test_columns_and_the_rate_after_some_minutes() -> None:
    broker = ABroker()
    broker.live(400)
    broker.keys.published.labels(WELT.name).inc(12)
    page = await broker.page()
    assert page.columns == ("last 5 min", "since start (6 min)")
    assert by_heading(page.keys)["Accepted"] == (12, 12)
    assert (page.tiles[0].value, page.tiles[0].note) == ("12/min", "in the last 1 min")
    assert "Started 6 min ago" in html(page).text


async def test_columns_after_an_hour() -> None:
    broker = ABroker()
    broker.keys.published.labels(WELT.name).inc(100)
    broker.live(3600)
    page = await broker.page()
    assert page.columns == ("last 5 min", "last 15 min")
    assert by_heading(page.keys)["Accepted"] == (0, 0)
    assert page.tiles[0].value == "0/min"
    seen = html(page)
    assert "Assigned, last 5 min" not in seen.text  # there is no gateway
    assert "Keys, last 5 min Keys, last 15 min" in seen.text


# --- the worker


async def test_a_worker_without_peers() -> None:
    page = await AWorker().page()
    seen = html(page)
    assert "✓ Ready" in seen.text
    assert page.notices == ()
    assert "wg-welt ✓ up vx-welt ✓ up 0" in seen.text
    assert seen.text.count("none yet") == 3  # handshakes of two domains, and the last message
    assert "Dataplane kernel" in seen.text


async def test_a_worker_shows_peers_by_state_and_how_fresh_their_handshakes_are() -> None:
    worker = AWorker()
    worker.put(WELT, 5, 179, 181, 20_000, None)
    worker.put(CITY, 30)
    page = await worker.page()
    row = page.domains[0]
    assert row.peers == (("active", 2), ("idle", 1), ("stale", 1), ("never", 1))
    assert (row.total, row.active, row.active_percent, row.routes) == (5, 2, "40 %", 5)
    assert row.newest is not None
    assert row.newest.age == 5
    seen = html(page)
    assert "5, 40 % active 2 active 1 idle 1 stale 1 never 5 s ago 5 none" in seen.text
    assert "1, 100 % active 1 active 0 idle 0 stale 0 never 30 s ago" in seen.text
    assert "3 of 6" in seen.text


@pytest.mark.parametrize(
    ("active", "idle", "percent"), [(0, 5, "0 %"), (1, 999, "1 %"), (999, 1, "99 %"), (3, 0, "100 %"), (2, 1, "67 %")]
)
async def test_shares_are_never_rounded_to_all_or_nothing(active: int, idle: int, percent: str) -> None:
    row = DomainRow("x", (), (("active", active), ("idle", idle), ("stale", 0), ("never", 0)), None, 0, ())
    assert row.active_percent == percent


async def test_a_worker_shows_interfaces_that_are_down_or_missing_and_incomplete_peers() -> None:
    worker = AWorker()
    worker.put(WELT, 5)
    whole = worker.states[WELT.name]
    worker.states[WELT.name] = replace(whole, vx_up=False, fdb_entries=frozenset())
    worker.states[CITY.name] = DomainState()
    worker.problems = ["vx-welt is down", "wg-muc_cty is missing"]
    page = await worker.page()
    assert [(notice.text[:12], notice.names) for notice in page.notices] == [("Domains with", (WELT.name,))]
    seen = html(page)
    assert "wg-welt ✓ up vx-welt ✗ down" in seen.text
    assert "wg-muc_cty ✗ missing vx-muc_cty ✗ missing" in seen.text
    assert "! 1 without FDB entry" in seen.text
    assert "✗ Not ready vx-welt is down wg-muc_cty is missing" in seen.text


async def test_a_worker_that_cannot_read_its_peers_says_so_and_shows_no_numbers_of_them() -> None:
    worker = AWorker()
    worker.put(WELT, 5)
    assert (await worker.page()).domains
    worker.error = DataplaneError("dump", "EPERM", "not permitted")
    page = await worker.page()
    assert page.domains == ()
    seen = html(page)
    assert "✗ The peers could not be read : dump: EPERM: not permitted. There are no numbers" in seen.text
    assert "Active peers unknown" in seen.text
    assert "active" not in seen.text.replace("Active peers", "")
    worker.error = None
    assert (await worker.page()).unread == ""


async def test_a_worker_whose_dataplane_hangs_shows_a_page_all_the_same() -> None:
    worker = AWorker()
    worker.hangs = True
    page = await worker.page()
    assert page.unread == "no answer within 0.01 s"
    assert page.notices[0].tone is Tone.BAD


async def test_a_worker_shows_what_became_of_the_keys() -> None:
    worker = AWorker(installs_nothing=True)
    worker.keys.received.labels(WELT.name).inc(20)
    worker.keys.deduplicated.labels(WELT.name).inc(3)
    worker.keys.installed.labels(WELT.name).inc(10)
    worker.keys.install_failures.labels(WELT.name).inc(1)
    worker.keys.rejections.labels("own_key").inc(2)
    worker.keys.queue_length.set(4)
    worker.cleanup.removed.labels(WELT.name, "stale").inc(2)
    worker.cleanup.removed.labels(CITY.name, "never_connected").inc(3)
    page = await worker.page()
    assert by_heading(page.keys) == {
        "Received": (20,),
        "Installed, new or refreshed": (10,),
        "Merged with one that waited": (3,),
        "Rejected": (2,),
        "own key": (2,),
        "Given up: no tunnel": (1,),
        "Removed: the node has gone": (5,),
    }
    assert texts(page.notices) == [
        "1 key could not be installed since the start, 0 s ago",
        "For trying out only: peers are kept in memory, nothing is installed",
        "2 keys from MQTT were rejected since the start, 0 s ago; the reasons are below",
    ]
    seen = html(page)
    assert "Keys waiting 4 of 20,000 that may wait" in seen.text
    assert "Dataplane memory" in seen.text


# --- whatever comes

HOSTILE: Final = (
    "<script>alert(1)</script>",
    "</title></style></table><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x=\'',
    "&lt;b&gt;&amp;",
    "{{ 7 * 7 }}{% raw %}",
    "]]>--><!--",
    "javascript:alert(1)",
    "שער-ראשי",
    "ג" * 253,
    "e" + "\u0301" * 200,
    "W" * 253,
)
UNSEEN: Final = ("gw\u202e10\u202c", "gw\u200b\ufeff01", "half \udc80", "line\nbreak\x1b[31m\x00", "\u2066isolate")


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_name_is_text_and_nothing_else(name: str) -> None:
    harmless, hostile = ABroker(["a"]), ABroker([name])
    for broker, worker in ((harmless, "a"), (hostile, name)):
        broker.add_gateway(worker, domains=[WELT.name])
        broker.problems = [worker]
    seen, expected = html(await hostile.page()), html(await harmless.page())
    assert seen.tags == expected.tags
    assert [attribute for attribute, _ in seen.attributes if attribute != "class"] == [
        attribute for attribute, _ in expected.attributes if attribute != "class"
    ]
    # Among the problems, among what is to be looked at, and in the table: each time on its own.
    assert seen.names.count(name) == 3


@pytest.mark.parametrize("name", UNSEEN, ids=range(len(UNSEEN)))
async def test_what_is_unseen_or_turns_text_around_is_shown_as_an_escape(name: str) -> None:
    broker = ABroker([name])
    broker.problems = [name]
    seen = html(await broker.page())
    escaped = name.encode("unicode_escape").decode("ascii")
    assert seen.names.count(escaped) == 3
    assert not re.search("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\x00\x1b]", "".join(seen.words))


async def test_names_in_the_title_are_text_as_well() -> None:
    page = replace(await ABroker().page(), name="</title><script>1</script>\u202e")
    text = RENDERER.render(page).decode()
    assert r"<title>ready: wgkex-ops broker &lt;/title&gt;&lt;script&gt;1&lt;/script&gt;\u202e</title>" in text
    assert "<script" not in text


async def test_five_hundred_gateways_make_one_page_and_short_notices() -> None:
    names = [f"gw{number:03}" for number in range(500)]
    broker = ABroker(names)
    for name in names[:250]:
        broker.add_gateway(name, peers=10)
    page = await broker.page()
    # The page is made on the event loop: nothing may be done for each pair of gateways.
    assert broker.gateways.sums == 1
    seen = html(page)
    assert [name for name in seen.names if name.startswith("gw")] == [*names[250:255], *names]
    assert "Not heard of: gw250 , gw251 , gw252 , gw253 , gw254 and 245 more" in seen.text
    assert "250 of 500" in seen.text


async def test_odd_numbers_make_a_page_all_the_same() -> None:
    worker = AWorker()
    worker.put(WELT, -1e300, 1e300, -5, 0.0)
    row = await worker.row(WELT)
    assert row.total == 4
    html(await worker.page())
    broker = ABroker(["gw01"])
    broker.add_gateway("gw01", peers=999_999_999, ago=-3600)
    broker.mqtt_metrics.last_message_received.set(1e300)
    broker.link.opened_at = time.monotonic() + 3600
    seen = html(await broker.page())
    assert "1,999,999,998, target 1,999,999,998 0 s ago" in seen.text


async def test_pages_reload_by_themselves_and_need_nothing_from_elsewhere() -> None:
    for page in (await ABroker().page(), await AWorker().page()):
        seen = html(page)
        assert ("http-equiv", "refresh") in seen.attributes
        assert ("content", "15") in seen.attributes
        assert not {"script", "img", "iframe", "object", "form"} & set(seen.tags)
        values = [value or "" for attribute, value in seen.attributes if attribute in ("href", "src", "style")]
        assert all(value.startswith(("/", "data:image/svg+xml,")) for value in values)
        assert not any(attribute == "style" or attribute.startswith("on") for attribute, _ in seen.attributes)


async def test_tables_are_made_for_those_who_cannot_see_them() -> None:
    broker = ABroker()
    broker.add_gateway("gw01")
    for page in (await broker.page(), await AWorker().page()):
        seen = html(page)
        tables = seen.tags.count("table")
        assert tables >= 2
        assert seen.tags.count("caption") == tables
        scopes = [value for attribute, value in seen.attributes if attribute == "scope"]
        assert len(scopes) == seen.tags.count("th")
        assert set(scopes) == {"col", "row"}
        assert ("lang", "en") in seen.attributes
        assert seen.tags.count("h1") == 1
        assert {"main", "header", "footer", "nav", "time"} <= set(seen.tags)
