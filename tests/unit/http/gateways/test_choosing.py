"""Which gateway is best: by hand-computed examples, by a property, and by how a thousand nodes spread."""

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.http.gateways.fleet import come_online, endpoint, gateways_of, send_node
from wgkex_ops.bus.messages import BrokerStatus, ConnectedPeers, WorkerData, WorkerStatus
from wgkex_ops.http.gateways.choice import choose
from wgkex_ops.http.gateways.registry import Gateways

D = "ffmuc_welt"
E = "ffmuc_muc_cty"


@pytest.mark.parametrize(
    ("weights", "peers", "winner"),
    [
        # total 60; a: 40 - 3/4 * 60 = -5; b: 20 - 1/4 * 60 = 5
        ({"a": 3, "b": 1}, {"a": 40, "b": 20}, "a"),
        # total 60; a: 50 - 45 = 5; b: 10 - 15 = -5
        ({"a": 3, "b": 1}, {"a": 50, "b": 10}, "b"),
        # total 4; a: 3 - 3 = 0; b: 1 - 1 = 0: a tie
        ({"a": 3, "b": 1}, {"a": 3, "b": 1}, "a"),
        ({"b": 1, "a": 3}, {"b": 1, "a": 3}, "a"),
        # Equal weights: the one with the fewest.
        ({"a": 84, "b": 84, "c": 84}, {"a": 12, "b": 11, "c": 13}, "b"),
        # Fractions are weights, too. Total 10; a: 4 - 5 = -1; b: 6 - 5 = 1
        ({"a": 0.5, "b": 0.5}, {"a": 4, "b": 6}, "a"),
        # The unlisted x weighs 1 over a sum of 4. Total 40; a: 30 - 40 = -10; x: 10 - 10 = 0
        ({"a": 4}, {"a": 30, "x": 10}, "a"),
        # Total 20; a: 19 - 20 = -1; x: 1 - 5 = -4
        ({"a": 4}, {"a": 19, "x": 1}, "x"),
        # No weights: the sum is 1, each worker's share is 1. Total 30; x: 10 - 30; y: 20 - 30
        ({}, {"x": 10, "y": 20}, "x"),
        # Nothing but zeros: the listed ones have no share, the unlisted one all. Total 12; a: 5; b: 6; x: 1 - 12
        ({"a": 0, "b": 0}, {"a": 5, "b": 6, "x": 1}, "x"),
        ({"a": 0, "b": 0}, {"a": 5, "b": 4}, "b"),
        # Weight 0: no new nodes, however few there are.
        ({"a": 0, "b": 1}, {"a": 0, "b": 10}, "b"),
        ({"a": 0, "b": 1}, {"a": 1, "b": 10}, "b"),
        # Without any peer all scores are 0.
        ({"b": 9, "a": 1}, {"b": 0, "a": 0}, "a"),
    ],
)
def test_smallest_difference_to_the_target_is_send_node(
    weights: Mapping[str, float], peers: Mapping[str, int], winner: str
) -> None:
    gateways = gateways_of(weights, peers)
    choice = choose(gateways, D)
    assert choice is not None
    assert (choice.worker, choice.endpoint) == (winner, endpoint(winner))


def test_peers_of_all_domains_count() -> None:
    gateways = gateways_of({"a": 1, "b": 1}, {"a": 3, "b": 5})
    come_online(gateways, {"a": 10, "b": 0}, E)
    # Total 18; a: 13 - 9 = 4; b: 5 - 9 = -4
    assert gateways.total == 18
    assert send_node(gateways) == "b"


def test_offline_workers_are_no_candidates_but_part_of_the_total() -> None:
    weights = {"a": 1, "b": 3, "c": 4}
    gateways = gateways_of(weights, {"a": 5, "b": 20, "c": 0})
    # Total 25; c: 0 - 12.5
    assert send_node(gateways) == "c"
    gateways = gateways_of(weights, {"a": 5, "b": 20, "c": 40})
    gateways.update(WorkerStatus("c", online=False), 1.0)
    # Total 65; a: 5 - 8.125 = -3.125; b: 20 - 24.375 = -4.375. Of a total of 25 it were a: 1.875 and b: 10.625.
    assert gateways.total == 65
    assert send_node(gateways) == "b"


def test_worker_that_does_not_know_its_peers_counts_0_and_is_no_candidate() -> None:
    gateways = gateways_of({"a": 1, "b": 1}, {"a": None, "b": 50})
    assert gateways.total == 50
    assert send_node(gateways) == "b"
    gateways.update(ConnectedPeers("b", D, None), 1.0)
    assert gateways.total == 0
    assert send_node(gateways) is None


