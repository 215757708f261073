"""What the broker's page shows: gateways, domains and keys, in good times and bad ones."""

import asyncio
import re
import time
from dataclasses import replace
from itertools import combinations

import pytest

from tests.fakes import run_in_virtual_time
from tests.helpers import CITY, WELT
from tests.unit.http.operator.pages import ENDPOINT, NAMES, ABroker
from wgkex_ops.bus.messages import ConnectedPeers, WorkerData, WorkerEvent, WorkerStatus
from wgkex_ops.http.gateways.choice import choose
from wgkex_ops.http.gateways.silence import SILENT_AFTER, SILENT_KEYS
from wgkex_ops.model.domains import Domain


async def test_a_broker_that_has_just_started_and_knows_no_gateway() -> None:
    page = await ABroker().shown()
    assert "✓ Ready" in page.text
    assert "No gateway has been heard of yet, and none is listed under workers." in page.text
    assert page.notices == ["✗ No gateway is online: nodes cannot be sent to any"]
    assert page.table("Keys") == [
        ["Outcome", "since start (0 s)"],
        ["Accepted", "0"],
        ["Rejected: the sender's fault", "0"],
        ["Failed: our fault", "0"],
    ]
    assert "Connected since 2 h 5 min ago" in page.text
    assert "Other brokers online 0" in page.text
    for path in ("/metrics", "/-/ready", "/-/healthy"):
        assert ("href", path) in page.attributes


async def test_a_broker_that_is_not_ready_shows_why() -> None:
    broker = ABroker()
    broker.problems = ["there is no connection with the MQTT server"]
    broker.connection.connected = False
    broker.mqtt_metrics.connection_failures.labels("refused").inc(3)
    page = await broker.shown()
    assert "! Without a connection to MQTT, what is shown of the gateways may be out of date" in page.notices
    assert "✗ Not ready there is no connection with the MQTT server" in page.text
    assert "MQTT not connected no key can arrive or leave" in page.text
    assert "State not connected" in page.text
    assert "Failed attempts 3 refused since the start, 0 s ago" in page.text


async def test_gateways_have_their_state_in_words() -> None:
    broker = ABroker(["gw01", "gw02", "gw03", "gw04"])
    broker.add_gateway("gw01", peers=20, ago=75)
    broker.add_gateway("gw02", peers=30)
    broker.gateways.update(WorkerStatus("gw02", online=False), time.monotonic())
    broker.add_gateway("gw04", domains=[WELT.name])
    page = await broker.shown()
    assert page.table("Gateways") == [
        [
            *("Gateway", "State", "Peers", "Last heard", "Assigned, since start (0 s)"),
            "Nodes that came back, since start (0 s)",
        ],
        ["gw01", "✓ online confirms keys", "40, target 25", "1 min ago", "0", "0"],
        ["gw02", "✗ offline", "60, target 25", "0 s ago", "0", "0"],
        ["gw03", "! not heard of", "unknown, target 25", "never", "0", "0"],
        ["gw04", f"✓ online confirms keys not ready for nodes of {CITY.name}", "0, target 25", "0 s ago", "0", "0"],
    ]
    assert page.notices == [
        "! Offline: gw02",
        "! Not heard of: gw03",
        "! Online, but not ready for nodes of all domains: gw04",
    ]
    assert "Gateways online 2 of 4 100 connected peers" in page.text
    # The longest bar is full.
    widths = [value for attribute, value in page.attributes if attribute == "width"]
    assert "100.00" in widths
    assert "66.67" in widths


async def test_gateways_that_drain_are_old_or_have_no_weight_say_so() -> None:
    broker = ABroker(["gw01", "gw02", "gw03"], weightless=["gw02"])
    broker.add_gateway("gw01", endpoint=replace(ENDPOINT, draining=True), version="1.2.3")
    broker.add_gateway("gw02")
    broker.add_gateway("gw03", endpoint=replace(ENDPOINT, receipts=False))
    page = await broker.shown()
    assert [row[:2] for row in page.table("Gateways")[1:]] == [
        ["gw01 1.2.3", "! draining confirms keys"],
        ["gw02", "✓ online confirms keys weight 0: no new nodes"],
        ["gw03", "✓ online confirms no keys: an older worker, or MQTT 3.1.1"],
    ]
    assert page.notices == ["! Draining: no new nodes are sent there: gw01"]


