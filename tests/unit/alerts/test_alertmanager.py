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


def _rules(matchers: list[str]) -> set[tuple[str, str]]:
    """The alerts that fit the matchers of an inhibition rule, each with its severity."""
    found = list(ALERTS)
    for matcher in matchers:
        label, operator, value = re.fullmatch(r'(\w+) (=~?) "(.*)"', matcher).groups()  # type: ignore[union-attr]
        pattern = value if operator == "=~" else re.escape(value)
        found = [rule for rule in found if re.fullmatch(pattern, {**rule["labels"], "alertname": rule["alert"]}[label])]
    return {(rule["alert"], rule["labels"]["severity"]) for rule in found}


def _concerned(matchers: list[str]) -> set[str]:
    """Names of the alerts that fit the matchers of an inhibition rule."""
    return {name for name, _ in _rules(matchers)}


def _inhibited_by(source: str) -> set[str]:
    """Names of the alerts that an alert inhibits, whatever its severity."""
    return {
        name
        for rule in ALERTMANAGER["inhibit_rules"]
        if source in _concerned(rule["source_matchers"]) and "alertname" not in rule["equal"]
        for name in _concerned(rule["target_matchers"])
    }


@pytest.mark.parametrize("rule", ALERTMANAGER["inhibit_rules"], ids=lambda rule: rule["source_matchers"][0])
def test_both_sides_of_an_inhibition_have_the_labels_it_compares(rule: Mapping[str, Any]) -> None:
    sources, targets = _rules(rule["source_matchers"]), _rules(rule["target_matchers"])
    equal = set(rule["equal"])
    if "alertname" in equal:
        both = {name for name, _ in sources} & {name for name, _ in targets}
        sources, targets = (
            {(name, severity) for name, severity in side if name in both} for side in (sources, targets)
        )
        # Every alert has its name.
        equal -= {"alertname"}

    assert sources
    assert targets
    for name, severity in sources | targets:
        assert fired(name, severity)
        for labels in fired(name, severity):
            assert equal <= labels.keys() | {SITE}, name


def test_an_inhibition_holds_with_one_site_and_with_several() -> None:
    # With several all alerts have the label: integration/test_alert_rules.py. With one, none may have it.
    assert all(SITE in rule["equal"] for rule in ALERTMANAGER["inhibit_rules"])
    assert not any(SITE in labels for name in NAMES for labels in fired(name))


def test_a_lost_mqtt_server_inhibits_its_consequences() -> None:
    (rule,) = (rule for rule in ALERTMANAGER["inhibit_rules"] if "WgkexMQTTDown" in rule["source_matchers"][0])

    assert _concerned(rule["target_matchers"]) == {
        "WgkexKeyRateZero",
        "WgkexKeyErrorBudgetBurn",
        "WgkexKeysUnconfirmed",
        "WgkexNoWorkersOnline",
        "WgkexMQTTDisconnected",
        "WgkexProbeFailing",
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


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        ("WgkexBrokerDown", {"WgkexTargetDown", "WgkexProbeFailing"}),
        ("WgkexNoWorkersOnline", {"WgkexProbeFailing"}),
        ("WgkexInterfaceDown", {"WgkexVxlanSilent"}),
        ("WgkexGatewayBlackHole", {"WgkexNoNewSessions"}),
        ("WgkexCrashlooping", {"WgkexRestartsOften"}),
    ],
)
def test_a_cause_inhibits_what_it_explains_and_nothing_else(source: str, targets: set[str]) -> None:
    assert _inhibited_by(source) == targets
    # A page is never held back by a ticket.
    rules = [rule for rule in ALERTMANAGER["inhibit_rules"] if source in _concerned(rule["source_matchers"])]
    for rule in rules:
        severities = {severity for name, severity in _rules(rule["source_matchers"]) if name == source}
        if "warning" in severities:
            assert {severity for _, severity in _rules(rule["target_matchers"])} == {"warning"}


def test_nothing_inhibits_what_will_break_the_mqtt_server() -> None:
    inhibited = {
        name
        for rule in ALERTMANAGER["inhibit_rules"]
        if "alertname" not in rule["equal"]
        for name in _concerned(rule["target_matchers"])
    }

    assert not inhibited & {"WgkexMQTTCertificateExpires", "WgkexMQTTDown", "WgkexGatewayBlackHole"}
