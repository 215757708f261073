"""Numbers, times and names as people read them. Whatever comes in, these never raise."""

import math
from datetime import UTC, datetime
from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400


def count(number: float) -> str:
    """A number of things, with separators."""
    return f"{number:,.0f}"


def things(number: int, singular: str, plural: str = "") -> str:
    """A number and what there are so many of."""
    return f"{count(number)} {singular if number == 1 else plural or singular + 's'}"


def duration(seconds: float) -> str:
    """A span of time in its one or two largest units; below a second it is 0 s."""
    if not math.isfinite(seconds):
        return "an unknown time"
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return _two(whole // _HOUR, "h", whole % _HOUR // _MINUTE, "min")
    return _two(whole // _DAY, "d", whole % _DAY // _HOUR, "h")


def iso_time(at: float) -> str:
    """A moment (seconds since the epoch) as RFC 3339 in UTC; empty for one that no calendar has."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return ""


def clock_time(at: float) -> str:
    """The time of the day of a moment (seconds since the epoch)."""
    return f"{iso_time(at)[11:19]} UTC"


def visible(text: str) -> str:
    """Show what is in a text: characters that cannot be seen, or that turn the others around, become escapes.

    These are controls, formats such as U+202E or U+200B, separators other than the space, and halves of surrogates.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit}" + (f" {small} {small_unit}" if small else "")
