"""The canary's page: which domains have a tunnel, and which phase failed in the others."""

import time
from typing import Final

from tests.helpers import CITY, WELT
from tests.unit.http.operator.pages import Html, html
from wgkex_ops.http.operator.page.canary import CanaryView
from wgkex_ops.model.rounds import PHASES, Round

HOSTILE: Final = "<script>alert(1)</script>\u202e"


async def page(*rounds: Round, problems: tuple[str, ...] = ()) -> Html:
    view = CanaryView(
        name="watch01",
        broker="http://broker.example.net",
        domains=[WELT.name, CITY.name],
        last={done.domain: done for done in rounds},
        problems=lambda: problems,
    )
    return html(await view.page())


def done(domain: str, *seconds: float, gateway: str = "gw04", failure: str = "it broke") -> Round:
    completed = dict(zip(PHASES, seconds, strict=False))
    return Round(domain, time.time() - 7.5, gateway, completed, "" if len(completed) == len(PHASES) else failure)


async def test_before_the_first_round_there_is_nothing_to_show() -> None:
    shown = await page(problems=("no round is complete yet in ffmuc_welt, ffmuc_muc_cty",))
    assert "Canary watch01" in shown.text
    assert "no round is complete yet" in shown.text
    assert "Domains with a tunnel 0 of 2" in shown.text
    assert shown.notices == []
    assert [row[:2] for row in shown.table("Domains")[1:]] == [
        [WELT.name, "no round yet"],
        [CITY.name, "no round yet"],
    ]


async def test_each_domain_has_its_last_round() -> None:
    shown = await page(done(WELT.name, 0.123, 4.5, 6), done(CITY.name, 0.2))
    assert shown.table("Domains") == [
        ["Domain", "State", "Gateway", *PHASES, "When"],
        [WELT.name, "✓ tunnel", "gw04", "0.12 s", "4.50 s", "6.00 s", "7 s ago"],
        [CITY.name, "✗ handshake failed", "gw04", "0.20 s", "-", "-", "7 s ago"],
    ]
    assert "Domains with a tunnel 1 of 2" in shown.text
    assert shown.notices == [f"✗ In phase handshake: it broke: {CITY.name}"]
    assert "Broker http://broker.example.net" in shown.text


async def test_a_round_without_a_gateway_names_none() -> None:
    shown = await page(done(WELT.name, gateway=""))
    assert shown.table("Domains")[1][:3] == [WELT.name, "✗ post failed", "none"]


async def test_what_a_broker_sends_is_text_and_nothing_else() -> None:
    harmless = await page(done(WELT.name, 1), done(CITY.name, 1, 2, 3))
    hostile = await page(
        done(WELT.name, 1, gateway=HOSTILE, failure=HOSTILE), done(CITY.name, 1, 2, 3, gateway=HOSTILE)
    )
    assert hostile.tags == harmless.tags
    assert "\u202e" not in hostile.text
