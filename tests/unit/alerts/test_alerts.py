"""The alert rules as text: what they are made of, what they name, and that somebody has tried each of them."""

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from alerts.rules import document, groups
from alerts.settings import SLO_WINDOWS, Settings, duration_text, milliseconds

ROOT: Final = Path(__file__).parents[3]
SHIPPED: Final = ROOT / "alerts" / "wgkex.rules.yaml"
CASES: Final = sorted((ROOT / "alerts" / "tests").glob("*.yaml"))
ALERTMANAGER: Final = yaml.safe_load((ROOT / "alerts" / "alertmanager.yaml.example").read_text())

RULES: Final[list[Mapping[str, Any]]] = [
    rule for group in yaml.safe_load(document(Settings()))["groups"] for rule in group["rules"]
]
ALERTS: Final = [rule for rule in RULES if "alert" in rule]
RECORDED: Final = {rule["record"] for rule in RULES if "record" in rule}
NAMES: Final = sorted({rule["alert"] for rule in ALERTS})

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
    "WgkexTargetDown": [("10m", "warning")],
    "WgkexMQTTDisconnected": [("1m", "warning")],
    "WgkexMQTTFlapping": [("15m", "warning")],
    "WgkexKeyRejectionsHigh": [("30m", "warning")],
    "WgkexInstallSlow": [("15m", "warning")],
    "WgkexQueueNearFull": [("5m", "warning")],
    "WgkexNetlinkFailing": [("10m", "warning")],
    "WgkexJournalFailing": [("10m", "warning")],
    "WgkexPeersIncomplete": [("10m", "warning")],
    "WgkexHandshakesStale": [("15m", "warning")],
    "WgkexWorkerPeersLost": [("10m", "warning")],
    "WgkexCleanupStalled": [("10m", "warning")],
    "WgkexGatewayImbalance": [("1h", "warning")],
    "WgkexCollectorFailing": [("10m", "warning")],
    "WgkexCrashlooping": [("5m", "warning")],
    "WgkexWatchdog": [(None, "none")],
}

_SCRAPED: Final = frozenset(("job", "instance"))
_RECORDED_LABELS: Final = {"instance": _SCRAPED, "worker": frozenset(("job", "worker"))}
_FUNCTIONS: Final = frozenset(
    (
        *("abs", "absent", "avg", "avg_over_time", "changes", "count", "histogram_quantile", "increase", "max"),
        *("max_over_time", "min_over_time", "rate", "round", "sum", "vector"),
    )
)
_KEYWORDS: Final = frozenset(("and", "or", "unless", "by", "on", "group_left", "offset"))
_DURATION: Final = re.compile(r"\b\d+(?:ms|s|m|h|d)\b")


def _known_metrics() -> dict[str, frozenset[str]]:
    """Labels by name, of all series that there are: from the reference, which is made from the code."""
    known: dict[str, frozenset[str]] = {
        "up": _SCRAPED,
        "process_start_time_seconds": _SCRAPED,
        "ALERTS": frozenset(("alertname", "alertstate", "service", "severity")),
        **{name: _RECORDED_LABELS[name.split(":")[0]] for name in RECORDED},
    }
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    for name, kind, cell in rows:
        labels = _SCRAPED | frozenset(re.findall(r"`(\w+)`", cell))
        if kind == "histogram":
            known |= {f"{name}_bucket": labels | {"le"}, f"{name}_count": labels, f"{name}_sum": labels}
        else:
            known[name] = labels
    return known


METRICS: Final = _known_metrics()


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


