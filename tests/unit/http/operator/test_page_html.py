"""The HTML of the pages: names from the bus are text and nothing else, and everybody can read it."""

import re
from dataclasses import replace
from typing import Final

import pytest

from tests.helpers import WELT
from tests.unit.http.operator.pages import RENDERER, ABroker, AWorker

HOSTILE: Final = (
    "<script>alert(1)</script>",
    "</title></style></table><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x=\'',
    "&lt;b&gt;&amp;",
    "{{ 7 * 7 }}{% raw %}",
    "{0} {name} {0.__class__}",
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
    page, expected = await hostile.shown(), await harmless.shown()
    assert page.tags == expected.tags
    assert [attribute for attribute, _ in page.attributes if attribute != "class"] == [
        attribute for attribute, _ in expected.attributes if attribute != "class"
    ]
    # Among the problems, among what needs attention, and in the table: each time on its own.
    assert page.names.count(name) == 3


@pytest.mark.parametrize("name", UNSEEN, ids=range(len(UNSEEN)))
async def test_what_is_unseen_or_turns_text_around_is_shown_as_an_escape(name: str) -> None:
    broker = ABroker([name])
    broker.problems = [name]
    page = await broker.shown()
    assert page.names.count(name.encode("unicode_escape").decode("ascii")) == 3
    assert not re.search("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\x00\x1b]", page.text)


async def test_names_in_the_title_are_text_as_well() -> None:
    page = replace(await ABroker().view.page(), name="</title><script>1</script>\u202e")
    text = RENDERER.render(page).decode()
    assert r"<title>ready: wgkex-ops broker &lt;/title&gt;&lt;script&gt;1&lt;/script&gt;\u202e</title>" in text
    assert "<script" not in text


async def test_pages_reload_by_themselves_and_need_nothing_from_elsewhere() -> None:
    for page in (await ABroker().shown(), await AWorker().shown()):
        assert ("http-equiv", "refresh") in page.attributes
        assert ("content", "15") in page.attributes
        assert not {"script", "img", "iframe", "object"} & set(page.tags)
        values = [
            value or "" for attribute, value in page.attributes if attribute in ("href", "src", "style", "action")
        ]
        assert all(value.startswith(("/", "data:image/svg+xml,")) for value in values)
        assert not any(attribute == "style" or attribute.startswith("on") for attribute, _ in page.attributes)


async def test_tables_are_made_for_those_who_cannot_see_them() -> None:
    broker = ABroker()
    broker.add_gateway("gw01")
    for page in (await broker.shown(), await AWorker().shown()):
        tables = page.tags.count("table")
        assert tables >= 2
        assert page.tags.count("caption") == tables
        scopes = [value for attribute, value in page.attributes if attribute == "scope"]
        assert len(scopes) == page.tags.count("th")
        assert set(scopes) == {"col", "row"}
        assert ("lang", "en") in page.attributes
        assert page.tags.count("h1") == 1
        assert {"main", "header", "footer", "nav", "time"} <= set(page.tags)
