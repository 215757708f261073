"""Who is chosen: by hand-computed examples, by a property, and by how a thousand nodes spread."""

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.helpers import KEY
from wgkex_ops.bus.messages import BrokerStatus, ConnectedPeers, Endpoint, WorkerData, WorkerStatus
from wgkex_ops.http.gateways.registry import BROKERS_LIMIT, UNLISTED_LIMIT, Gateways, UnknownOriginError

D = "ffmuc_welt"
E = "ffmuc_muc_cty"


def endpoint(worker: str) -> Endpoint:
    return Endpoint(f"{worker}.example.net", 40011, KEY, "fe80::1")


def come_online(gateways: Gateways, peers: Mapping[str, int | None], domain: str = D, now: float = 0.0) -> None:
    """Let workers tell everything that makes them candidates."""
    for worker, count in peers.items():
        gateways.update(WorkerData(worker, domain, endpoint(worker)), now)
        gateways.update(ConnectedPeers(worker, domain, count), now)
        gateways.update(WorkerStatus(worker, online=True), now)


def fleet(weights: Mapping[str, float], peers: Mapping[str, int | None]) -> Gateways:
    gateways = Gateways(weights, [D, E])
    come_online(gateways, peers)
    return gateways


def chosen(gateways: Gateways, domain: str = D) -> str | None:
    """Send a node to the best gateway."""
    choice = gateways.choose(domain)
    if choice is None:
        return None
    gateways.assign(choice.worker, domain)
    return choice.worker


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
        # Weight 0 is the last resort, not an exclusion. Total 10; a: 0 - 0 = 0; b: 10 - 10 = 0: a tie
        ({"a": 0, "b": 1}, {"a": 0, "b": 10}, "a"),
        ({"a": 0, "b": 1}, {"a": 1, "b": 10}, "b"),
        # Without any peer all scores are 0.
        ({"b": 9, "a": 1}, {"b": 0, "a": 0}, "a"),
    ],
)
def test_smallest_difference_to_the_target_is_chosen(
    weights: Mapping[str, float], peers: Mapping[str, int], winner: str
) -> None:
    gateways = fleet(weights, peers)
    choice = gateways.choose(D)
    assert choice is not None
    assert (choice.worker, choice.endpoint) == (winner, endpoint(winner))


def test_listed_worker_without_a_configured_weight_weighs_1() -> None:
    # The configuration makes 1 of `weight: null`; here it is a number like any other.
    assert Gateways({"a": 1, "b": 3}, [D]).share("a") == 0.25
    assert Gateways({"b": 4}, [D]).share("a") == 0.25
    assert Gateways({}, [D]).share("a") == 1.0


def test_peers_of_all_domains_count() -> None:
    gateways = fleet({"a": 1, "b": 1}, {"a": 3, "b": 5})
    come_online(gateways, {"a": 10, "b": 0}, E)
    # Total 18; a: 13 - 9 = 4; b: 5 - 9 = -4
    assert gateways.total == 18
    assert chosen(gateways) == "b"


def test_offline_workers_are_no_candidates_but_part_of_the_total() -> None:
    weights = {"a": 1, "b": 3, "c": 4}
    gateways = fleet(weights, {"a": 5, "b": 20, "c": 0})
    # Total 25; c: 0 - 12.5
    assert chosen(gateways) == "c"
    gateways = fleet(weights, {"a": 5, "b": 20, "c": 40})
    gateways.update(WorkerStatus("c", online=False), 1.0)
    # Total 65; a: 5 - 8.125 = -3.125; b: 20 - 24.375 = -4.375. Of a total of 25 it were a: 1.875 and b: 10.625.
    assert gateways.total == 65
    assert chosen(gateways) == "b"


def test_worker_that_does_not_know_its_peers_counts_0_and_is_no_candidate() -> None:
    gateways = fleet({"a": 1, "b": 1}, {"a": None, "b": 50})
    assert gateways.total == 50
    assert chosen(gateways) == "b"
    gateways.update(ConnectedPeers("b", D, None), 1.0)
    assert gateways.total == 0
    assert chosen(gateways) is None


