"""What is known of the gateways, and how nodes are counted between their reports."""

import contextlib
from dataclasses import replace

import pytest

from tests.helpers import key
from tests.unit.http.gateways.fleet import come_online, endpoint, gateways_of, send_node
from wgkex_ops.bus.messages import BrokerStatus, ConnectedPeers, WorkerData, WorkerEvent, WorkerStatus
from wgkex_ops.http.gateways.registry import BROKERS_LIMIT, UNLISTED_LIMIT, Gateways, UnknownOriginError

D = "ffmuc_welt"
E = "ffmuc_muc_cty"
KEYS = [key(number) for number in range(2)]


def test_listed_worker_without_a_configured_weight_weighs_1() -> None:
    # The configuration makes 1 of `weight: null`; here it is a number like any other.
    assert Gateways({"a": 1, "b": 3}, [D]).share("a") == 0.25
    assert Gateways({"b": 4}, [D]).share("a") == 0.25
    assert Gateways({}, [D]).share("a") == 1.0


def test_assignments_count_until_the_next_report_of_that_worker_and_domain() -> None:
    gateways = gateways_of({"a": 1, "b": 1}, {"a": 0, "b": 2})
    come_online(gateways, {"a": 0}, E)
    assert [send_node(gateways) for _ in range(4)] == ["a", "a", "a", "b"]
    a = gateways.workers["a"]
    assert (a.peers_in(D), a.peers_in(E), a.peers) == (3, 0, 3)
    # Neither another worker's report nor the same worker's for another domain includes those nodes.
    gateways.update(ConnectedPeers("b", D, 3), 1.0)
    gateways.update(ConnectedPeers("a", E, 10), 1.0)
    assert (a.peers_in(D), a.peers_in(E), a.peers) == (3, 10, 13)
    gateways.update(ConnectedPeers("a", D, 1), 1.0)
    assert (a.peers_in(D), a.peers_in(E), a.peers) == (1, 10, 11)


def test_node_that_waits_for_a_gateway_counts_there_for_as_long() -> None:
    gateways = gateways_of({"a": 1, "b": 1}, {"a": 0, "b": 1})
    gateways.update(BrokerStatus("b1", online=True), 0.0)
    gateways.update(BrokerStatus("b2", online=True), 0.0)
    a = gateways.workers["a"]
    with gateways.reserving("a", D):
        assert (a.peers_in(D), a.peers, gateways.total) == (2, 2, 3)
        # So the next one goes elsewhere.
        assert send_node(gateways) == "b"
        # The gateway's report does not include this node yet, and a broker that goes changes nothing.
        gateways.update(ConnectedPeers("a", D, 5), 1.0)
        gateways.update(BrokerStatus("b2", online=False), 1.0)
        assert a.peers == 7
    assert a.peers == 5
    with contextlib.suppress(ZeroDivisionError), gateways.reserving("a", E):
        assert a.peers_in(E) == 1
        raise ZeroDivisionError
    assert (a.peers_in(E), a.peers) == (0, 5)


def test_gateway_that_is_forgotten_while_a_node_waits_for_it_counts_nothing() -> None:
    gateways = gateways_of({"a": 1}, {"a": 3})
    with gateways.reserving("a", D):
        gateways.forget_before(1.0)
    come_online(gateways, {"a": 3}, now=2.0)
    assert gateways.total == 3


def test_workers_that_are_online_and_send_receipts_are_confirming() -> None:
    gateways = gateways_of({"a": 1, "b": 1, "never": 1}, {"a": None, "b": 0, "old": 0})
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


def test_worker_is_online_in_its_domains_since_its_latest_status() -> None:
    gateways = gateways_of({"a": 1, "never": 1}, {"a": 0})
    assert gateways.online_in(D, since=0.0) == {"a": 0.0}
    assert gateways.online_in(E, since=0.0) == {}
    assert gateways.online_in(D, since=0.5) == {}
    # Only a status counts: all else may be retained since long ago.
    gateways.update(ConnectedPeers("a", D, 1), 1.0)
    assert gateways.online_in(D, since=0.5) == {}
    gateways.update(WorkerStatus("a", online=True), 1.0)
    assert gateways.online_in(D, since=0.5) == {"a": 1.0}
    gateways.update(WorkerStatus("a", online=False), 2.0)
    assert gateways.online_in(D, since=0.0) == {}


def test_unlisted_workers_share_a_label_where_there_are_listed_ones() -> None:
    listed, unlisted = Gateways({"a": 1}, [D]), Gateways({}, [D])
    assert (listed.label("a"), listed.label("x")) == ("a", "unknown")
    assert (unlisted.label("a"), unlisted.label("x")) == ("a", "x")


def test_each_assignment_counts_once_per_broker_online() -> None:
    gateways = gateways_of({"a": 1}, {"a": 0})
    assert gateways.brokers_online == 1
    assert send_node(gateways) == "a"
    assert gateways.total == 1
    for broker in ("b1", "b2", "b3"):
        gateways.update(BrokerStatus(broker, online=True), 0.0)
        gateways.update(BrokerStatus(broker, online=True), 1.0)
    assert gateways.brokers_online == 3
    assert send_node(gateways) == "a"
    assert gateways.total == 4
    gateways.update(BrokerStatus("b2", online=False), 2.0)
    gateways.update(BrokerStatus("never seen", online=False), 2.0)
    assert gateways.brokers_online == 2
    assert send_node(gateways) == "a"
    assert gateways.total == 6


