"""What is documented is there, and what is there is documented."""

import re
import runpy
from pathlib import Path
from typing import Final

import pytest

from wgkex_ops.__main__ import parser
from wgkex_ops.http.public.responses import REASONS

ROOT: Final = Path(__file__).parents[2]


def test_the_reference_of_metrics_is_what_the_instruments_say() -> None:
    reference = runpy.run_path(str(ROOT / "scripts" / "metrics-reference"))["reference"]()

    assert (ROOT / "docs" / "metrics.md").read_text() == reference


def test_every_option_is_documented_and_every_documented_option_exists(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^    ([a-z-]+) ", parser().format_help(), re.MULTILINE)
    actions = [["keys", action] for action in ("deny", "allow", "protect", "remove", "list")]
    for arguments in (
        ["--help"],
        *([command, "--help"] for command in commands),
        *([*one, "--help"] for one in actions),
    ):
        with pytest.raises(SystemExit):
            parser().parse_args(arguments)
    text = (ROOT / "docs" / "commands.md").read_text()

    options = re.findall(r"^  (?:-h, )?(--[a-z.-]+)", capsys.readouterr().out, re.MULTILINE)
    assert set(re.findall(r"^\| `(--[a-z.-]+)", text, re.MULTILINE)) == set(options)
    assert set(re.findall(r"^\| `wgkex-ops ([a-z-]+)[ `]", text, re.MULTILINE)) == set(commands)


def test_the_documented_reasons_of_error_objects_are_those_that_responses_use() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()

    documented = re.findall(r"^\| (\d{3}) \| `([a-z_]+)`", text, re.MULTILINE)
    assert {reason: int(status) for status, reason in documented} == REASONS
    assert len(documented) == len(REASONS)


def test_links_between_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!\w+://)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
