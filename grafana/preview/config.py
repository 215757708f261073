"""What a panel's configuration says about one series: its colour, unit, words."""

import re
from collections.abc import Mapping
from typing import Any, Final
from zlib import crc32

from grafana.preview.prometheus import Series
from grafana.preview.units import written

Panel = Mapping[str, Any]

# Grafana's hues on dark, from super-light to dark.
_HUES: Final = {
    "red": ("#FFA6B0", "#FF7383", "#F2495C", "#E02F44", "#C4162A"),
    "orange": ("#FFCB7D", "#FFB357", "#FF9830", "#FF780A", "#FA6400"),
    "yellow": ("#FFF899", "#FFEE52", "#FADE2A", "#F2CC0C", "#E0B400"),
    "green": ("#C8F2C2", "#96D98D", "#73BF69", "#56A64B", "#37872D"),
    "blue": ("#C0D8FF", "#8AB8FF", "#5794F2", "#3274D9", "#1F60C4"),
    "purple": ("#DEB6F2", "#CA95E5", "#B877D9", "#A352CC", "#8F3BB8"),
}
_SHADES: Final = ("super-light-", "light-", "", "semi-dark-", "dark-")
PALETTE: Final = tuple(shades[index] for index in (2, 0, 4, 1) for shades in _HUES.values())


def colour(name: str) -> str:
    """A name of Grafana's palette as CSS has it.

    Raises:
        KeyError: there is no such name.
    """
    if name.startswith("#"):
        return name
    if name == "text":
        return "#ccccdc"
    hue = name.rsplit("-", 1)[-1]
    return _HUES[hue][_SHADES.index(name.removesuffix(hue))]


def legend(target: Mapping[str, Any], series: Series) -> str:
    """The name of a series."""
    if target["legendFormat"]:
        return re.sub(
            r"\{\{(\w+)\}\}", lambda found: series.labels.get(found[1], ""), str(target["legendFormat"])
        ).strip()
    return ", ".join(f'{name}="{value}"' for name, value in series.labels.items()) or "value"


def properties(panel: Panel, name: str) -> dict[str, Any]:
    """The defaults of a panel, with the overrides for a name; nested ones by their dotted names."""
    defaults = dict(panel["fieldConfig"]["defaults"])
    found = {**defaults, **{f"custom.{key}": value for key, value in defaults.get("custom", {}).items()}}
    for override in panel["fieldConfig"]["overrides"]:
        options = override["matcher"]["options"]
        if override["matcher"]["id"] == "byRegexp":
            fits = re.fullmatch(options.removeprefix("/^").removesuffix("$/"), name) is not None
        else:
            fits = options == name
        if fits:
            found |= {each["id"]: each["value"] for each in override["properties"]}
    return found


def threshold(style: Mapping[str, Any], value: float) -> str:
    """The colour of the highest threshold that a value reaches."""
    steps = style["thresholds"]["steps"]
    return colour([step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1])


def series_colour(style: Mapping[str, Any], name: str) -> str:
    """The colour of a series: a fixed one, or one that its name always has."""
    if style["color"]["mode"] in {"fixed", "shades"}:
        return colour(style["color"]["fixedColor"])
    return PALETTE[crc32(name.encode()) % len(PALETTE)]


def meaning(style: Mapping[str, Any], value: float) -> tuple[str, str]:
    """A value as it is written, and its colour: by mapping, else by unit and thresholds."""
    for mapping in style.get("mappings", []):
        if found := mapping["options"].get(f"{value:.0f}"):
            return found["text"], colour(found["color"])
    return written(value, style["unit"], style.get("decimals")), threshold(style, value)
