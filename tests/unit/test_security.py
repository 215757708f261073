"""docs/security.md: the tests that it names are there."""

import re

import pytest

from tests.helpers import ROOT

DOCUMENT = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", DOCUMENT)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_each_named_test_exists(file: str, test: str) -> None:
    text = (ROOT / file).read_text()
    assert re.search(rf"def {test or 'test_'}", text)


def test_each_threat_has_a_test_or_says_that_nothing_stops_it() -> None:
    rows = [line.strip("| ").split(" | ") for line in DOCUMENT.splitlines() if line.startswith("| ")]
    threats = [row for row in rows if row[0] not in ("Threat", "---")]
    assert len(threats) > 20
    for threat, stops, test, remains in threats:
        assert re.search(r"tests/|test", test) or stops == "Nothing in the broker yet", threat
        assert remains
