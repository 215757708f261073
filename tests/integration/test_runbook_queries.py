"""Prometheus itself reads the queries of the runbook."""

import json
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from alerts import rules as shipped
from alerts.settings import Settings
from tests.promql import document, queries

DOCUMENTS: Final = ("runbook.md", "monitoring.md")


def check(rules: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True, check=False)


def rules_of(expressions: list[str]) -> str:
    """A rules file, in JSON, which is YAML."""
    rules = [{"record": f"query:number:{number}", "expr": query} for number, query in enumerate(expressions)]
    return json.dumps({"groups": [{"name": "queries", "rules": rules}]})


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_query_can_be_parsed(name: str, tmp_path: Path) -> None:
    expressions = queries(document(name))
    assert expressions
    rules = tmp_path / "queries.yaml"
    rules.write_text(rules_of(expressions))

    result = check(rules)

    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(expressions)} rules found" in result.stdout


def test_a_query_that_cannot_be_parsed_is_found(tmp_path: Path) -> None:
    rules = tmp_path / "queries.yaml"
    rules.write_text(rules_of(["up", "sum by (job (up)"]))

    assert check(rules).returncode == 1


def test_every_selector_of_a_job_is_one_of_the_rules() -> None:
    """A query that is pasted finds what the alert has found."""
    jobs = set(re.findall(r'job="([^"]+)"', shipped.document(Settings())))
    text = "\n".join(query for name in DOCUMENTS for query in queries(document(name)))
    asked = set(re.findall(r'job="([^"]+)"', text))
    patterns = set(re.findall(r'job=~"([^"]+)"', text))

    assert asked
    assert asked <= jobs
    assert all(re.fullmatch(pattern, job) for pattern in patterns for job in jobs)
