"""Queries of panels, as Grafana stores them."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.prometheus import Dataquery, PromQueryFormat, QueryEditorMode

# The variable that lets one dashboard serve several Prometheus servers.
DATASOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")

# The least step of queries over few events. Grafana takes rates over four times that at least: shares of the 20 keys
# that a small network has in an hour say nothing over a minute, and a key is known to be unconfirmed after two.
FEW: Final = "5m"


def _query(
    expression: str,
    *,
    legend: str,
    instant: bool,
    format_val: PromQueryFormat,
    exemplars: bool = False,
    few: bool = False,
) -> Dataquery:
    return Dataquery(
        expr=expression,
        legend_format=legend,
        instant=instant,
        range_val=not instant,
        format_val=format_val,
        exemplar=exemplars,
        editor_mode=QueryEditorMode.CODE,
        interval=FEW if few else None,
        datasource=DATASOURCE,
    )


def line(expression: str, legend: str, *, exemplars: bool = False, few: bool = False) -> Dataquery:
    """Series over time. The legend may name labels: `{{domain}}`; rates of few events are taken over 20 minutes."""
    return _query(
        expression,
        legend=legend,
        instant=False,
        format_val=PromQueryFormat.TIME_SERIES,
        exemplars=exemplars,
        few=few,
    )


def number(expression: str, name: str, *, few: bool = False) -> Dataquery:
    """A value now. A query over time would go on to show the last one long after its series has ended."""
    return _query(expression, legend=name, instant=True, format_val=PromQueryFormat.TIME_SERIES, few=few)


def buckets(expression: str, *, exemplars: bool = False) -> Dataquery:
    """Cumulative buckets, which a heatmap takes apart."""
    return _query(expression, legend="{{le}}", instant=False, format_val=PromQueryFormat.HEATMAP, exemplars=exemplars)


def column(expression: str, *, few: bool = False) -> Dataquery:
    """One column of a table: the values at the end of the time range."""
    return _query(expression, legend="", instant=True, format_val=PromQueryFormat.TABLE, few=few)
