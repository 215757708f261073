"""The 17 rules of Grafana's dashboard-linter hold, without any exclusion; and each of them can fail."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dashboard_rules import RULES
from tests.dashboards import FILES, Json, changed, load, panels

_SELECTED = '{job=~"$job", instance=~"$instance"}'


def _variable(name: str, /, **values: object) -> Callable[[Json], None]:
    def change(dashboard: Json) -> None:
        next(each for each in dashboard["templating"]["list"] if each["name"] == name).update(values)

    return change


def _without_variable(name: str) -> Callable[[Json], None]:
    def change(dashboard: Json) -> None:
        listed = dashboard["templating"]["list"]
        listed[:] = [each for each in listed if each["name"] != name]

    return change


def _panel(**values: object) -> Callable[[Json], None]:
    return lambda dashboard: panels(dashboard)[0].update(values)


def _target(**values: object) -> Callable[[Json], None]:
    return lambda dashboard: panels(dashboard)[0]["targets"][0].update(values)


def _expression(expression: str) -> Callable[[Json], None]:
    return _target(expr=expression)


def _loki(expression: str) -> Callable[[Json], None]:
    return _target(expr=expression, datasource={"type": "loki", "uid": "${datasource}"})


BREAKAGES: list[tuple[str, Callable[[Json], None]]] = [
    ("template-datasource-rule", _without_variable("datasource")),
    ("template-datasource-rule", _variable("datasource", name="ds")),
    ("template-datasource-rule", _variable("datasource", label="Source")),
    ("template-job-rule", _without_variable("job")),
    ("template-job-rule", _variable("job", multi=False)),
    ("template-job-rule", _variable("job", allValue=".*")),
    ("template-job-rule", _variable("job", datasource={"type": "prometheus", "uid": "abc"})),
    ("template-instance-rule", _without_variable("instance")),
    ("template-instance-rule", _variable("instance", label="instances")),
    ("template-instance-rule", _variable("instance", type="custom")),
    ("template-label-promql-rule", _variable("job", query="label_valeus(up, job)")),
    ("template-label-promql-rule", _variable("job", query="label_values(up{, job)")),
    ("template-on-time-change-reload-rule", _variable("job", refresh=1)),
    ("panel-datasource-rule", _panel(datasource={"type": "prometheus", "uid": "abc"})),
    ("panel-datasource-rule", _panel(datasource=None)),
    ("panel-title-description-rule", _panel(title="")),
    ("panel-title-description-rule", _panel(description="")),
    ("panel-units-rule", _panel(fieldConfig={"defaults": {"unit": "keys"}, "overrides": []})),
    ("panel-units-rule", _panel(fieldConfig={"defaults": {}, "overrides": []})),
    ("panel-no-targets-rule", _panel(targets=[])),
    ("panel-no-targets-rule", _panel(targets=None)),
    ("target-logql-rule", _loki("rate(up[$__auto])")),
    ("target-logql-auto-rule", _loki('rate({job=~"$job"}[5m])')),
    ("target-promql-rule", _expression("sum(up")),
    ("target-promql-rule", _expression("")),
    ("target-rate-interval-rule", _expression(f"rate(x_total{_SELECTED}[5m])")),
    ("target-rate-interval-rule", _expression(f"sum(irate(x_total{_SELECTED}[$__interval]))")),
    ("target-job-rule", _expression('up{instance=~"$instance"}')),
    ("target-job-rule", _expression('up{job="$job", instance=~"$instance"}')),
    ("target-job-rule", _expression(f"up{_SELECTED} and wgkex_build_info")),
    ("target-instance-rule", _expression('rate(x_total{job=~"$job"}[$__rate_interval])')),
    ("target-instance-rule", _expression('up{job=~"$job", instance=~".+"}')),
    ("target-counter-agg-rule", _expression(f"x_total{_SELECTED}")),
    ("target-counter-agg-rule", _expression(f"sum(max_over_time(x_total{_SELECTED}[$__rate_interval]))")),
    ("target-counter-agg-rule", _expression(f"rate(sum(x_total{_SELECTED})[1h:1m])")),
    ("uneditable-dashboard", lambda dashboard: dashboard.update(editable=True)),
    ("uneditable-dashboard", lambda dashboard: dashboard.pop("editable")),
]


def test_all_rules_of_the_linter_are_there() -> None:
    assert len(RULES) == 17


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_rule_holds(file: Path, rule: str) -> None:
    assert RULES[rule](load(file.stem)) == []


@pytest.mark.parametrize(("rule", "breakage"), BREAKAGES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(BREAKAGES)])
def test_the_rule_can_fail(rule: str, breakage: Callable[[Json], None]) -> None:
    broken = changed(load("wgkex-overview"), breakage)

    assert RULES[rule](broken)


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule for rule, _ in BREAKAGES} == set(RULES)
