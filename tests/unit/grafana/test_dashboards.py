"""The dashboards: complete, consistent, and about metrics that exist."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

import promql_parser as promql
import pytest

from alerts.recording import failures_rate, valid_rate
from alerts.settings import SLO_WINDOWS
from grafana import colours
from grafana.catalogue import DIRECTORY, dashboards, text
from grafana.queries import series
from tests.dashboards import (
    FILES,
    WITHOUT_QUERY,
    Json,
    expand,
    load,
    made_labels,
    nodes,
    panels,
    parse,
    selectors,
    targets,
)
from tests.helpers import ROOT

UIDS: Final = ("wgkex-overview", "wgkex-broker", "wgkex-worker", "wgkex-runtime", "wgkex-peers")

# Prometheus puts these on every series of ours.
TARGET_LABELS: Final = {"job", "instance"}
FOREIGN: Final = {
    "up": set(),
    "process_cpu_seconds_total": set(),
    "process_max_fds": set(),
    "process_open_fds": set(),
    "process_resident_memory_bytes": set(),
    "process_start_time_seconds": set(),
    "process_virtual_memory_bytes": set(),
    "python_gc_collections_total": {"generation"},
    "python_gc_objects_collected_total": {"generation"},
    "python_gc_objects_uncollectable_total": {"generation"},
}
SUFFIXES: Final = {"histogram": ("_bucket", "_count", "_sum"), "gaugehistogram": ("_bucket", "_gcount", "_gsum")}


def _documented() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of every metric of the reference."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def _series() -> dict[str, set[str]]:
    """Labels of every series that a dashboard may ask for, by name."""
    known: dict[str, set[str]] = {name: set(labels) for name, labels in FOREIGN.items()}
    for name, (kind, labels) in _documented().items():
        for suffix in SUFFIXES.get(kind, ("",)):
            known[name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    for window in SLO_WINDOWS:
        known[failures_rate(window)] = known[valid_rate(window)] = set()
    return known


def _asked(file: Path) -> list[tuple[Json, Json, promql.VectorSelector]]:
    return [
        (panel, target, selector)
        for panel, target in targets(load(file.stem))
        for selector in selectors(parse(target["expr"]))
    ]


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_the_committed_files_are_what_the_generator_makes() -> None:
    made = {name: text(each) for name, each in dashboards().items()}

    assert {path.name: path.read_text() for path in DIRECTORY.iterdir()} == made


def test_making_them_twice_gives_the_same() -> None:
    first, second = ({name: text(each) for name, each in dashboards().items()} for _ in range(2))

    assert first == second


def test_their_addresses_stay() -> None:
    found = {load(path.stem)["uid"] for path in FILES}

    assert found == set(UIDS) == {path.stem for path in FILES}


def test_they_are_classic_dashboards_in_utc_linked_to_each_other(file: Path) -> None:
    found = load(file.stem)

    assert found["schemaVersion"] == 39
    assert found["timezone"] == "utc"
    assert found["tags"] == ["wgkex"]
    assert found["title"].startswith("WGKex / ")
    assert found["refresh"] == "30s"
    assert "__inputs" not in found
    assert "id" not in found
    link = found["links"][0]
    assert (link["type"], link["tags"], link["keepTime"], link["includeVars"]) == ("dashboards", ["wgkex"], True, True)


def test_firing_alerts_are_drawn_into_every_graph(file: Path) -> None:
    (annotation,) = load(file.stem)["annotations"]["list"]

    assert annotation["enable"]
    assert annotation["titleFormat"] == "{{alertname}}"
    (selector,) = selectors(parse(annotation["expr"]))
    assert selector.name == "ALERTS"
    matchers = {(matcher.name, str(matcher.value)) for matcher in selector.matchers.matchers}
    assert {("service", "wgkex"), ("alertstate", "firing")} <= matchers
    # An alert about the whole service has no instance.
    assert not TARGET_LABELS & {name for name, _ in matchers}


def test_no_data_source_is_named(file: Path) -> None:
    uids = re.findall(r'"uid": "([^"]*)"', (DIRECTORY / file.name).read_text())

    assert set(uids) == {"${datasource}", file.stem}


def test_legends_have_names_and_no_scrape_addresses(file: Path) -> None:
    for panel, target in targets(load(file.stem)):
        assert "{{instance}}" not in target["legendFormat"], panel["title"]


def test_no_colour_depends_on_a_hash_of_the_name(file: Path) -> None:
    graphs = [panel for panel in panels(load(file.stem)) if panel["type"] == "timeseries"]

    # Of ten domains' names, Grafana's hash gives the same colour to two pairs.
    assert graphs
    assert {panel["fieldConfig"]["defaults"]["color"]["mode"] for panel in graphs} == {"palette-classic"}


def test_nothing_is_chosen_anew_at_each_point_of_a_graph(file: Path) -> None:
    for panel, target in targets(load(file.stem)):
        for node, _ in nodes(parse(target["expr"])):
            if isinstance(node, promql.AggregateExpr) and str(node.op) in {"topk", "bottomk"} and target["range"]:
                # What ranks the series is taken at the end of the time shown, whatever the point.
                assert "@ end()" in str(node.expr), panel["title"]


def test_queries_of_a_panel_have_names_of_their_own(file: Path) -> None:
    for panel in panels(load(file.stem)):
        names = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(names)) == len(names)
        assert all(names)


def test_only_the_list_of_alerts_asks_nothing(file: Path) -> None:
    found = [panel["type"] for panel in panels(load(file.stem)) if not panel.get("targets")]

    assert set(found) <= set(WITHOUT_QUERY)


def test_descriptions_say_more_than_the_title(file: Path) -> None:
    for panel in panels(load(file.stem)):
        assert len(panel["description"]) > 80, panel["title"]
        assert panel["description"].endswith("."), panel["title"]


def test_sections_of_the_runbook_that_are_named_exist(file: Path) -> None:
    headings = set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE))

    assert set(re.findall(r"\bWgkex\w+", (DIRECTORY / file.name).read_text())) <= headings


def test_every_metric_and_every_matched_label_exists(file: Path) -> None:
    known = _series()
    for panel, _, selector in _asked(file):
        assert selector.name in known, panel["title"]
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= known[selector.name] | TARGET_LABELS, panel["title"]


def test_every_label_that_is_grouped_by_or_shown_exists(file: Path) -> None:
    known = _series()
    for panel, target in targets(load(file.stem)):
        tree = parse(target["expr"])
        there = TARGET_LABELS.union(made_labels(tree), *(known[str(selector.name)] for selector in selectors(tree)))
        used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        for node, _ in nodes(tree):
            if isinstance(node, promql.AggregateExpr) and node.modifier:
                used |= set(node.modifier.labels)
            if isinstance(node, promql.BinaryExpr) and node.modifier and node.modifier.matching:
                used |= {*node.modifier.matching.labels, *(node.modifier.group_labels or [])}
        assert used <= there, panel["title"]


def test_every_metric_is_drawn() -> None:
    drawn = {str(selector.name) for path in FILES for _, _, selector in _asked(path)}
    known = {name: SUFFIXES.get(kind, ("",)) for name, (kind, _) in _documented().items()}

    missing = {name for name, suffixes in known.items() if not drawn & {name + suffix for suffix in suffixes}}
    assert missing == set()


def test_gauge_histograms_are_not_taken_for_counters(file: Path) -> None:
    gauges = tuple(f"{name}_bucket" for name, (kind, _) in _documented().items() if kind == "gaugehistogram")
    counters = tuple(f"{name}_bucket" for name, (kind, _) in _documented().items() if kind == "histogram")
    assert gauges
    for panel, target in targets(load(file.stem)):
        for node, above in nodes(parse(target["expr"])):
            if isinstance(node, promql.VectorSelector):
                ranged = bool(above) and isinstance(above[-1], promql.MatrixSelector)
                assert node.name not in gauges or not ranged, panel["title"]
                assert node.name not in counters or ranged, panel["title"]


def test_heatmaps_ask_for_buckets(file: Path) -> None:
    for panel, target in targets(load(file.stem)):
        assert (panel["type"] == "heatmap") == (target["format"] == "heatmap"), panel["title"]
        if panel["type"] == "heatmap":
            assert target["expr"].startswith("sum by (le) ("), panel["title"]
            assert panel["options"]["yAxis"]["unit"] == panel["fieldConfig"]["defaults"]["unit"]


def test_exemplars_are_shown_wherever_there_are_any() -> None:
    latencies = {
        "wgkex_broker_key_publish_duration_seconds_bucket",
        "wgkex_broker_key_install_duration_seconds_bucket",
        "wgkex_worker_key_propagation_seconds_bucket",
    }
    asked = [
        (str(selector.name), target["exemplar"])
        for path in FILES
        for panel, target, selector in _asked(path)
        # A table shows none.
        if panel["type"] != "table"
    ]

    assert latencies <= {name for name, _ in asked}
    assert all(exemplar == (name in latencies) for name, exemplar in asked)


def test_reports_of_several_brokers_are_not_added_up(file: Path) -> None:
    reported = ("wgkex_broker_worker_online", "wgkex_broker_worker_peers", "wgkex_broker_worker_target_peers")
    for panel, target in targets(load(file.stem)):
        for node, above in nodes(parse(target["expr"])):
            if isinstance(node, promql.VectorSelector) and node.name in reported:
                around = [each for each in above if isinstance(each, promql.AggregateExpr)]
                assert str(around[-1].op) in {"max", "avg"}, panel["title"]
                assert around[-1].modifier is not None
                assert "worker" in around[-1].modifier.labels, panel["title"]


def _fixed_colours(panel: Json) -> dict[str, str]:
    return {
        override["matcher"]["options"]: each["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "color"
    }


def test_a_name_has_the_same_colour_everywhere() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        for panel in panels(load(path.stem)):
            for name, colour in _fixed_colours(panel).items():
                found[name].add(colour)

    assert {name for name, several in found.items() if len(several) > 1} == set()
    assert set(colours.PEER_STATES) <= set(found)


def test_states_are_never_without_their_colour(file: Path) -> None:
    meanings = {**colours.PEER_STATES, **colours.OUTCOMES, **colours.QUANTILES}
    for panel in panels(load(file.stem)):
        if panel["type"] == "timeseries":
            names = {target["legendFormat"] for target in panel["targets"]} & set(meanings)
            given = _fixed_colours(panel)
            assert {name: given.get(name) for name in names} == {name: meanings[name] for name in names}, panel["title"]


def test_thresholds_are_good_warning_critical_or_neutral(file: Path) -> None:
    meant = {colours.GOOD, colours.WARNING, colours.CRITICAL, colours.NEUTRAL}
    steps = re.findall(r'"color": "([^"]+)",\s+"value": ', (DIRECTORY / file.name).read_text())

    assert steps
    assert set(steps) <= meant


def test_what_is_drawn_together_has_different_colours(file: Path) -> None:
    for panel in panels(load(file.stem)):
        given = _fixed_colours(panel)
        assert len(set(given.values())) == len(given), panel["title"]


def test_numbers_and_tables_show_now_and_graphs_the_past(file: Path) -> None:
    for panel, target in targets(load(file.stem)):
        now = panel["type"] in {"stat", "table"}
        assert (target["instant"], target["range"]) == (now, not now), panel["title"]


def test_variables_are_put_in() -> None:
    values = {"job": ".+", "instance": "a|b", "__rate_interval": "1m"}

    assert expand(f"rate({series('x_total')}[$__rate_interval])", values) == (
        'rate(x_total{job=~".+", instance=~"a|b"}[1m])'
    )
    assert expand('label_replace(x, "a", "${job}", "b", "$1")', values) == 'label_replace(x, "a", ".+", "b", "$1")'
    with pytest.raises(KeyError):
        expand("$unknown", values)