def test_node_counts_once_per_report_and_only_where_it_was_sent_last() -> None:
    gateways = gateways_of({"a": 1, "b": 1}, {"a": 0, "b": 0})
    a, b = gateways.workers["a"], gateways.workers["b"]
    for _ in range(100):
        gateways.assign("a", D, KEYS[0])
    assert (a.peers, b.peers) == (1, 0)
    gateways.assign("a", D, KEYS[1])
    gateways.assign("b", D, KEYS[0])
    assert (a.peers, b.peers) == (1, 1)
    # Another domain is another interface, and another peer.
    gateways.assign("a", E, KEYS[0])
    assert (a.peers_in(E), b.peers_in(D)) == (1, 1)
    # What a report contains is the gateway's own count.
    gateways.update(ConnectedPeers("b", D, 1), 1.0)
    gateways.assign("a", D, KEYS[0])
    assert (a.peers_in(D), b.peers_in(D)) == (2, 1)
    # It is taken back as it was counted.
    gateways.update(BrokerStatus("b1", online=True), 0.0)
    gateways.update(BrokerStatus("b2", online=True), 0.0)
    gateways.assign("b", D, KEYS[1])
    assert (a.peers_in(D), b.peers_in(D)) == (1, 3)
    gateways.assign("a", D, KEYS[1])
    assert (a.peers_in(D), b.peers_in(D)) == (3, 1)


def test_gateway_that_is_offline_for_long_keeps_no_peers() -> None:
    gateways = gateways_of({"a": 1, "b": 3}, {"a": 100, "b": 60})
    gateways.assign("a", D, KEYS[0])
    gateways.update(WorkerStatus("a", online=False), 10.0)
    gateways.mark_absent(10.0)
    assert (gateways.total, gateways.workers["a"].peers) == (161, 101)
    # That it is heard again to be offline does not make it newer.
    gateways.update(WorkerStatus("a", online=False), 500.0)
    gateways.update(ConnectedPeers("a", D, 100), 500.0)
    gateways.mark_absent(10.5)
    assert (gateways.total, gateways.workers["a"].peers, gateways.workers["a"].peers_in(D)) == (60, 0, 0)
    assert gateways.targets() == {"a": 0, "b": 60}
    # It comes back with what it reports.
    gateways.update(WorkerStatus("a", online=True), 700.0)
    gateways.update(ConnectedPeers("a", D, 4), 700.0)
    gateways.mark_absent(690.0)
    assert (gateways.total, gateways.targets()) == (64, {"a": 16, "b": 48})


def test_gateway_that_never_had_a_status_is_offline_from_when_it_was_heard() -> None:
    gateways = Gateways({}, [D])
    gateways.update(ConnectedPeers("a", D, 100), 50.0)
    gateways.mark_absent(50.0)
    assert gateways.total == 100
    gateways.mark_absent(51.0)
    assert gateways.total == 0


def test_gateway_that_is_not_heard_again_after_a_reconnect_is_forgotten() -> None:
    gateways = gateways_of({"a": 1, "b": 1, "never": 1}, {"a": 1, "b": 2, "x": 3})
    for broker in ("b1", "b2", "b3"):
        gateways.update(BrokerStatus(broker, online=True), 0.0)
    come_online(gateways, {"b": 5}, now=10.0)
    for broker in ("b2", "b3"):
        gateways.update(BrokerStatus(broker, online=True), 10.0)
    gateways.forget_before(10.0)
    # Not the names: their series should be 0, not vanish.
    assert gateways.workers.keys() == {"a", "b", "never", "x"}
    assert gateways.total == 5
    assert gateways.brokers_online == 2
    assert not gateways.workers["a"].online
    assert gateways.workers["a"].last_seen is None
    assert [send_node(gateways) for _ in range(3)] == ["b", "b", "b"]
    come_online(gateways, {"a": 1}, now=11.0)
    assert send_node(gateways) == "a"


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


@pytest.mark.parametrize(
    "event", [WorkerStatus("b", online=True), ConnectedPeers("b", D, 1), WorkerData("b", D, endpoint("b"))]
)
def test_unlisted_worker_is_refused_where_only_listed_ones_are_served(event: WorkerEvent) -> None:
    gateways = Gateways({"a": 1}, [D], only_listed=True)
    with pytest.raises(UnknownOriginError) as caught:
        gateways.update(event, 0.0)
    assert caught.value.reason == "unknown_worker"
    assert gateways.workers.keys() == {"a"}
    gateways.update(WorkerStatus("a", online=True), 0.0)
    assert gateways.workers["a"].online


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


def test_targets_add_up_to_the_peers_that_there_are_whether_workers_are_listed_or_not() -> None:
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


def test_a_gateway_that_takes_nodes_does_not_drain_whatever_is_retained_of_a_domain_that_it_no_longer_serves() -> None:
    gateways = Gateways({}, [D, E])
    draining = replace(endpoint("a"), draining=True)
    # What a broker finds when it starts, in any order.
    events: list[WorkerEvent] = [
        WorkerData("a", D, endpoint("a")),
        ConnectedPeers("a", D, 4),
        WorkerStatus("a", online=True),
        WorkerData("a", E, draining),
        ConnectedPeers("a", E, None),
    ]
    for order in (events, events[::-1]):
        gateways = Gateways({}, [D, E])
        for event in order:
            gateways.update(event, 0.0)
        assert not gateways.workers["a"].draining
        assert gateways.targets() == {"a": 4}
    # It drains, and lacks the interface of the other domain, whose data is older.
    gateways.update(WorkerData("a", D, draining), 1.0)
    gateways.update(ConnectedPeers("a", D, None), 1.0)
    gateways.update(WorkerData("a", E, endpoint("a")), 1.0)
    assert gateways.workers["a"].draining
