"""docs/evening.md as data: which blocks are typed on which host, and which are files."""

import re
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from tests import documents

DOCUMENT: Final = "docs/evening.md"
HOSTS: Final = ("server", "gw01", "gw02")

_HEADING: Final = re.compile(r"(?P<number>\d+)\. (?P<title>.*?)(?:, on (?P<hosts>`.*`))? \(\d+ minutes\)")
_FILE: Final = re.compile(r"# (/\S+)\n")


@dataclass(frozen=True)
class Block:
    """A block of the document.

    Attributes:
        text: as it is written.
        file: the file that it is; None if it is typed into a shell.
    """

    text: str
    file: str | None


@dataclass(frozen=True)
class Section:
    """A section, with what is done on each of its hosts."""

    number: int
    hosts: tuple[str, ...]
    blocks: tuple[Block, ...]


def sections() -> dict[int, Section]:
    """Those sections that are done on the three hosts, by their number."""
    found = {}
    for heading, of_it in groupby(documents.blocks(DOCUMENT), key=lambda block: block.heading):
        match = _HEADING.fullmatch(heading)
        hosts = re.findall(r"`(\w+)`", (match and match["hosts"]) or "")
        if match and hosts:
            assert set(hosts) <= set(HOSTS), heading
            blocks = tuple(_block(block.language, block.text) for block in of_it)
            found[int(match["number"])] = Section(int(match["number"]), tuple(hosts), blocks)
    return found


def _block(language: str, text: str) -> Block:
    file = _FILE.match(text)
    # A language is that of a file: what is typed has none.
    assert bool(file) == bool(language), text
    return Block(text, file[1] if file else None)


def of_host(text: str, host: str) -> str:
    """A file of the gateways as it is on one of them."""
    return text.replace("gw01.example.net", f"{host}.example.net") if host.startswith("gw") else text
