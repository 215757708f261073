"""A problem of the file: what is wrong and where, in words that a terminal can print."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MAX_SHOWN_CHARACTERS: Final = 40

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong and where.

    Attributes:
        path: of the setting; empty for the whole file.
        line: counted from 1; None if it is nowhere.
        sentence: without the place, and printable.
        column: counted from 1, where the setting is not known.
    """

    path: Place
    line: int | None
    sentence: str
    column: int | None = None

    def __str__(self) -> str:
        return f"{place}: {self.sentence}" if (place := self._place()) else self.sentence

    def _place(self) -> str:
        if self.path:
            setting = ".".join(_one_line(str(part)) for part in self.path)
            return setting if self.line is None else f"{setting} (line {self.line})"
        if self.line is None:
            return ""
        return f"line {self.line}" if self.column is None else f"line {self.line}, column {self.column}"


def show(value: object) -> str:
    """Show a value in a message: short, on one line, in the words of YAML; never what is inside a list or mapping."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN_CHARACTERS else f"{shown[:_MAX_SHOWN_CHARACTERS]}…"


def kind(value: object) -> str:
    """Name what a value is, where its content is not to be shown."""
    match value:
        case str():
            return "text"
        case bool() | None | Mapping() | list():
            return show(value)
    return "a number"


def _one_line(text: str) -> str:
    return text if text and text.isprintable() and len(text) <= 2 * _MAX_SHOWN_CHARACTERS else show(text)
