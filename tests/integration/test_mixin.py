"""The monitoring mixin, as jsonnet evaluates it."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from alerts.rules import groups
from alerts.settings import Settings
from tests.helpers import ROOT
from tests.integration.loopback import run

MIXIN: Final = ROOT / "deploy" / "mixin" / "mixin.libsonnet"
RULES: Final = yaml.safe_load((ROOT / "alerts" / "wgkex.rules.yaml").read_text())["groups"]


def evaluated(expression: str, other: str = "{}") -> Any:  # noqa: ANN401  JSON can be anything
    """An expression of `mixin`, which is ours and another one."""
    return json.loads(run("jsonnet", "-e", f"local mixin = (import '{MIXIN}') + {other}; {expression}"))


def of_a_kind(kind: str, all_groups: Any) -> list[Any]:  # noqa: ANN401
    """The groups with their rules of a kind, and without any that has none."""
    found = [{**group, "rules": [rule for rule in group["rules"] if kind in rule]} for group in all_groups]
    return [group for group in found if group["rules"]]


@pytest.mark.parametrize(("member", "kind"), [("prometheusAlerts", "alert"), ("prometheusRules", "record")])
def test_its_rules_are_those_of_the_rules_file(member: str, kind: str) -> None:
    assert evaluated(f"mixin.{member}") == {"groups": of_a_kind(kind, RULES)}


def test_its_dashboards_are_those_that_are_shipped() -> None:
    shipped = {path.name: json.loads(path.read_text()) for path in (ROOT / "grafana" / "dashboards").iterdir()}

    assert evaluated("mixin.grafanaDashboards") == shipped


def test_the_documented_configuration_gives_the_rules_that_the_generator_makes_with_it(tmp_path: Path) -> None:
    [example] = re.findall(r"```jsonnet\n(.*?)```", (ROOT / "docs" / "stacks.md").read_text(), re.DOTALL)
    vendored = tmp_path / "github.com" / "freifunkMUC"
    vendored.mkdir(parents=True)
    (vendored / "wgkex-ops").symlink_to(ROOT)

    command = (
        "jsonnet",
        "-J",
        str(tmp_path),
        "-e",
        f"local mixin = {example}; [mixin.prometheusAlerts, mixin.prometheusRules]",
    )
    found = json.loads(run(*command))
    settings = Settings(broker_job="keys/broker", worker_job="keys/worker", runbook="https://wiki.example.net/wgkex")
    made = [of_a_kind(kind, groups(settings)) for kind in ("alert", "record")]
    for rule in (rule for group in made[0] for rule in group["rules"]):
        rule["labels"]["team"] = "network"
    assert found == [{"groups": one} for one in made]


def test_it_joins_another_mixin() -> None:
    other = "{ prometheusAlerts+:: { groups+: [{ name: 'other' }] }, grafanaDashboards+:: { 'other.json': {} } }"

    names = evaluated("[group.name for group in mixin.prometheusAlerts.groups]", other)
    assert names == [*(group["name"] for group in of_a_kind("alert", RULES)), "other"]
    assert "other.json" in evaluated("std.objectFields(mixin.grafanaDashboards)", other)


def test_promtool_takes_what_it_prints(tmp_path: Path) -> None:
    rules = tmp_path / "mixin.rules.json"
    rules.write_text(json.dumps(evaluated("{ groups: mixin.prometheusRules.groups + mixin.prometheusAlerts.groups }")))

    printed = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(rules))
    assert f"{sum(len(group['rules']) for group in RULES)} rules found" in printed


def test_its_files_are_formatted() -> None:
    run("jsonnetfmt", "--test", *map(str, MIXIN.parent.glob("*.libsonnet")))
