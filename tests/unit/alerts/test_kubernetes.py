"""The manifests for the Prometheus Operator: it takes them, and they have the rules and jobs of the other files."""

import re
from collections.abc import Mapping
from typing import Any, Final

import pytest
import yaml

from alerts.jobs import jobs
from alerts.kubernetes import manifests
from alerts.rules import groups
from alerts.settings import Settings
from tests.crds import problems
from tests.helpers import ROOT

SHIPPED: Final = [
    manifest
    for path in sorted((ROOT / "deploy" / "kubernetes").iterdir())
    for manifest in yaml.safe_load_all(path.read_text())
]


def of(kind: str, settings: Settings | None = None) -> list[Any]:
    texts = manifests(settings or Settings()).values()
    return [manifest for text in texts for manifest in yaml.safe_load_all(text) if manifest["kind"] == kind]


@pytest.mark.parametrize("manifest", SHIPPED, ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_a_manifest_is_what_the_operator_takes(manifest: Mapping[str, Any]) -> None:
    assert problems(manifest) == []


def test_no_object_is_there_twice_and_none_has_a_namespace() -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in SHIPPED]

    assert len(names) == len(set(names)) == 7
    assert not [manifest for manifest in SHIPPED if "namespace" in manifest["metadata"]]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"groups": [{"name": "a", "rules": [{"expr": "1", "record": "b", "labels": {"c": 1}}]}]}, "labels.c: type"),
        ({"groups": [{"name": "a", "rules": [{"record": "b"}]}]}, ".rules[0]: required"),
        ({"groups": [{"name": "a", "rules": [{"expr": "1", "alert": "b", "for": "soon"}]}]}, "rules[0].for: pattern"),
        ({"groups": [{"name": "a", "rules": [{"expr": "1", "alert": "b", "summary": "c"}]}]}, "summary: unknown"),
        ({"groups": [{"name": "a"}, {"name": "a"}]}, ".spec.groups: x-kubernetes-list-map-keys"),
        ({"groups": [{"name": "a", "limit": True}]}, ".limit: type"),
    ],
)
def test_a_manifest_that_the_operator_refuses_is_found(spec: object, problem: str) -> None:
    manifest = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {}, "spec": spec}

    [found] = problems(manifest)
    assert found.endswith(problem)


def test_the_rules_are_those_of_the_rules_file() -> None:
    [rules] = of("PrometheusRule")

    assert rules["spec"]["groups"] == groups(Settings())


def test_each_job_has_the_name_that_the_rules_select_by() -> None:
    settings = Settings(broker_job="b.1", worker_job="w")
    wanted = [("wgkex-broker", "b.1"), ("wgkex-worker", "w"), ("wgkex-probe", "wgkex-probe")]

    monitors = [
        (manifest["metadata"]["name"], relabeling["replacement"])
        for manifest in of("ServiceMonitor", settings)
        for endpoint in manifest["spec"]["endpoints"]
        for relabeling in endpoint["relabelings"]
        if relabeling["targetLabel"] == "job"
    ]
    hosts = [
        (manifest["metadata"]["name"], static["labels"]["job"])
        for manifest in of("ScrapeConfig", settings)
        for static in manifest["spec"]["staticConfigs"]
    ]
    assert monitors == hosts == wanted


def test_ports_and_interval_are_those_of_the_example_for_prometheus() -> None:
    text = (ROOT / "alerts" / "prometheus.yaml.example").read_text()
    # The canary's job is there as a comment: not every site has one.
    example = yaml.safe_load(re.sub(r"(?m)^  # (- .*|  .*)$", r"  \1", text))
    ports = {job["job_name"]: job["static_configs"][0]["targets"][0].split(":")[1] for job in example["scrape_configs"]}
    interval = example["global"]["scrape_interval"]

    for manifest in of("ScrapeConfig"):
        [static] = manifest["spec"]["staticConfigs"]
        assert {target.split(":")[1] for target in static["targets"]} == {ports[static["labels"]["job"]]}
        assert manifest["spec"]["scrapeInterval"] == interval
    assert {endpoint["interval"] for one in of("ServiceMonitor") for endpoint in one["spec"]["endpoints"]} == {interval}
    assert {job.name: str(job.listen.port) for job in jobs(Settings())} == ports
