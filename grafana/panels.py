"""The kinds of panels of the dashboards, each with a title, a description and a unit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import stat as stat_model
from grafana_foundation_sdk.models import statetimeline as timeline_model
from grafana_foundation_sdk.models import table as table_model
from grafana_foundation_sdk.models import timeseries as timeseries_model
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    GraphFieldConfig,
    GraphThresholdsStyleConfig,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    ReduceDataOptions,
    SortOrder,
    StackingConfig,
    StackingMode,
    TableFieldOptions,
    TableSortByFieldState,
    TooltipDisplayMode,
    VisibilityMode,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    FieldColor,
    FieldColorModeId,
    FieldConfig,
    FieldConfigSource,
    GridPos,
    Panel,
    ThresholdsConfig,
    ValueMapping,
)
from grafana_foundation_sdk.models.prometheus import Dataquery

from grafana.styles import Override, bad_from, fixed, hidden
from grafana.targets import DATASOURCE

# Newer versions of Grafana migrate from this one on.
PLUGIN_VERSION: Final = "11.6.0"
SMALL: Final = 3
NORMAL: Final = 8


@dataclass(frozen=True)
class Head:
    """What every panel has.

    Args:
        title: what is shown.
        description: what it means, and what to check when it changes.
        unit: one of Grafana's units.
        width: of 24 columns.
        height: in rows of about 38 pixels.
    """

    title: str
    description: str
    unit: str
    width: int = 8
    height: int = NORMAL


def _panel(
    kind: str,
    head: Head,
    targets: Sequence[Dataquery],
    options: object,
    defaults: FieldConfig,
    *,
    overrides: Sequence[Override] = (),
    transformations: Sequence[DataTransformerConfig] = (),
) -> Panel:
    for name, target in zip("ABCDEFGHIJKLMNOP", targets, strict=False):
        target.ref_id = name
    return Panel(
        type_val=kind,
        title=head.title,
        description=head.description,
        plugin_version=PLUGIN_VERSION,
        datasource=DATASOURCE,
        targets=list(targets) or None,
        grid_pos=GridPos(w=head.width, h=head.height),
        options=options,
        field_config=FieldConfigSource(defaults=defaults, overrides=list(overrides)),
        transformations=list(transformations) or None,
    )


def stat(
    head: Head,
    targets: Sequence[Dataquery],
    thresholds: ThresholdsConfig,
    *,
    overrides: Sequence[Override] = (),
    decimals: int | None = None,
    empty: str = "no data",
) -> Panel:
    """Numbers for the first glance, coloured by thresholds; `empty` is shown where there is none."""
    named = len(targets) > 1
    return _panel(
        "stat",
        head,
        targets,
        stat_model.Options(
            graph_mode=BigValueGraphMode.NONE,
            color_mode=BigValueColorMode.VALUE,
            text_mode=BigValueTextMode.VALUE_AND_NAME if named else BigValueTextMode.VALUE,
            reduce_options=ReduceDataOptions(calcs=["lastNotNull"], fields="", values=False),
        ),
        FieldConfig(
            unit=head.unit,
            decimals=decimals,
            thresholds=thresholds,
            color=FieldColor(mode=FieldColorModeId.THRESHOLDS),
            no_value=empty,
        ),
        overrides=overrides,
    )


def lines(
    head: Head,
    targets: Sequence[Dataquery],
    *,
    overrides: Sequence[Override] = (),
    thresholds: ThresholdsConfig | None = None,
    stacked: bool = False,
    maximum: float | None = None,
    at_least: float | None = None,
    decimals: int | None = None,
    empty: str | None = None,
) -> Panel:
    """Values over time, from 0 up; thresholds are drawn as dashed lines.

    Args:
        head: as everywhere.
        targets: the queries.
        overrides: colours and styles of series.
        thresholds: what to draw lines at.
        stacked: whether the sum means something.
        maximum: where the axis ends.
        at_least: where the axis ends, unless values are higher: so that a threshold is visible while all is quiet.
        decimals: None for as many as it takes.
        empty: what is shown without any series; by default Grafana's own words.
    """
    custom = GraphFieldConfig(
        draw_style=GraphDrawStyle.LINE,
        line_interpolation=LineInterpolation.LINEAR,
        line_width=1,
        fill_opacity=60 if stacked else 8,
        show_points=VisibilityMode.NEVER,
        span_nulls=False,
        axis_soft_max=at_least,
        stacking=StackingConfig(mode=StackingMode.NORMAL if stacked else StackingMode.NONE, group="A"),
        thresholds_style=GraphThresholdsStyleConfig(
            mode=GraphThresholdsStyleMode.DASHED if thresholds else GraphThresholdsStyleMode.OFF
        ),
    )
    return _panel(
        "timeseries",
        head,
        targets,
        timeseries_model.Options(
            legend=_legend("lastNotNull", "max"),
            tooltip=VizTooltipOptions(mode=TooltipDisplayMode.MULTI, sort=SortOrder.DESCENDING),
        ),
        FieldConfig(
            unit=head.unit,
            min_val=0,
            max_val=maximum,
            decimals=decimals,
            # By the order of the series, which is that of their names: 56 colours in turn. Grafana's colours by name
            # are a hash of it, and of ten names of domains two pairs get the same one.
            color=FieldColor(mode=FieldColorModeId.PALETTE_CLASSIC),
            no_value=empty,
            thresholds=thresholds or bad_from(),
            custom=custom,
        ),
        overrides=overrides,
    )


def _legend(*calculations: str) -> VizLegendOptions:
    return VizLegendOptions(
        display_mode=LegendDisplayMode.TABLE,
        placement=LegendPlacement.BOTTOM,
        show_legend=True,
        calcs=list(calculations),
    )


def heatmap(head: Head, target: Dataquery) -> Panel:
    """A distribution over time: the darker, the more of them."""
    return _panel(
        "heatmap",
        head,
        [target],
        heatmap_model.Options(
            color=heatmap_model.HeatmapColorOptions(
                mode=heatmap_model.HeatmapColorMode.SCHEME,
                scheme="Oranges",
                scale=heatmap_model.HeatmapColorScale.EXPONENTIAL,
                fill="dark-orange",
                exponent=0.5,
                steps=64,
            ),
            y_axis=heatmap_model.YAxisConfig(unit=head.unit),
            cell_values=heatmap_model.CellValues(unit="short"),
            tooltip=heatmap_model.HeatmapTooltip(
                mode=TooltipDisplayMode.SINGLE, y_histogram=True, show_color_scale=True
            ),
            show_value=VisibilityMode.NEVER,
        ),
        FieldConfig(unit=head.unit),
    )


def timeline(
    head: Head, targets: Sequence[Dataquery], mappings: Sequence[ValueMapping], *, empty: str | None = None
) -> Panel:
    """States over time, a bar for each thing that has one; `empty` is shown where there is none."""
    return _panel(
        "state-timeline",
        head,
        targets,
        timeline_model.Options(
            show_value=VisibilityMode.NEVER,
            legend=VizLegendOptions(
                display_mode=LegendDisplayMode.LIST, placement=LegendPlacement.BOTTOM, show_legend=True, calcs=[]
            ),
            tooltip=VizTooltipOptions(mode=TooltipDisplayMode.SINGLE, sort=SortOrder.NONE),
        ),
        FieldConfig(
            unit=head.unit,
            mappings=list(mappings),
            color=fixed("text"),
            no_value=empty,
            custom=timeline_model.FieldConfig(fill_opacity=70, line_width=0),
        ),
    )


def table(
    head: Head,
    columns: Mapping[str, Dataquery],
    labels: Mapping[str, str],
    *,
    overrides: Sequence[Override] = (),
    sort: str,
    descending: bool = False,
    concealed: Sequence[str] = (),
    empty: str | None = None,
) -> Panel:
    """One row for each set of labels, one column for each query.

    Args:
        head: as everywhere; the unit is that of columns without one of their own.
        columns: query by heading.
        labels: heading by label, in the order in which they are shown, in front of the columns.
        overrides: units, colours and texts of columns, by heading.
        sort: heading of the column to sort by.
        descending: the largest first.
        concealed: headings of columns that only links use.
        empty: what is shown without any row, and in empty cells.
    """
    values = {f"Value #{name}": heading for name, heading in zip("ABCDEFGHIJKLMNOP", columns, strict=False)}
    if len(columns) == 1:
        # A single query's column does not carry the name of the query.
        values = {"Value": next(iter(columns))}
    renamed = {**labels, **values}
    options = table_model.Options(sort_by=[TableSortByFieldState(display_name=sort, desc=descending)])
    # Grafana 12 has no such option.
    options.footer = None
    return _panel(
        "table",
        head,
        list(columns.values()),
        options,
        FieldConfig(
            unit=head.unit,
            color=FieldColor(mode=FieldColorModeId.THRESHOLDS),
            thresholds=bad_from(),
            no_value=empty,
            custom=TableFieldOptions(),
        ),
        overrides=[*overrides, *map(hidden, concealed)],
        transformations=[
            DataTransformerConfig(id_val="merge", options={}),
            DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: index for index, name in enumerate(renamed)},
                    "renameByName": renamed,
                },
            ),
        ],
    )


def alerts(head: Head, labels: str) -> Panel:
    """What fires now, as Grafana's own list of alerts shows it.

    It has no query: an alert about the whole service has no instance, so a selector over jobs and instances would not
    find it.
    """
    return _panel(
        "alertlist",
        head,
        (),
        {
            "alertInstanceLabelFilter": labels,
            "alertName": "",
            "dashboardAlerts": False,
            "groupBy": [],
            "groupMode": "default",
            "maxItems": 20,
            "showInactiveAlerts": False,
            "sortOrder": 3,
            "stateFilter": {"error": True, "firing": True, "noData": False, "normal": False, "pending": True},
            "viewMode": "list",
        },
        FieldConfig(unit=head.unit),
    )
