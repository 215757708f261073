"""The alert rules as text: what they are made of, and how they are named and described."""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

import pytest
import yaml

from alerts.rules import document, groups
from alerts.settings import SLO_WINDOWS, Settings
from tests.alerts import ALERTS, NAMES, RECORDED, RECORDED_LABELS, RULES, fired, windows_of
from tests.helpers import ROOT

# Rules of features that are still to come are not here.
EXPECTED: Final = {
    "WgkexBrokerDown": [("2m", "critical")],
    "WgkexBrokerAbsent": [("10m", "critical")],
    "WgkexWorkerAbsent": [("10m", "critical")],
    "WgkexMQTTDown": [("1m", "critical")],
    "WgkexKeyErrorBudgetBurn": [("2m", "critical"), ("15m", "critical"), ("1h", "warning"), ("3h", "warning")],
    "WgkexKeyRateZero": [("15m", "critical")],
    "WgkexNoWorkersOnline": [("5m", "critical")],
    "WgkexInterfaceDown": [("5m", "critical")],
    "WgkexPeersLostEverywhere": [("5m", "critical")],
    "WgkexTargetDown": [("10m", "warning")],
    "WgkexMQTTDisconnected": [("1m", "warning")],
    "WgkexMQTTFlapping": [("15m", "warning")],
    "WgkexKeyRejectionsHigh": [("30m", "warning")],
    "WgkexRateLimitingHigh": [("15m", "warning")],
    "WgkexTableFull": [("5m", "warning")],
    "WgkexKeyListReloadFailed": [("5m", "warning")],
    "WgkexInstallSlow": [("15m", "warning")],
    "WgkexQueueNearFull": [("5m", "warning")],
    "WgkexNetlinkFailing": [("10m", "warning")],
    "WgkexJournalFailing": [("10m", "warning")],
    "WgkexPeersIncomplete": [("10m", "warning")],
    "WgkexHandshakesStale": [("15m", "warning")],
    "WgkexWorkerPeersLost": [("10m", "warning")],
    "WgkexCleanupStalled": [("10m", "warning")],
    "WgkexGatewayImbalance": [("1h", "warning")],
    "WgkexDrainForgotten": [("1h", "warning")],
    "WgkexCollectorFailing": [("10m", "warning")],
    "WgkexCrashlooping": [("5m", "warning")],
    "WgkexKeysUnconfirmed": [("5m", "critical"), ("5m", "warning")],
    "WgkexGatewayBlackHole": [("5m", "critical"), ("5m", "warning")],
    "WgkexNoNewSessions": [("10m", "warning")],
    "WgkexVxlanSilent": [("10m", "warning")],
    "WgkexClockSkewed": [("10m", "warning")],
    "WgkexMQTTCertificateExpires": [("1h", "critical"), ("1h", "warning")],
    "WgkexFileDescriptorsLow": [("15m", "warning")],
    "WgkexMemoryGrowing": [("15m", "warning")],
    "WgkexRestartsOften": [("15m", "warning")],
    "WgkexProbeFailing": [("5m", "critical")],
    "WgkexWatchdog": [(None, "none")],
}


def test_the_text_says_what_the_rules_are() -> None:
    assert yaml.safe_load(document(Settings()))["groups"] == groups(Settings())


def test_every_alert_has_its_severity_and_duration() -> None:
    found: dict[str, list[tuple[str | None, str]]] = {}
    for rule in ALERTS:
        found.setdefault(rule["alert"], []).append((rule.get("for"), rule["labels"]["severity"]))

    assert found == EXPECTED


def test_the_error_budget_has_four_pairs_of_windows() -> None:
    burns = [rule for rule in ALERTS if rule["alert"] == "WgkexKeyErrorBudgetBurn"]

    factors = [re.findall(r"> \(([\d.]+) \* 0\.001\)", rule["expr"]) for rule in burns]
    assert [(windows_of(rule["labels"]), *factor) for rule, factor in zip(burns, factors, strict=True)] == [
        ("1h/5m", "14.4", "14.4"),
        ("6h/30m", "6", "6"),
        ("1d/2h", "3", "3"),
        ("3d/6h", "1", "1"),
    ]
    for rule in burns:
        names = {name.split(":rate")[1] for name in re.findall(r"instance:\w+:rate\w+", rule["expr"])}
        assert names == {rule["labels"]["long_window"], rule["labels"]["short_window"]}
        # The alert of an outage is remembered for as long as the outage itself.
        (outage,) = re.findall(
            r'unless on \(\) max_over_time\(ALERTS\{alertname="WgkexMQTTDown",.*\[(\w+)\]\)', rule["expr"]
        )
        assert outage == rule["labels"]["short_window"]


def test_the_objective_is_recorded_over_all_windows() -> None:
    windows = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")
    wanted = {
        f"instance:{what}:rate{window}"
        for what in ("wgkex_broker_key_failures", "wgkex_broker_keys_valid")
        for window in windows
    }

    assert wanted == {name for name in RECORDED if re.search(r":rate\w+$", name)}
    assert windows == SLO_WINDOWS


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_is_named_and_described_as_all_of_them_are(rule: Mapping[str, Any]) -> None:
    name, labels, annotations = rule["alert"], rule["labels"], rule["annotations"]

    assert re.fullmatch(r"Wgkex([A-Z]+[a-z]*)+", name)
    assert len(name) <= 40
    assert labels["service"] == "wgkex"
    assert labels["severity"] in ("critical", "warning", "none")
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert "{{" not in annotations["summary"]
    assert annotations["summary"].endswith(".")
    # The dead man's switch has nothing to name.
    assert ("{{" in annotations["description"]) == (name != "WgkexWatchdog")
    assert name == "WgkexWatchdog" or "First check " in annotations["description"]
    assert annotations["runbook_url"] == f"{Settings().runbook}#{name.lower()}"


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_its_section_in_the_runbook(name: str) -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)

    assert headings.count(name) == 1


def test_the_runbook_has_no_section_of_an_alert_that_is_not_there() -> None:
    headings = re.findall(r"^## (Wgkex\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)

    assert sorted(headings) == NAMES


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_recorded_series_is_named_by_level_metric_and_operations(name: str) -> None:
    level, metric, operations = name.split(":")

    assert level in RECORDED_LABELS
    assert metric.startswith("wgkex_")
    assert operations


def test_mistakes_of_senders_count_in_one_alert_only() -> None:
    # Requests also show that nodes whose gateways cannot be seen have no tunnel.
    concerned = {
        rule.get("alert") or rule["record"]
        for rule in RULES
        if re.search(r"key_rejections|key_requests|http_requests", rule["expr"])
    }

    assert concerned == {"WgkexKeyRejectionsHigh", "WgkexRateLimitingHigh", "WgkexPeersLostEverywhere"}
    assert not any("key_rejections" in rule["expr"] for rule in ALERTS if rule["labels"]["severity"] == "critical")
    assert {labels["severity"] for labels in fired("WgkexKeyRejectionsHigh")} == {"warning"}


def test_other_names_of_jobs_reach_all_selectors() -> None:
    text = document(Settings(broker_job="b.1", worker_job="w", probe_job="p"))

    assert "wgkex-broker" not in text.replace("systemctl status wgkex-broker", "")
    assert "wgkex-worker" not in text
    assert "wgkex-probe" not in text
    assert 'job=~"b\\\\.1|w"' in text


def test_the_budget_is_no_approximation() -> None:
    assert Fraction(str(Settings().budget)) == 1 - Fraction(str(Settings().objective))
