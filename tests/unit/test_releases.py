"""What GitHub runs for a change and for a release."""

import re
import runpy
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.helpers import ROOT
from tests.integration.loopback import run

WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
CHANGELOG: Final = """\
# Changelog

## 0.2.0 \N{EN DASH} 2027-01-01

News.

### Added

- It.

## 0.1.0 \N{EN DASH} unreleased

Old.
"""

notes = runpy.run_path(str(ROOT / "scripts" / "release-notes"))["notes"]


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_one_and_runs_what_is_there(path: Path) -> None:
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path))
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in (step["run"] for step in steps(path) if "run" in step):
        assert set(re.findall(r"\bmake ([a-z]+)(?! python)", command)) <= {*targets, "python"}
        for script in re.findall(r"^(?:scripts/|\.ci/)\S+", command):
            assert (ROOT / script).stat().st_mode & 0o100, script
    assert all(
        re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", step["uses"]) for step in steps(path) if "uses" in step
    )


def test_continuous_integration_runs_the_unit_tests_with_each_python() -> None:
    [check] = (path for path in WORKFLOWS if path.name == "check.yaml")
    matrix = yaml.safe_load(check.read_text())["jobs"]["unit"]["strategy"]["matrix"]["python"]
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == f">={matrix[0]}"
    assert matrix == [f"3.{minor}" for minor in range(11, 11 + len(matrix))]


def test_the_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    assert notes("v0.2.0", "0.2.0", CHANGELOG) == "News.\n\n### Added\n\n- It.\n"


@pytest.mark.parametrize(
    ("tag", "version", "problem"),
    [
        ("v0.3.0", "0.2.0", "v0.3.0 is not v0.2.0"),
        ("0.2.0", "0.2.0", "0.2.0 is not v0.2.0"),
        ("v0.1.0", "0.1.0", "has 'unreleased' for the date of 0.1.0"),
        ("v0.3.0", "0.3.0", "has no section '## 0.3.0"),
    ],
)
def test_a_tag_that_is_no_release(tag: str, version: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        notes(tag, version, CHANGELOG)


def test_the_changelog_has_a_section_for_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## {version} \N{EN DASH} " in (ROOT / "CHANGELOG.md").read_text()
