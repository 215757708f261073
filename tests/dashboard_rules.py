"""What Grafana's dashboard-linter asks of a dashboard, by the names that it gives its rules.

The linter applies some of its rules to a few types of panels only; here they hold for every panel with a query. Each
rule returns what is wrong, in words.
"""

import re
from collections.abc import Callable
from typing import Final

import promql_parser as promql

from tests.dashboards import RATE_INTERVAL, WITHOUT_QUERY, Json, nodes, panels, parse, selectors, targets

Rule = Callable[[Json], list[str]]

DATASOURCES: Final = ("$datasource", "${datasource}")
COUNTER_FUNCTIONS: Final = ("rate", "irate", "increase")
# Of Grafana's units, those that make sense here. A typing error in a unit shows as a suffix, and is easily missed.
UNITS: Final = frozenset(
    ("none", "short", "percentunit", "s", "bytes", "Bps", "ops", "reqps", "cps", "cpm", "dateTimeFromNow", "string")
)


def _variables(dashboard: Json, kind: str) -> list[Json]:
    return [variable for variable in dashboard["templating"]["list"] if variable["type"] == kind]


def _parsed(dashboard: Json) -> list[tuple[Json, Json, promql.Expr]]:
    """Every query that can be parsed; the others are the business of another rule."""
    found = []
    for panel, target in targets(dashboard):
        try:
            found.append((panel, target, parse(target.get("expr", ""))))
        except ValueError:
            continue
    return found


def template_datasource(dashboard: Json) -> list[str]:
    """The data source can be chosen."""
    found = [(each["name"], each["label"], each["query"]) for each in _variables(dashboard, "datasource")]
    return [] if found == [("datasource", "Data source", "prometheus")] else [f"data source variables: {found}"]


def _template(dashboard: Json, name: str) -> list[str]:
    variable = next((each for each in dashboard["templating"]["list"] if each["name"] == name), None)
    if variable is None:
        return [f"no variable {name}"]
    wanted = {"type": "query", "label": name.title(), "multi": True, "allValue": ".+"}
    wrong = [f"{name}: {key} is {variable.get(key)!r}" for key, value in wanted.items() if variable.get(key) != value]
    source = variable.get("datasource", {}).get("uid")
    return wrong if source in DATASOURCES else [*wrong, f"{name}: takes {source}"]


def template_job(dashboard: Json) -> list[str]:
    """Jobs can be chosen."""
    return _template(dashboard, "job")


def template_instance(dashboard: Json) -> list[str]:
    """Instances can be chosen."""
    return _template(dashboard, "instance")


def template_label_promql(dashboard: Json) -> list[str]:
    """Variables that ask Prometheus ask something valid."""
    wrong = []
    for variable in _variables(dashboard, "query"):
        query = variable["query"] if isinstance(variable["query"], str) else variable["query"].get("query", "")
        call = re.fullmatch(r"(?:label_names|label_values|metrics|query_result)\((?:(.+),\s*\w+|(.+))\)", query)
        try:
            if call is None:
                raise ValueError("no such function")  # noqa: TRY301  one message for both
            parse(call[1] or call[2])
        except ValueError as error:
            wrong.append(f"{variable['name']}: {query}: {error}")
    return wrong


def template_on_time_change_reload(dashboard: Json) -> list[str]:
    """What can be chosen follows the time that is shown."""
    return [
        f"{variable['name']}: refresh is {variable.get('refresh')}"
        for variable in _variables(dashboard, "query")
        if variable.get("refresh") != 2
    ]


def panel_datasource(dashboard: Json) -> list[str]:
    """Panels take the chosen data source."""
    return [
        f"{panel['title']}: takes {panel.get('datasource')}"
        for panel in panels(dashboard)
        if panel["type"] not in WITHOUT_QUERY and (panel.get("datasource") or {}).get("uid") not in DATASOURCES
    ]


def panel_title_description(dashboard: Json) -> list[str]:
    """Panels have a title and a description."""
    return [
        f"panel {panel['id']}: no title or no description"
        for panel in panels(dashboard)
        if not panel.get("title") or not panel.get("description")
    ]


