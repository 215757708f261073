"""What the dashboards show of hours and days that went a certain way, with a real Prometheus and Grafana's windows."""

import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from alerts.recording import failures_rate, valid_rate
from tests.integration.history import History, Screen, constant
from tests.integration.servers import Bench

HOUR: Final = 3600
DAY: Final = 24 * HOUR
BROKER: Final = {"job": "wgkex-broker", "instance": "192.0.2.1:9690"}
GATEWAYS: Final = ("gw01", "gw02", "gw03")
OVERVIEW, WORKER, PEERS = "wgkex-overview", "wgkex-worker", "wgkex-peers"

Show = Callable[[History], Awaitable[Screen]]


@pytest.fixture
def history() -> History:
    return History(int(time.time()) // 60 * 60)


@pytest.fixture
def show(bench: Bench) -> Show:
    async def start(history: History) -> Screen:
        return Screen(await bench.prometheus({}, storage=history.store(bench.folder)), history.end)

    return start


def _budget(history: History, failed: float, *, span: int) -> None:
    """A broker that failed this share of its keys while there was data."""
    for name, rate in ((failures_rate("30d"), failed), (valid_rate("30d"), 1.0)):
        history.add(name, BROKER, constant(rate), span=span, step=60 if span == HOUR else 300)


async def test_a_bad_hour_does_not_use_up_the_budget_of_a_month(history: History, show: Show) -> None:
    _budget(history, 0.056, span=HOUR)
    screen = await show(history)

    # In an hour, 56 times what is allowed in an hour: of the 720 hours, 56 are used up.
    (left,) = (await screen.numbers(OVERVIEW, "Error budget left")).values()
    assert left == pytest.approx(1 - 56 / 720, abs=0.02)


@pytest.mark.parametrize(("failed", "expected"), [(0.0, 1.0), (0.0005, 0.5), (0.002, 0.0)])
async def test_the_budget_of_a_whole_month_is_what_the_failures_leave(
    history: History, show: Show, failed: float, expected: float
) -> None:
    _budget(history, failed, span=30 * DAY)
    screen = await show(history)

    (left,) = (await screen.numbers(OVERVIEW, "Error budget left")).values()
    assert left == pytest.approx(expected, abs=0.01)


async def test_a_graph_of_the_ten_busiest_has_ten_lines(history: History, show: Show) -> None:
    for number in range(40):
        key = {"job": "wgkex-worker", "instance": "gw01:9691", "interface": "wg-welt", "public_key": f"key {number}"}
        history.add("wireguard_peer_info", {**key, "name": f"node {number}"}, constant(1), span=HOUR)
        history.add(
            "wireguard_peer_last_handshake_timestamp_seconds",
            key,
            _handshake(history.end, number),
            span=HOUR,
        )
        for direction in ("receive", "transmit"):
            history.add(f"wireguard_peer_{direction}_bytes_total", key, _traffic(number), span=HOUR)
    screen = await show(history)

    for title in ("From peers, the ten busiest", "To peers, the ten busiest", "Oldest handshakes, ten peers"):
        drawn = await screen.lines(PEERS, title)
        assert len(drawn) == 10, title
        # Not only where they lead.
        assert min(drawn.values()) > 50, title


def _handshake(end: int, number: int) -> Callable[[int], float]:
    """Each peer is silent for some time, one after the other."""
    return lambda left: end - left - (left + 90 * number) % HOUR


def _traffic(number: int) -> Callable[[int], float]:
    """Each peer is busy for some minutes, one after the other."""
    return lambda left: round(1e6 * (1 + math.tanh((90 * number - left) / 300)) + number)