@pytest.mark.parametrize(
    "missing", [WorkerStatus("a", online=True), WorkerData("a", D, endpoint("a")), ConnectedPeers("a", D, 0)]
)
def test_only_who_has_told_everything_is_a_candidate(
    missing: WorkerStatus | WorkerData | ConnectedPeers,
) -> None:
    gateways = Gateways({}, [D, E])
    told = (WorkerStatus("a", online=True), WorkerData("a", D, endpoint("a")), ConnectedPeers("a", D, 0))
    for event in told:
        if event != missing:
            gateways.update(event, 0.0)
    assert chosen(gateways) is None
    gateways.update(missing, 0.0)
    assert chosen(gateways) == "a"
    # For that domain only.
    assert chosen(gateways, E) is None


def test_data_can_be_taken_back() -> None:
    gateways = fleet({}, {"a": 0})
    gateways.update(WorkerData("a", D, None), 1.0)
    assert chosen(gateways) is None
    gateways.update(WorkerData("a", D, endpoint("a")), 2.0)
    assert chosen(gateways) == "a"


def test_nobody_is_chosen_where_nobody_is() -> None:
    assert chosen(Gateways({"a": 1}, [D])) is None
    assert chosen(fleet({"a": 1}, {"a": 0}), "ffmuc_other") is None


def test_assignments_count_until_the_next_report_of_that_worker_and_domain() -> None:
    gateways = fleet({"a": 1, "b": 1}, {"a": 0, "b": 2})
    come_online(gateways, {"a": 0}, E)
    assert [chosen(gateways) for _ in range(4)] == ["a", "a", "a", "b"]
    a = gateways.workers["a"]
    assert (a.peers_in(D), a.peers_in(E), a.peers) == (3, 0, 3)
    # Neither another worker's report nor the same worker's for another domain tells about those nodes.
    gateways.update(ConnectedPeers("b", D, 3), 1.0)
    gateways.update(ConnectedPeers("a", E, 10), 1.0)
    assert (a.peers_in(D), a.peers_in(E), a.peers) == (3, 10, 13)
    gateways.update(ConnectedPeers("a", D, 1), 1.0)
    assert (a.peers_in(D), a.peers_in(E), a.peers) == (1, 10, 11)


def test_choosing_alone_counts_nothing() -> None:
    gateways = fleet({"a": 1, "b": 1}, {"a": 0, "b": 1})
    for _ in range(3):
        choice = gateways.choose(D)
        assert choice is not None
        assert choice.worker == "a"
    assert gateways.total == 1


def test_excluded_workers_are_passed_over_but_part_of_the_total() -> None:
    # Total 40; a: 10 - 3/4 * 40 = -20; b: 12 - 1/4 * 40 = 2; x: 18 - 1/4 * 40 = 8
    gateways = fleet({"a": 3, "b": 1}, {"a": 10, "b": 12, "x": 18})
    for excluded, winner in ((set(), "a"), ({"a"}, "b"), ({"a", "b", "nobody"}, "x"), ({"a", "b", "x"}, None)):
        choice = gateways.choose(D, excluded)
        assert (choice.worker if choice else None) == winner
    assert gateways.total == 40


def test_node_that_waits_for_a_gateway_counts_there_for_as_long() -> None:
    gateways = fleet({"a": 1, "b": 1}, {"a": 0, "b": 1})
    gateways.update(BrokerStatus("b1", online=True), 0.0)
    gateways.update(BrokerStatus("b2", online=True), 0.0)
    a = gateways.workers["a"]
    with gateways.holding("a", D):
        assert (a.peers_in(D), a.peers, gateways.total) == (2, 2, 3)
        # So the next one goes elsewhere.
        assert chosen(gateways) == "b"
        # What the gateway reports does not know of this node yet, and a broker that goes changes nothing.
        gateways.update(ConnectedPeers("a", D, 5), 1.0)
        gateways.update(BrokerStatus("b2", online=False), 1.0)
        assert a.peers == 7
    assert a.peers == 5
    with contextlib.suppress(ZeroDivisionError), gateways.holding("a", E):
        assert a.peers_in(E) == 1
        raise ZeroDivisionError
    assert (a.peers_in(E), a.peers) == (0, 5)


