"""The preview draws every kind of panel, and writes numbers about as Grafana does."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from grafana import colours
from grafana.preview.__main__ import page
from grafana.preview.config import colour, meaning, properties, threshold
from grafana.preview.draw import drawn
from grafana.preview.prometheus import Prometheus, Series, Window
from grafana.preview.units import written
from tests.dashboards import FILES, Json, load, panels

WINDOW = Window(start=1_700_000_000, end=1_700_000_900, scrape=15)


class Canned(Prometheus):
    """Answers every query with the same, or with nothing."""

    def __init__(self, series: Sequence[Series], alerts: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__("http://127.0.0.1:1")
        self._series, self._alerts = series, alerts

    def ask(self, target: Mapping[str, Any], window: Window) -> list[Series]:
        moments = [window.end] if target["instant"] else [window.start + 10 * step for step in range(90)]
        return [
            Series(
                {"le": "1", **each.labels} if target["format"] == "heatmap" else each.labels,
                {moment: next(iter(each.points.values())) for moment in moments},
            )
            for each in self._series
        ]

    def alerts(self) -> list[Mapping[str, Any]]:
        return list(self._alerts)


def _panel(uid: str, title: str, kind: str) -> Json:
    (found,) = [each for each in panels(load(uid)) if (each["title"], each["type"]) == (title, kind)]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_panel_is_drawn(file: Path) -> None:
    content = page(load(file.stem), Canned([Series({}, {0: 1.0})]), WINDOW)

    assert content.count("<h2>") == len(panels(load(file.stem)))
    assert "no data" not in content
    assert "preview" in content


def test_a_panel_without_an_answer_says_so() -> None:
    assert "no data" in drawn(_panel("wgkex-worker", "Queue by gateway", "timeseries"), Canned([]), WINDOW, 400, 300)


def test_a_table_has_a_row_for_each_set_of_labels() -> None:
    answers = [Series({"worker": name}, {0: value}) for name, value in (("gw02", 0.0), ("gw01", 1.0))]

    text = drawn(_panel("wgkex-overview", "Gateways", "table"), Canned(answers), WINDOW, 400, 300)

    assert re.findall(r"<th>(.*?)</th>", text) == ["Gateway", "Online", "Peers", "Target", "Deviation", "Last heard of"]
    assert re.findall(r"<td>(gw\d+)</td>", text) == ["gw01", "gw02"]
    assert "online" in text
    assert "offline" in text


def test_a_label_that_the_table_hides_is_an_error() -> None:
    answers = Canned([Series({"worker": "gw01", "surprise": "x"}, {0: 1.0})])

    with pytest.raises(ValueError, match="surprise"):
        drawn(_panel("wgkex-overview", "Gateways", "table"), answers, WINDOW, 400, 300)


def test_only_our_alerts_are_listed() -> None:
    labels = [
        {"alertname": "WgkexBrokerDown", "service": "wgkex", "severity": "critical"},
        {"alertname": "WgkexWatchdog", "service": "wgkex", "severity": "none"},
        {"alertname": "DiskFull", "severity": "critical"},
    ]
    alerts = [{"labels": each, "state": "firing"} for each in labels]

    text = drawn(_panel("wgkex-overview", "Alerts", "alertlist"), Canned([], alerts), WINDOW, 400, 300)

    assert re.findall(r"Wgkex\w+|DiskFull", text) == ["WgkexBrokerDown"]


def test_a_heatmap_shows_what_each_bucket_adds() -> None:
    answers = Canned([Series({"le": bound}, {0: value}) for bound, value in (("+Inf", 5.0), ("1", 5.0), ("0.1", 2.0))])

    text = drawn(_panel("wgkex-worker", "Age of handshakes", "heatmap"), answers, WINDOW, 800, 300)

    # Two of the three buckets have something in them, at each of the 90 points.
    assert text.count("<rect") == 180


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0042, "s", "4.2 ms"),
        (0, "s", "0 s"),
        (90, "s", "1.5 mins"),
        (-172_800, "s", "-2 days"),
        (0.00005, "s", "50 µs"),
        (0.999, "percentunit", "99.9%"),
        (1536, "bytes", "1.5 KiB"),
        (2_500_000, "Bps", "2.5 MB/s"),
        (12.345, "reqps", "12.3 req/s"),
        (1234.5, "none", "1234"),
    ],
)
def test_numbers_have_their_units(value: float, unit: str, text: str) -> None:
    assert written(value, unit) == text


def test_every_colour_of_the_dashboards_is_known() -> None:
    names = {*colours.PEER_STATES.values(), *colours.OUTCOMES.values(), *colours.REASONS.values()}
    names |= {*colours.QUANTILES.values(), *colours.CODES.values(), colours.NEUTRAL, colours.CRITICAL}

    assert all(re.fullmatch(r"#[0-9a-fA-F]{6}", colour(name)) for name in names)


def test_thresholds_and_words_are_those_of_the_panel() -> None:
    deviation = properties(_panel("wgkex-overview", "Gateways", "table"), "Deviation")
    online = properties(_panel("wgkex-overview", "Gateways", "table"), "Online")

    assert [threshold(deviation, value) for value in (-0.9, 0.0, 0.9)] == [
        colour(name) for name in (colours.WARNING, colours.GOOD, colours.WARNING)
    ]
    assert meaning(online, 0) == ("offline", colour(colours.CRITICAL))


def test_rates_are_taken_over_four_scrapes_at_least() -> None:
    assert WINDOW.step == 4
    assert WINDOW.values()["__rate_interval"] == "60s"
