"""What gateways and brokers together know of a key, in one sentence."""

import pytest
from msgspec import structs

from tests.helpers import key
from tests.unit.model.test_verdicts import KEY, NOW, WHOLE
from wgkex_ops.model.fleet_verdicts import in_fleet, keys_in
from wgkex_ops.model.inspection import (
    Answer,
    Answers,
    BrokerAnswer,
    GatewayAnswer,
    JournalEntry,
    KeyAtBroker,
    KeyInFleet,
    KeyOnGateway,
    PeerReport,
    Verdict,
)

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
SINCE = "asked 20 s ago by version 2"
WAITING = Verdict("waiting", "installed, never a handshake")
UNKNOWN = Verdict("unknown", "not known here")
TUNNEL = Verdict("tunnel", "has a tunnel")
DOWN = Verdict("fault", "wg-welt is down")


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


def shaken(seconds_ago: float) -> PeerReport:
    return structs.replace(WHOLE, handshake=NOW - seconds_ago)


def broker(*requests: KeyAtBroker, name: str = "b") -> BrokerAnswer:
    return BrokerAnswer(name, requests)


def asked_with(**changes: object) -> KeyAtBroker:
    return structs.replace(ASKED, **changes)


def judge(*answers: Answer, silent: tuple[str, ...] = (), unable: tuple[str, ...] = ()) -> tuple[str, str]:
    verdict = in_fleet(Answers(answers, silent, unable), KEY, NOW).verdict
    return verdict.outcome, verdict.text


@pytest.mark.parametrize(
    ("answers", "outcome", "text"),
    [
        ([on("gw01", WAITING), on("gw02", TUNNEL)], "tunnel", "gw02: has a tunnel"),
        ([broker(structs.replace(NOT_ASKED, refused="denied_key"))], "refused", "b refuses it: denied key"),
        (
            [on("gw01", WAITING, WHOLE), broker(ASKED)],
            "waiting",
            f"{SINCE}, sent to gw01, and no handshake since: the router's packets do not arrive; check UDP 40011",
        ),
        ([on("gw01", DOWN), broker(ASKED)], "fault", f"{SINCE}, sent to gw01: wg-welt is down"),
        (
            [on("gw01", WAITING, WHOLE), broker(asked_with(asked_at=NOW - 90), name="a"), broker(ASKED)],
            "waiting",
            "asked 20 s ago",
        ),
        (
            [on("gw01", WAITING), broker(NOT_ASKED)],
            "waiting",
            "gw01: installed, never a handshake. No broker was asked for it within 5 minutes",
        ),
        (
            [on("gw01", WAITING)],
            "waiting",
            "gw01: installed, never a handshake. No broker has answered",
        ),
        ([on("gw01", UNKNOWN), broker(NOT_ASKED)], "unknown", "nobody knows it: the router has not reached a broker"),
        ([on("gw01", UNKNOWN)], "unknown", "no gateway knows it, and no broker has answered"),
        ([], "unknown", "no gateway knows it, and no broker has answered"),
    ],
)
def test_the_fleet(answers: list[Answer], outcome: str, text: str) -> None:
    found = judge(*answers)
    assert found[0] == outcome
    assert found[1].startswith(text)


@pytest.mark.parametrize(
    ("changes", "outcome", "text"),
    [
        ({"receipts": {}, "awaited": ("gw01",)}, "fault", "and no gateway has confirmed it: check the workers"),
        (
            {"receipts": {}, "awaited": ("gw01",), "asked_at": NOW - 3},
            "waiting",
            "and no gateway has confirmed it yet: look again in a few seconds",
        ),
        (
            {"receipts": {"gw01": "ENODEV"}, "awaited": ("gw02",), "asked_at": NOW - 3},
            "waiting",
            "and no gateway has confirmed it yet: look again in a few seconds",
        ),
        (
            {"receipts": {"gw01": "table_full", "gw02": "ENODEV"}},
            "fault",
            "and no gateway has installed it (gw01: table full, gw02: ENODEV)",
        ),
        ({"failure": "unknown_domain", "domain": ""}, "refused", "in a domain that b does not serve: check the router"),
        ({"failure": "rate_limited"}, "refused", "and b refused it: its key or its network asks more often than"),
        ({"failure": "denied_key"}, "waiting", "and b refused it by the key lists, which allow it by now"),
        ({"refused": "denied_key"}, "refused", "b refuses it in ffmuc_welt: denied key, by the key lists"),
        ({"failure": "no_worker", "receipts": {}}, "fault", "and no gateway takes nodes of ffmuc_welt: see 'wgkex-ops"),
        (
            {"failure": "no_worker", "receipts": {"gw01": "table_full"}},
            "fault",
            "and no gateway takes nodes of ffmuc_welt (gw01: table full)",
        ),
        (
            {"failure": "publish_timeout"},
            "fault",
            "and b could not publish it (publish timeout): check the MQTT server",
        ),
    ],
)
def test_what_became_of_the_latest_request(changes: dict[str, object], outcome: str, text: str) -> None:
    about = asked_with(named="", **changes)
    found = judge(on("gw01", WAITING, WHOLE), broker(about))
    assert found[0] == outcome
    assert found[1].split(" by version 2", 1)[1].lstrip(",: ").startswith(text)