def test_gateway_that_is_forgotten_while_a_node_waits_for_it_counts_nothing() -> None:
    gateways = fleet({"a": 1}, {"a": 3})
    with gateways.holding("a", D):
        gateways.forget_before(1.0)
    come_online(gateways, {"a": 3}, now=2.0)
    assert gateways.total == 3


def test_who_is_online_and_sends_receipts_is_expected_to_confirm() -> None:
    gateways = fleet({"a": 1, "b": 1, "never": 1}, {"a": None, "b": 0, "old": 0})
    assert gateways.confirming(D) == frozenset()
    for worker in ("a", "b"):
        gateways.update(WorkerData(worker, D, replace(endpoint(worker), receipts=True)), 1.0)
    # Whether it knows its number of peers does not matter: keys are installed there all the same.
    assert gateways.confirming(D) == {"a", "b"}
    assert gateways.confirming(E) == frozenset()
    gateways.update(WorkerStatus("b", online=False), 2.0)
    assert gateways.confirming(D) == {"a"}
    gateways.update(WorkerData("a", D, endpoint("a")), 3.0)
    assert gateways.confirming(D) == frozenset()


def test_worker_serves_a_domain_while_it_is_online_and_was_heard_of() -> None:
    gateways = fleet({"a": 1, "never": 1}, {"a": 0})
    assert gateways.serves("a", D, since=0.0)
    assert not gateways.serves("a", E, since=0.0)
    assert not gateways.serves("a", D, since=0.5)
    assert not gateways.serves("never", D, since=0.0)
    assert not gateways.serves("unheard of", D, since=0.0)
    gateways.update(WorkerStatus("a", online=True), 1.0)
    assert gateways.serves("a", D, since=0.5)
    gateways.update(WorkerStatus("a", online=False), 2.0)
    assert not gateways.serves("a", D, since=0.0)


def test_each_assignment_counts_once_per_broker_online() -> None:
    gateways = fleet({"a": 1}, {"a": 0})
    assert gateways.brokers_online == 1
    assert chosen(gateways) == "a"
    assert gateways.total == 1
    for broker in ("b1", "b2", "b3"):
        gateways.update(BrokerStatus(broker, online=True), 0.0)
        gateways.update(BrokerStatus(broker, online=True), 1.0)
    assert gateways.brokers_online == 3
    assert chosen(gateways) == "a"
    assert gateways.total == 4
    gateways.update(BrokerStatus("b2", online=False), 2.0)
    gateways.update(BrokerStatus("never seen", online=False), 2.0)
    assert gateways.brokers_online == 2
    assert chosen(gateways) == "a"
    assert gateways.total == 6


def test_who_is_not_heard_again_after_a_reconnect_is_forgotten() -> None:
    gateways = fleet({"a": 1, "b": 1, "never": 1}, {"a": 1, "b": 2, "x": 3})
    for broker in ("b1", "b2", "b3"):
        gateways.update(BrokerStatus(broker, online=True), 0.0)
    come_online(gateways, {"b": 5}, now=10.0)
    for broker in ("b2", "b3"):
        gateways.update(BrokerStatus(broker, online=True), 10.0)
    gateways.forget_before(10.0)
    # The names stay: their series should say 0, not vanish.
    assert gateways.workers.keys() == {"a", "b", "never", "x"}
    assert gateways.total == 5
    assert gateways.brokers_online == 2
    assert not gateways.workers["a"].online
    assert gateways.workers["a"].last_seen is None
    assert [chosen(gateways) for _ in range(3)] == ["b", "b", "b"]
    come_online(gateways, {"a": 1}, now=11.0)
    assert chosen(gateways) == "a"


