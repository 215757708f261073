"""The alert rules and the example configurations before the programs that will read them."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from alerts.recording import Rule
from alerts.rules import document, groups
from alerts.settings import Settings
from tests.integration.loopback import run

# Promtool calculates the rules for days.
pytestmark = pytest.mark.timeout(700)

FOLDER: Final = Path(__file__).parents[2] / "alerts"
SHIPPED: Final = FOLDER / "wgkex.rules.yaml"
ALERTMANAGER: Final = FOLDER / "alertmanager.yaml.example"
CASES: Final = sorted((FOLDER / "tests").glob("*.yaml"))
RECEIVERS: Final = {"critical": "pager", "warning": "tickets", "none": "dead-mans-switch"}


def _alerts() -> list[Any]:
    """Alerts by the labels with which the cases expect them to fire."""
    found = {
        tuple(sorted({"alertname": test["alertname"], **alert["exp_labels"]}.items()))
        for path in CASES
        for case in yaml.safe_load(path.read_text())["tests"]
        for test in case.get("alert_rule_test", [])
        for alert in test.get("exp_alerts", [])
    }
    return [pytest.param(labels, id=" ".join(value for _, value in labels)) for labels in sorted(found)]


def test_promtool_finds_nothing_to_complain_about() -> None:
    assert "SUCCESS" in run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(SHIPPED))


@pytest.mark.parametrize("pace", [1 / 60, 1 / 3600])
def test_promtool_takes_the_rules_at_another_pace(pace: float, tmp_path: Path) -> None:
    rules = tmp_path / "paced.rules.yaml"
    rules.write_text(document(Settings(pace=pace, shortest_window="5s")))

    assert "SUCCESS" in run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(rules))


def check_cases(folder: Path, cases: str, settings: Settings | None = None) -> None:
    """Let promtool check some cases.

    It evaluates all rules for each of them, and those that a file does not name take most of the time: so it gets those
    that the file names, and what they are made of. A file that names no alert in a query of alerts gets all.
    """
    made = groups(settings or Settings())
    known = {_name(rule) for group in made for rule in _rules(group)}
    text = cases
    wanted: set[str] = known if re.search(r"ALERTS\{(?!alertname=\")", cases) else set()
    while (found := {name for name in known if re.search(rf"{name}\b", text)} | wanted) != wanted:
        wanted = found
        text += " ".join(str(rule["expr"]) for group in made for rule in _rules(group) if _name(rule) in wanted)
    kept = [{**group, "rules": [rule for rule in _rules(group) if _name(rule) in wanted]} for group in made]
    (folder / "tests").mkdir()
    (folder / SHIPPED.name).write_text(yaml.safe_dump({"groups": [group for group in kept if group["rules"]]}))
    file = folder / "tests" / "cases.yaml"
    file.write_text(cases)
    assert "SUCCESS" in run("promtool", "test", "rules", str(file), within=600)


def _rules(group: Rule) -> list[Rule]:
    rules = group["rules"]
    assert isinstance(rules, list)
    return rules


def _name(rule: Rule) -> str:
    return str(rule.get("record") or rule.get("alert"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_alerts_fire_and_stay_quiet(case: Path, tmp_path: Path) -> None:
    check_cases(tmp_path, case.read_text())


def test_promtool_takes_the_rules_for_several_sites(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(document(Settings(cluster="cluster")))

    assert "SUCCESS" in run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(rules))


def test_each_site_has_alerts_of_its_own(tmp_path: Path) -> None:
    cases = (FOLDER / "tests" / "clusters" / "clusters.yaml").read_text()
    check_cases(tmp_path, cases, Settings(cluster="cluster"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_alerts_of_a_site_are_those_of_the_only_one(case: Path, tmp_path: Path) -> None:
    cases = yaml.safe_load(case.read_text())
    # Those in which nothing fires show nothing about sites, and take most of the time.
    cases["tests"] = [test for test in cases["tests"] if " stays quiet: " not in test["name"]]
    for test in cases["tests"]:
        _move_to_a_site(test)
    check_cases(tmp_path, yaml.safe_dump(cases), Settings(cluster="cluster"))


def _move_to_a_site(test: dict[str, Any]) -> None:
    """The same case, where all series have the label of a site, and so have the alerts and recorded series."""
    for series in test.get("input_series", []):
        series["series"] = _with_site(series["series"])
    for check in test.get("promql_expr_test", []):
        for sample in check.get("exp_samples", []):
            sample["labels"] = _with_site(sample["labels"])
    # A site of which nothing has ever been scraped is not known, so these have cases of their own.
    checks = [check for check in test.get("alert_rule_test", []) if not check["alertname"].endswith("Absent")]
    for check in checks:
        for alert in check.get("exp_alerts", []):
            if check["alertname"] != "WgkexWatchdog":
                alert["exp_labels"]["cluster"] = "muc"
    test["alert_rule_test"] = checks


def _with_site(labels: str) -> str:
    return labels.replace("}", ', cluster="muc"}') if "{" in labels else f'{labels}{{cluster="muc"}}'


def test_prometheus_takes_the_example(tmp_path: Path) -> None:
    config = tmp_path / "prometheus.yaml"
    config.write_text((FOLDER / "prometheus.yaml.example").read_text())
    (tmp_path / SHIPPED.name).write_text(SHIPPED.read_text())

    assert "1 rule files found" in run("promtool", "check", "config", str(config))


def test_the_example_scrapes_the_jobs_that_the_rules_look_at() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yaml.example").read_text())

    assert {job["job_name"] for job in config["scrape_configs"]} == {Settings().broker_job, Settings().worker_job}


def test_alertmanager_takes_the_example() -> None:
    assert "SUCCESS" in run("amtool", "check-config", str(ALERTMANAGER))


@pytest.mark.parametrize("labels", _alerts())
def test_an_alert_reaches_its_receiver(labels: tuple[tuple[str, str], ...]) -> None:
    printed = run(
        *("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}"),
        *(f"{name}={value}" for name, value in labels),
    )

    assert printed.split() == [RECEIVERS[dict(labels)["severity"]]]


def test_there_is_no_secret_in_the_examples() -> None:
    # Each of these settings has a sibling that names a file.
    inline = ("password:", "credentials:", "_key:", "token:", "secret:")
    for path in (ALERTMANAGER, FOLDER / "prometheus.yaml.example"):
        assert not [line for line in path.read_text().splitlines() if any(word in line for word in inline)]
