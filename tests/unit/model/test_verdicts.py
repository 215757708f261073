"""What gateways and brokers know of a key, in one sentence."""

from typing import Any

import pytest
from msgspec import structs

from tests.helpers import key
from wgkex_ops.model.inspection import (
    BrokerAnswer,
    GatewayAnswer,
    JournalEntry,
    KeyAtBroker,
    KeyOnGateway,
    PeerReport,
    Query,
    Verdict,
)
from wgkex_ops.model.verdicts import in_fleet, keys_in, on_gateway

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
ASKED = KeyAtBroker(
    key=str(KEY),
    name="",
    domain="ffmuc_welt",
    asked_at=NOW - 20,
    api_version=2,
    request_id="abc",
    receipts={"gw01": ""},
    named="gw01",
    refused="",
)
NOT_ASKED = structs.replace(ASKED, domain="", asked_at=None, api_version=0, request_id="", receipts={}, named="")


def verdict_of(
    *changes: dict[str, Any],
    journal: JournalEntry | None = JOURNAL,
    refused: dict[str, str] | None = None,
    problems: dict[str, str] | None = None,
) -> tuple[str, str]:
    peers = [structs.replace(WHOLE, **change) for change in changes]
    verdict = on_gateway(peers, journal, refused or {}, problems or {}, NOW)
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
    assert verdict_of(journal=None, refused={"ffmuc_welt": "not_allowed"})[0] == "unknown"
    assert verdict_of({"route": "missing"}, problems={"ffmuc_welt": "vx-welt is missing"}) == (
        "fault",
        "vx-welt is missing",
    )


def test_the_best_of_several_domains_counts() -> None:
    left = {"domain": "ffmuc_muc_cty", "route": "elsewhere"}
    assert verdict_of(left, {"handshake": NOW, "state": "active"})[0] == "tunnel"


def on(name: str, verdict: Verdict, *peers: PeerReport) -> GatewayAnswer:
    about = KeyOnGateway(
        key=str(KEY),
        name="Rathaus",
        address=str(KEY.link_local),
        peers=peers,
        journal=None,
        refused={},
        protected=False,
        verdict=verdict,
    )
    return GatewayAnswer(name, (about,))


WAITING = Verdict("waiting", "installed, never a handshake")
UNKNOWN = Verdict("unknown", "not known here")
TUNNEL = Verdict("tunnel", "has a tunnel")


@pytest.mark.parametrize(
    ("answers", "outcome", "text"),
    [
        ([on("gw01", WAITING), on("gw02", TUNNEL), BrokerAnswer("b", (ASKED,))], "tunnel", "gw02: has a tunnel"),
        ([BrokerAnswer("b", (structs.replace(NOT_ASKED, refused="denied_key"),))], "refused", "b refuses it: denied"),
        (
            [on("gw01", WAITING, WHOLE), BrokerAnswer("b", (ASKED,))],
            "waiting",
            "asked 20 s ago by version 2, sent to gw01, and no handshake since: the router's packets do not reach",
        ),
        (
            [on("gw01", WAITING, WHOLE), BrokerAnswer("b", (structs.replace(ASKED, named="", api_version=1),))],
            "waiting",
            "asked 20 s ago by version 1, installed on all gateways that confirmed it, and no handshake since",
        ),
        (
            [on("gw01", Verdict("fault", "wg-welt is down")), BrokerAnswer("b", (ASKED,))],
            "fault",
            "asked 20 s ago by version 2, sent to gw01: wg-welt is down",
        ),
        (
            [BrokerAnswer("b", (structs.replace(ASKED, receipts={}, named=""),))],
            "fault",
            "asked 20 s ago by version 2, and no gateway has confirmed it",
        ),
        (
            [BrokerAnswer("b", (structs.replace(ASKED, receipts={"gw01": "table_full", "gw02": "ENODEV"}, named=""),))],
            "fault",
            "asked 20 s ago by version 2, and no gateway has installed it (gw01: table full, gw02: ENODEV)",
        ),
        (
            [BrokerAnswer("a", (structs.replace(ASKED, asked_at=NOW - 90),)), BrokerAnswer("b", (ASKED,))],
            "waiting",
            "asked 20 s ago",
        ),
        (
            [on("gw01", WAITING), BrokerAnswer("b", (NOT_ASKED,))],
            "waiting",
            "gw01: installed, never a handshake. No broker was asked for it within 5 minutes (no answer from gw09)",
        ),
        ([on("gw01", UNKNOWN), BrokerAnswer("b", (NOT_ASKED,))], "unknown", "nobody knows it (no answer from gw09)"),
        ([], "unknown", "nobody knows it"),
    ],
)
def test_the_fleet(answers: list[GatewayAnswer | BrokerAnswer], outcome: str, text: str) -> None:
    found = in_fleet(answers, KEY, ["gw09"], NOW)
    assert found.verdict.outcome == outcome
    assert found.verdict.text.startswith(text)
    assert found.silent == ("gw09",)


def test_answers_about_other_keys_and_problems() -> None:
    other = on("gw02", TUNNEL)
    other = GatewayAnswer("gw02", tuple(structs.replace(one, key=str(key(2))) for one in other.keys))
    broken = GatewayAnswer("gw03", problem="the kernel's peers cannot be read: EPERM")
    found = in_fleet([on("gw01", WAITING), other, broken], KEY, (), NOW)
    assert found.gateways.keys() == {"gw01"}
    assert found.problems == {"gw03": "the kernel's peers cannot be read: EPERM"}
    assert (found.name, found.address) == ("Rathaus", str(KEY.link_local))
    assert keys_in([on("gw01", WAITING), other, broken]) == [str(KEY), str(key(2))]


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
    assert len(Query("x").find([], {key(number).raw: "X" for number in range(30)})) == 10
