"""Numbers with their units, about as Grafana writes them."""

from typing import Final

_SUFFIXES: Final = {"reqps": " req/s", "cps": " c/s", "ops": " ops/s", "cpm": " cpm"}
_BINARY: Final = 1024
# From there on, nobody wants to see a fraction.
_LARGE: Final = 100
_DURATIONS: Final = ((86_400, " days"), (3600, " hours"), (60, " mins"), (1, " s"), (1e-3, " ms"), (0, " µs"))


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """A value for people.

    Args:
        value: in the unit.
        unit: one of Grafana's.
        decimals: None for as many as it takes.
    """
    if unit == "percentunit":
        return f"{_number(value * 100, decimals)}%"
    if unit == "s":
        return _duration(value, decimals)
    if unit in {"bytes", "Bps"}:
        return _scaled(value, _BINARY if unit == "bytes" else 1000, decimals) + ("" if unit == "bytes" else "/s")
    return _number(value, decimals) + _SUFFIXES.get(unit, "")


def _number(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value:.0f}" if abs(value) >= _LARGE or value == int(value) else f"{value:.3g}"


def _duration(value: float, decimals: int | None) -> str:
    if value == 0:
        return "0 s"
    scale, name = next((scale, name) for scale, name in _DURATIONS if abs(value) >= scale)
    return _number(value / (scale or 1e-6), decimals) + name


def _scaled(value: float, base: int, decimals: int | None) -> str:
    prefixes = ["", "Ki", "Mi", "Gi", "Ti"] if base == _BINARY else ["", "k", "M", "G", "T"]
    power = 0
    while abs(value) >= base and power < len(prefixes) - 1:
        value, power = value / base, power + 1
    return f"{_number(value, decimals)} {prefixes[power]}B"
