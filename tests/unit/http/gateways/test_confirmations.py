"""Keys whose receipts are waited for, by a clock that needs no waiting."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest
import structlog
from prometheus_client import CollectorRegistry

from tests.fakes import run_in_virtual_time
from tests.helpers import CITY, DOMAINS, KEY, WELT, as_openmetrics, key, moved, samples, settle
from wgkex_ops.bus.messages import ConnectedPeers, Endpoint, Receipt, ReceiptAddress, WorkerData, WorkerStatus
from wgkex_ops.http.gateways.confirmations import KEPT_FOR, LIMIT, PAUSES, Handover, Outstanding
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.public.submission import Submission
from wgkex_ops.metrics.broker import ReceiptMetrics
from wgkex_ops.model.domains import Domain

TOPIC: Final = "wgkex/receipts/b1"


def endpoint(worker: str, *, receipts: bool = True) -> Endpoint:
    return Endpoint(f"{worker}.example.net", 40011, KEY, "fe80::1", receipts)


class Broker:
    """Outstanding keys, and gateways that are online: gw01 and gw02 send receipts, old does not."""

    def __init__(self, topic: str = TOPIC, *workers: str) -> None:
        self.registry = CollectorRegistry()
        self.gateways = Gateways({"gw01": 1, "gw02": 1, "old": 1}, DOMAINS)
        self.outstanding = Outstanding(
            self.gateways,
            topic=topic,
            metrics=ReceiptMetrics(self.registry, ["gw01", "gw02", "old"]),
            label=lambda worker: worker if worker in ("gw01", "gw02", "old") else "unknown",
        )
        for worker in workers or ("gw01", "gw02", "old"):
            self.come(worker)
        self._before = samples(self.registry)

    def come(self, worker: str, *, domain: Domain = WELT, receipts: bool | None = None) -> None:
        receipts = worker != "old" if receipts is None else receipts
        self.gateways.update(WorkerData(worker, domain.name, endpoint(worker, receipts=receipts)), 0.0)
        self.gateways.update(ConnectedPeers(worker, domain.name, 0), 0.0)
        self.gateways.update(WorkerStatus(worker, online=True), 0.0)

    def go(self, worker: str) -> None:
        self.gateways.update(WorkerStatus(worker, online=False), 0.0)

    def begin(self, number: int = 1, domain: Domain = WELT) -> Handover:
        return self.outstanding.begin(Submission(domain, key(number)), f"request-{number}", 1_700_000_000.0)

    def hand_over(self, number: int = 1, domain: Domain = WELT) -> Handover:
        handover = self.begin(number, domain)
        self.outstanding.acknowledge(handover)
        return handover

    def receive(self, handover: Handover, worker: str, reason: str = "") -> None:
        """A receipt arrives."""
        found = self.outstanding.find(handover.correlation)
        assert found in (handover, None)
        if found is not None:
            self.outstanding.take(found, Receipt(worker, reason))

    def holds(self, handover: Handover) -> bool:
        return self.outstanding.find(handover.correlation) is handover

    def targets(self, since: float = 0.0) -> list[str]:
        """To whom a key is to be sent again now; it is sent."""
        due = self.outstanding.due(since)
        for handover, target in due:
            assert self.outstanding.wants(handover, target)
            self.outstanding.sent(handover, target)
        return [target for _, target in due]

    def moved(self) -> dict[str, float]:
        changes = moved(self._before, samples(self.registry))
        return {name: value for name, value in changes.items() if "_bucket" not in name and "_sum" not in name}


def installs(worker: str) -> str:
    return f'wgkex_broker_key_install_duration_seconds_count{{worker="{worker}"}}'


def count(name: str, worker: str) -> str:
    return f'wgkex_broker_{name}_total{{worker="{worker}"}}'


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        run_in_virtual_time(test())

    run.__name__ = test.__name__
    return run


# --- who is waited for, and for how long


@in_virtual_time
async def test_key_is_held_until_all_who_send_receipts_have_answered() -> None:
    broker = Broker()
    handover = broker.hand_over()
    assert handover.expected == {"gw01", "gw02"}
    assert (len(broker.outstanding), broker.outstanding.awaiting) == (1, 1)
    broker.receive(handover, "gw01")
    assert broker.holds(handover)
    broker.receive(handover, "gw02")
    assert not broker.holds(handover)
    assert (len(broker.outstanding), broker.outstanding.awaiting) == (0, 0)
    await asyncio.sleep(KEPT_FOR)
    broker.outstanding.expire()
    assert broker.moved() == {installs("gw01"): 1, installs("gw02"): 1}


@in_virtual_time
async def test_worker_that_gave_the_key_up_has_answered() -> None:
    broker = Broker()
    handover = broker.hand_over()
    with structlog.testing.capture_logs() as events:
        broker.receive(handover, "gw01", "EPERM")
    assert [(event["event"], event["worker"], event["reason"], event["request_id"]) for event in events] == [
        ("key_not_installed", "gw01", "EPERM", "request-1")
    ]
    broker.receive(handover, "gw02")
    assert not broker.holds(handover)
    assert broker.moved() == {count("key_install_failures", "gw01"): 1, installs("gw02"): 1}


@in_virtual_time
async def test_receipts_may_come_before_the_acknowledgement() -> None:
    broker = Broker()
    handover = broker.begin()
    for worker in ("gw01", "gw02"):
        broker.receive(handover, worker)
        assert broker.holds(handover)
    assert broker.outstanding.awaiting == 0
    broker.outstanding.acknowledge(handover)
    assert not broker.holds(handover)
    # For version 2, which looks for them next.
    assert await handover.answer_of("gw01") == ""


@in_virtual_time
async def test_nobody_is_waited_for_who_is_away_or_serves_another_domain() -> None:
    broker = Broker(TOPIC, "gw01")
    broker.come("gw02", domain=CITY)
    assert broker.hand_over().expected == {"gw01"}
    broker.go("gw01")
    assert broker.hand_over(2).expected == set()
    assert broker.hand_over(3, CITY).expected == {"gw02"}


@in_virtual_time
async def test_worker_that_goes_without_an_answer_is_waited_for() -> None:
    broker = Broker()
    handover = broker.hand_over()
    broker.receive(handover, "gw01")
    broker.go("gw02")
    assert broker.holds(handover)
    broker.come("gw02")
    broker.receive(handover, "gw02")
    assert not broker.holds(handover)


@in_virtual_time
async def test_key_that_nobody_will_confirm_is_held_to_the_end_and_missed_by_nobody() -> None:
    broker = Broker(TOPIC, "old")
    handover = broker.hand_over()
    assert (len(broker.outstanding), broker.outstanding.awaiting) == (1, 0)
    await asyncio.sleep(KEPT_FOR - 0.1)
    broker.outstanding.expire()
    assert broker.holds(handover)
    await asyncio.sleep(0.2)
    broker.outstanding.expire()
    assert not broker.holds(handover)
    assert broker.moved() == {}


@in_virtual_time
async def test_without_a_topic_no_receipt_is_asked_for() -> None:
    broker = Broker("")
    handover = broker.hand_over()
    assert handover.origin.receipt_to is None
    assert handover.expected == set()
    await asyncio.sleep(PAUSES[0])
    assert broker.targets() == []
    broker.outstanding.reconnected()
    assert broker.targets() == ["all"]


@in_virtual_time
async def test_receipts_are_asked_for_with_a_mark_that_nobody_can_guess() -> None:
    broker = Broker()
    handovers = [broker.begin(number) for number in range(100)]
    for handover in handovers:
        assert handover.origin.request_id == f"request-{handovers.index(handover)}"
        assert handover.origin.accepted_at == 1_700_000_000.0
        assert handover.origin.receipt_to == ReceiptAddress(TOPIC, handover.correlation)
        assert len(handover.correlation) == 16
    assert len({handover.correlation for handover in handovers}) == 100


@in_virtual_time
async def test_unknown_mark_is_nobodys() -> None:
    broker = Broker()
    handover = broker.begin()
    for correlation in (b"", b"x" * 16, handover.correlation[:-1], handover.correlation + b"x"):
        assert broker.outstanding.find(correlation) is None
    broker.outstanding.drop(handover)
    assert broker.outstanding.find(handover.correlation) is None
    # Once more does no harm.
    broker.outstanding.drop(handover)


# --- what is measured


@in_virtual_time
async def test_install_is_measured_from_the_submission_with_an_exemplar() -> None:
    broker = Broker()
    handover = broker.begin()
    await asyncio.sleep(0.02)
    broker.outstanding.acknowledge(handover)
    broker.receive(handover, "gw01")
    await asyncio.sleep(40)
    broker.receive(handover, "gw02")
    text = as_openmetrics(broker.registry)
    name = "wgkex_broker_key_install_duration_seconds"
    assert f'{name}_bucket{{le="0.025",worker="gw01"}} 1.0 # {{request_id="request-1"}} 0.02' in text
    assert f'{name}_bucket{{le="60.0",worker="gw02"}} 1.0 # {{request_id="request-1"}} 40.02' in text
    assert f'{name}_bucket{{le="30.0",worker="gw02"}} 0.0' in text
    assert broker.registry.get_sample_value(f"{name}_sum", {"worker": "gw02"}) == pytest.approx(40.02)


@in_virtual_time
async def test_what_is_told_again_is_counted_once() -> None:
    broker = Broker(TOPIC, "gw01", "gw02")
    handover = broker.hand_over()
    for reason in ("EPERM", "EBUSY", "EPERM"):
        broker.receive(handover, "gw01", reason)
    assert broker.moved() == {count("key_install_failures", "gw01"): 1}
    # It could do it after all.
    for reason in ("", "", "EPERM"):
        broker.receive(handover, "gw01", reason)
    assert handover.answers == {"gw01": ""}
    assert broker.moved() == {count("key_install_failures", "gw01"): 1, installs("gw01"): 1}


@in_virtual_time
async def test_receipt_of_a_worker_that_is_not_listed_has_no_label_of_its_own() -> None:
    broker = Broker()
    handover = broker.hand_over()
    broker.receive(handover, "stranger")
    broker.receive(handover, "another", "EPERM")
    assert broker.moved() == {installs("unknown"): 1, count("key_install_failures", "unknown"): 1}
    assert broker.holds(handover)


@in_virtual_time
async def test_receipt_of_a_worker_that_was_not_expected_is_one() -> None:
    broker = Broker(TOPIC, "old")
    handover = broker.hand_over()
    broker.receive(handover, "gw01")
    assert not broker.holds(handover)
    assert broker.moved() == {installs("gw01"): 1}


@in_virtual_time
async def test_who_never_answered_is_counted_after_two_minutes() -> None:
    broker = Broker()
    first = broker.hand_over(1)
    await asyncio.sleep(30)
    broker.hand_over(2)
    broker.receive(first, "gw01")
    await asyncio.sleep(KEPT_FOR - 30)
    with structlog.testing.capture_logs() as events:
        broker.outstanding.expire()
    assert len(broker.outstanding) == 1
    assert broker.moved() == {installs("gw01"): 1, count("keys_unconfirmed", "gw02"): 1}
    assert events == [{"event": "keys_unconfirmed", "log_level": "warning", "worker": "gw02", "count": 1}]
    await asyncio.sleep(30)
    broker.outstanding.expire()
    assert len(broker.outstanding) == 0
    assert broker.moved() == {
        installs("gw01"): 1,
        count("keys_unconfirmed", "gw01"): 1,
        count("keys_unconfirmed", "gw02"): 2,
    }


@in_virtual_time
async def test_one_key_too_many_displaces_the_oldest() -> None:
    assert LIMIT == 20_000
    broker = Broker(TOPIC, "gw01")
    handovers = [broker.hand_over(number) for number in range(LIMIT)]
    assert broker.moved() == {}
    late = broker.begin(LIMIT)
    assert len(broker.outstanding) == LIMIT
    assert not broker.holds(handovers[0])
    assert broker.holds(handovers[1])
    assert broker.holds(late)
    assert broker.moved() == {count("keys_unconfirmed", "gw01"): 1}
    # Its request may still be in progress.
    broker.outstanding.acknowledge(handovers[0])
    broker.outstanding.drop(handovers[0])
    assert len(broker.outstanding) == LIMIT


# --- waiting


@in_virtual_time
async def test_each_waits_for_its_own_worker_only() -> None:
    broker = Broker()
    first, second = broker.hand_over(1), broker.hand_over(2)
    waiting = {
        "first": asyncio.ensure_future(first.answer_of("gw01")),
        "second": asyncio.ensure_future(second.answer_of("gw01")),
    }
    await settle()
    broker.receive(first, "gw02")
    await settle()
    assert not any(task.done() for task in waiting.values())
    broker.receive(second, "gw01", "EPERM")
    assert await waiting["second"] == "EPERM"
    assert not waiting["first"].done()
    broker.receive(first, "gw01")
    assert await waiting["first"] == ""


@in_virtual_time
async def test_receipt_for_somebody_who_waits_no_longer_is_taken_in() -> None:
    broker = Broker()
    handover = broker.hand_over()
    for worker in ("gw01", "gw02"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await handover.answer_of(worker)
    for worker in ("gw01", "gw02"):
        broker.receive(handover, worker)
    assert await handover.answer_of("gw02") == ""
    assert not broker.holds(handover)


# --- what is sent again


@in_virtual_time
async def test_silent_worker_is_sent_the_key_again_after_longer_and_longer_pauses() -> None:
    broker = Broker()
    broker.receive(broker.hand_over(), "gw01")
    sent: list[tuple[int, str]] = []
    for second in range(int(KEPT_FOR)):
        sent += [(second, target) for target in broker.targets()]
        await asyncio.sleep(1)
        broker.outstanding.expire()
    assert sent == [(5, "gw02"), (15, "gw02"), (35, "gw02"), (75, "gw02")]
    assert broker.moved() == {
        installs("gw01"): 1,
        count("keys_republished", "gw02"): 4,
        count("keys_unconfirmed", "gw02"): 1,
    }


@in_virtual_time
async def test_what_is_answered_is_not_sent_again() -> None:
    broker = Broker()
    handover = broker.hand_over()
    await asyncio.sleep(PAUSES[0])
    due = broker.outstanding.due(0.0)
    assert due == [(handover, "gw01"), (handover, "gw02")]
    # The receipt comes while the first of them is being sent.
    broker.receive(handover, "gw02")
    assert not broker.outstanding.wants(handover, "gw02")
    assert broker.outstanding.wants(handover, "gw01")
    broker.receive(handover, "gw01")
    assert not broker.outstanding.wants(handover, "gw01")
    assert not broker.outstanding.wants(handover, "all")


@in_virtual_time
async def test_key_whose_node_was_told_to_come_back_is_not_sent_again() -> None:
    broker = Broker()
    dropped, unacknowledged = broker.hand_over(1), broker.begin(2)
    broker.outstanding.drop(dropped)
    broker.outstanding.reconnected()
    broker.outstanding.came(["gw01"])
    await asyncio.sleep(PAUSES[0])
    assert broker.targets() == []
    assert broker.holds(unacknowledged)


@in_virtual_time
async def test_worker_that_is_away_is_sent_the_key_when_it_comes() -> None:
    broker = Broker(TOPIC, "gw01")
    handover = broker.hand_over()
    broker.go("gw01")
    await asyncio.sleep(60)
    assert broker.targets() == []
    broker.come("gw01")
    broker.outstanding.came(["gw01", "nobody"])
    assert broker.targets() == ["gw01"]
    # And the pauses begin, none of them having led to anything.
    assert handover.repeats == 0


@in_virtual_time
async def test_worker_that_was_not_heard_since_is_sent_nothing() -> None:
    broker = Broker()
    broker.hand_over()
    await asyncio.sleep(PAUSES[0])
    assert broker.targets(since=0.5) == []
    for worker in ("gw01", "old"):
        broker.gateways.update(WorkerStatus(worker, online=True), 1.0)
    broker.outstanding.came(["gw01", "gw02", "old"])
    assert broker.targets(since=0.5) == ["gw01", "old"]


@in_virtual_time
async def test_worker_without_receipts_is_sent_the_key_once_when_it_comes() -> None:
    broker = Broker(TOPIC, "gw01", "old")
    handover = broker.hand_over()
    broker.hand_over(2, CITY)
    broker.outstanding.came(["old"])
    assert broker.targets() == ["old"]
    assert broker.targets() == []
    assert handover.expected == {"gw01"}
    await asyncio.sleep(PAUSES[0])
    assert broker.targets() == ["gw01"]
    assert broker.moved() == {count("keys_republished", "old"): 1, count("keys_republished", "gw01"): 1}


@in_virtual_time
async def test_worker_that_is_new_is_waited_for_from_then_on() -> None:
    broker = Broker(TOPIC, "gw01")
    handover = broker.hand_over()
    broker.come("gw02")
    broker.outstanding.came(["gw02"])
    assert handover.expected == {"gw01", "gw02"}
    broker.receive(handover, "gw01")
    assert broker.holds(handover)
    broker.receive(handover, "gw02")
    assert not broker.holds(handover)


@in_virtual_time
async def test_after_a_reconnect_all_are_sent_what_not_everybody_has_answered() -> None:
    broker = Broker()
    answered, half, silent = (broker.hand_over(number) for number in range(3))
    for worker in ("gw01", "gw02"):
        broker.receive(answered, worker)
    broker.receive(half, "gw01")
    broker.outstanding.reconnected()
    due = broker.outstanding.due(0.0)
    assert due == [(half, "all"), (silent, "all")]
    # Not sent: it stays due.
    assert broker.outstanding.due(0.0) == due
    assert broker.targets() == ["all", "all"]
    assert broker.targets() == []
    assert broker.moved()[count("keys_republished", "all")] == 2


@in_virtual_time
async def test_pauses_start_over_after_a_reconnect() -> None:
    broker = Broker(TOPIC, "gw01")
    broker.hand_over()
    for pause in PAUSES[:3]:
        await asyncio.sleep(pause)
        assert broker.targets() == ["gw01"]
    broker.outstanding.reconnected()
    assert broker.targets() == ["all"]
    await asyncio.sleep(PAUSES[0] - 0.1)
    assert broker.targets() == []
    await asyncio.sleep(0.1)
    assert broker.targets() == ["gw01"]


@in_virtual_time
async def test_what_could_not_be_sent_is_due_again_at_once_and_what_was_refused_is_not() -> None:
    broker = Broker(TOPIC, "gw01")
    handover = broker.hand_over()
    await asyncio.sleep(PAUSES[0])
    assert broker.outstanding.due(0.0) == [(handover, "gw01")]
    assert broker.outstanding.due(0.0) == [(handover, "gw01")]
    assert handover.repeats == 1
    broker.outstanding.refused(handover, "gw01")
    assert broker.outstanding.due(0.0) == []
    broker.outstanding.reconnected()
    broker.outstanding.refused(handover, "all")
    assert broker.outstanding.due(0.0) == []
    assert broker.moved() == {}
    await asyncio.sleep(PAUSES[1])
    assert broker.outstanding.due(0.0) == [(handover, "gw01")]


def test_pauses_end_while_the_key_is_held() -> None:
    assert sum(PAUSES) < KEPT_FOR
    assert PAUSES == (5.0, 10.0, 20.0, 40.0)
