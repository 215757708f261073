"""What the worker's page shows: interfaces, peers and keys, in good times and bad ones."""

import time
from dataclasses import replace

import pytest

from tests.helpers import CITY, WELT
from tests.unit.http.operator.pages import AWorker
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.peers import DomainState


async def test_a_worker_without_peers() -> None:
    page = await AWorker().shown()
    assert "✓ Ready" in page.text
    assert page.notices == []
    peers = "0 0 active 0 idle 0 stale 0 never"
    assert page.table("Domains") == [
        ["Domain", "Interfaces", "Peers", "Newest handshake", "Routes", "Incomplete peers"],
        [WELT.name, "wg-welt ✓ up vx-welt ✓ up", peers, "none yet", "0", "none"],
        [CITY.name, "wg-muc_cty ✓ up vx-muc_cty ✓ up", peers, "none yet", "0", "none"],
    ]
    assert "Last message none yet" in page.text
    assert "Dataplane kernel Journal works" in page.text


@pytest.mark.parametrize("revision", ["", "883334f"])
async def test_a_worker_shows_its_version_and_revision(monkeypatch: pytest.MonkeyPatch, revision: str) -> None:
    monkeypatch.setenv("WGKEX_REVISION", revision)
    assert f", revision {revision or 'unknown'} Started 0 s ago" in (await AWorker().shown()).text


async def test_peers_are_shown_by_state_and_with_the_newest_handshake() -> None:
    worker = AWorker()
    worker.put(WELT, 5, 179, 181, 20_000, None)
    worker.put(CITY, 30)
    page = await worker.shown()
    assert [row[2:] for row in page.table("Domains")[1:]] == [
        ["5, 40 % active 2 active 1 idle 1 stale 1 never", "5 s ago", "5", "none"],
        ["1, 100 % active 1 active 0 idle 0 stale 0 never", "30 s ago", "1", "none"],
    ]
    assert "Active peers 3 of 6 handshake in the last 3 min" in page.text
    # The bar has a part for each state, as long as there are peers in it.
    widths = [value for attribute, value in page.attributes if attribute == "width"]
    assert widths.count("40.00") == 1
    assert widths.count("20.00") == 3


@pytest.mark.parametrize(("stale_after", "words", "state"), [(10_800, "3 h", "idle"), (5400, "1 h 30 min", "stale")])
async def test_the_limits_of_the_states_are_those_of_the_configuration(
    stale_after: float, words: str, state: str
) -> None:
    worker = AWorker(stale_after=stale_after)
    worker.put(WELT, 6000)
    page = await worker.shown()
    assert f"A peer is active within 3 min of its last handshake, idle within {words}, and then stale" in page.text
    assert f"1 {state}" in page.table("Domains")[1][2]


async def test_interfaces_that_are_down_or_missing_and_incomplete_peers_are_shown() -> None:
    worker = AWorker()
    worker.put(WELT, 5)
    complete = worker.states[WELT.name]
    worker.states[WELT.name] = replace(complete, vx_up=False, fdb_entries=frozenset())
    worker.states[CITY.name] = DomainState()
    worker.problems = ["vx-welt is down", "wg-muc_cty is missing"]
    page = await worker.shown()
    assert page.notices == [
        f"! Domains with incomplete peers, whose nodes may have no mesh here until the parts are put back: {WELT.name}"
    ]
    welt, city = page.table("Domains")[1:]
    assert (welt[1], welt[-1]) == ("wg-welt ✓ up vx-welt ✗ down", "! 1 without FDB entry")
    assert city[1] == "wg-muc_cty ✗ missing vx-muc_cty ✗ missing"
    assert "✗ Not ready vx-welt is down wg-muc_cty is missing" in page.text


async def test_active_peers_without_vxlan_traffic_need_attention() -> None:
    worker = AWorker()
    worker.put(WELT, 5)
    worker.silence = {WELT.name: 299.0, CITY.name: 0.0}
    assert (await worker.shown()).notices == []
    worker.silence[WELT.name] = 300.0
    assert (await worker.shown()).notices == [
        "✗ Active peers, and nothing received or nothing sent over VXLAN for 5 min: nodes have a tunnel and no mesh: "
        + WELT.name
    ]


