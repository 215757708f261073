"""What a process shows of itself."""

import time

import pytest
from prometheus_client import CollectorRegistry

from wgkex_ops.metrics.build import ProcessMetrics


@pytest.mark.parametrize("component", ["broker", "worker"])
def test_a_process_shows_its_name(component: str) -> None:
    registry = CollectorRegistry()
    ProcessMetrics(registry, component, "gw01.in.ffmuc.net")
    assert registry.get_sample_value(f"wgkex_{component}_info", {component: "gw01.in.ffmuc.net"}) == 1


def test_a_process_shows_the_time_at_which_a_scrape_began() -> None:
    registry = CollectorRegistry()
    metrics = ProcessMetrics(registry, "broker", "broker01")
    before = time.time()
    metrics.refresh()
    shown = registry.get_sample_value("wgkex_time_seconds")
    assert shown is not None
    assert before <= shown <= time.time()
    # It stands still until the next scrape.
    assert registry.get_sample_value("wgkex_time_seconds") == shown