def _bare(expression: str) -> str:
    """An expression without label matchers, windows, and lists of labels."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", text)
    text = re.sub(r"\b(by|on|group_left) \([^)]*\)", r"\1", text)
    return _DURATION.sub("", text)


def _metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_][\w:]*", _bare(expression))) - _FUNCTIONS - _KEYWORDS


@cache
def _cases() -> list[tuple[str, Mapping[str, Any]]]:
    """All cases of promtool, with their names."""
    return [(case["name"], case) for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]


def _fired(name: str) -> list[dict[str, str]]:
    """Labels of all alerts of a name that some case expects."""
    return [
        alert["exp_labels"]
        for _, case in _cases()
        for test in case.get("alert_rule_test", [])
        if test["alertname"] == name
        for alert in test.get("exp_alerts", [])
    ]


def _variants() -> list[Any]:
    """Alert names, of the error budget one with each pair of windows."""
    return [
        pytest.param(
            rule["alert"],
            rule["labels"].get("long_window"),
            " ".join(filter(None, (rule["alert"], _windows(rule["labels"])))),
            id="-".join(filter(None, (rule["alert"], rule["labels"].get("long_window")))),
        )
        for rule in ALERTS
    ]


def _windows(labels: Mapping[str, str]) -> str:
    return f"{labels['long_window']}/{labels['short_window']}" if "long_window" in labels else ""


def test_the_shipped_file_is_what_the_generator_writes() -> None:
    assert SHIPPED.read_text() == document(Settings())


def test_the_text_says_what_the_rules_are() -> None:
    assert yaml.safe_load(document(Settings()))["groups"] == groups(Settings())


def test_there_are_all_alerts_with_their_severity_and_patience() -> None:
    found: dict[str, list[tuple[str | None, str]]] = {}
    for rule in ALERTS:
        found.setdefault(rule["alert"], []).append((rule.get("for"), rule["labels"]["severity"]))

    assert found == EXPECTED


def test_the_error_budget_has_four_pairs_of_windows() -> None:
    burns = [rule for rule in ALERTS if rule["alert"] == "WgkexKeyErrorBudgetBurn"]

    factors = [re.findall(r"> \(([\d.]+) \* 0\.001\)", rule["expr"]) for rule in burns]
    assert [(_windows(rule["labels"]), *factor) for rule, factor in zip(burns, factors, strict=True)] == [
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

    assert wanted == {name for name in RECORDED if name.startswith("instance:")}
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
    assert (
        name == "WgkexWatchdog" or "Look first" in annotations["description"] or "first:" in annotations["description"]
    )
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

    assert level in _RECORDED_LABELS
    assert metric.startswith("wgkex_")
    assert operations


@pytest.mark.parametrize("expression", _expressions())
def test_an_expression_names_only_series_and_labels_that_exist(expression: str) -> None:
    assert _metrics_in(expression) <= METRICS.keys()

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
        for name in _metrics_in(aggregated):
            assert wanted <= METRICS[name], name
    on = {label for labels in re.findall(r"\bon \(([^)]+)\)", expression) for label in labels.split(", ")}
    assert on <= frozenset().union(*(METRICS[name] for name in _metrics_in(expression)))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_a_description_names_only_labels_that_the_alert_has(rule: Mapping[str, Any]) -> None:
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["description"]))

    assert all(used <= labels.keys() for labels in _fired(rule["alert"]))


@pytest.mark.parametrize("expression", _expressions())
def test_a_failed_scrape_starts_no_clock_anew(expression: str) -> None:
    # Each scraped series is looked at over a window; only a vanished job is what it is at the moment.
    selectors = re.findall(r"(\w+)\{[^}]*\}(.?)", expression)

    assert all(after == "[" for _, after in selectors) or expression.startswith("absent(up{")


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_a_ratio_is_one_of_sums_and_has_a_minimum_volume(rule: Mapping[str, Any]) -> None:
    expression = rule["expr"]
    # How full a queue is, is a state and no ratio of events.
    if not re.search(r"\s/ ", expression) or rule["alert"] == "WgkexQueueNearFull":
        return

    sides = re.split(r"\s/ ", expression)
    assert all("sum" in side for side in sides)
    assert re.search(r">= \d+", expression)


def test_what_senders_get_wrong_is_in_one_alert_only() -> None:
    concerned = {
        rule.get("alert") or rule["record"]
        for rule in RULES
        if re.search(r"key_rejections|key_requests|http_requests", rule["expr"])
    }

    assert concerned == {"WgkexKeyRejectionsHigh"}
    assert {labels["severity"] for labels in _fired("WgkexKeyRejectionsHigh")} == {"warning"}


@pytest.mark.parametrize(("name", "window", "variant"), _variants())
def test_somebody_has_seen_an_alert_fire(name: str, window: str | None, variant: str) -> None:
    cases = [case for title, case in _cases() if title.startswith(f"{variant} fires: ")]

    assert cases
    for case in cases:
        expected = [
            alert
            for test in case["alert_rule_test"]
            if test["alertname"] == name
            for alert in test.get("exp_alerts", [])
        ]
        assert [alert["exp_labels"].get("long_window") for alert in expected] == [window]
        assert all(alert["exp_annotations"].keys() == {"summary", "description", "runbook_url"} for alert in expected)


@pytest.mark.parametrize(("name", "window", "variant"), _variants())
def test_somebody_has_seen_an_alert_stay_quiet(name: str, window: str | None, variant: str) -> None:
    cases = [case for title, case in _cases() if title.startswith(f"{variant} stays quiet: ")]

    # The dead man's switch never does.
    assert bool(cases) == (name != "WgkexWatchdog"), window
    for case in cases:
        looked = [test for test in case["alert_rule_test"] if test["alertname"] == name]
        assert looked
        assert not any(test.get("exp_alerts") for test in looked)
        # Nothing can fire of nothing: there is something to look at.
        used = frozenset().union(*(_metrics_in(rule["expr"]) for rule in ALERTS if rule["alert"] == name))
        raw = used | frozenset().union(*(_metrics_in(rule["expr"]) for rule in RULES if rule.get("record") in used))
        assert any(series["series"].split("{")[0] in raw for series in case["input_series"])


def test_every_recorded_series_has_been_looked_at() -> None:
    tested = " ".join(test["expr"] for _, case in _cases() for test in case.get("promql_expr_test", []))

    assert {name for name in RECORDED if re.search(rf"{name}\b", tested)} == RECORDED


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
def test_what_an_inhibition_compares_both_sides_really_have(rule: Mapping[str, Any]) -> None:
    sources, targets = _concerned(rule["source_matchers"]), _concerned(rule["target_matchers"])
    if "alertname" in rule["equal"]:
        sources = targets = sources & targets

    assert sources
    assert targets
    for name in sources | targets:
        for labels in _fired(name):
            assert set(rule["equal"]) <= labels.keys() | {"alertname"}, name


def test_a_lost_mqtt_server_holds_back_what_follows_from_it() -> None:
    (rule,) = (rule for rule in ALERTMANAGER["inhibit_rules"] if "WgkexMQTTDown" in rule["source_matchers"][0])

    assert _concerned(rule["target_matchers"]) == {
        "WgkexKeyRateZero",
        "WgkexKeyErrorBudgetBurn",
        "WgkexNoWorkersOnline",
        "WgkexMQTTDisconnected",
    }
    # It is there before anybody is told of what follows: also if one counts the window in which a session is looked
    # for, which WgkexMQTTDown has, and what follows need not have.
    settings = Settings()
    (source,) = (alert for alert in ALERTS if alert["alert"] == "WgkexMQTTDown")
    waits = milliseconds(ALERTMANAGER["route"]["group_wait"])
    assert all("group_wait" not in route for route in ALERTMANAGER["route"]["routes"][1:])
    session = re.findall(r"max_over_time\(wgkex_mqtt_connected[^)]*\)", source["expr"])[0]
    assert f"[{settings.short_gap}]" in session
    for alert in ALERTS:
        if alert["alert"] in _concerned(rule["target_matchers"]):
            told_after = milliseconds(alert["for"]) + waits
            assert milliseconds(source["for"]) < told_after
            same_window = milliseconds(settings.short_gap) if session in alert["expr"] else 0
            assert milliseconds(source["for"]) + milliseconds(settings.short_gap) < told_after + same_window


def _texts(value: Any, path: str = "") -> list[tuple[str, str]]:  # noqa: ANN401  YAML can be anything
    """All that is written somewhere in a document, each with its place."""
    if isinstance(value, str):
        return [(path, value)]
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return [text for key, part in parts for text in _texts(part, f"{path}/{key}")]


@pytest.mark.parametrize("pace", [1 / 60, 0.5, 2, 1 / 3600])
def test_another_pace_changes_durations_and_nothing_else(pace: float) -> None:
    nominal = _texts(yaml.safe_load(document(Settings())))
    paced = _texts(yaml.safe_load(document(Settings(pace=pace, shortest_window="1ms"))))

    changed = 0
    for (path, before), (same_path, after) in zip(nominal, paced, strict=True):
        assert path == same_path
        assert _DURATION.sub("…", before) == _DURATION.sub("…", after)
        # These tell which rule it is.
        if path.endswith("_window") or "valid keys of the last " in before:
            assert before == after
            continue
        for old, new in zip(_DURATION.findall(before), _DURATION.findall(after), strict=True):
            assert milliseconds(new) == round(milliseconds(old) * pace)
            changed += 1
    assert changed > 100


def test_no_window_is_shorter_than_the_shortest_one() -> None:
    settings = Settings(pace=1 / 600, shortest_window="5s")
    paced = document(settings)

    windows = re.findall(r"\[(\w+)(?::(\w+))?\]", paced)
    lengths = [milliseconds(part) for window in windows for part in window if part]
    assert min(lengths) == 5_000
    # 15m are 1.5 s then. What is no window follows the pace.
    assert "for: 1500ms" in paced


@pytest.mark.parametrize("text", ["0s", "1ms", "90s", "5m", "1500ms", "36h", "3d", "30d"])
def test_a_duration_comes_back_as_it_was(text: str) -> None:
    assert duration_text(milliseconds(text)) == text


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "1h30m", "1.5h", "5 m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        milliseconds(text)


def test_other_names_of_jobs_reach_all_selectors() -> None:
    text = document(Settings(broker_job="b.1", worker_job="w"))

    assert "wgkex-broker" not in text.replace("systemctl status wgkex-broker", "")
    assert "wgkex-worker" not in text
    assert 'job=~"b\\\\.1|w"' in text


def test_the_budget_is_no_approximation() -> None:
    assert Fraction(str(Settings().budget)) == 1 - Fraction(str(Settings().objective))