async def test_key_lists_that_cannot_be_read_need_attention() -> None:
    worker = AWorker()
    worker.lists_problem = "/etc/wgkex/keys.yaml: is empty"
    assert (await worker.shown()).notices == [
        "! The key lists cannot be read, and those from before count: /etc/wgkex/keys.yaml: is empty"
    ]


async def test_a_full_domain_needs_attention() -> None:
    worker = AWorker(max_peers=2)
    worker.put(WELT, None)
    assert (await worker.shown()).notices == []
    worker.put(WELT, None, 5)
    assert (await worker.shown()).notices == [
        f"! Domains that are full: new peers take the room of those that never connected: {WELT.name}"
    ]


async def test_a_worker_that_cannot_read_its_peers_shows_why_and_no_numbers_of_them() -> None:
    worker = AWorker()
    worker.put(WELT, 5)
    worker.error = DataplaneError("dump", "EPERM", "not permitted")
    page = await worker.shown()
    assert page.notices == ["✗ The peers cannot be read: dump: EPERM: not permitted"]
    assert "Domains ✗ The peers cannot be read: dump: EPERM: not permitted" in page.text
    assert "Active peers unknown" in page.text
    assert "active" not in page.text.replace("Active peers", "")
    worker.error = None
    page = await worker.shown()
    assert page.notices == []
    assert "1, 100 % active" in page.text


async def test_a_worker_whose_dataplane_hangs_shows_a_page_all_the_same() -> None:
    worker = AWorker()
    worker.hangs = True
    assert (await worker.shown()).notices == ["✗ The peers cannot be read: no result within 0.01 s"]


async def test_a_journal_that_does_not_work_needs_attention() -> None:
    worker = AWorker()
    worker.journal.up.set(0)
    page = await worker.shown()
    assert page.notices == ["! The journal cannot be written: a reboot of this gateway would lose its peers"]
    assert "Journal ! cannot be written" in page.text


async def test_the_outcome_of_keys_is_shown() -> None:
    worker = AWorker(installs_nothing=True)
    worker.keys.received.labels(WELT.name).inc(20)
    worker.keys.deduplicated.labels(WELT.name).inc(3)
    worker.keys.installed.labels(WELT.name).inc(10)
    worker.keys.install_failures.labels(WELT.name).inc(1)
    worker.keys.rejections.labels("own_key").inc(2)
    worker.keys.queue_length.set(4)
    worker.sessions.started.labels(WELT.name).inc(6)
    worker.sessions.started.labels(CITY.name).inc(1)
    worker.cleanup.removed.labels(WELT.name, "stale").inc(2)
    worker.cleanup.removed.labels(CITY.name, "never_connected").inc(3)
    page = await worker.shown()
    assert page.table("Keys")[1:] == [
        ["Received", "20"],
        ["Installed, new or refreshed", "10"],
        ["Connected: sessions that began", "7"],
        ["Merged with one that waited", "3"],
        ["Rejected", "2"],
        ["own key", "2"],
        ["Given up: no tunnel", "1"],
        ["Removed: the node has gone, or its key is denied", "5"],
        ["Removed: a full domain needed the room", "0"],
    ]
    assert page.notices == [
        "✗ 1 key could not be installed since the start, 0 s ago",
        "! For trying out only: peers are kept in memory, nothing is installed",
        "! 2 keys from MQTT rejected since the start, 0 s ago; reasons are below",
    ]
    assert "Keys installed 10 since the start, 0 s ago" in page.text
    assert "Keys waiting 4 of 20,000 that may wait" in page.text
    assert "Dataplane memory" in page.text


async def test_odd_handshakes_make_a_page_all_the_same() -> None:
    worker = AWorker()
    worker.put(WELT, -1e300, 1e300, -5, 0.0)
    assert (await worker.shown()).table("Domains")[1][2].startswith("4, ")


async def test_a_worker_that_drains_says_since_when_and_how_to_end_it() -> None:
    worker = AWorker()
    assert worker.draining_since is None
    worker.draining_since = time.time() - 3700
    page = await worker.shown()
    assert page.notices == ["! Draining since 1 h 1 min: brokers send no new nodes here; wgkex-ops undrain ends it"]
