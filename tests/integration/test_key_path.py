"""The way of a key that the documentation draws is the one that a key takes."""

import re
import sys

from tests.helpers import ROOT
from tests.integration.loopback import run


def test_every_file_on_the_way_of_a_key_is_in_its_diagram() -> None:
    printed = run(sys.executable, "-m", "benchmarks.key_path")
    passed = re.findall(r"^ ?\d+ (\S+\.py)$", printed, re.MULTILINE)
    assert passed[0].startswith("http/")

    architecture = (ROOT / "docs" / "architecture.md").read_text()
    section = architecture.partition("## The way of a key")[2].partition("\n## ")[0]
    named = set(re.findall(r"[\w/]+\.py", section))
    assert set(passed) - named == set()