def test_a_request_that_was_refused_for_its_number_says_less_than_the_one_before() -> None:
    limited = asked_with(failure="rate_limited", receipts={}, named="", asked_at=NOW - 5)
    assert "sent to gw01" in judge(on("gw01", WAITING, WHOLE), broker(ASKED, limited))[1]


def test_a_handshake_counts_from_the_request_on() -> None:
    tunnel = on("gw01", TUNNEL, shaken(10))
    assert judge(tunnel, broker(ASKED)) == ("tunnel", "gw01: has a tunnel")
    # It has asked again, so its tunnel is of no use to it.
    outcome, text = judge(on("gw02", TUNNEL, shaken(90)), on("gw01", WAITING, WHOLE), broker(ASKED))
    assert outcome == "waiting"
    assert text.startswith(f"{SINCE}, sent to gw01, and no handshake since (the last one 1 min ago on gw02): ")
    # It is the gateway's own clock that says which came first, where that is known.
    journal = JournalEntry("ffmuc_welt", NOW - 61, version_2=True)
    ahead = asked_with(asked_at=NOW - 20)
    shaken_since = structs.replace(tunnel.keys[0], journal=journal, peers=(shaken(60),))
    assert judge(GatewayAnswer("gw01", (shaken_since,)), broker(ahead)) == ("tunnel", "gw01: has a tunnel")
    # Since the request it had one, and that is not all.
    old = asked_with(asked_at=NOW - 280)
    idle = Verdict("waiting", "installed, last handshake 4 min ago")
    assert judge(on("gw01", idle, shaken(270)), broker(old)) == ("waiting", "gw01: installed, last handshake 4 min ago")
    broken = Verdict("fault", "VXLAN has no FDB entry for it")
    assert judge(on("gw01", broken, shaken(10)), on("gw02", TUNNEL, shaken(100)), broker(ASKED)) == (
        "fault",
        "gw01: VXLAN has no FDB entry for it",
    )


def test_a_gateway_that_was_named_and_says_nothing() -> None:
    elsewhere = on("gw02", WAITING, WHOLE)
    assert judge(elsewhere, broker(ASKED), silent=("gw01",)) == (
        "unknown",
        f"{SINCE}, sent to gw01, which has not answered: look there, with 'wgkex-ops peer'",
    )
    assert judge(elsewhere, broker(ASKED), unable=("gw01",))[1].startswith(
        f"{SINCE}, sent to gw01, which cannot be asked"
    )
    assert judge(elsewhere, GatewayAnswer("gw01", problem="EPERM"), broker(ASKED)) == (
        "fault",
        f"{SINCE}, sent to gw01, which cannot tell: EPERM",
    )
    assert judge(elsewhere, broker(ASKED))[1].startswith(f"{SINCE}, sent to gw01, which has gone offline")


