"""The manifests for the Prometheus Operator before the programs that get what it makes of them."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from alerts.settings import Settings
from tests.helpers import ROOT
from tests.integration.loopback import LOOPBACK, eventually_answered, free_port, request, run
from tests.integration.servers import Bench

FOLDER: Final = ROOT / "deploy" / "kubernetes"


def manifests(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def test_promtool_takes_the_rules_of_the_manifest(tmp_path: Path) -> None:
    [manifest] = manifests("prometheusrule.yaml")
    rules = tmp_path / "manifest.rules.yaml"
    rules.write_text(yaml.safe_dump(manifest["spec"]))

    printed = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(rules))
    assert f"{sum(len(group['rules']) for group in manifest['spec']['groups'])} rules found" in printed


def scraped(manifest: Any) -> dict[str, Any]:  # noqa: ANN401  JSON can be anything
    """The scrape configuration that the operator makes of a manifest.

    Its own relabelings come first (`initRelabelings` and others in its pkg/prometheus/promcfg.go), and it names the job
    after the object. In place of the Services of a cluster there is one target, with the name of its Service as job.
    """
    kind, name, spec = manifest["kind"], manifest["metadata"]["name"], manifest["spec"]
    if kind == "ScrapeConfig":
        statics, relabelings = spec["staticConfigs"], []
    else:
        [endpoint] = spec["endpoints"]
        statics, relabelings = [{"targets": ["10.0.0.1:9"], "labels": {"job": "a-service"}}], endpoint["relabelings"]
    snake = [{re.sub("([A-Z])", r"_\1", key).lower(): value for key, value in one.items()} for one in relabelings]
    kept = {"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"}
    return {"job_name": f"{kind}/default/{name}", "static_configs": statics, "relabel_configs": [kept, *snake]}


@pytest.mark.parametrize("file", ["servicemonitor.yaml", "scrapeconfig.yaml"])
async def test_prometheus_gives_each_target_the_job_that_the_rules_select_by(file: str, bench: Bench) -> None:
    configs = [scraped(manifest) for manifest in manifests(file)]
    config = bench.folder / "prometheus.yaml"
    # Nothing is to be scraped: the targets are examples.
    config.write_text(json.dumps({"global": {"scrape_interval": "1d"}, "scrape_configs": configs}))
    address = f"{LOOPBACK}:{free_port()}"
    storage = f"--storage.tsdb.path={bench.folder / 'data'}"
    bench.start("prometheus", "prometheus", f"--config.file={config}", f"--web.listen-address={address}", storage)
    expected = sum(len(static["targets"]) for one in configs for static in one["static_configs"])

    async def all_targets() -> list[Any] | None:
        with contextlib.suppress(OSError):
            answer = await request(f"http://{address}/api/v1/targets")
            if answer.status == 200 and len(found := answer.json["data"]["activeTargets"]) == expected:
                return list(found)
        return None

    targets = await eventually_answered(all_targets, "a Prometheus that knows its targets")
    jobs = {target["labels"]["job"] for target in targets}
    assert jobs == {Settings().broker_job, Settings().worker_job, Settings().probe_job}
