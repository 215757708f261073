"""What a gateway knows of a key, in one sentence."""

from typing import Any

import pytest
from msgspec import structs

from tests.helpers import key
from wgkex_ops.model.inspection import JournalEntry, PeerReport, Query
from wgkex_ops.model.verdicts import on_gateway

NOW = 1_000_000.0
KEY = key(1)
WHOLE = PeerReport(
    domain="ffmuc_welt",
    interface="wg-welt",
    port=40011,
    allowed_ips=f"{KEY.link_local}/128",
    route="ours",
    fdb=True,
    endpoint="",
    handshake=None,
    received=0,
    sent=0,
    state="never",
)
JOURNAL = JournalEntry("ffmuc_welt", NOW - 60, version_2=True)


def verdict_of(
    *changes: dict[str, Any],
    journal: JournalEntry | None = JOURNAL,
    refused: dict[str, str] | None = None,
    problems: dict[str, str] | None = None,
) -> tuple[str, str]:
    peers = [structs.replace(WHOLE, **change) for change in changes]
    verdict = on_gateway(str(KEY.link_local), peers, journal, refused or {}, interface_problems=problems or {}, now=NOW)
    return verdict.outcome, verdict.text


@pytest.mark.parametrize(
    ("change", "outcome", "text"),
    [
        ({}, "waiting", "installed, never a handshake: the router's packets do not arrive; check UDP 40011 "),
        ({"handshake": NOW - 30, "state": "active"}, "tunnel", "has a tunnel in ffmuc_welt: last handshake 30 s ago"),
        ({"handshake": NOW + 90, "state": "active"}, "tunnel", "has a tunnel in ffmuc_welt: last handshake 0 s ago"),
        ({"handshake": NOW - 7200, "state": "idle"}, "waiting", "installed, last handshake 2 h ago: the router is off"),
        ({"route": "missing"}, "fault", "no route leads to it over wg-welt: the worker adds it within a minute"),
        ({"route": "elsewhere", "fdb": False}, "waiting", "a peer left behind in ffmuc_welt"),
        ({"fdb": False}, "fault", "VXLAN has no FDB entry for it"),
        ({"fdb": False, "route": "foreign", "handshake": NOW, "state": "active"}, "tunnel", "has a tunnel"),
        ({"allowed_ips": "none", "route": "several"}, "fault", "a peer of wg-welt without allowed IPs"),
    ],
)
def test_a_peer(change: dict[str, Any], outcome: str, text: str) -> None:
    found = verdict_of(change)
    assert found[0] == outcome
    assert found[1].startswith(text)


def test_no_peer() -> None:
    assert verdict_of()[0] == "fault"
    assert verdict_of()[1].startswith("should be a peer in ffmuc_welt, and is none: the worker restores it")
    assert verdict_of(journal=None)[0] == "unknown"
    assert verdict_of(journal=None)[1].startswith("not known here")
    down = {"ffmuc_welt": "wg-welt is down: see 'wgkex-ops doctor'"}
    assert verdict_of(problems=down) == ("fault", "wg-welt is down: see 'wgkex-ops doctor'")
    assert verdict_of(journal=None, problems=down)[1].endswith(". wg-welt is down: see 'wgkex-ops doctor'")


def test_lists_and_interfaces_come_before_all_else() -> None:
    denied = {"ffmuc_welt": "denied", "ffmuc_muc_cty": "denied"}
    assert verdict_of({"route": "missing"}, refused=denied)[0] == "refused"
    assert verdict_of({}, refused=denied)[1].startswith("denied by the key lists")
    assert verdict_of(journal=None, refused=denied)[0] == "refused"
    assert verdict_of({}, refused={"ffmuc_welt": "not_allowed"})[1].startswith(
        "not one of the keys that ffmuc_welt allows"
    )
    # Which domain its node asks in is not known here.
    outcome, text = verdict_of(journal=None, refused={"ffmuc_welt": "not_allowed"})
    assert outcome == "unknown"
    assert text.endswith("; not one of the keys that ffmuc_welt allows")
    assert verdict_of({"route": "missing"}, problems={"ffmuc_welt": "vx-welt is missing"}) == (
        "fault",
        "vx-welt is missing",
    )


def test_the_best_of_several_domains_counts_and_one_left_behind_does_not() -> None:
    left = {"domain": "ffmuc_muc_cty", "route": "elsewhere"}
    assert verdict_of(left, {"handshake": NOW, "state": "active"})[0] == "tunnel"
    assert verdict_of(left, {})[1].startswith("installed, never a handshake")
    down = {"ffmuc_muc_cty": "vx-muc_cty is down"}
    assert verdict_of(left, {}, problems=down)[1].startswith("installed, never a handshake")
    assert verdict_of(left, problems=down)[1].startswith("a peer left behind in ffmuc_muc_cty")


def test_nobody_repairs_or_removes_the_peer_of_an_operator() -> None:
    static = {"allowed_ips": "fe80::9/128"}
    assert verdict_of(static, journal=None)[1].startswith("installed, never a handshake")
    by_hand = "its address is not derived from its key, so whoever made this peer has to add it"
    assert verdict_of({**static, "route": "missing"}, journal=None) == (
        "fault",
        f"no route leads to it over wg-welt: {by_hand}",
    )
    assert verdict_of({**static, "fdb": False}, journal=None)[1].endswith(by_hand)
    denied = {"ffmuc_welt": "denied"}
    assert verdict_of(static, refused=denied)[1].endswith("its peer, with another address, is not the worker's")
    assert verdict_of({"allowed_ips": "none"}, refused=denied)[1].endswith("its peer is about to be removed")


def test_what_can_be_asked_for() -> None:
    names = {KEY.raw: "Rathaus", key(2).raw: "rathaus", key(3).raw: "Rathaus 2"}
    assert Query(f" {KEY}\n").find([], {}) == [KEY.raw]
    for text in (
        str(KEY.link_local),
        f"{KEY.link_local}/128",
        f"{KEY.link_local}%wg-welt",
        str(KEY.link_local).upper(),
    ):
        query = Query(text)
        assert not query.is_name
        assert query.find([KEY.raw, key(2).raw], names) == [KEY.raw]
        assert query.find([], names) == [KEY.raw]
        assert query.find([], {}) == []
    assert Query("RATHAUS").find([KEY.raw], names) == [KEY.raw, key(2).raw]
    assert Query("Rat").find([KEY.raw], names) == []
    assert Query("192.0.2.1").is_name
    assert len(Query("x").find([], {key(number).raw: "X" for number in range(30)})) == 11
