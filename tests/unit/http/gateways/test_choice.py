"""Which gateway a version 2 response names, and how long its node waits for that, by a clock that needs no waiting."""

import asyncio
from collections.abc import Mapping
from typing import Final

import pytest
from prometheus_client import CollectorRegistry, Counter

from tests.fakes import run_in_virtual_time
from tests.helpers import DOMAINS, KEY, WELT, key, moved, samples, settle
from wgkex_ops.bus.messages import ConnectedPeers, Endpoint, Receipt, WorkerData, WorkerStatus
from wgkex_ops.http.gateways.choice import Assigner, Locations
from wgkex_ops.http.gateways.confirmations import UnconfirmedKey, UnconfirmedKeys
from wgkex_ops.http.gateways.nodes import RecentNodes
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.gateways.silence import SILENT_AFTER, SILENT_KEYS, Silences
from wgkex_ops.metrics.broker import NodeMetrics, ReceiptMetrics
from wgkex_ops.metrics.locations import LocationMetrics

TIMEOUT: Final = 0.75


class Broker:
    """Gateways in this order of preference: gw01, gw02, gw03. Of those, the first two send receipts."""

    def __init__(
        self,
        timeout: float = TIMEOUT,
        *,
        workers: tuple[str, ...] = ("gw01", "gw02", "gw03"),
        topic: str = "receipts",
        locations: Mapping[str, str] | None = None,
    ) -> None:
        self.registry = CollectorRegistry()
        self.gateways = Gateways({}, DOMAINS)
        self.silences = Silences(self.gateways)
        metrics = ReceiptMetrics(self.registry, [], DOMAINS)
        self.keys = UnconfirmedKeys(self.gateways, self.silences, receipt_topic=topic, metrics=metrics)
        # The loop's clock is a virtual one.
        clock = asyncio.get_running_loop().time
        self.nodes = RecentNodes(self.gateways, NodeMetrics(self.registry, [], DOMAINS), clock)
        assignments = Counter("assignments", "x", ["worker", "domain"], registry=self.registry)
        self.assigner = Assigner(
            self.gateways,
            self.nodes,
            self.silences,
            locations=Locations(locations or {}, tolerance=0.1),
            confirm_timeout=timeout,
            assignments=assignments,
            timeouts=metrics.timeouts,
            preferences=LocationMetrics(self.registry),
        )
        for peers, worker in enumerate(workers):
            endpoint = Endpoint(f"{worker}.example.net", 40011, KEY, "fe80::1", receipts=worker != "gw03")
            self.gateways.update(WorkerData(worker, WELT.name, endpoint), 0.0)
            # Two nodes at gw01 leave it the best one.
            self.gateways.update(ConnectedPeers(worker, WELT.name, 10 * peers), 0.0)
            self.gateways.update(WorkerStatus(worker, online=True), 0.0)
        self._before = samples(self.registry, "")

    def accept(self, number: int = 1) -> UnconfirmedKey:
        self.nodes.ask(WELT, key(number))
        added = self.keys.add(WELT, key(number), "", 0.0)
        self.keys.accept(added)
        return added

    async def assign(self, added: UnconfirmedKey, location: str | None = None) -> tuple[str | None, float]:
        """The gateway, and the seconds that it took."""
        now = asyncio.get_running_loop().time
        start = now()
        choice = await self.assigner.assign(added, location)
        return (choice.worker if choice else None), round(now() - start, 6)

    def receive(self, added: UnconfirmedKey, worker: str, reason: str = "") -> None:
        self.keys.confirm(added, Receipt(worker, reason))

    def receive_later(self, after: float, added: UnconfirmedKey, worker: str, reason: str = "") -> None:
        asyncio.get_running_loop().call_later(after, self.receive, added, worker, reason)

    def moved(self) -> dict[str, float]:
        changes = moved(self._before, samples(self.registry, ""))
        return {name: value for name, value in changes.items() if name.startswith(("assignments", *_TIMEOUTS))}

    def assigned(self, domain: str = WELT.name) -> dict[str, int]:
        """Nodes that count at each gateway beyond what it reported."""
        counts = {
            worker: gateway.peers_in(domain) - (gateway.reported[domain] or 0)
            for worker, gateway in self.gateways.workers.items()
        }
        return {worker: count for worker, count in counts.items() if count}


