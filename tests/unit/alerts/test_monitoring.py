"""The guide to monitoring agrees with what it is about: rules, settings, files, queries."""

import dataclasses
import re

from alerts.settings import Settings
from tests.helpers import ROOT
from tests.promql import document, faults, names, queries


def text() -> str:
    return document("monitoring.md")


def test_every_metric_of_a_query_exists_and_has_the_labels_that_are_asked_for() -> None:
    found = queries(text())

    assert [fault for query in found for fault in faults(query)] == []
    assert len(frozenset[str]().union(*map(names, found))) > 5


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"(?<![\w/])((?:alerts|grafana)/[\w./*-]*\w)", text())) - {"grafana/grafana"}

    assert len(named) > 5
    for path in named:
        assert list(ROOT.glob(path)), path


def test_every_setting_of_the_rules_that_is_named_exists() -> None:
    table = text().split("## Change thresholds")[1].split("##")[0]
    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)))
    fields = {field.name for field in dataclasses.fields(Settings)}

    assert len(named) > 5
    assert set(named) <= fields


def test_the_windows_of_the_objective_are_those_of_the_rules() -> None:
    settings = Settings()
    rows = re.findall(r"^\| (\w+) and (\w+) \| ([\d.]+) \| (\w+) \| (\w+) \|$", text(), re.MULTILINE)

    reported = [(long, short, float(factor), hold, severity) for long, short, factor, hold, severity in rows]
    assert reported == [(burn.long, burn.short, burn.factor, burn.hold, burn.severity) for burn in settings.burns]
    assert f"**{settings.objective * 100:g} % of valid keys are served" in text()
    assert f"at least {settings.burn_min_failures} failures" in text()


def test_every_setting_of_the_service_that_is_named_exists() -> None:
    known = set(re.findall(r"^\| `([\w.]+)` \|", document("configuration.md"), re.MULTILINE))
    named = set(re.findall(r"`((?:broker|worker|cleanup|metrics|mqtt)\.[a-z_.]+)(?:: [^`]*)?`", text()))

    assert named
    assert named <= known
