"""The documents as data: their blocks, and what types those that are for a shell.

A block for a shell has no language; what a program prints, and a file, has one. A comment says which test types a
block, or why none does. It stands above one block, or below the heading of all those that it is for.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from operator import ne
from pathlib import Path
from textwrap import dedent
from typing import Final

from tests.helpers import ROOT

# A command behind a `$`, and what it prints.
CONSOLE: Final = "console"
_HEADING: Final = re.compile(r"(#+) (.*)")
_FENCE: Final = re.compile(r" *```(\w*)")
_MARK: Final = re.compile(r" *<!-- ((?:typed by|not typed:) .*) -->")
TYPED_BY: Final = "typed by "


@dataclass(frozen=True)
class Block:
    """A block of a document.

    Attributes:
        heading: the nearest one above.
        language: empty if it is for a shell.
        text: without the indentation of a list.
        mark: what the nearest comment says that is about it; None without one.
    """

    heading: str
    language: str
    text: str
    mark: str | None

    @property
    def typed_by(self) -> str | None:
        """The test that types it, as a path in this repository."""
        return self.mark.removeprefix(TYPED_BY) if self.mark and self.mark.startswith(TYPED_BY) else None


def pages() -> list[str]:
    """The documents that are pages of the site, as paths in this repository."""
    return re.findall(r"^ +- [^:\n]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)


def blocks(document: str) -> list[Block]:
    """All blocks of a document, by its path in this repository."""
    return list(_read((ROOT / document).read_text()))


def shell_blocks(document: str, heading: str) -> list[str]:
    """The blocks below a heading that are for a shell."""
    found = [block.text for block in blocks(document) if block.heading == heading and not block.language]
    assert found, f"{document} has no heading {heading} with blocks"
    return found


def typed_by(test: str) -> dict[str, list[Block]]:
    """What one test types: blocks by their document.

    Args:
        test: its `__file__`.
    """
    name = str(Path(test).relative_to(ROOT))
    found = {page: [block for block in blocks(page) if block.typed_by == name] for page in pages()}
    return {page: of_page for page, of_page in found.items() if of_page}


def _read(text: str) -> Iterator[Block]:
    heading, last = "", ""
    # Marks of the headings above, by their level; and the one of the block that follows.
    marks: dict[int, str] = {}
    level, next_mark = 0, None
    lines = iter(text.splitlines())
    for line in lines:
        if fence := _FENCE.fullmatch(line):
            end = line[: line.index("`")] + "```"
            inside = "".join(f"{one}\n" for one in takewhile(partial(ne, end), lines))
            mark = next_mark or next((marks[above] for above in sorted(marks, reverse=True)), None)
            yield Block(heading, fence[1], dedent(inside), mark)
            next_mark = None
        elif found := _HEADING.fullmatch(line):
            level, heading = len(found[1]), found[2]
            marks = {above: mark for above, mark in marks.items() if above < level}
        elif found := _MARK.fullmatch(line):
            if _HEADING.fullmatch(last):
                marks[level] = found[1]
            else:
                next_mark = found[1]
        elif line:
            assert next_mark is None, f"no block follows: {next_mark}"
        last = line or last