async def test_assignments_and_accepted_keys_are_shown_where_they_belong() -> None:
    broker = ABroker()
    broker.add_gateway("gw01")
    broker.gateway_metrics.assignments.labels("gw01", WELT.name).inc(3)
    broker.gateway_metrics.assignments.labels("gw01", CITY.name).inc(4)
    broker.nodes.returned.labels("gw01").inc(2)
    broker.keys.published.labels(CITY.name).inc(1234)
    page = await broker.shown()
    assert page.table("Gateways")[1][-2:] == ["7", "2"]
    assert page.table("Domains") == [
        ["Domain", "Gateways", "Peers", "Keys, since start (0 s)"],
        [WELT.name, "1", "0", "0"],
        [CITY.name, "1", "0", "1,234"],
    ]
    assert "counted together" not in page.text


async def test_gateways_that_are_not_listed_are_counted_together() -> None:
    broker = ABroker(["gw01"])
    for name in ("gw01", "stranger1", "stranger2"):
        broker.add_gateway(name)
    broker.gateway_metrics.assignments.labels("unknown", WELT.name).inc(5)
    page = await broker.shown()
    assert [(row[0], *row[-2:]) for row in page.table("Gateways")[1:]] == [
        ("gw01", "0", "0"),
        ("stranger1 not listed", "see below", "see below"),
        ("stranger2 not listed", "see below", "see below"),
    ]
    assert "counted together; nodes assigned to them: 5 since the start, 0 s ago." in page.text
    assert page.notices == ["! Not listed under workers, so they weigh 1: stranger1, stranger2"]


async def test_rejections_and_failures_are_shown_by_reason_and_only_failures_are_alarming() -> None:
    broker = ABroker()
    broker.add_gateway("gw01")
    broker.keys.rejections.labels("malformed_json").inc(2)
    broker.keys.rejections.labels("too_large").inc(7)
    page = await broker.shown()
    assert page.notices == []
    assert ("class", "state bad") not in page.attributes
    broker.keys.failures.labels("publish_timeout").inc(4)
    broker.gateway_metrics.messages_rejected.labels("malformed_payload").inc()
    broker.mqtt_metrics.messages_dropped.inc(12)
    page = await broker.shown()
    assert page.table("Keys")[1:] == [
        ["Accepted", "0"],
        ["Rejected: the sender's fault", "9"],
        ["too large", "7"],
        ["malformed json", "2"],
        ["Failed: our fault", "4"],
        ["publish timeout", "4"],
    ]
    assert page.attributes.count(("class", "state bad")) == 1
    assert page.notices == [
        "✗ 4 keys failed since the start, 0 s ago: 4 publish timeout",
        "✗ 12 messages from MQTT dropped since the start, 0 s ago",
        "! 1 message of workers or brokers refused since the start, 0 s ago; the log has the reasons",
    ]
    assert "Messages dropped, too many at once 12" in page.text


def test_gateway_that_confirms_nothing_is_named_with_the_likely_causes() -> None:
    async def scenario() -> None:
        now = asyncio.get_running_loop().time
        broker = ABroker()
        broker.add_gateway("gw01", ago=time.monotonic() - now())
        for _ in range(SILENT_KEYS):
            broker.silences.accept(["gw01"], WELT.name)
        assert (await broker.shown()).notices == []
        # An operator who looks at the page within half a minute sees it.
        await asyncio.sleep(16)
        broker.silences.check()
        page = await broker.shown()
        assert page.table("Gateways")[1][1] == "✓ online confirms keys"
        (notice,) = page.notices
        assert re.fullmatch(r"! No receipt for the latest keys; the access rules of the MQTT .*: gw01", notice)
        await asyncio.sleep(SILENT_AFTER)
        broker.silences.check()
        page = await broker.shown()
        assert page.table("Gateways")[1][1] == "✗ confirms nothing"
        (notice,) = page.notices
        assert notice.startswith("✗ No receipt for the latest keys; ")
        broker.silences.end("gw01", WELT.name)
        assert (await broker.shown()).notices == []

    run_in_virtual_time(scenario())


