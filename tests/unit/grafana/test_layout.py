"""What a dashboard shows first, and where its panels are."""

from pathlib import Path
from typing import Final

import pytest

from grafana.page import COLUMNS, Section, dashboard
from grafana.panels import Head, lines
from grafana.queries import series
from grafana.targets import line
from tests.dashboards import FILES, Json, everything, load, panels, parse, selectors, shown, targets

# Of Grafana's grid, below its own bars and those of browser and desktop: at 1366x768, and at 1920x1080.
LINES_OF_A_SMALL_SCREEN: Final = 13
LINES_OF_A_LARGE_SCREEN: Final = 21


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def _cover(found: list[Json], first: int) -> int:
    """Check that panels fill all lines from `first` on, without a gap or an overlap; the first line below them."""
    taken: dict[tuple[int, int], str] = {}
    for panel in found:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    end = max(y for _, y in taken) + 1
    assert set(taken) == {(x, y) for x in range(COLUMNS) for y in range(first, end)}
    return end


def test_panels_fill_the_grid_and_do_not_overlap(file: Path) -> None:
    assert _cover(shown(load(file.stem)), 0) > 0


def test_closed_sections_hold_panels_that_fill_the_lines_below_their_heading(file: Path) -> None:
    for heading in shown(load(file.stem)):
        assert heading["type"] == "row" or not heading.get("panels")
        if heading["type"] == "row" and heading["collapsed"]:
            _cover(heading["panels"], heading["gridPos"]["y"] + 1)


def test_the_first_screen_is_the_summary(file: Path) -> None:
    found = shown(load(file.stem))
    closed = [panel for panel in found if panel["type"] == "row" and panel["collapsed"]]
    first = [panel for panel in found if panel["gridPos"]["y"] < LINES_OF_A_SMALL_SCREEN]

    assert closed
    # Nothing that is open comes after what is closed, where nobody would expect it.
    assert found[-len(closed) :] == closed
    assert len([panel for panel in first if panel["type"] == "stat"]) >= 4
    # A page or two, in place of a hundred lines.
    assert max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in found) <= 32


def test_no_tile_of_the_first_screen_is_empty_while_all_is_well() -> None:
    found = [panel for panel in shown(load("wgkex-overview")) if panel["gridPos"]["y"] < LINES_OF_A_LARGE_SCREEN]

    # The list of alerts is empty then.
    assert {panel["type"] for panel in found} - {"row"} == {"stat", "table", "timeseries"}
    # A number fills a tile of three lines; in a larger one it is lost.
    assert {panel["gridPos"]["h"] for panel in found if panel["type"] == "stat"} == {3}
    (table,) = (panel for panel in found if panel["type"] == "table")
    assert table["gridPos"]["y"] + table["gridPos"]["h"] <= LINES_OF_A_SMALL_SCREEN


def test_the_first_screen_answers_whether_nodes_get_tunnels() -> None:
    found = load("wgkex-overview")
    visible = [panel["title"] for panel in shown(found) if panel["gridPos"]["y"] < LINES_OF_A_LARGE_SCREEN]
    asked = {
        str(selector.name)
        for panel, target in targets(found)
        if panel["title"] in visible
        for selector in selectors(parse(target["expr"]))
    }

    assert asked >= {
        "wgkex_broker_keys_unconfirmed_total",
        "wgkex_broker_keys_confirmed_nowhere_total",
        "wgkex_broker_key_first_requests_total",
        "wgkex_broker_worker_assigned_nodes_total",
        "wgkex_broker_keys_returned_total",
        "wgkex_broker_worker_confirming",
        "wgkex_worker_peer_sessions_started_total",
        "wgkex_probe_success",
    }


def test_a_gateway_leads_to_its_own_metrics() -> None:
    (table,) = (panel for panel in shown(load("wgkex-overview")) if panel["type"] == "table")
    (url,) = [
        link["url"]
        for override in table["fieldConfig"]["overrides"]
        if override["matcher"]["options"] == "Gateway"
        for each in override["properties"]
        if each["id"] == "links"
        for link in each["value"]
    ]
    address, _, parameters = url.partition("?")

    assert address == "/d/wgkex-worker"
    variables = {each["name"] for each in load("wgkex-worker")["templating"]["list"]}
    used = dict(each.split("=") for each in parameters.split("&") if "=" in each)
    assert {name.removeprefix("var-") for name in used} == variables == {"datasource", "job", "instance"}
    # The columns that the link takes them from are there, though nobody sees them.
    columns = table["transformations"][-1]["options"]["renameByName"]
    assert {used["var-job"], used["var-instance"]} == {f"${{__data.fields.{label}}}" for label in ("job", "instance")}
    assert {"job", "instance"} <= set(columns)


def test_without_a_canary_its_panels_show_that(file: Path) -> None:
    for panel in panels(load(file.stem)):
        if "wgkex_probe_" in "".join(target["expr"] for target in panel.get("targets", [])):
            assert panel["fieldConfig"]["defaults"]["noValue"] == "No canary", panel["title"]


def test_numbers_and_titles_of_panels_are_unique(file: Path) -> None:
    found = everything(load(file.stem))
    titles = [(panel["type"], panel["title"]) for panel in found]

    assert len({panel["id"] for panel in found}) == len(found)
    assert len(set(titles)) == len(titles)


def test_a_row_that_is_not_filled_is_refused() -> None:
    panel = lines(Head("One", "Something.", "none", 8), [line(series("up"), "up")])

    with pytest.raises(ValueError, match="ends at column 8"):
        dashboard("x", "X", "X", [Section("State", [panel], open=True)])


def test_a_panel_of_another_height_than_its_neighbours_is_refused() -> None:
    small, large = (lines(Head("One", "Something.", "none", 12, height), [line("up", "up")]) for height in (4, 8))

    with pytest.raises(ValueError, match="other height"):
        dashboard("x", "X", "X", [Section("State", [small, large], open=True)])