def test_a_node_of_version_1_chooses_its_gateway() -> None:
    about = asked_with(named="", api_version=1, receipts={"gw01": "", "gw02": ""})
    since = "asked 20 s ago by version 1"
    other = structs.replace(WHOLE, port=40012)
    assert judge(on("gw01", WAITING, WHOLE), on("gw02", WAITING, other), broker(about))[1] == (
        f"{since}, installed on gw01, gw02, and no handshake since: the router's packets do not arrive; "
        "check UDP 40011 of gw01, 40012 of gw02"
    )
    assert judge(on("gw01", DOWN), on("gw02", WAITING, WHOLE), broker(about), silent=("gw03",))[1] == (
        f"{since}, installed on gw02, and no handshake since: the router's packets do not arrive; "
        "check UDP 40011; gw01: wg-welt is down, or it has its tunnel elsewhere (no answer from gw03)"
    )
    assert judge(on("gw01", DOWN, WHOLE), broker(about)) == ("fault", f"{since}; gw01: wg-welt is down")
    # Peers in other domains are not what it asked for.
    city = structs.replace(WHOLE, domain="ffmuc_muc_cty")
    assert judge(on("gw01", WAITING, city), broker(about)) == (
        "fault",
        f"{since}, and no gateway that is online has it: see 'wgkex-ops status'",
    )


def test_gateways_say_why_they_have_not_confirmed_a_key() -> None:
    about = asked_with(named="", receipts={}, awaited=("gw01", "gw02"))
    broken = GatewayAnswer("gw02", problem="EPERM")
    assert judge(on("gw01", DOWN), broken, broker(about)) == (
        "fault",
        f"{SINCE}, and no gateway has confirmed it; gw01: wg-welt is down (gw02 cannot tell: EPERM)",
    )
    about = asked_with(named="", receipts={"gw01": "ENODEV"})
    assert judge(on("gw01", DOWN), broker(about))[1].endswith("has installed it (gw01: ENODEV); gw01: wg-welt is down")


def test_a_gateway_that_was_named_and_has_not_got_the_key() -> None:
    others = on("gw02", WAITING, WHOLE)
    about = asked_with(receipts={"gw02": ""}, awaited=("gw01",))
    assert judge(on("gw01", UNKNOWN), others, broker(about)) == (
        "fault",
        f"{SINCE}, sent to gw01, which has not confirmed it: see the log of its worker",
    )
    about = asked_with(receipts={"gw01": "table_full", "gw02": ""})
    assert "which has not installed it (table full)" in judge(on("gw01", UNKNOWN), others, broker(about))[1]
    assert "which has not kept it" in judge(on("gw01", UNKNOWN), others, broker(ASKED))[1]


def test_a_handshake_takes_seconds() -> None:
    fresh = asked_with(asked_at=NOW - 1)
    assert judge(on("gw01", WAITING, WHOLE), broker(fresh))[1] == (
        "asked 1 s ago by version 2, sent to gw01, and no handshake yet; if none comes within seconds, the router's "
        "packets do not arrive; check UDP 40011"
    )


def test_version_1_right_after_version_2_hides_nothing() -> None:
    refused = asked_with(failure="no_worker", named="", receipts={})
    later = asked_with(named="", api_version=1, receipts={}, asked_at=NOW - 19)
    assert "no gateway takes nodes of ffmuc_welt" in judge(on("gw01", UNKNOWN), broker(refused, later))[1]
    installed = structs.replace(later, receipts={"gw01": ""})
    assert "by version 1, installed on gw01" in judge(on("gw01", WAITING, WHOLE), broker(refused, installed))[1]


def test_gateways_that_send_no_receipts_may_have_the_key() -> None:
    about = asked_with(named="", receipts={})
    assert judge(on("gw01", UNKNOWN), broker(about), unable=("old",)) == (
        "unknown",
        f"{SINCE}, and no gateway that has answered has it (cannot be asked: old)",
    )
    assert judge(on("gw01", UNKNOWN), broker(NOT_ASKED), unable=("old",))[1].startswith(
        "nobody knows it (cannot be asked: old): the router has not reached a broker"
    )


def test_answers_about_other_keys_and_problems() -> None:
    other = on("gw02", TUNNEL)
    other = GatewayAnswer("gw02", tuple(structs.replace(one, key=str(key(2))) for one in other.keys))
    broken = GatewayAnswer("gw03", problem="the kernel's peers cannot be read: EPERM")
    answers = (on("gw01", WAITING), other, broken)
    found = in_fleet(Answers(answers, ("gw04",), ("old",)), KEY, NOW)
    assert isinstance(found, KeyInFleet)
    assert found.gateways.keys() == {"gw01"}
    assert found.problems == {"gw03": "the kernel's peers cannot be read: EPERM"}
    assert (found.silent, found.unable) == (("gw04",), ("old",))
    assert (found.name, found.address) == ("Rathaus", str(KEY.link_local))
    assert keys_in(answers) == [str(KEY), str(key(2))]
