"""What Grafana is given at its start fits the dashboards."""

from typing import Any, Final

import yaml

from tests.dashboards import FILES, load
from tests.helpers import ROOT

PROVISIONING: Final = ROOT / "grafana" / "provisioning"


def _read(name: str) -> tuple[str, Any]:
    text = (PROVISIONING / name).read_text()
    return text, yaml.safe_load(text)


def test_grafana_looks_where_the_dashboards_are_mounted() -> None:
    text, found = _read("dashboards/wgkex.yaml")

    (provider,) = found["providers"]
    assert provider["type"] == "file"
    assert not provider["allowUiUpdates"]
    assert f"--volume ./grafana/dashboards:{provider['options']['path']}:ro" in text
    assert "--volume ./grafana/provisioning:/etc/grafana/provisioning:ro" in text


def test_the_data_source_is_of_the_kind_that_the_dashboards_choose_from() -> None:
    _, found = _read("datasources/prometheus.yaml")

    (source,) = found["datasources"]
    kinds = {
        variable["query"]
        for file in FILES
        for variable in load(file.stem)["templating"]["list"]
        if variable["type"] == "datasource"
    }
    assert kinds == {source["type"]}
    assert source["isDefault"]
    assert source["url"].startswith("$")
    # The list of alerts on the Overview needs it.
    assert source["jsonData"]["manageAlerts"]


def test_the_environment_that_is_asked_for_is_explained() -> None:
    _, found = _read("datasources/prometheus.yaml")
    text, _ = _read("dashboards/wgkex.yaml")

    assert f"--env {found['datasources'][0]['url'].removeprefix('$')}=" in text


def test_nothing_else_lies_there() -> None:
    assert {path.relative_to(PROVISIONING).as_posix() for path in PROVISIONING.rglob("*.*")} == {
        "dashboards/wgkex.yaml",
        "datasources/prometheus.yaml",
    }
