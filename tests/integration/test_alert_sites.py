"""One Prometheus watches two sites: what happens at one is neither hidden nor repeated by a healthy other one."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from alerts.rules import document
from alerts.settings import Settings
from tests.integration.loopback import run

FOLDER: Final = Path(__file__).parents[2] / "alerts" / "tests"
# Alerts that compare series of several processes: within a site only.
FILES: Final = ("receipts", "nodes", "resources", "canary")
# What a healthy site has, by the beginning of the metric's name; all others stay what they are in the first minute.
HEALTHY: Final = {
    "wgkex_broker_worker_assigned_nodes_total": "0+5x200",
    "wgkex_broker_key_install_duration_seconds": "0+30x200",
    "wgkex_broker_keys_published_total": "0+30x200",
    "wgkex_worker_peer_sessions_started_total": "0+5x200",
    "wgkex_worker_interface": "0+9000x200",
    "wgkex_time_seconds": "0+60x200",
    "wgkex_mqtt_certificate_expiry": "9000000000x200",
    "wgkex_probe_success": "1x200",
}


def _healthy(series: str, values: str) -> str:
    for beginning, healthy in HEALTHY.items():
        if series.startswith(beginning):
            return healthy
    first = re.match(r"-?[\d.]+", values)
    assert first is not None
    return f"{first[0]}x200"


def _at(site: str, series: str) -> str:
    return series.replace("{", f'{{cluster="{site}", ', 1)


def _two_sites(case: dict[str, Any]) -> dict[str, Any]:
    """A case at one site, beside a healthy one of the same names."""
    series = [
        {"series": _at(site, each["series"]), "values": values}
        for each in case["input_series"]
        for site, values in (("ill", each["values"]), ("well", _healthy(each["series"], each["values"])))
    ]
    tests = [
        {
            **test,
            "exp_alerts": [
                {**alert, "exp_labels": {"cluster": "ill", **alert["exp_labels"]}}
                for alert in test.get("exp_alerts", [])
            ],
        }
        for test in case["alert_rule_test"]
    ]
    return {**case, "input_series": series, "alert_rule_test": tests}


@pytest.mark.parametrize("file", FILES)
def test_an_alert_is_one_of_its_site(file: str, tmp_path: Path) -> None:
    (tmp_path / "sites.rules.yaml").write_text(document(Settings(cluster="cluster")))
    cases = yaml.safe_load((FOLDER / f"{file}.yaml").read_text())
    cases["rule_files"] = ["sites.rules.yaml"]
    cases["tests"] = [_two_sites(case) for case in cases["tests"] if " fires: " in case["name"]]
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases))

    assert cases["tests"]
    assert "SUCCESS" in run("promtool", "test", "rules", str(tmp_path / "cases.yaml"))
