"""Durations of the rules, and the settings that change them."""

import re
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from alerts.rules import document
from alerts.settings import Settings, duration_text, milliseconds
from tests.alerts import DURATION
from tests.helpers import WELT
from wgkex_ops.metrics.broker import ReceiptMetrics


def _texts(value: Any, path: str = "") -> list[tuple[str, str]]:  # noqa: ANN401  YAML can be anything
    """All that is written somewhere in a document, each with its place."""
    if isinstance(value, str):
        return [(path, value)]
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return [text for key, part in parts for text in _texts(part, f"{path}/{key}")]


@pytest.mark.parametrize("pace", [1 / 60, 0.5, 2, 1 / 3600])
def test_another_pace_changes_only_durations(pace: float) -> None:
    nominal = _texts(yaml.safe_load(document(Settings())))
    paced = _texts(yaml.safe_load(document(Settings(pace=pace, shortest_window="1ms"))))

    changed = 0
    for (path, before), (same_path, after) in zip(nominal, paced, strict=True):
        assert path == same_path
        assert DURATION.sub("…", before) == DURATION.sub("…", after)
        # These identify the rule.
        if path.endswith("_window") or "valid keys of the last " in before:
            assert before == after
            continue
        for old, new in zip(DURATION.findall(before), DURATION.findall(after), strict=True):
            assert milliseconds(new) == round(milliseconds(old) * pace)
            changed += 1
    assert changed > 100


def test_no_window_is_shorter_than_the_shortest_one() -> None:
    settings = Settings(pace=1 / 600, shortest_window="5s")
    paced = document(settings)

    windows = re.findall(r"\[(\w+)(?::(\w+))?\]", paced)
    lengths = [milliseconds(part) for window in windows for part in window if part]
    assert min(lengths) == 5_000
    # 15m are 1.5 s then. What is no window follows the pace.
    assert "for: 1500ms" in paced


@pytest.mark.parametrize("text", ["0s", "1ms", "90s", "5m", "1500ms", "36h", "3d", "30d"])
def test_a_duration_survives_the_round_trip(text: str) -> None:
    assert duration_text(milliseconds(text)) == text


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "1h30m", "1.5h", "5 m"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        milliseconds(text)


def test_what_nodes_wait_is_a_bucket_of_the_histogram() -> None:
    registry = CollectorRegistry()
    ReceiptMetrics(registry, ["gw01"], [WELT.name])

    (buckets,) = (metric for metric in registry.collect() if metric.name == "wgkex_broker_key_install_duration_seconds")
    bounds = {sample.labels["le"] for sample in buckets.samples if sample.name.endswith("_bucket")}
    # As the rule names it.
    assert str(float(Settings().slow_seconds)) in bounds


@pytest.mark.parametrize(
    ("cluster", "by", "on", "on_nothing"),
    [("", "by (job, worker)", "on (job)", "on ()"), ("site", "by (site, job, worker)", "on (site, job)", "on (site)")],
)
def test_a_label_of_the_site_joins_everything(cluster: str, by: str, on: str, on_nothing: str) -> None:
    settings = Settings(cluster=cluster)

    assert settings.by("job", "worker") == by
    assert settings.on("job") == on
    assert settings.on() == on_nothing