def panel_units(dashboard: Json) -> list[str]:
    """Every number has a unit that Grafana knows."""
    wrong = []
    for panel in panels(dashboard):
        config = panel["fieldConfig"]
        units = [config["defaults"].get("unit")]
        units += [
            each["value"] for override in config["overrides"] for each in override["properties"] if each["id"] == "unit"
        ]
        wrong += [f"{panel['title']}: unit {unit}" for unit in units if unit not in UNITS]
    return wrong


def panel_no_targets(dashboard: Json) -> list[str]:
    """Panels ask something."""
    return [
        f"{panel['title']}: no query"
        for panel in panels(dashboard)
        if panel["type"] not in WITHOUT_QUERY and not panel.get("targets")
    ]


def _loki(dashboard: Json) -> list[tuple[Json, Json]]:
    chosen = any(variable["query"] == "loki" for variable in _variables(dashboard, "datasource"))
    return [
        (panel, target)
        for panel, target in targets(dashboard)
        if chosen or (target.get("datasource") or {}).get("type") == "loki"
    ]


def target_logql(dashboard: Json) -> list[str]:
    """Queries for Loki are valid LogQL: a selector, at least. The dashboards have none."""
    return [
        f"{panel['title']}: no LogQL: {target['expr']}"
        for panel, target in _loki(dashboard)
        if not re.search(r"\{\s*\w+\s*(?:=|!=|=~|!~)\s*[\"`].*\}", target["expr"])
    ]


def target_logql_auto(dashboard: Json) -> list[str]:
    """Queries for Loki take their ranges from Grafana."""
    return [
        f"{panel['title']}: a fixed range: {target['expr']}"
        for panel, target in _loki(dashboard)
        if re.search(r"\[(?!\$__auto\])", target["expr"])
    ]


def target_promql(dashboard: Json) -> list[str]:
    """Queries are valid PromQL."""
    wrong = []
    for panel, target in targets(dashboard):
        try:
            parse(target.get("expr", ""))
        except ValueError as error:
            wrong.append(f"{panel['title']}: {error}")
    return wrong


def target_rate_interval(dashboard: Json) -> list[str]:
    """Rates are taken over what Grafana finds right for the time that is shown."""
    interval = promql.parse_duration(RATE_INTERVAL)
    return [
        f"{panel['title']}: fixed range: {target['expr']}"
        for panel, target, tree in _parsed(dashboard)
        for node, above in nodes(tree)
        if isinstance(node, promql.MatrixSelector)
        and node.range != interval
        and any(isinstance(parent, promql.Call) and parent.func.name in COUNTER_FUNCTIONS for parent in above[-1:])
    ]


def _matcher(dashboard: Json, name: str) -> list[str]:
    return [
        f"{panel['title']}: no {name} in {selector}"
        for panel, _, tree in _parsed(dashboard)
        for selector in selectors(tree)
        if (name, promql.MatchOp.Re, f"${name}")
        not in [(matcher.name, matcher.op, matcher.value) for matcher in selector.matchers.matchers]
    ]


def target_job(dashboard: Json) -> list[str]:
    """Every selector keeps to the chosen jobs."""
    return _matcher(dashboard, "job")


def target_instance(dashboard: Json) -> list[str]:
    """Every selector keeps to the chosen instances."""
    return _matcher(dashboard, "instance")


def target_counter_agg(dashboard: Json) -> list[str]:
    """Counters stand within a range, directly within rate, irate or increase."""
    wrong = []
    for panel, target, tree in _parsed(dashboard):
        for node, above in nodes(tree):
            if isinstance(node, promql.VectorSelector) and str(node.name).endswith("_total"):
                call = above[-2] if len(above) > 1 and isinstance(above[-1], promql.MatrixSelector) else None
                if not isinstance(call, promql.Call) or call.func.name not in COUNTER_FUNCTIONS:
                    wrong.append(f"{panel['title']}: bare counter: {target['expr']}")
    return wrong


def uneditable_dashboard(dashboard: Json) -> list[str]:
    """What is made by a program is not changed by hand."""
    return [] if dashboard.get("editable") is False else ["editable"]


RULES: Final[dict[str, Rule]] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": template_job,
    "template-instance-rule": template_instance,
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-logql-rule": target_logql,
    "target-logql-auto-rule": target_logql_auto,
    "target-promql-rule": target_promql,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": target_job,
    "target-instance-rule": target_instance,
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard": uneditable_dashboard,
}