_TIMEOUTS: Final = ("wgkex_broker_key_confirmation_timeouts",)


def assigned_to(worker: str, times: int = 1) -> dict[str, float]:
    return {f'assignments_total{{domain="{WELT.name}",worker="{worker}"}}': times}


def timed_out(worker: str, times: int = 1) -> dict[str, float]:
    return {f'wgkex_broker_key_confirmation_timeouts_total{{worker="{worker}"}}': times}


def test_gateway_is_named_as_soon_as_it_has_installed_the_key() -> None:
    async def scenario() -> None:
        broker = Broker()
        added = broker.accept()
        # Others were faster, but they were not chosen.
        broker.receive(added, "gw02")
        broker.receive_later(0.3, added, "gw01")
        assert await broker.assign(added) == ("gw01", 0.3)
        assert broker.moved() == assigned_to("gw01")
        assert broker.assigned() == {"gw01": 1}

    run_in_virtual_time(scenario())


def test_receipt_that_was_faster_than_the_acknowledgement_needs_no_waiting() -> None:
    async def scenario() -> None:
        broker = Broker()
        added = broker.keys.add(WELT, key(1), "", 0.0)
        for worker in ("gw01", "gw02"):
            broker.receive(added, worker)
        broker.keys.accept(added)
        assert await broker.assign(added) == ("gw01", 0.0)

    run_in_virtual_time(scenario())


@pytest.mark.parametrize("timeout", [TIMEOUT, 10, 0.001])
def test_silent_gateway_is_named_after_the_timeout_and_counted(timeout: float) -> None:
    async def scenario() -> None:
        broker = Broker(timeout)
        assert await broker.assign(broker.accept()) == ("gw01", timeout)
        assert broker.moved() == assigned_to("gw01") | timed_out("gw01")
        assert broker.assigned() == {"gw01": 1}

    run_in_virtual_time(scenario())


def test_gateway_that_gave_the_key_up_is_passed_over() -> None:
    async def scenario() -> None:
        broker = Broker()
        added = broker.accept()
        broker.receive_later(0.2, added, "gw01", "EPERM")
        broker.receive_later(0.5, added, "gw02")
        assert await broker.assign(added) == ("gw02", 0.5)
        assert broker.moved() == assigned_to("gw02")
        assert broker.assigned() == {"gw02": 1}

    run_in_virtual_time(scenario())


def test_next_best_gateway_gets_what_is_left_of_the_time() -> None:
    async def scenario() -> None:
        broker = Broker()
        added = broker.accept()
        broker.receive_later(0.5, added, "gw01", "EPERM")
        # Of what did not give the key up, it is the best one.
        assert await broker.assign(added) == ("gw02", TIMEOUT)
        assert broker.moved() == assigned_to("gw02") | timed_out("gw02")

    run_in_virtual_time(scenario())


def test_gateway_that_sends_no_receipts_is_never_waited_for() -> None:
    async def scenario() -> None:
        broker = Broker(workers=("gw03", "gw01"))
        assert await broker.assign(broker.accept()) == ("gw03", 0.0)
        broker = Broker()
        added = broker.accept()
        for worker in ("gw01", "gw02"):
            broker.receive_later(0.1, added, worker, "EPERM")
        assert await broker.assign(added) == ("gw03", 0.1)
        assert broker.moved() == assigned_to("gw03")

    run_in_virtual_time(scenario())


