"""The inhibitions of the shipped Alertmanager configuration fit the alerts."""

import re
from collections.abc import Mapping
from typing import Any, Final

import pytest
import yaml

from alerts.settings import Settings, milliseconds
from tests.alerts import ALERTS, NAMES, fired
from tests.helpers import ROOT

# The label of the site, by the name that the documents use.
SITE: Final = "cluster"
ALERTMANAGER: Final = yaml.safe_load((ROOT / "alerts" / "alertmanager.yaml.example").read_text())


def _concerned(matchers: list[str]) -> set[str]:
    """Names of the alerts that fit the matchers of an inhibition rule."""
    found = set(NAMES)
    for matcher in matchers:
        label, operator, value = re.fullmatch(r'(\w+) (=~?) "(.*)"', matcher).groups()  # type: ignore[union-attr]
        pattern = value if operator == "=~" else re.escape(value)
        found &= {
            rule["alert"]
            for rule in ALERTS
            if re.fullmatch(pattern, {**rule["labels"], "alertname": rule["alert"]}[label])
        }
    return found


@pytest.mark.parametrize("rule", ALERTMANAGER["inhibit_rules"], ids=lambda rule: rule["source_matchers"][0])
def test_both_sides_of_an_inhibition_have_the_labels_it_compares(rule: Mapping[str, Any]) -> None:
    sources, targets = _concerned(rule["source_matchers"]), _concerned(rule["target_matchers"])
    if "alertname" in rule["equal"]:
        sources = targets = sources & targets

    assert sources
    assert targets
    for name in sources | targets:
        for labels in fired(name):
            assert set(rule["equal"]) <= labels.keys() | {"alertname", SITE}, name


def test_an_inhibition_holds_with_one_site_and_with_several() -> None:
    # With several all alerts have the label: integration/test_alert_rules.py. With one, none may have it.
    assert all(SITE in rule["equal"] for rule in ALERTMANAGER["inhibit_rules"])
    assert not any(SITE in labels for name in NAMES for labels in fired(name))


def test_a_lost_mqtt_server_inhibits_its_consequences() -> None:
    (rule,) = (rule for rule in ALERTMANAGER["inhibit_rules"] if "WgkexMQTTDown" in rule["source_matchers"][0])

    assert _concerned(rule["target_matchers"]) == {
        "WgkexKeyRateZero",
        "WgkexKeyErrorBudgetBurn",
        "WgkexNoWorkersOnline",
        "WgkexMQTTDisconnected",
    }
    # It fires before its consequences notify anybody, also counting the window of its query, which its consequences
    # need not have.
    settings = Settings()
    (source,) = (alert for alert in ALERTS if alert["alert"] == "WgkexMQTTDown")
    waits = milliseconds(ALERTMANAGER["route"]["group_wait"])
    assert all("group_wait" not in route for route in ALERTMANAGER["route"]["routes"][1:])
    session = re.findall(r"max_over_time\(wgkex_mqtt_connected[^)]*\)", source["expr"])[0]
    assert f"[{settings.short_gap}]" in session
    for alert in ALERTS:
        if alert["alert"] in _concerned(rule["target_matchers"]):
            notified_after = milliseconds(alert["for"]) + waits
            assert milliseconds(source["for"]) < notified_after
            same_window = milliseconds(settings.short_gap) if session in alert["expr"] else 0
            assert milliseconds(source["for"]) + milliseconds(settings.short_gap) < notified_after + same_window