async def test_keys_without_a_confirmation_are_counted_by_gateway() -> None:
    broker = ABroker(["gw01", "gw02"])
    broker.add_gateway("gw01")
    broker.add_gateway("gw02")
    broker.receipts.unconfirmed.labels("gw01").inc(7)
    broker.receipts.unconfirmed.labels("unknown").inc(2)
    broker.receipts.confirmed_nowhere.labels(WELT.name).inc(3)
    assert (await broker.shown()).notices == [
        "✗ 3 keys confirmed by no gateway since the start, 0 s ago: their nodes have no tunnel",
        "! 9 keys never confirmed since the start, 0 s ago, by: gw01 (7), unknown (2)",
    ]


@pytest.mark.parametrize("domain", [WELT, CITY])
async def test_a_domain_has_a_gateway_on_the_page_exactly_if_its_nodes_would_get_one(domain: Domain) -> None:
    reported: tuple[WorkerEvent, ...] = (
        WorkerData("gw01", WELT.name, ENDPOINT),
        ConnectedPeers("gw01", WELT.name, 3),
        WorkerStatus("gw01", online=True),
    )
    for events in (events for number in range(4) for events in combinations(reported, number)):
        broker = ABroker()
        for event in events:
            broker.gateways.update(event, time.monotonic())
        rows = {row[0]: row[1] for row in (await broker.shown()).table("Domains")}
        assert rows[domain.name] == ("1" if choose(broker.gateways, domain.name) else "✗ none")


async def test_a_domain_without_a_gateway_needs_attention_if_others_have_one() -> None:
    broker = ABroker()
    broker.add_gateway("gw01", domains=[WELT.name])
    page = await broker.shown()
    assert page.notices[0] == f"✗ Domains without a gateway: {CITY.name}"


async def test_columns_and_the_rate_after_some_minutes() -> None:
    broker = ABroker()
    broker.live(400)
    broker.keys.published.labels(WELT.name).inc(12)
    page = await broker.shown()
    assert page.table("Keys")[:2] == [["Outcome", "last 5 min", "since start (6 min)"], ["Accepted", "12", "12"]]
    assert "Keys accepted 12/min in the last 1 min" in page.text
    assert "Started 6 min ago" in page.text


async def test_columns_after_an_hour() -> None:
    broker = ABroker()
    broker.keys.published.labels(WELT.name).inc(100)
    broker.live(3600)
    page = await broker.shown()
    assert page.table("Keys")[:2] == [["Outcome", "last 5 min", "last 15 min"], ["Accepted", "0", "0"]]
    assert page.table("Domains")[0][-2:] == ["Keys, last 5 min", "Keys, last 15 min"]
    assert "Keys accepted 0/min" in page.text


async def test_five_hundred_gateways_make_one_page_and_short_notices() -> None:
    names = [f"gw{number:03}" for number in range(500)]
    broker = ABroker(names)
    for name in names[:250]:
        broker.add_gateway(name, peers=10)
    page = await broker.shown()
    # The page is made on the event loop: nothing may be done for each pair of gateways.
    assert broker.gateways.sums == 1
    assert [row[0] for row in page.table("Gateways")[1:]] == names
    assert page.notices == ["! Not heard of: gw250, gw251, gw252, gw253, gw254 and 245 more"]
    assert "250 of 500" in page.text


async def test_odd_numbers_make_a_page_all_the_same() -> None:
    broker = ABroker(["gw01"])
    broker.add_gateway("gw01", peers=999_999_999, ago=-3600)
    broker.mqtt_metrics.last_message_received.set(1e300)
    broker.connection.opened_at = time.monotonic() + 3600
    page = await broker.shown()
    assert page.table("Gateways")[1][2:4] == [f"{999_999_999 * len(NAMES):,}, target 1,999,999,998", "0 s ago"]
