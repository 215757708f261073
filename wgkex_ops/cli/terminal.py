"""What commands show people: coloured on a terminal, plain text in a pipe; the only importer of rich."""

from enum import IntEnum
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


class Severity(IntEnum):
    """How bad something is. The numbers are the exit statuses of a monitoring plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


_STYLES: Final = {
    Severity.OK: "green",
    Severity.WARNING: "yellow",
    Severity.CRITICAL: "red",
    Severity.UNKNOWN: "magenta",
}


def console() -> Console:
    """Standard output. It colours nothing by guessing, since text from the bus is somebody else's."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def coloured(text: str, severity: Severity) -> Text:
    """Text in the colour of its severity; without a terminal, the text alone."""
    return Text(text, style=_STYLES[severity])


def table(*columns: str, right: frozenset[str] = frozenset()) -> Table:
    """Make a table without lines, as narrow as its content.

    Args:
        columns: their headings.
        right: headings of columns with figures.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made
