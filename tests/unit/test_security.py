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


def rows(header: str) -> list[list[str]]:
    """The rows of all tables whose first column has this header."""
    found, inside = [], False
    for line in DOCUMENT.splitlines():
        cells = line.strip("| ").split(" | ")
        inside = line.startswith("|") and (inside or cells[0] == header)
        if inside and cells[0] not in (header, "---"):
            found.append(cells)
    return found


def test_each_threat_has_a_test_and_says_what_remains() -> None:
    threats = rows("Threat")
    assert len(threats) > 20
    for threat, stops, test, remains in threats:
        assert "test" in test, threat
        assert stops
        assert remains


def test_each_figure_has_a_test() -> None:
    attacks = rows("Attack")
    assert len(attacks) > 10
    for attack, *_, test in attacks:
        assert "tests/" in test, attack
