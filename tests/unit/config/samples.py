"""What the tests of the configuration share."""

from pathlib import Path
from typing import Final

import pytest

from tests.helpers import ROOT, TESTDATA
from wgkex_ops.config import parse
from wgkex_ops.errors import ConfigError

OLD: Final = TESTDATA / "config" / "old.yaml"
PARKER: Final = TESTDATA / "config" / "parker.yaml"
BROKEN: Final = TESTDATA / "config" / "broken.yaml"
EXAMPLE: Final = ROOT / "wgkex.yaml.example"

# Four lines, the last section of which may go on.
MINIMAL: Final = "domains: [ffmuc_welt]\ndomain_prefixes: [ffmuc_]\nmqtt:\n  broker_url: mqtt.example.net\n"


def problems(text: str) -> tuple[str, ...]:
    """Parse a file that is wrong, and return its problems without the file's name."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    # Nothing that a logger would print along with it.
    assert caught.value.__context__ is None
    assert all(problem.startswith("f: ") and problem.isprintable() for problem in caught.value.problems)
    return tuple(problem.removeprefix("f: ") for problem in caught.value.problems)


def problems_of(path: Path) -> tuple[str, ...]:
    return problems(path.read_text())
