"""What a page is made of. Texts are plain, and escaped when they are shown, unless they are HTML already (`Markup`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

# The heading of a column, and how its cells are laid out: "count" to the right, "wide" on a phone in a line of their
# own, or "".
Columns = Mapping[str, str]


class Tone(StrEnum):
    """How good something is. It colours what the words mean already."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that needs an operator.

    Attributes:
        tone: WARN or BAD.
        text: what it is.
        names: what it is about.
    """

    tone: Tone
    text: str
    names: Sequence[str] = ()

    @classmethod
    def about(cls, tone: Tone, text: str, names: Sequence[str]) -> list[Self]:
        """A notice about some names, or none if there are none."""
        return [cls(tone, text, names)] if names else []


@dataclass(frozen=True, slots=True)
class Tile:
    """A number that one looks at first."""

    heading: str
    value: str
    note: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Table:
    """Cells in rows, each with its own heading in front.

    Attributes:
        columns: of the cells, the first one is that of the row's heading.
        rows: as many cells each as there are columns; without any there is no table, only the note.
        note: a sentence below.
        cards: whether each row becomes a card on a phone; for tables that are too wide for it.
    """

    heading: str
    caption: str
    columns: Columns
    rows: Sequence[Sequence[str]]
    note: str = ""
    cards: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """All that a page shows.

    Attributes:
        component: ``broker`` or ``worker``.
        name: of the process.
        now: seconds since the epoch; when the numbers were read.
        problems: why it is not ready, a sentence each; empty if it is.
        notices: what else needs an operator.
        tiles: what one looks at first.
        tables: the rest of the numbers.
        facts: lists of facts by their heading, each fact by its own.
        search: what stands in the search box; None for no box.
        reloads: whether the browser is to ask again by itself.
    """

    component: str
    name: str
    now: float
    problems: Sequence[str] = ()
    notices: Sequence[Notice] = ()
    tiles: Sequence[Tile] = ()
    tables: Sequence[Table] = ()
    facts: Mapping[str, Mapping[str, str]]
    search: str | None = None
    reloads: bool = True
