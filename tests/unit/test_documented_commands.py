"""Each command of the site is typed by a test, or says why none types it."""

import re
import shlex
import subprocess
from typing import Final

import pytest

from tests.documents import CONSOLE, TYPED_BY, Block, blocks, pages
from tests.helpers import KEY, ROOT
from wgkex_ops.__main__ import parser

FOR_A_SHELL: Final = ("", CONSOLE)
OURS: Final = re.compile(r"^(?:\$ )?(?:runuser -u \w+ -- )?wgkex-ops ([^|&;<>\n]*)", re.MULTILINE)
# What stands in the documents for a value.
VALUES: Final = {"$DOMAIN": "ffmuc_welt", "$GATEWAY": "gw01", "$key": KEY, "=…": f"={'0' * 64}", "\\\n": " "}


def filled(text: str) -> str:
    """A block with values, each command in a line."""
    for placeholder, value in VALUES.items():
        text = text.replace(placeholder, value)
    return text


def commands(document: str) -> list[Block]:
    return [block for block in blocks(document) if block.language in FOR_A_SHELL]


def test_the_site_has_commands() -> None:
    assert len(pages()) > 25
    assert sum(len(commands(page)) for page in pages()) > 150
    assert len(commands("docs/runbook.md")) > 40


@pytest.mark.parametrize("document", pages())
def test_each_command_says_what_types_it(document: str) -> None:
    for block in commands(document):
        assert block.mark, f"{document}, {block.heading}: {block.text}"
        if block.typed_by:
            test = ROOT / block.typed_by
            assert document in test.read_text() or "typed_by(__file__)" in test.read_text(), block


@pytest.mark.parametrize("document", pages())
def test_no_remark_about_typing_is_left_without_a_command(document: str) -> None:
    marks = [block.mark for block in commands(document)]
    text = (ROOT / document).read_text()
    for mark in re.findall(rf"^ *<!-- ((?:{TYPED_BY}|not typed:).*) -->$", text, re.MULTILINE):
        assert mark in marks


@pytest.mark.parametrize("document", pages())
def test_a_shell_takes_each_block(document: str) -> None:
    for block in blocks(document):
        if not block.language:
            done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), block.text


@pytest.mark.parametrize("document", pages())
def test_each_command_of_ours_takes_its_arguments(document: str) -> None:
    """Also where nothing types it."""
    for block in commands(document):
        for arguments in OURS.findall(filled(block.text)):
            parser().parse_args(shlex.split(arguments, comments=True))