@pytest.mark.parametrize(
    "missing", [WorkerStatus("a", online=True), WorkerData("a", D, endpoint("a")), ConnectedPeers("a", D, 0)]
)
def test_only_a_worker_that_has_published_everything_is_a_candidate(
    missing: WorkerStatus | WorkerData | ConnectedPeers,
) -> None:
    gateways = Gateways({}, [D, E])
    published = (WorkerStatus("a", online=True), WorkerData("a", D, endpoint("a")), ConnectedPeers("a", D, 0))
    for event in published:
        if event != missing:
            gateways.update(event, 0.0)
    assert send_node(gateways) is None
    gateways.update(missing, 0.0)
    assert send_node(gateways) == "a"
    # For that domain only.
    assert send_node(gateways, E) is None


def test_data_can_be_taken_back() -> None:
    gateways = gateways_of({}, {"a": 0})
    gateways.update(WorkerData("a", D, None), 1.0)
    assert send_node(gateways) is None
    gateways.update(WorkerData("a", D, endpoint("a")), 2.0)
    assert send_node(gateways) == "a"


def test_no_gateway_is_chosen_where_there_is_none() -> None:
    assert send_node(Gateways({"a": 1}, [D])) is None
    assert send_node(gateways_of({"a": 1}, {"a": 0}), "ffmuc_other") is None


def test_choosing_alone_counts_nothing() -> None:
    gateways = gateways_of({"a": 1, "b": 1}, {"a": 0, "b": 1})
    for _ in range(3):
        choice = choose(gateways, D)
        assert choice is not None
        assert choice.worker == "a"
    assert gateways.total == 1


def test_excluded_workers_are_passed_over_but_part_of_the_total() -> None:
    # Total 40; a: 10 - 3/4 * 40 = -20; b: 12 - 1/4 * 40 = 2; x: 18 - 1/4 * 40 = 8
    gateways = gateways_of({"a": 3, "b": 1}, {"a": 10, "b": 12, "x": 18})
    for excluded, winner in ((set(), "a"), ({"a"}, "b"), ({"a", "b", "nobody"}, "x"), ({"a", "b", "x"}, None)):
        choice = choose(gateways, D, excluded)
        assert (choice.worker if choice else None) == winner
    assert gateways.total == 40


_names = st.sampled_from("abcdef")


@given(
    weights=st.dictionaries(_names, st.integers(0, 10) | st.floats(0, 1000), max_size=6),
    peers=st.dictionaries(_names, st.none() | st.integers(0, 10_000), max_size=6),
    elsewhere=st.dictionaries(_names, st.none() | st.integers(0, 10_000), max_size=6),
    offline=st.sets(_names),
    without_data=st.sets(_names),
)
def test_chosen_one_is_a_candidate_and_none_has_a_smaller_score(
    weights: dict[str, float],
    peers: dict[str, int | None],
    elsewhere: dict[str, int | None],
    offline: set[str],
    without_data: set[str],
) -> None:
    assume(not weights or sum(weights.values()) == 0 or sum(weights.values()) > 1e-6)
    gateways = gateways_of(weights, peers)
    come_online(gateways, elsewhere, E)
    for worker in offline & (peers.keys() | elsewhere.keys()):
        gateways.update(WorkerStatus(worker, online=False), 1.0)
    for worker in without_data & peers.keys():
        gateways.update(WorkerData(worker, D, None), 1.0)

    # The contract's formula, written down a second time.
    count = {worker: (peers.get(worker) or 0) + (elsewhere.get(worker) or 0) for worker in "abcdef"}
    total = sum(count.values())
    sum_of_weights = sum(weights.values()) or 1
    scores = {worker: count[worker] - weights.get(worker, 1) / sum_of_weights * total for worker in "abcdef"}
    candidates = {
        worker
        for worker, known in peers.items()
        if known is not None and worker not in offline and worker not in without_data
        # Nobody new is sent to a gateway without a weight, unless none has any.
        if weights.get(worker, 1) or not any(weights.values())
    }

    winner = send_node(gateways)
    if not candidates:
        assert winner is None
    else:
        assert winner in candidates
        assert scores[winner] == pytest.approx(min(scores[worker] for worker in candidates))
        assert gateways.total == total + 1


@pytest.mark.parametrize("report_every", [1, 60, 1000], ids=lambda every: f"a report every {every} nodes")
@pytest.mark.parametrize("brokers", [1, 2], ids=("one broker", "two brokers"))
def test_thousand_nodes_spread_by_weight(report_every: int, brokers: int) -> None:
    weights = {"gw01": 10, "gw02": 20, "gw03": 30, "gw04": 40}
    fleets = [gateways_of(weights, dict.fromkeys(weights, 0)) for _ in range(brokers)]
    for gateways in fleets:
        for number in range(brokers):
            gateways.update(BrokerStatus(f"b{number}", online=True), 0.0)
    connected: Counter[str] = Counter()
    for number in range(1000):
        winner = send_node(fleets[number % brokers])
        assert winner is not None
        connected[winner] += 1
        if number % report_every == 0:
            for gateways in fleets:
                for worker in weights:
                    gateways.update(ConnectedPeers(worker, D, connected[worker]), 1.0)
    # Each broker may be one node off for each of its gateways.
    for worker, weight in weights.items():
        assert abs(connected[worker] - weight * 10) <= 2 * brokers
