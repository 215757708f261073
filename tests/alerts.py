"""Reading the alert rules, and the cases of promtool, for tests."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import yaml

from alerts.rules import document
from alerts.settings import Settings
from tests.helpers import ROOT

RULES: Final[list[Mapping[str, Any]]] = [
    rule for group in yaml.safe_load(document(Settings()))["groups"] for rule in group["rules"]
]
ALERTS: Final = [rule for rule in RULES if "alert" in rule]
RECORDED: Final = {rule["record"] for rule in RULES if "record" in rule}
NAMES: Final = sorted({rule["alert"] for rule in ALERTS})
SCRAPED: Final = frozenset(("job", "instance"))
RECORDED_LABELS: Final = {
    "instance": SCRAPED,
    "network": frozenset[str](),
    "job": frozenset(("job",)),
    **{level: frozenset(("job", level)) for level in ("worker", "domain")},
}


def _known_metrics() -> dict[str, frozenset[str]]:
    """Labels by name, of all series that there are: from the reference, which is made from the code."""
    known: dict[str, frozenset[str]] = {
        "up": SCRAPED,
        **{
            f"process_{name}": SCRAPED
            for name in ("start_time_seconds", "resident_memory_bytes", "open_fds", "max_fds")
        },
        "ALERTS": frozenset(("alertname", "alertstate", "service", "severity")),
        **{name: RECORDED_LABELS[name.split(":")[0]] for name in RECORDED},
    }
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    for name, kind, cell in rows:
        labels = SCRAPED | frozenset(re.findall(r"`(\w+)`", cell))
        if kind == "histogram":
            known |= {f"{name}_bucket": labels | {"le"}, f"{name}_count": labels, f"{name}_sum": labels}
        else:
            known[name] = labels
    return known


METRICS: Final = _known_metrics()
_FUNCTIONS: Final = frozenset(
    (
        *("abs", "absent", "avg", "avg_over_time", "changes", "clamp_min", "count", "histogram_quantile", "increase"),
        *("label_replace", "last_over_time", "max", "max_over_time", "min_over_time", "rate", "round", "sqrt", "sum"),
        *("time", "timestamp", "vector"),
    )
)
_KEYWORDS: Final = frozenset(("and", "or", "unless", "by", "on", "group_left", "offset"))
DURATION: Final = re.compile(r"\b\d+(?:ms|s|m|h|d)\b")


def _bare(expression: str) -> str:
    """An expression without label matchers, windows, and lists of labels."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", text)
    text = re.sub(r"\b(by|on|group_left) \([^)]*\)", r"\1", text)
    return DURATION.sub("", text)


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_][\w:]*", _bare(expression))) - _FUNCTIONS - _KEYWORDS


CASES: Final = sorted((ROOT / "alerts" / "tests").glob("*.yaml"))


@cache
def all_cases() -> list[tuple[str, Mapping[str, Any]]]:
    """All cases of promtool, with their names."""
    return [(case["name"], case) for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]


def fired(name: str, severity: str = "") -> list[dict[str, str]]:
    """Labels of all alerts of a name that some case expects; of one severity, if it is given."""
    return [
        alert["exp_labels"]
        for _, case in all_cases()
        for test in case.get("alert_rule_test", [])
        if test["alertname"] == name
        for alert in test.get("exp_alerts", [])
        if severity in ("", alert["exp_labels"]["severity"])
    ]


def windows_of(labels: Mapping[str, str]) -> str:
    return f"{labels['long_window']}/{labels['short_window']}" if "long_window" in labels else ""


def variant_of(rule: Mapping[str, Any]) -> str:
    """How the names of an alert's cases begin: where several rules share its name, with what sets this one apart."""
    several = sum(other["alert"] == rule["alert"] for other in ALERTS) > 1
    return " ".join((rule["alert"], windows_of(rule["labels"]) or rule["labels"]["severity"])[: 1 + several])
