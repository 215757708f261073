"""A whole dashboard: rows of panels on the grid, variables, links, annotations."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from grafana_foundation_sdk.models.dashboard import (
    AnnotationContainer,
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardDashboardTemplating,
    DashboardDashboardTime,
    DashboardLink,
    DashboardLinkType,
    GridPos,
    Panel,
    RowPanel,
    TimePickerConfig,
    VariableModel,
)

from grafana.queries import LIMITS
from grafana.targets import DATASOURCE
from grafana.variables import COMMON

# Grafana 10 to 13 read it; later schemas are not for all of them.
SCHEMA_VERSION: Final = 39
COLUMNS: Final = 24
TAG: Final = "wgkex"


@dataclass(frozen=True)
class Section:
    """Panels under a heading, from left to right and then down.

    Attributes:
        title: the heading; empty for none, which saves its line on the first screen, and is always open.
        panels: each with its size.
        open: shown at once. Others open with a click on the heading, and Grafana sends their queries only then.
    """

    title: str
    panels: Sequence[Panel]
    open: bool = False


def _laid_out(sections: Sequence[Section]) -> list[Panel | RowPanel]:
    """All panels with their places and numbers; those of a closed section are within its heading.

    Raises:
        ValueError: the panels of a section do not fill their lines.
    """
    placed: list[Panel | RowPanel] = []
    numbers = count(1)
    y = 0
    for section in sections:
        heading = _heading(section, next(numbers), y) if section.title else None
        if heading:
            placed.append(heading)
            y += 1
        bottom = _fill(section, y)
        for panel in section.panels:
            panel.id_val = next(numbers)
        if heading and heading.collapsed:
            heading.panels = list(section.panels)
        else:
            placed += section.panels
            y = bottom
    return placed


def _heading(section: Section, number: int, y: int) -> RowPanel:
    place = GridPos(x=0, y=y, w=COLUMNS, h=1)
    return RowPanel(id_val=number, title=section.title, collapsed=not section.open, grid_pos=place)


def _fill(section: Section, y: int) -> int:
    """Give the panels of a section their places, from line `y` on; the first line below them."""
    x = height = 0
    for panel in section.panels:
        size = panel.grid_pos or GridPos()
        if x and size.h != height:
            raise ValueError(f"{panel.title}: other height than its neighbours")
        panel.grid_pos = GridPos(x=x, y=y, w=size.w, h=size.h)
        x, height = x + size.w, size.h
        if x > COLUMNS:
            raise ValueError(f"{panel.title}: beyond the grid")
        if x == COLUMNS:
            x, y = 0, y + height
    if x:
        raise ValueError(f"{section.title}: its last line ends at column {x}")
    return y


def _links() -> list[DashboardLink]:
    return [
        DashboardLink(
            title="WGKex",
            type_val=DashboardLinkType.DASHBOARDS,
            icon="external link",
            tooltip="The other dashboards, with the same time and variables",
            url="",
            tags=[TAG],
            include_vars=True,
            keep_time=True,
        ),
        DashboardLink(
            title="Runbook",
            type_val=DashboardLinkType.LINK,
            icon="doc",
            tooltip="What to do about each alert",
            url=LIMITS.runbook,
            target_blank=True,
        ),
    ]


class _Labelled(AnnotationQuery):
    """Adds the fields that the SDK lacks for annotations from Prometheus: without them, the marks have no text."""

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {
            "step": "30s",
            "tagKeys": "severity,job,instance",
            "textFormat": "",
            "titleFormat": "{{alertname}}",
        }


def _annotations() -> AnnotationContainer:
    """Alerts as they fire. Those about the whole service have no instance, so the query has no selector for it."""
    firing = _Labelled(
        name="Firing alerts",
        datasource=DATASOURCE,
        enable=True,
        icon_color="red",
        expr='ALERTS{service="wgkex", alertstate="firing", severity!="none"}',
    )
    return AnnotationContainer(list_val=[firing])


def dashboard(
    uid: str, title: str, description: str, sections: Sequence[Section], variables: Sequence[VariableModel] = ()
) -> Dashboard:
    """A dashboard as all of this project's are: UTC, not editable, linked to the others.

    Args:
        uid: its address, for good.
        title: what follows "WGKex / ".
        description: what it shows.
        sections: the most important first.
        variables: those that only this dashboard has.
    """
    return Dashboard(
        uid=uid,
        title=f"WGKex / {title}",
        description=description,
        tags=[TAG],
        timezone="utc",
        editable=False,
        graph_tooltip=DashboardCursorSync.CROSSHAIR,
        time=DashboardDashboardTime(from_val="now-6h", to="now"),
        timepicker=TimePickerConfig(),
        refresh="30s",
        schema_version=SCHEMA_VERSION,
        panels=_laid_out(sections),
        templating=DashboardDashboardTemplating(list_val=[*COMMON, *variables]),
        annotations=_annotations(),
        links=_links(),
    )
