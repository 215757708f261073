"""Every rule has cases for promtool that show it firing and staying quiet."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.alerts import ALERTS, RECORDED, RULES, all_cases, fired, metrics_in, variant_of


def _variants() -> list[Any]:
    """Each alerting rule, with the beginning of its cases' names."""
    return [pytest.param(rule, variant_of(rule), id=variant_of(rule).replace(" ", "-")) for rule in ALERTS]


def _expected(case: Mapping[str, Any], rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a case expects of a rule; the severities of an alert are rules of their own."""
    return [
        alert
        for test in case["alert_rule_test"]
        if test["alertname"] == rule["alert"]
        for alert in test.get("exp_alerts", [])
        if "long_window" in rule["labels"] or alert["exp_labels"]["severity"] == rule["labels"]["severity"]
    ]


@pytest.mark.parametrize("rule", ALERTS, ids=variant_of)
def test_a_description_names_only_labels_that_the_alert_has(rule: Mapping[str, Any]) -> None:
    description = rule["annotations"]["description"]
    # What is between `with` and `end` is there for those that have the label.
    optional = set(re.findall(r"\{\{ with \$labels\.(\w+) \}\}", description))
    used = set(re.findall(r"\$labels\.(\w+)", description)) - optional

    alerts = fired(rule["alert"], rule["labels"]["severity"])
    assert all(used <= labels.keys() for labels in alerts)
    for label in optional:
        assert {label in labels for labels in alerts} == {True, False}


@pytest.mark.parametrize(("rule", "variant"), _variants())
def test_a_case_shows_the_alert_firing(rule: Mapping[str, Any], variant: str) -> None:
    cases = [case for title, case in all_cases() if title.startswith(f"{variant} fires: ")]

    assert cases
    for case in cases:
        expected = _expected(case, rule)
        assert {alert["exp_labels"].get("long_window") for alert in expected} == {rule["labels"].get("long_window")}
        assert all(alert["exp_annotations"].keys() == {"summary", "description", "runbook_url"} for alert in expected)


@pytest.mark.parametrize(("rule", "variant"), _variants())
def test_a_case_shows_the_alert_staying_quiet(rule: Mapping[str, Any], variant: str) -> None:
    name = rule["alert"]
    cases = [case for title, case in all_cases() if title.startswith(f"{variant} stays quiet: ")]

    # The dead man's switch never does.
    assert bool(cases) == (name != "WgkexWatchdog")
    for case in cases:
        assert any(test["alertname"] == name for test in case["alert_rule_test"])
        assert not _expected(case, rule)
        # A case without series of the rule would prove nothing.
        used = metrics_in(rule["expr"])
        raw = used | frozenset().union(*(metrics_in(rule["expr"]) for rule in RULES if rule.get("record") in used))
        assert any(series["series"].split("{")[0] in raw for series in case["input_series"])


def test_a_case_checks_every_recorded_series() -> None:
    tested = " ".join(test["expr"] for _, case in all_cases() for test in case.get("promql_expr_test", []))

    assert {name for name in RECORDED if re.search(rf"{name}\b", tested)} == RECORDED
