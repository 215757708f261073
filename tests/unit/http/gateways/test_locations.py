"""A gateway of the location that a node names comes first, as long as that does not upset the balance."""

from collections import Counter
from collections.abc import Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import key
from tests.unit.http.gateways.fleet import come_online, gateways_of
from wgkex_ops.bus.messages import BrokerStatus, ConnectedPeers, WorkerStatus
from wgkex_ops.http.gateways.choice import Locations, choose
from wgkex_ops.http.gateways.registry import Gateways

D = "ffmuc_welt"
E = "ffmuc_muc_cty"
TOLERANCE = 0.1


def chosen(
    gateways: Gateways, preferred: Collection[str], excluded: Collection[str] = (), tolerance: float = TOLERANCE
) -> str | None:
    choice = choose(gateways, D, excluded, preferred, tolerance)
    return choice.worker if choice else None


def send_nodes(gateways: Gateways, nodes: Mapping[int, Collection[str]]) -> Counter[tuple[str, bool]]:
    """Send nodes, by number and by what they prefer: how many each gateway got, and whether they preferred it."""
    found: Counter[tuple[str, bool]] = Counter()
    for number, preferred in nodes.items():
        worker = chosen(gateways, preferred)
        assert worker is not None
        gateways.assign(worker, D, key(number))
        found[worker, worker in preferred] += 1
    return found


@pytest.mark.parametrize(
    ("weights", "peers", "tolerance", "preferred", "winner"),
    [
        # Equal weights: c has to have less than 100 * 1.1 + 1 peers, give or take what floats make of that.
        ({"a": 1, "b": 1, "c": 1}, {"a": 100, "b": 100, "c": 110}, 0.1, "c", "c"),
        ({"a": 1, "b": 1, "c": 1}, {"a": 100, "b": 100, "c": 112}, 0.1, "c", "a"),
        ({"a": 1, "b": 1, "c": 1}, {"a": 100, "b": 120, "c": 110}, 0.1, "c", "c"),
        # The best one of several.
        ({"a": 1, "b": 1, "c": 1}, {"a": 100, "b": 109, "c": 108}, 0.1, "bc", "c"),
        ({"a": 1, "b": 1, "c": 1}, {"a": 100, "b": 108, "c": 108}, 0.1, "cb", "b"),
        ({"a": 1, "b": 1, "c": 1}, {"a": 100, "b": 120, "c": 108}, 0.1, "bc", "c"),
        # One that is best anyway.
        ({"a": 1, "b": 1, "c": 1}, {"a": 100, "b": 108, "c": 108}, 0.1, "ab", "a"),
        # Few peers: less than 3 * 1.1 + 1, and than 0 * 1.1 + 1.
        ({"a": 1, "b": 1}, {"a": 3, "b": 4}, 0.1, "b", "b"),
        ({"a": 1, "b": 1}, {"a": 3, "b": 5}, 0.1, "b", "a"),
        ({"a": 1, "b": 1}, {"a": 0, "b": 0}, 0.1, "b", "b"),
        ({"a": 1, "b": 1}, {"a": 0, "b": 1}, 0.1, "b", "a"),
        # No tolerance: less than 100 + 1.
        ({"a": 1, "b": 1}, {"a": 100, "b": 100}, 0, "b", "b"),
        ({"a": 1, "b": 1}, {"a": 100, "b": 101}, 0, "b", "a"),
        ({"a": 1, "b": 1}, {"a": 100, "b": 299}, 2, "b", "b"),
        ({"a": 1, "b": 1}, {"a": 100, "b": 301}, 2, "b", "a"),
        # Total 160; a: 118 - 120 = -2; so b would be as good with 38, and has to have less than 42.8.
        ({"a": 3, "b": 1}, {"a": 118, "b": 42}, 0.1, "b", "b"),
        # Total 160; a: 117 - 120 = -3; b has to have less than 37 * 1.1 + 1.
        ({"a": 3, "b": 1}, {"a": 117, "b": 43}, 0.1, "b", "a"),
        # Total 160, where targets are no whole numbers: 106.67 and 53.33. a: 0.33; b as good with 53.67.
        ({"a": 2, "b": 1}, {"a": 107, "b": 53}, 0, "a", "a"),
        # A gateway that is new or comes back gets its nodes first. Total 110; a: 0 - 100; b as good with -90.
        ({"a": 10, "b": 1}, {"a": 0, "b": 110}, 0.1, "b", "a"),
        # The unlisted x has a share of its own: total 40; a: 20 - 40; x: 20 - 40.
        ({"a": 1}, {"a": 20, "x": 20}, 0.1, "x", "x"),
        ({"a": 1}, {"a": 20, "x": 24}, 0.1, "x", "a"),
        # A worker that is not there, or that nobody knows, is no reason to choose another one than the best.
        ({"a": 1, "b": 1, "c": 1}, {"a": 10, "b": 9}, 0.1, "c", "b"),
        ({"a": 1, "b": 1}, {"a": 10, "b": 9}, 0.1, "", "b"),
    ],
)
def test_preferred_gateway_comes_first_within_the_tolerance(
    weights: Mapping[str, float], peers: Mapping[str, int], tolerance: float, preferred: str, winner: str
) -> None:
    assert chosen(gateways_of(weights, peers), preferred, tolerance=tolerance) == winner


