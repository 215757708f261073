"""How values look: thresholds, colours by name, mappings of numbers to texts."""

from collections.abc import Iterable, Mapping, Sequence

from grafana_foundation_sdk.models.dashboard import (
    DashboardFieldConfigSourceOverrides,
    DashboardRangeMapOptions,
    DynamicConfigValue,
    FieldColor,
    FieldColorModeId,
    MatcherConfig,
    RangeMap,
    Threshold,
    ThresholdsConfig,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)

from grafana import colours

Override = DashboardFieldConfigSourceOverrides


def steps(base: str, *limits: tuple[float, str], least: float | None = None) -> ThresholdsConfig:
    """The colour from minus infinity on, then from each limit on another one.

    Args:
        base: the first colour.
        limits: where another colour begins.
        least: where the first one begins, for columns with values below 0: Grafana takes the base of a column's own
            thresholds, which is null in JSON, for 0, and would give all of them the first colour.
    """
    return ThresholdsConfig(
        mode=ThresholdsMode.ABSOLUTE,
        steps=[Threshold(value=least, color=base), *(Threshold(value=value, color=colour) for value, colour in limits)],
    )


def bad_from(warning: float | None = None, critical: float | None = None) -> ThresholdsConfig:
    """Thresholds of a value that is good while it is low."""
    limits = [(warning, colours.WARNING), (critical, colours.CRITICAL)]
    return steps(colours.GOOD, *((value, colour) for value, colour in limits if value is not None))


def fixed(colour: str) -> FieldColor:
    """Always this colour."""
    return FieldColor(mode=FieldColorModeId.FIXED, fixed_color=colour)


def override(name: str, **properties: object) -> Override:
    """Properties of the series or column of this name; underscores stand for the dots of nested ones."""
    return _override("byName", name, properties)


def override_matching(expression: str, **properties: object) -> Override:
    """As `override`, for all names that a regular expression matches in full."""
    return _override("byRegexp", f"/^(?:{expression})$/", properties)


def _override(matcher: str, options: str, properties: Mapping[str, object]) -> Override:
    return Override(
        matcher=MatcherConfig(id_val=matcher, options=options),
        properties=[
            DynamicConfigValue(id_val=name.replace("custom_", "custom."), value=value)
            for name, value in properties.items()
        ],
    )


def coloured(meanings: Mapping[str, str], names: Iterable[str]) -> list[Override]:
    """The fixed colour of each name, by its meaning.

    Raises:
        KeyError: a name has no colour.
    """
    return [override(name, color=fixed(meanings[name])) for name in names]


def coloured_matching(expressions: Mapping[str, str]) -> list[Override]:
    """A colour for each family of names, in shades."""
    return [
        override_matching(expression, color=FieldColor(mode=FieldColorModeId.SHADES, fixed_color=colour))
        for expression, colour in expressions.items()
    ]


def to_dashboard(uid: str, title: str, *labels: str) -> dict[str, object]:
    """A link of a table's cell to another dashboard, at the same time, with these labels of its row chosen there."""
    chosen = "".join(f"&var-{label}=${{__data.fields.{label}}}" for label in labels)
    return {"title": title, "url": f"/d/{uid}?var-datasource=${{datasource}}{chosen}&${{__url_time_range}}"}


def hidden(name: str) -> Override:
    """A column that links need and nobody reads. Grafana 12 has another property for it than those before."""
    everywhere = {"viz": True, "legend": False, "tooltip": False}
    return override(name, custom_hidden=True, custom_hideFrom=everywhere)


def dashed(expression: str) -> Override:
    """Targets, next to what is."""
    return override_matching(
        expression, custom_lineStyle={"fill": "dash", "dash": [8, 6]}, custom_fillOpacity=0, custom_lineWidth=1
    )


def texts(meanings: Sequence[tuple[int, str, str]]) -> list[ValueMapping]:
    """Number, text and colour."""
    return [
        ValueMap(
            options={
                str(value): ValueMappingResult(text=shown, color=colour, index=index)
                for index, (value, shown, colour) in enumerate(meanings)
            }
        )
    ]


def from_on(limit: float, shown: str, colour: str) -> list[ValueMapping]:
    """A text in place of all numbers from a limit on."""
    return [RangeMap(options=DashboardRangeMapOptions(from_val=limit, result=ValueMappingResult(shown, colour)))]


def up_or_down(up: str = "up", down: str = "down") -> list[ValueMapping]:
    """The two values of a state metric."""
    return texts([(1, up, colours.GOOD), (0, down, colours.CRITICAL)])