@pytest.mark.parametrize(("timeout", "topic"), [(0, "receipts"), (TIMEOUT, "")], ids=("0", "MQTT 3.1.1"))
def test_no_receipt_is_awaited_where_that_is_not_wanted_or_of_no_use(timeout: float, topic: str) -> None:
    async def scenario() -> None:
        broker = Broker(timeout, topic=topic)
        assert await broker.assign(broker.accept()) == ("gw01", 0.0)
        assert broker.moved() == assigned_to("gw01")
        # A receipt that is there already counts.
        added = broker.accept()
        broker.receive(added, "gw01", "EPERM")
        assert await broker.assign(added) == ("gw02", 0.0)

    run_in_virtual_time(scenario())


def test_there_is_no_gateway_when_all_have_given_the_key_up() -> None:
    async def scenario() -> None:
        broker = Broker(workers=("gw01", "gw02"))
        added = broker.accept()
        broker.receive_later(0.1, added, "gw02", "EPERM")
        broker.receive_later(0.2, added, "gw01", "EPERM")
        assert await broker.assign(added) == (None, 0.2)
        assert broker.moved() == {}
        assert broker.assigned() == {}

    run_in_virtual_time(scenario())


def test_there_is_no_gateway_where_none_is_online() -> None:
    async def scenario() -> None:
        broker = Broker(workers=())
        assert await broker.assign(broker.accept()) == (None, 0.0)

    run_in_virtual_time(scenario())


def test_gateway_that_is_slow_keeps_only_its_own_nodes_waiting() -> None:
    async def scenario() -> None:
        broker = Broker()
        slow = [asyncio.ensure_future(broker.assign(broker.accept(number))) for number in range(11)]
        await settle()
        # gw01 has more than gw02 reported, so the next one goes there, and it is fast.
        added = broker.accept(100)
        broker.receive_later(0.01, added, "gw02")
        assert await broker.assign(added) == ("gw02", 0.01)
        assert not any(task.done() for task in slow)
        assert {await task for task in slow} == {("gw01", TIMEOUT)}

    run_in_virtual_time(scenario())


def test_nodes_that_come_at_once_do_not_all_choose_the_same_gateway() -> None:
    async def scenario() -> None:
        broker = Broker()
        tasks = [asyncio.ensure_future(broker.assign(broker.accept(number))) for number in range(60)]
        await settle()
        # Reported were 0, 10 and 20.
        assert broker.assigned() == {"gw01": 30, "gw02": 20, "gw03": 10}
        workers = [worker for worker, _ in await asyncio.gather(*tasks)]
        assert {worker: workers.count(worker) for worker in set(workers)} == {"gw01": 30, "gw02": 20, "gw03": 10}
        assert broker.assigned() == {"gw01": 30, "gw02": 20, "gw03": 10}

    run_in_virtual_time(scenario())


def test_request_that_is_cancelled_counts_nowhere() -> None:
    async def scenario() -> None:
        broker = Broker()
        task = asyncio.ensure_future(broker.assign(broker.accept()))
        await settle()
        assert broker.assigned() == {"gw01": 1}
        task.cancel()
        await asyncio.wait([task])
        assert broker.assigned() == {}
        assert broker.moved() == {}

    run_in_virtual_time(scenario())


def test_node_that_comes_back_is_sent_to_another_gateway() -> None:
    async def scenario() -> None:
        broker = Broker(0)
        found = []
        for _ in range(5):
            found.append((await broker.assign(broker.accept()))[0])
            await asyncio.sleep(60)
        # When it has been everywhere, where it was first comes next.
        assert found == ["gw01", "gw02", "gw03", "gw01", "gw02"]
        # Each of them has had it once, and it is at the last one only.
        assert broker.assigned() == {"gw02": 1}
        assert (await broker.assign(broker.accept(2)))[0] == "gw01"

    run_in_virtual_time(scenario())


def test_node_that_comes_back_where_there_is_one_gateway_is_sent_there_again() -> None:
    async def scenario() -> None:
        broker = Broker(0, workers=("gw01",))
        assert [(await broker.assign(broker.accept()))[0] for _ in range(3)] == ["gw01"] * 3
        assert broker.assigned() == {"gw01": 1}

    run_in_virtual_time(scenario())


