"""Numbers, times and names as people read them. Whatever comes in, these never raise."""

import math
from datetime import UTC, datetime


def count(number: float) -> str:
    """A number of things, with separators."""
    return f"{number:,.0f}"


def things(number: int, singular: str) -> str:
    """A number and what there are so many of."""
    return f"{count(number)} {singular}{'' if number == 1 else 's'}"


def share(part: int, whole: int) -> str:
    """A part in percent of a whole; never rounded to nothing or to all of it."""
    percent = 100 * part / whole
    return f"{round(percent) if percent in (0, 100) else min(99, max(1, round(percent)))} %"


def duration(seconds: float) -> str:
    """A span of time in its one or two largest units; below a second it is 0 s."""
    if not math.isfinite(seconds):
        return "an unknown time"
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d" + (f" {hours} h" if hours else "")
    if hours:
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    return f"{minutes} min" if minutes else f"{rest} s"


def iso_time(at: float) -> str:
    """A moment (seconds since the epoch) as RFC 3339 in UTC; empty for one that no calendar has."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return ""


def in_words(slug: str) -> str:
    """The value of a metric's label as words."""
    return slug.replace("_", " ")


def visible(text: str) -> str:
    """Show what is in a text: characters that cannot be seen, or that turn the others around, become escapes.

    These are controls, formats such as U+202E or U+200B, separators other than the space, and halves of surrogates.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