def test_peers_of_all_domains_count() -> None:
    gateways = gateways_of({"a": 1, "b": 1}, {"a": 50, "b": 50})
    come_online(gateways, {"a": 0, "b": 5}, E)
    assert chosen(gateways, "b") == "b"
    come_online(gateways, {"a": 0, "b": 7}, E)
    assert chosen(gateways, "b") == "a"


def test_gateway_that_takes_no_nodes_is_not_chosen_because_it_is_preferred() -> None:
    def fleet() -> Gateways:
        return gateways_of({"a": 1, "b": 1, "none": 0}, {"a": 10, "b": 10, "none": 0})

    assert chosen(fleet(), "b") == "b"
    assert chosen(fleet(), ["none"]) == "a"
    offline, draining = fleet(), fleet()
    offline.update(WorkerStatus("b", online=False), 1.0)
    assert chosen(offline, "b") == "a"
    # What a gateway that drains publishes.
    draining.update(ConnectedPeers("b", D, None), 1.0)
    assert chosen(draining, "b") == "a"
    # As it is for one that the node comes back from, is silent, or gave the key up.
    assert chosen(fleet(), "b", excluded={"b"}) == "a"
    assert chosen(fleet(), "b", excluded={"a", "b"}) is None
    # What is left counts as the best: a is 5 above b.
    excluded = gateways_of({"a": 1, "b": 1, "c": 1}, {"a": 105, "b": 100, "c": 0})
    assert chosen(excluded, "a", excluded={"c"}) == "a"
    assert chosen(excluded, "a") == "c"


def test_while_a_gateway_drains_the_others_are_balanced_without_it() -> None:
    gateways = gateways_of({"a": 1, "b": 1, "c": 1}, {"a": 150, "b": 150, "c": None})
    assert chosen(gateways, "b") == "b"
    gateways.update(ConnectedPeers("b", D, 166), 1.0)
    assert chosen(gateways, "b") == "a"


_names = st.sampled_from("abcdef")


@given(
    weights=st.dictionaries(_names, st.integers(0, 10), max_size=6),
    peers=st.dictionaries(_names, st.none() | st.integers(0, 1000), max_size=6),
    preferred=st.sets(_names),
    excluded=st.sets(_names),
    tolerance=st.floats(0, 10),
)
def test_what_is_chosen_is_the_best_one_or_preferred_and_near_it(
    weights: dict[str, float],
    peers: dict[str, int | None],
    preferred: set[str],
    excluded: set[str],
    tolerance: float,
) -> None:
    gateways = gateways_of(weights, peers)
    best = chosen(gateways, (), excluded)
    found = chosen(gateways, preferred, excluded, tolerance)
    if found == best:
        return
    assert best is not None
    assert found in preferred - excluded
    assert best not in preferred
    total, share = gateways.total, gateways.share
    balanced = share(found) * total + (peers[best] or 0) - share(best) * total
    assert gateways.workers[found].peers < balanced * (1 + tolerance) + 1 + 1e-6
    assert chosen(gateways, {best}, excluded, tolerance) == best


# --- many nodes


def test_of_300_nodes_a_third_prefers_a_gateway_and_gets_it() -> None:
    workers = ("gw01", "gw02", "gw03")
    gateways = gateways_of(dict.fromkeys(workers, 1), dict.fromkeys(workers, 0))
    found = send_nodes(gateways, {number: {"gw03"} if number % 3 == 0 else () for number in range(300)})
    # By chance, a third of them would have got it.
    assert found["gw03", True] >= 95
    assert [gateways.workers[worker].peers for worker in workers] == pytest.approx([100, 100, 100], abs=8)


@pytest.mark.parametrize("weights", [(1, 1, 1), (30, 30, 20)], ids=str)
@pytest.mark.parametrize("brokers", [1, 2], ids=("one broker", "two brokers"))
def test_300_nodes_that_all_prefer_one_gateway_do_not_overload_it(
    weights: tuple[float, float, float], brokers: int
) -> None:
    workers = dict(zip(("gw01", "gw02", "gw03"), weights, strict=True))
    gateways = gateways_of(workers, dict.fromkeys(workers, 0))
    for number in range(brokers):
        gateways.update(BrokerStatus(f"b{number}", online=True), 0.0)
    send_nodes(gateways, {number: {"gw03"} for number in range(300)})
    targets = gateways.targets()
    assert gateways.total == 300 * brokers
    above = gateways.workers["gw03"].peers - targets["gw03"]
    assert 0 < above <= TOLERANCE * targets["gw03"] + brokers


def test_300_nodes_of_three_locations_all_get_a_gateway_there() -> None:
    workers = ("gw01", "gw02", "gw03")
    gateways = gateways_of(dict.fromkeys(workers, 1), dict.fromkeys(workers, 0))
    found = send_nodes(gateways, {number: {workers[number * 7 % 3]} for number in range(300)})
    assert found == {(worker, True): 100 for worker in workers}


# --- who is where


def test_workers_at_a_location() -> None:
    locations = Locations({"gw01": "north", "gw02": "south", "gw03": "north"}, TOLERANCE)
    assert [*locations.workers_at("north")] == ["gw01", "gw03"]
    assert [*locations.workers_at("south")] == ["gw02"]
    assert not locations.workers_at("east")
    assert not locations.workers_at(None)
    assert not Locations().workers_at("north")