def test_unlisted_workers_are_limited_and_listed_ones_are_not() -> None:
    listed = {f"listed{number}": 1.0 for number in range(100)}
    gateways = Gateways(listed, [D])
    for number in range(UNLISTED_LIMIT):
        gateways.update(WorkerStatus(f"unlisted{number}", online=True), 0.0)
    for event in (
        WorkerStatus("one too many", online=True),
        ConnectedPeers("one too many", D, 1),
        WorkerData("one too many", D, endpoint("x")),
    ):
        with pytest.raises(UnknownOriginError) as caught:
            gateways.update(event, 0.0)
        assert caught.value.reason == "unknown_worker"
    for worker in (*listed, "unlisted0"):
        gateways.update(WorkerStatus(worker, online=True), 0.0)
    assert len(gateways.workers) == 100 + UNLISTED_LIMIT


@pytest.mark.parametrize("event", [ConnectedPeers("a", "x", 1), WorkerData("a", "x", endpoint("a"))])
def test_unknown_domain_is_refused_and_makes_no_worker(event: ConnectedPeers | WorkerData) -> None:
    gateways = Gateways({}, [D])
    with pytest.raises(UnknownOriginError) as caught:
        gateways.update(event, 0.0)
    assert caught.value.reason == "unknown_domain"
    assert gateways.workers == {}


def test_invented_brokers_are_limited() -> None:
    gateways = Gateways({}, [D])
    for number in range(BROKERS_LIMIT * 2):
        gateways.update(BrokerStatus(f"b{number}", online=True), 0.0)
    assert gateways.brokers_online == BROKERS_LIMIT
    gateways.update(BrokerStatus("b0", online=False), 0.0)
    gateways.update(BrokerStatus("late", online=True), 0.0)
    assert gateways.brokers_online == BROKERS_LIMIT


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
    gateways = fleet(weights, peers)
    come_online(gateways, elsewhere, E)
    for worker in offline & (peers.keys() | elsewhere.keys()):
        gateways.update(WorkerStatus(worker, online=False), 1.0)
    for worker in without_data & peers.keys():
        gateways.update(WorkerData(worker, D, None), 1.0)

    # The contract's words, written down a second time.
    count = {worker: (peers.get(worker) or 0) + (elsewhere.get(worker) or 0) for worker in "abcdef"}
    total = sum(count.values())
    sum_of_weights = sum(weights.values()) or 1
    scores = {worker: count[worker] - weights.get(worker, 1) / sum_of_weights * total for worker in "abcdef"}
    candidates = {
        worker
        for worker, known in peers.items()
        if known is not None and worker not in offline and worker not in without_data
    }

    winner = chosen(gateways)
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
    fleets = [fleet(weights, dict.fromkeys(weights, 0)) for _ in range(brokers)]
    for gateways in fleets:
        for number in range(brokers):
            gateways.update(BrokerStatus(f"b{number}", online=True), 0.0)
    connected: Counter[str] = Counter()
    for number in range(1000):
        winner = chosen(fleets[number % brokers])
        assert winner is not None
        connected[winner] += 1
        if number % report_every == 0:
            for gateways in fleets:
                for worker in weights:
                    gateways.update(ConnectedPeers(worker, D, connected[worker]), 1.0)
    # Each broker may be one node off for each of its gateways.
    for worker, weight in weights.items():
        assert abs(connected[worker] - weight * 10) <= 2 * brokers


def test_targets_add_up_to_the_peers_that_there_are_whoever_is_listed() -> None:
    for weights, expected in (
        ({}, {"gw01": 100.0, "gw02": 100.0}),
        ({"gw01": 3, "gw02": 1}, {"gw01": 150.0, "gw02": 50.0}),
        ({"gw01": 1}, {"gw01": 100.0, "gw02": 100.0}),
        ({"gw01": 0, "gw02": 0}, {"gw01": 0.0, "gw02": 0.0}),
    ):
        gateways = Gateways(weights, [D])
        for worker, peers in (("gw01", 150), ("gw02", 50)):
            gateways.update(ConnectedPeers(worker, D, peers), 0.0)
        assert gateways.targets() == expected
