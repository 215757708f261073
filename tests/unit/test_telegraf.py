"""The example for Telegraf. Telegraf is no Debian package: its documentation says what it takes."""

import tomllib
from typing import Final

from alerts.jobs import jobs
from alerts.settings import Settings
from tests.helpers import ROOT

INPUTS: Final = tomllib.loads((ROOT / "deploy" / "telegraf" / "wgkex.conf").read_text())["inputs"]["prometheus"]


def test_it_reads_the_metrics_of_each_program_where_they_are_by_default() -> None:
    expected = [(f"http://{job.listen}/metrics", job.name) for job in jobs(Settings())]

    assert [(*one["urls"], one["tags"]["job"]) for one in INPUTS] == expected


def test_it_has_only_settings_that_every_version_documents() -> None:
    # plugins/inputs/prometheus/README.md; `tags` is one of those that all inputs have.
    assert {name for one in INPUTS for name in one} == {"urls", "metric_version", "tags"}
    assert {one["metric_version"] for one in INPUTS} == {2}
