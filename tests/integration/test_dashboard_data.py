"""What the dashboards show of hours and days that went a certain way, with a real Prometheus and Grafana's windows."""

import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from alerts.recording import failures_rate, valid_rate
from tests.integration.history import History, Screen, constant, growing, names
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


def _ended(rate: float, ended: int) -> Callable[[int], float]:
    """A counter that gained so much per second, until so many seconds before the end."""
    return lambda left: round(rate * (HOUR - max(left, ended)))


def _keys(history: History, unconfirmed: tuple[str, ...], *, for_the_last: int) -> None:
    """A key every 10 s; some gateways confirm none of the last ones, which is known two minutes later."""
    for gateway in GATEWAYS:
        labels = {**BROKER, "worker": gateway}
        lost = growing(0.1, for_the_last - 120) if gateway in unconfirmed else constant(0)
        ended = for_the_last if gateway in unconfirmed else 0
        history.add("wgkex_broker_keys_unconfirmed_total", labels, lost, span=HOUR)
        history.add("wgkex_broker_key_install_failures_total", labels, constant(0), span=HOUR)
        history.add(
            "wgkex_broker_key_install_duration_seconds_count",
            labels,
            _ended(0.1, ended),
            span=HOUR,
        )
    everywhere = set(unconfirmed) == set(GATEWAYS)
    nowhere = growing(0.1, for_the_last - 120) if everywhere else constant(0)
    history.add("wgkex_broker_keys_confirmed_nowhere_total", {**BROKER, "domain": "welt"}, nowhere, span=HOUR)


async def test_the_overview_is_green_while_all_keys_are_confirmed(history: History, show: Show) -> None:
    _keys(history, (), for_the_last=0)
    screen = await show(history)

    assert set((await screen.colours(OVERVIEW, "Keys without confirmation")).values()) == {"green"}
    assert await screen.colours(OVERVIEW, "Confirmed by no gateway") == {"keys": "green"}


async def test_a_gateway_that_confirms_nothing_turns_the_overview_red_with_its_name(
    history: History, show: Show
) -> None:
    _keys(history, ("gw02",), for_the_last=10 * 60)
    screen = await show(history)

    assert await screen.colours(OVERVIEW, "Keys without confirmation") == {"in all": "red", "gw02": "red"}
    assert await screen.colours(OVERVIEW, "Confirmed by no gateway") == {"keys": "green"}


async def test_an_outage_behind_a_success_turns_the_overview_red_within_five_minutes(
    history: History, show: Show
) -> None:
    _keys(history, GATEWAYS, for_the_last=5 * 60)
    screen = await show(history)

    assert (await screen.colours(OVERVIEW, "Keys without confirmation"))["in all"] == "red"
    assert await screen.colours(OVERVIEW, "Confirmed by no gateway") == {"keys": "red"}


async def test_nodes_that_ask_and_do_not_connect_turn_the_overview_red(history: History, show: Show) -> None:
    history.add("wgkex_broker_key_first_requests_total", {**BROKER, "domain": "welt"}, growing(0.1, HOUR), span=HOUR)
    worker = {"job": "wgkex-worker", "instance": "192.0.2.2:9691", "domain": "welt"}
    history.add("wgkex_worker_peer_sessions_started_total", worker, _ended(0.1, 18 * 60), span=HOUR)
    screen = await show(history)

    assert await screen.colours(OVERVIEW, "Sessions per new node") == {"sessions": "red"}


async def test_a_gateway_that_nodes_come_back_from_is_named(history: History, show: Show) -> None:
    for gateway, returned in (("gw01", 0.001), ("gw02", 0.08), ("gw03", 0)):
        labels = {**BROKER, "worker": gateway}
        history.add("wgkex_broker_worker_assigned_nodes_total", labels, growing(0.1, HOUR), span=HOUR)
        history.add("wgkex_broker_keys_returned_total", labels, growing(returned, HOUR), span=HOUR)
    screen = await show(history)

    assert await screen.colours(OVERVIEW, "Nodes that come back") == {"in all": "orange", "gw02": "red"}


async def test_a_canary_that_fails_is_red_and_none_is_no_error(history: History, show: Show) -> None:
    canary = {"job": "wgkex-probe", "instance": "198.51.100.1:9692"}
    history.add("wgkex_probe_success", {**canary, "domain": "welt"}, constant(1), span=HOUR)
    # The last one was half an hour ago.
    history.add("wgkex_probe_success", {**canary, "domain": "city"}, lambda left: float(left > 1800), span=HOUR)
    screen = await show(history)

    assert await screen.numbers(OVERVIEW, "Canary") == {"working": 1, "failing": 1}


async def test_graphs_have_the_names_of_gateways_and_addresses_only_where_there_is_no_name(
    history: History, show: Show
) -> None:
    for number, gateway in enumerate(("gw01", "gw02", None)):
        worker = {"job": "wgkex-worker", "instance": f"192.0.2.{number}:9691"}
        build = {"component": "worker", "version": "1", "revision": "a", "python_version": "3.11"}
        history.add("wgkex_build_info", {**worker, **build}, constant(1), span=HOUR)
        history.add("wgkex_worker_queue_length", worker, constant(number), span=HOUR)
        if gateway:
            history.add("wgkex_worker_info", {**worker, "worker": gateway}, constant(1), span=HOUR)
    screen = await show(history)

    assert set(await screen.lines(WORKER, "Queue by gateway")) == {"gw01", "gw02", "192.0.2.2:9691"}


async def test_the_row_of_a_gateway_has_what_its_link_needs(history: History, show: Show) -> None:
    worker = {"job": "wgkex-worker", "instance": "192.0.2.7:9691"}
    history.add("wgkex_worker_info", {**worker, "worker": "gw01"}, constant(1), span=HOUR)
    history.add("wgkex_broker_worker_online", {**BROKER, "worker": "gw01"}, constant(1), span=HOUR)
    history.add("wgkex_broker_worker_confirming", {**BROKER, "worker": "gw01"}, constant(0), span=HOUR)
    screen = await show(history)

    rows = await screen.rows(OVERVIEW, "Gateways")
    assert names(rows, "worker") == {"gw01"}
    assert (names(rows, "job"), names(rows, "instance")) == ({worker["job"]}, {worker["instance"]})
