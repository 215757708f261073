"""What becomes of a round: metrics, a line in the log, and what the page shows."""

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from tests.helpers import samples
from wgkex_ops.metrics.probe import ProbeMetrics
from wgkex_ops.model.rounds import PHASES, Round
from wgkex_ops.probe.recorder import FORGET_AFTER, GATEWAYS_LIMIT, Recorder

NAMES = ("a", "b")


class Lab:
    """A recorder, its metrics, and its clock."""

    def __init__(self, fixed_gateway: str = "") -> None:
        self.now = 0.0
        self.registry = CollectorRegistry()
        self.recorder = Recorder(ProbeMetrics(self.registry, NAMES), NAMES, fixed_gateway, lambda: self.now)

    def record(self, gateway: str = "gw01", *durations: float, domain: str = "a", at: float = 1000.0) -> Round:
        """Record a round that has completed as many phases as there are durations."""
        completed = dict(zip(PHASES, durations, strict=False))
        failure = "" if len(durations) == len(PHASES) else "it broke"
        done = Round(domain, at, gateway, completed, failure)
        self.recorder.record(done)
        return done

    def samples(self, name: str) -> dict[str, float]:
        """By the labels."""
        found = samples(self.registry, f"wgkex_probe_{name}")
        return {series.partition("{")[2].removesuffix("}"): value for series, value in found.items()}


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_every_series_that_is_known_in_advance_starts_at_0(lab: Lab) -> None:
    assert lab.samples("success") == {'domain="a"': 0, 'domain="b"': 0}
    assert lab.samples("rounds_total") == {'domain="a"': 0, 'domain="b"': 0}
    assert lab.samples("failures_total") == {
        f'domain="{name}",phase="{phase}"': 0 for name in NAMES for phase in PHASES
    }
    assert lab.samples("duration_seconds") == lab.samples("last_success_timestamp_seconds") == {}
    assert Lab("gw07").samples("last_success_timestamp_seconds") == {
        'domain="a",gateway="gw07"': 0,
        'domain="b",gateway="gw07"': 0,
    }


def test_a_success_and_a_failure_show_in_every_metric(lab: Lab) -> None:
    lab.record("gw01", 0.1, 0.2, 0.3)
    assert lab.samples("success")['domain="a"'] == 1
    assert lab.samples("duration_seconds") == {
        'domain="a",phase="post"': 0.1,
        'domain="a",phase="handshake"': 0.2,
        'domain="a",phase="vxlan"': 0.3,
    }
    assert lab.samples("last_success_timestamp_seconds") == {'domain="a",gateway="gw01"': 1000}

    lab.record("gw02", 0.4, at=2000)
    assert lab.samples("success") == {'domain="a"': 0, 'domain="b"': 0}
    # The phases that were not completed are gone, so that nobody takes old times for new ones.
    assert lab.samples("duration_seconds") == {'domain="a",phase="post"': 0.4}
    assert lab.samples("last_success_timestamp_seconds") == {
        'domain="a",gateway="gw01"': 1000,
        'domain="a",gateway="gw02"': 0,
    }
    assert lab.samples("rounds_total") == {'domain="a"': 2, 'domain="b"': 0}
    failures = {series: value for series, value in lab.samples("failures_total").items() if value}
    assert failures == {'domain="a",phase="handshake"': 1}


def test_a_round_that_reached_no_gateway_has_no_series_of_one(lab: Lab) -> None:
    lab.record("")
    assert lab.samples("last_success_timestamp_seconds") == lab.samples("duration_seconds") == {}
    assert lab.samples("failures_total")['domain="a",phase="post"'] == 1


def test_each_round_is_a_line_in_the_log(lab: Lab) -> None:
    with capture_logs() as lines:
        lab.record("gw01", 0.1, 0.25, 0.3333333)
        lab.record("gw02", 0.5, 1)
    assert lines == [
        {
            "event": "probe_succeeded",
            "log_level": "info",
            "domain": "a",
            "gateway": "gw01",
            "post_seconds": 0.1,
            "handshake_seconds": 0.25,
            "vxlan_seconds": 0.333,
        },
        {
            "event": "probe_failed",
            "log_level": "warning",
            "domain": "a",
            "gateway": "gw02",
            "phase": "vxlan",
            "detail": "it broke",
            "post_seconds": 0.5,
            "handshake_seconds": 1,
        },
    ]


def test_the_last_round_of_each_domain_is_kept(lab: Lab) -> None:
    lab.record("gw01")
    last = lab.record("gw01", 1, 2, 3)
    other = lab.record("gw01", domain="b")
    assert lab.recorder.last == {"a": last, "b": other}


def test_a_gateway_that_is_not_named_any_more_loses_its_series(lab: Lab) -> None:
    lab.record("old", 1, 1, 1)
    lab.record("old", 1, 1, 1, domain="b")
    lab.now += FORGET_AFTER
    lab.record("new", 1, 1, 1)
    assert set(lab.samples("last_success_timestamp_seconds")) == {
        'domain="a",gateway="old"',
        'domain="a",gateway="new"',
        'domain="b",gateway="old"',
    }
    lab.now += 1
    lab.record("new", 1, 1, 1)
    # Another domain has rounds of its own.
    assert set(lab.samples("last_success_timestamp_seconds")) == {
        'domain="a",gateway="new"',
        'domain="b",gateway="old"',
    }


def test_a_broker_that_names_ever_more_gateways_makes_a_bounded_number_of_series(lab: Lab) -> None:
    for number in range(GATEWAYS_LIMIT + 100):
        lab.record(f"gw{number}", 1, 1, 1, at=number)
    found = lab.samples("last_success_timestamp_seconds")
    assert len(found) == GATEWAYS_LIMIT + 1
    assert found['domain="a",gateway="unknown"'] == GATEWAYS_LIMIT + 99
    assert found['domain="a",gateway="gw0"'] == 0
    # Those that are known stay apart, and room comes back.
    lab.record("gw5", 1, 1, 1, at=5000)
    assert lab.samples("last_success_timestamp_seconds")['domain="a",gateway="gw5"'] == 5000
    lab.now += FORGET_AFTER + 1
    lab.record("other", 1, 1, 1)
    assert set(lab.samples("last_success_timestamp_seconds")) == {'domain="a",gateway="other"'}
