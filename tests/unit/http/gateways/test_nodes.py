"""Which nodes are new, which come back, and how they are counted."""

from prometheus_client import CollectorRegistry

from tests.helpers import CITY, DOMAINS, WELT, key, moved, samples
from tests.unit.http.gateways.fleet import count
from wgkex_ops.http.gateways.nodes import COUNTED_ONCE_IN, LIMIT, REMEMBERED_FOR, RecentNodes
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.metrics.broker import NodeMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

NODE = key(1)


class Broker:
    """Remembers nodes by a clock that stands still unless a test sets it."""

    def __init__(self) -> None:
        self.now = 10_000.0
        self.registry = CollectorRegistry()
        listed = {"gw01": 1.0, "gw02": 1.0}
        self.nodes = RecentNodes(Gateways(listed, DOMAINS), NodeMetrics(self.registry, listed, DOMAINS), self._clock)
        self._before = samples(self.registry)

    def _clock(self) -> float:
        return self.now

    def ask(self, worker: str = "", node: PublicKey = NODE, domain: Domain = WELT) -> list[str]:
        """A node asks by version 2 and is sent to a gateway, or by version 1; where it was sent before."""
        self.nodes.ask(domain, node)
        if not worker:
            return []
        before = list(self.nodes.come_back(domain, node))
        self.nodes.send(domain, node, worker)
        return before

    def moved(self) -> dict[str, float]:
        """What was counted since the last call."""
        after = samples(self.registry)
        changes, self._before = moved(self._before, after), after
        return changes


def first(domain: Domain = WELT) -> str:
    return f'wgkex_broker_key_first_requests_total{{domain="{domain.name}"}}'


def assigned(worker: str) -> str:
    return count("worker_assigned_nodes", worker)


def returned(worker: str) -> str:
    return count("keys_returned", worker)


def test_node_is_new_when_it_has_not_asked_for_five_minutes() -> None:
    broker = Broker()
    broker.ask()
    broker.ask(node=key(2))
    broker.ask(domain=CITY)
    assert broker.moved() == {first(): 2, first(CITY): 1}
    # A node without a tunnel asks once a minute, for hours.
    for _ in range(200):
        broker.now += 60
        broker.ask()
    assert broker.moved() == {}
    broker.now += REMEMBERED_FOR
    broker.ask()
    assert broker.moved() == {}
    broker.now += REMEMBERED_FOR + 1
    broker.ask()
    assert broker.moved() == {first(): 1}


def test_node_that_asks_again_comes_back_from_where_it_was_sent() -> None:
    broker = Broker()
    assert broker.ask("gw01") == []
    assert broker.moved() == {first(): 1, assigned("gw01"): 1}
    broker.now += 60
    assert broker.ask("gw02") == ["gw01"]
    assert broker.moved() == {returned("gw01"): 1, assigned("gw02"): 1}
    broker.now += 60
    assert broker.ask("gw01") == ["gw01", "gw02"]
    assert broker.moved() == {returned("gw02"): 1}
    broker.now += 60
    assert broker.ask("gw01") == ["gw02", "gw01"]


def test_node_that_had_a_tunnel_for_five_minutes_does_not_come_back() -> None:
    broker = Broker()
    broker.ask("gw01")
    broker.now += REMEMBERED_FOR + 1
    broker.moved()
    assert broker.ask("gw01") == []
    assert broker.moved() == {first(): 1, assigned("gw01"): 1}


def test_gateway_that_was_named_long_ago_lost_nobody_to_a_node_that_went_on_by_version_1() -> None:
    broker = Broker()
    broker.ask("gw01")
    for _ in range(6):
        broker.now += 60
        broker.ask()
    broker.moved()
    # It still knows where the node has been, and sends it elsewhere.
    assert broker.ask("gw02") == ["gw01"]
    assert broker.moved() == {assigned("gw02"): 1}


def test_router_that_asks_a_hundred_times_a_minute_is_one_node() -> None:
    broker = Broker()
    for number in range(100 * 180):
        broker.ask(("gw01", "gw02")[number % 2])
        broker.now += 0.6
    found = broker.moved()
    assert found[first()] == 1
    # Three hours have twelve times fifteen minutes.
    for worker in ("gw01", "gw02"):
        assert 11 <= found[assigned(worker)] <= 12
        assert 11 <= found[returned(worker)] <= 12
    assert COUNTED_ONCE_IN == 15 * 60


def test_canary_goes_around_and_is_not_counted() -> None:
    broker = Broker()
    for worker, before in (("gw01", []), ("gw02", ["gw01"]), ("gw01", ["gw01", "gw02"])):
        broker.nodes.ask(WELT, NODE, counted=False)
        assert list(broker.nodes.come_back(WELT, NODE)) == before
        broker.nodes.send(WELT, NODE, worker)
        broker.now += 60
    assert broker.moved() == {}


def test_gateway_that_is_not_listed_has_no_label_of_its_own() -> None:
    broker = Broker()
    broker.ask("stranger")
    broker.ask("another")
    assert broker.moved() == {first(): 1, assigned("unknown"): 2, returned("unknown"): 1}


def test_memory_is_bounded_and_those_that_asked_longest_ago_go_first() -> None:
    broker = Broker()
    broker.ask("gw01", key(0))
    broker.ask("gw01", key(1))
    broker.ask("gw01", key(0))
    for number in range(2, LIMIT + 1):
        broker.ask(node=key(number))
    assert len(broker.nodes) == LIMIT
    broker.moved()
    assert broker.ask("gw02", key(0)) == ["gw01"]
    assert broker.ask("gw02", key(1)) == []
    assert broker.moved() == {first(): 1, assigned("gw02"): 2}
    broker.now += REMEMBERED_FOR + 1
    broker.ask()
    assert len(broker.nodes) == 1


def test_node_that_was_displaced_meanwhile_is_not_counted() -> None:
    broker = Broker()
    assert broker.nodes.come_back(WELT, NODE) == ()
    broker.nodes.send(WELT, NODE, "gw01")
    assert len(broker.nodes) == 0
    assert broker.moved() == {}
