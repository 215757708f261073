"""Every rule has cases for promtool that show it firing and staying quiet."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.alerts import ALERTS, RECORDED, RULES, all_cases, fired, metrics_in, windows_of


def _variants() -> list[Any]:
    """Alert names, of the error budget one with each pair of windows."""
    return [
        pytest.param(
            rule["alert"],
            rule["labels"].get("long_window"),
            " ".join(filter(None, (rule["alert"], windows_of(rule["labels"])))),
            id="-".join(filter(None, (rule["alert"], rule["labels"].get("long_window")))),
        )
        for rule in ALERTS
    ]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_a_description_names_only_labels_that_the_alert_has(rule: Mapping[str, Any]) -> None:
    description = rule["annotations"]["description"]
    # What is between `with` and `end` is there for those that have the label.
    optional = set(re.findall(r"\{\{ with \$labels\.(\w+) \}\}", description))
    used = set(re.findall(r"\$labels\.(\w+)", description)) - optional

    assert all(used <= labels.keys() for labels in fired(rule["alert"]))
    for label in optional:
        assert {label in labels for labels in fired(rule["alert"])} == {True, False}


@pytest.mark.parametrize(("name", "window", "variant"), _variants())
def test_a_case_shows_the_alert_firing(name: str, window: str | None, variant: str) -> None:
    cases = [case for title, case in all_cases() if title.startswith(f"{variant} fires: ")]

    assert cases
    for case in cases:
        expected = [
            alert
            for test in case["alert_rule_test"]
            if test["alertname"] == name
            for alert in test.get("exp_alerts", [])
        ]
        assert {alert["exp_labels"].get("long_window") for alert in expected} == {window}
        assert all(alert["exp_annotations"].keys() == {"summary", "description", "runbook_url"} for alert in expected)


@pytest.mark.parametrize(("name", "window", "variant"), _variants())
def test_a_case_shows_the_alert_staying_quiet(name: str, window: str | None, variant: str) -> None:
    cases = [case for title, case in all_cases() if title.startswith(f"{variant} stays quiet: ")]

    # The dead man's switch never does.
    assert bool(cases) == (name != "WgkexWatchdog"), window
    for case in cases:
        looked = [test for test in case["alert_rule_test"] if test["alertname"] == name]
        assert looked
        assert not any(test.get("exp_alerts") for test in looked)
        # A case without series of the rule would prove nothing.
        used = frozenset().union(*(metrics_in(rule["expr"]) for rule in ALERTS if rule["alert"] == name))
        raw = used | frozenset().union(*(metrics_in(rule["expr"]) for rule in RULES if rule.get("record") in used))
        assert any(series["series"].split("{")[0] in raw for series in case["input_series"])


def test_a_case_checks_every_recorded_series() -> None:
    tested = " ".join(test["expr"] for _, case in all_cases() for test in case.get("promql_expr_test", []))

    assert {name for name in RECORDED if re.search(rf"{name}\b", tested)} == RECORDED