def test_gateway_that_confirms_nothing_is_passed_over_until_its_first_receipt() -> None:
    async def scenario() -> None:
        broker = Broker(0)
        unanswered = [broker.accept(number) for number in range(100, 100 + SILENT_KEYS)]
        for added in unanswered:
            broker.receive(added, "gw02")
        await asyncio.sleep(SILENT_AFTER)
        broker.silences.check()
        assert (await broker.assign(broker.accept(1)))[0] == "gw02"
        # Even a node that comes back from the others is not sent there.
        assert (await broker.assign(broker.accept(1)))[0] == "gw03"
        assert (await broker.assign(broker.accept(1)))[0] == "gw02"
        broker.receive(unanswered[0], "gw01")
        assert (await broker.assign(broker.accept(1)))[0] == "gw01"

    run_in_virtual_time(scenario())


def test_where_no_gateway_confirms_anything_nodes_are_sent_to_each_in_turn() -> None:
    async def scenario() -> None:
        broker = Broker(0, workers=("gw01", "gw02"))
        for number in range(100, 100 + SILENT_KEYS):
            broker.accept(number)
        await asyncio.sleep(SILENT_AFTER)
        broker.silences.check()
        assert broker.silences.silent == {"gw01", "gw02"}
        assert [(await broker.assign(broker.accept(1)))[0] for _ in range(3)] == ["gw01", "gw02", "gw01"]

    run_in_virtual_time(scenario())


def test_gateway_that_gave_the_key_up_is_not_named_to_a_node_that_has_been_everywhere() -> None:
    async def scenario() -> None:
        broker = Broker(0, workers=("gw01", "gw02"))
        assert [(await broker.assign(broker.accept(1)))[0] for _ in range(2)] == ["gw01", "gw02"]
        added = broker.accept(1)
        broker.receive(added, "gw01", reason="ENOMEM")
        assert (await broker.assign(added))[0] == "gw02"

    run_in_virtual_time(scenario())


LOCATIONS: Final = {"gw02": "north", "gw03": "north"}


def test_gateway_of_the_location_that_gave_the_key_up_is_passed_over() -> None:
    async def scenario() -> None:
        broker = Broker(0, locations=LOCATIONS)
        for worker in ("gw01", "gw02", "gw03"):
            broker.gateways.update(ConnectedPeers(worker, WELT.name, 20), 0.0)
        assert (await broker.assign(broker.accept(1)))[0] == "gw01"
        assert (await broker.assign(broker.accept(2), "north"))[0] == "gw02"
        added = broker.accept(3)
        broker.receive(added, "gw02", "EPERM")
        assert (await broker.assign(added, "north"))[0] == "gw03"
        # When it has been everywhere there, it is sent to another location.
        found = [(await broker.assign(broker.accept(2), "north"))[0] for _ in range(3)]
        assert found == ["gw03", "gw01", "gw02"]

    run_in_virtual_time(scenario())


def test_silent_gateway_of_the_location_is_passed_over() -> None:
    async def scenario() -> None:
        broker = Broker(0, locations={"gw02": "north"}, workers=("gw01", "gw02"))
        broker.gateways.update(ConnectedPeers("gw01", WELT.name, 10), 0.0)
        assert (await broker.assign(broker.accept(1), "north"))[0] == "gw02"
        for number in range(100, 100 + SILENT_KEYS):
            broker.receive(broker.accept(number), "gw01")
        await asyncio.sleep(SILENT_AFTER)
        broker.silences.check()
        assert (await broker.assign(broker.accept(2), "north"))[0] == "gw01"

    run_in_virtual_time(scenario())


@pytest.mark.parametrize("location", [None, "south"])
def test_location_that_no_gateway_has_changes_nothing(location: str | None) -> None:
    async def scenario() -> None:
        broker = Broker(0, locations=LOCATIONS)
        found = [(await broker.assign(broker.accept(number), location))[0] for number in range(12)]
        assert found == ["gw01"] * 11 + ["gw02"]

    run_in_virtual_time(scenario())
