"""Reading the dashboards for tests: panels, queries, and queries as trees."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import promql_parser as promql

from grafana.catalogue import DIRECTORY

Json = dict[str, Any]

FILES: Final = sorted(DIRECTORY.glob("*.json"))
# Rows hold panels together; the list of alerts asks Grafana, not Prometheus.
WITHOUT_QUERY: Final = ("row", "alertlist")
# What Grafana's own variables stand for here; those of the dashboard stay, within quotes they are valid text.
RATE_INTERVAL: Final = "7m11s"
_DURATIONS: Final = {"__rate_interval": RATE_INTERVAL, "__range": "3h", "__interval": "30s"}


def load(name: str) -> Json:
    """A committed dashboard, by its uid."""
    dashboard: Json = json.loads((DIRECTORY / f"{name}.json").read_text())
    return dashboard


def shown(dashboard: Json) -> list[Json]:
    """What is seen before anybody clicks: without the panels of closed sections."""
    return list(dashboard["panels"])


def everything(dashboard: Json) -> list[Json]:
    """All panels and headings, closed sections included."""
    return [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", []))]


def panels(dashboard: Json) -> list[Json]:
    """All panels, those within rows included, rows not."""
    return [panel for panel in everything(dashboard) if panel["type"] != "row"]


def targets(dashboard: Json) -> Iterator[tuple[Json, Json]]:
    """Every query with its panel."""
    for panel in panels(dashboard):
        for target in panel.get("targets") or []:
            yield panel, target


def parse(expression: str) -> promql.Expr:
    """A query as a tree.

    Raises:
        ValueError: it is no PromQL.
    """
    return promql.parse(
        re.sub(r"\$(?:\{(__\w+)\}|(__\w+))", lambda found: _DURATIONS[found[1] or found[2]], expression)
    )


def nodes(expression: promql.Expr) -> list[tuple[promql.Expr, Sequence[promql.Expr]]]:
    """Every node of a tree with its ancestors, the nearest one last."""
    found: list[tuple[promql.Expr, Sequence[promql.Expr]]] = []

    def visit(node: promql.Expr, above: Sequence[promql.Expr]) -> None:
        found.append((node, above))
        for child in _children(node):
            visit(child, (*above, node))

    visit(expression, ())
    return found


def _children(node: promql.Expr) -> list[promql.Expr]:
    if isinstance(node, promql.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql.Call):
        return list(node.args)
    if isinstance(node, promql.MatrixSelector):
        return [node.vector_selector]
    if isinstance(node, promql.AggregateExpr):
        return [node.expr, *([node.param] if isinstance(node.param, promql.Expr) else [])]
    if isinstance(node, promql.ParenExpr | promql.UnaryExpr | promql.SubqueryExpr):
        return [node.expr]
    assert isinstance(node, promql.VectorSelector | promql.NumberLiteral | promql.StringLiteral), node
    return []


def made_labels(expression: promql.Expr) -> set[str]:
    """Labels that a query makes itself, with `label_replace`."""
    return {
        node.args[1].val
        for node, _ in nodes(expression)
        if isinstance(node, promql.Call) and node.func.name == "label_replace"
    }


def selectors(expression: promql.Expr) -> list[promql.VectorSelector]:
    """All selectors of a tree, those with a range included."""
    return [node for node, _ in nodes(expression) if isinstance(node, promql.VectorSelector)]


def changed(dashboard: Json, change: Callable[[Json], object]) -> Json:
    """A copy with a change."""
    copy: Json = json.loads(json.dumps(dashboard))
    change(copy)
    return copy


def expand(expression: str, values: Mapping[str, str]) -> str:
    """Put values in place of Grafana's variables, written `$name` or `${name}`.

    Raises:
        KeyError: a variable has no value. `$1`, as `label_replace` has it, is none.
    """
    return re.sub(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", lambda found: values[found[1] or found[2]], expression)
