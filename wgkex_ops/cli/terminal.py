"""What commands show people: coloured on a terminal, plain text in a pipe; the only importer of rich."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TextIO, TypeAlias

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from wgkex_ops.model.fleet import Severity

# What can be shown.
Shown: TypeAlias = RenderableType

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


def shown_together(parts: Sequence[Shown]) -> Shown:
    """Several things, one below the other."""
    return Group(*parts)


@contextmanager
def live() -> Iterator[Callable[[Shown], None]]:
    """Show something again and again in the same place of a terminal.

    Yields:
        what shows it.
    """
    with Live(console=Console(highlight=False, markup=False, emoji=False), auto_refresh=False) as screen:
        yield lambda shown: screen.update(shown, refresh=True)


@contextmanager
def changing_line(*, line_every: float = 10.0) -> Iterator[Callable[[str], None]]:
    """Show a line that changes, on standard output: in its place on a terminal, and elsewhere a new one now and then.

    On a terminal, log lines go above it.

    Args:
        line_every: seconds between two lines where it is no terminal.

    Yields:
        what shows it.
    """
    output = console()
    if not output.is_terminal:
        yield _now_and_then(sys.stdout, line_every)
        return
    # A log that goes to a file goes there still.
    with Live(console=output, auto_refresh=False, redirect_stderr=sys.stderr.isatty()) as screen:
        yield lambda line: screen.update(Text(f"  {line}", overflow="ellipsis", no_wrap=True), refresh=True)


@contextmanager
def progress(*, line_every: float = 10.0) -> Iterator[Callable[[int, int, str], None]]:
    """Show how far something is, on standard error: a bar on a terminal, and elsewhere a line now and then.

    Args:
        line_every: seconds between two lines.

    Yields:
        what shows the state: how many are done, of how many, and the same in words.
    """
    errors = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if not errors.is_terminal:
        write = _now_and_then(sys.stderr, line_every)
        yield lambda _done, _total, text: write(text)
        return
    columns = BarColumn(bar_width=20), TextColumn("{task.description}", markup=False)
    # It goes when it is done: then there are results to show.
    with Progress(*columns, console=errors, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("")

        def draw(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text, refresh=True)

        yield draw


def _now_and_then(file: TextIO, line_every: float) -> Callable[[str], None]:
    """Make what writes a line if so many seconds have passed since the one before; the first one waits as well."""
    next_line = time.monotonic() + line_every

    def write(line: str) -> None:
        nonlocal next_line
        if (now := time.monotonic()) >= next_line:
            next_line = now + line_every
            print(line, file=file, flush=True)

    return write
