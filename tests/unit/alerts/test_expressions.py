"""The expressions of the rules: about series and labels that exist, and sound as ratios and windows."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.alerts import ALERTS, METRICS, RULES, metrics_in


def _expressions() -> list[Any]:
    return [pytest.param(rule["expr"], id=rule.get("alert") or rule["record"]) for rule in RULES]


def _inside(expression: str, start: int) -> str:
    """What is in the parenthesis that opens at or after a position."""
    start = expression.index("(", start)
    depth = 0
    for position in range(start, len(expression)):
        depth += {"(": 1, ")": -1}.get(expression[position], 0)
        if depth == 0:
            return expression[start + 1 : position]
    raise AssertionError(expression)


@pytest.mark.parametrize("expression", _expressions())
def test_an_expression_names_only_series_and_labels_that_exist(expression: str) -> None:
    assert metrics_in(expression) <= METRICS.keys()

    for name, matchers in re.findall(r"([A-Za-z_][\w:]*)\{([^}]*)\}", expression):
        assert (
            set(re.findall(r"(\w+)=", re.sub(r'"[^"]*"', "", matchers).replace("!", "").replace("~", "")))
            <= METRICS[name]
        )
        # Alerts of all processes together have no job.
        assert ('service="wgkex"' if name == "ALERTS" else "job=") in matchers
    for match in re.finditer(r"\bby \(([^)]*)\)", expression):
        wanted = set(match[1].split(", "))
        # What stands behind `and on` only chooses.
        aggregated = re.split(r"\s+and on", _inside(expression, match.end()))[0]
        for name in metrics_in(aggregated):
            assert wanted <= METRICS[name], name
    on = {label for labels in re.findall(r"\bon \(([^)]+)\)", expression) for label in labels.split(", ")}
    assert on <= frozenset().union(*(METRICS[name] for name in metrics_in(expression)))


@pytest.mark.parametrize("expression", _expressions())
def test_one_failed_scrape_does_not_reset_an_alert(expression: str) -> None:
    # Each scraped series is looked at over a window; only a vanished job is what it is at the moment.
    selectors = re.findall(r"(\w+)\{[^}]*\}(.?)", expression)

    # The time of a scrape is lost in a window; what is recorded of it is looked at over one.
    assert (
        all(after == "[" for _, after in selectors) or expression.startswith("absent(up{") or "timestamp(" in expression
    )


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_a_ratio_is_one_of_sums_and_has_a_minimum_volume(rule: Mapping[str, Any]) -> None:
    expression = rule["expr"]
    # How full a queue is, is a state and no ratio of events.
    states = ("WgkexQueueNearFull", "WgkexFileDescriptorsLow", "WgkexMemoryGrowing")
    if not re.search(r"\s/ ", expression) or rule["alert"] in states:
        return

    sides = re.split(r"\s/ ", expression)
    assert all("sum" in side for side in sides)
    assert re.search(r">= \d+", expression)
