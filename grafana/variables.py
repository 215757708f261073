"""The variables at the top of the dashboards."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import (
    VariableHide,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
    VariableType,
)

from grafana.queries import ALL, series
from grafana.targets import DATASOURCE


def choice(name: str, label: str, query: str) -> VariableModel:
    """Any number of a label's values; at first all of them, and those that come later, too."""
    return VariableModel(
        type_val=VariableType.QUERY,
        name=name,
        label=label,
        query=query,
        datasource=DATASOURCE,
        current=VariableOption(text="All", value="$__all"),
        multi=True,
        include_all=True,
        all_value=ALL,
        refresh=VariableRefresh.ON_TIME_RANGE_CHANGED,
        sort=VariableSort.ALPHABETICAL_ASC,
        hide=VariableHide.DONT_HIDE,
        regex="",
        options=[],
        # These three are for variables of another type.
        auto=None,
        auto_min=None,
        auto_count=None,
    )


COMMON: Final = (
    VariableModel(
        type_val=VariableType.DATASOURCE,
        name="datasource",
        label="Data source",
        query="prometheus",
        refresh=VariableRefresh.ON_DASHBOARD_LOAD,
        hide=VariableHide.DONT_HIDE,
        regex="",
        options=[],
        # These three are for variables of another type.
        auto=None,
        auto_min=None,
        auto_count=None,
    ),
    choice("job", "Job", "label_values(wgkex_build_info, job)"),
    choice("instance", "Instance", 'label_values(wgkex_build_info{job=~"$job"}, instance)'),
)

INTERFACE: Final = choice("interface", "Interface", f"label_values({series('wireguard_peer_info')}, interface)")
