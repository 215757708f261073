"""Which keys are not confirmed yet, how long they are kept, and what is measured, by a clock that needs no waiting."""

import asyncio

import pytest
import structlog

from tests.fakes import in_virtual_time
from tests.helpers import CITY, as_openmetrics, settle
from tests.unit.http.gateways.fleet import RECEIPT_TOPIC, Fleet, count, installs, nowhere
from wgkex_ops.bus.messages import ReceiptAddress
from wgkex_ops.http.gateways.confirmations import KEPT_FOR, LIMIT
from wgkex_ops.model.names import KEY_REFUSALS

# --- which receipts are awaited, and for how long


@in_virtual_time
async def test_key_is_kept_until_all_gateways_that_send_receipts_have_confirmed_it() -> None:
    fleet = Fleet()
    key = fleet.accept()
    assert key.awaited == {"gw01", "gw02"}
    assert (len(fleet.keys), fleet.keys.awaiting) == (1, 1)
    fleet.confirm(key, "gw01")
    assert fleet.has(key)
    fleet.confirm(key, "gw02")
    assert not fleet.has(key)
    assert (len(fleet.keys), fleet.keys.awaiting) == (0, 0)
    await asyncio.sleep(KEPT_FOR)
    fleet.keys.expire()
    assert fleet.moved() == {installs("gw01"): 1, installs("gw02"): 1}


@in_virtual_time
async def test_receipt_of_a_gateway_that_gave_the_key_up_is_one() -> None:
    fleet = Fleet()
    key = fleet.accept()
    with structlog.testing.capture_logs() as events:
        fleet.confirm(key, "gw01", reason="EPERM")
    assert [(event["event"], event["worker"], event["reason"], event["request_id"]) for event in events] == [
        ("key_not_installed", "gw01", "EPERM", "request-1")
    ]
    fleet.confirm(key, "gw02")
    assert not fleet.has(key)
    assert fleet.moved() == {count("key_install_failures", "gw01"): 1, installs("gw02"): 1}


@in_virtual_time
async def test_receipts_may_come_before_the_acknowledgement() -> None:
    fleet = Fleet()
    key = fleet.add()
    for worker in ("gw01", "gw02"):
        fleet.confirm(key, worker)
        assert fleet.has(key)
    assert fleet.keys.awaiting == 0
    fleet.keys.accept(key)
    assert not fleet.has(key)
    # For version 2, which needs them next.
    assert await key.receipt_of("gw01") == ""


@in_virtual_time
async def test_no_receipt_is_awaited_of_a_gateway_that_is_away_or_serves_another_domain() -> None:
    fleet = Fleet("gw01")
    fleet.come("gw02", domain=CITY)
    assert fleet.accept().awaited == {"gw01"}
    fleet.go("gw01")
    assert fleet.accept(2).awaited == set()
    assert fleet.accept(3, CITY).awaited == {"gw02"}


@in_virtual_time
async def test_receipt_of_a_gateway_that_goes_offline_is_still_awaited() -> None:
    fleet = Fleet()
    key = fleet.accept()
    fleet.confirm(key, "gw01")
    fleet.go("gw02")
    assert fleet.has(key)
    fleet.come("gw02")
    fleet.confirm(key, "gw02")
    assert not fleet.has(key)


@in_virtual_time
async def test_receipt_of_a_gateway_that_comes_online_is_awaited_from_then_on() -> None:
    fleet = Fleet("gw01")
    key = fleet.accept()
    fleet.come("gw02")
    fleet.confirm(key, "gw01")
    # It has not even been sent there yet.
    assert fleet.has(key)
    fleet.confirm(key, "gw02")
    assert not fleet.has(key)


@in_virtual_time
async def test_gateway_that_came_online_and_never_confirms_is_counted() -> None:
    fleet = Fleet("old")
    fleet.accept()
    await asyncio.sleep(1)
    fleet.come("gw01")
    assert fleet.resent() == ["gw01"]
    assert fleet.keys.awaiting == 1
    await asyncio.sleep(KEPT_FOR)
    fleet.keys.expire()
    assert fleet.moved() == {
        count("keys_republished", "gw01"): 1,
        count("keys_unconfirmed", "gw01"): 1,
        nowhere(): 1,
    }


@in_virtual_time
async def test_key_that_no_gateway_will_confirm_is_kept_to_the_end_and_not_counted() -> None:
    fleet = Fleet("old")
    key = fleet.accept()
    assert (len(fleet.keys), fleet.keys.awaiting) == (1, 0)
    await asyncio.sleep(KEPT_FOR - 0.1)
    fleet.keys.expire()
    assert fleet.has(key)
    await asyncio.sleep(0.2)
    fleet.keys.expire()
    assert not fleet.has(key)
    assert fleet.moved() == {}


@in_virtual_time
async def test_without_a_topic_no_receipt_is_awaited() -> None:
    fleet = Fleet(receipt_topic="")
    key = fleet.accept()
    assert key.origin.receipt_to is None
    assert key.awaited == set()


@in_virtual_time
async def test_receipts_refer_to_keys_by_a_mark_that_cannot_be_guessed() -> None:
    fleet = Fleet()
    keys = [fleet.add(number) for number in range(100)]
    for number, key in enumerate(keys):
        assert key.origin.request_id == f"request-{number}"
        assert key.origin.accepted_at == 1_700_000_000.0
        assert key.origin.receipt_to == ReceiptAddress(RECEIPT_TOPIC, key.correlation)
        assert len(key.correlation) == 16
    assert len({key.correlation for key in keys}) == 100


@in_virtual_time
async def test_unknown_mark_belongs_to_no_key() -> None:
    fleet = Fleet()
    key = fleet.add()
    for correlation in (b"", b"x" * 16, key.correlation[:-1], key.correlation + b"x"):
        assert fleet.keys.find(correlation) is None
    fleet.keys.drop(key)
    assert fleet.keys.find(key.correlation) is None
    # Once more does no harm.
    fleet.keys.drop(key)


# --- what is measured


@in_virtual_time
async def test_install_is_measured_from_the_submission_with_an_exemplar() -> None:
    fleet = Fleet()
    key = fleet.add()
    await asyncio.sleep(0.02)
    fleet.keys.accept(key)
    fleet.confirm(key, "gw01")
    await asyncio.sleep(40)
    fleet.confirm(key, "gw02")
    text = as_openmetrics(fleet.registry)
    name = "wgkex_broker_key_install_duration_seconds"
    assert f'{name}_bucket{{le="0.025",worker="gw01"}} 1.0 # {{request_id="request-1"}} 0.02' in text
    assert f'{name}_bucket{{le="60.0",worker="gw02"}} 1.0 # {{request_id="request-1"}} 40.02' in text
    assert f'{name}_bucket{{le="30.0",worker="gw02"}} 0.0' in text
    assert fleet.registry.get_sample_value(f"{name}_sum", {"worker": "gw02"}) == pytest.approx(40.02)


@in_virtual_time
async def test_receipts_that_come_again_are_counted_once() -> None:
    fleet = Fleet("gw01", "gw02")
    key = fleet.accept()
    for reason in ("EPERM", "EBUSY", "EPERM"):
        fleet.confirm(key, "gw01", reason=reason)
    assert fleet.moved() == {count("key_install_failures", "gw01"): 1}
    # It could do it after all.
    for reason in ("", "", "EPERM"):
        fleet.confirm(key, "gw01", reason=reason)
    assert key.receipts == {"gw01": ""}
    assert fleet.moved() == {count("key_install_failures", "gw01"): 1, installs("gw01"): 1}


@in_virtual_time
async def test_receipt_of_a_worker_that_is_not_listed_has_no_label_of_its_own() -> None:
    fleet = Fleet()
    key = fleet.accept()
    fleet.confirm(key, "stranger")
    fleet.confirm(key, "another", reason="EPERM")
    assert fleet.moved() == {installs("unknown"): 1, count("key_install_failures", "unknown"): 1}
    assert fleet.has(key)


@in_virtual_time
async def test_receipt_that_was_not_awaited_is_one() -> None:
    fleet = Fleet("old")
    key = fleet.accept()
    fleet.confirm(key, "gw01")
    assert not fleet.has(key)
    assert fleet.moved() == {installs("gw01"): 1}


@in_virtual_time
async def test_gateway_that_never_confirmed_is_counted_after_two_minutes() -> None:
    fleet = Fleet()
    first = fleet.accept(1)
    await asyncio.sleep(30)
    fleet.accept(2)
    fleet.confirm(first, "gw01")
    await asyncio.sleep(KEPT_FOR - 30)
    with structlog.testing.capture_logs() as events:
        fleet.keys.expire()
    assert len(fleet.keys) == 1
    assert fleet.moved() == {installs("gw01"): 1, count("keys_unconfirmed", "gw02"): 1}
    assert events == [{"event": "keys_unconfirmed", "log_level": "warning", "worker": "gw02", "count": 1}]
    await asyncio.sleep(30)
    fleet.keys.expire()
    assert len(fleet.keys) == 0
    assert fleet.moved() == {
        installs("gw01"): 1,
        count("keys_unconfirmed", "gw01"): 1,
        count("keys_unconfirmed", "gw02"): 2,
        # The first key is in gw01.
        nowhere(): 1,
    }


@in_virtual_time
async def test_one_key_too_many_displaces_the_oldest() -> None:
    assert LIMIT == 20_000
    fleet = Fleet("gw01")
    keys = [fleet.accept(number) for number in range(LIMIT)]
    assert fleet.moved() == {}
    late = fleet.add(LIMIT)
    assert len(fleet.keys) == LIMIT
    assert not fleet.has(keys[0])
    assert fleet.has(keys[1])
    assert fleet.has(late)
    assert fleet.moved() == {count("keys_unconfirmed", "gw01"): 1, nowhere(): 1}
    # Its request may still be in progress.
    fleet.keys.accept(keys[0])
    fleet.keys.drop(keys[0])
    assert len(fleet.keys) == LIMIT


@in_virtual_time
async def test_key_that_all_gateways_give_up_is_confirmed_nowhere() -> None:
    fleet = Fleet("gw01", "gw02", "old")
    key = fleet.accept()
    fleet.confirm(key, "gw01", "gw02", reason="ENOMEM")
    assert not fleet.has(key)
    assert fleet.moved() == {
        count("key_install_failures", "gw01"): 1,
        count("key_install_failures", "gw02"): 1,
        nowhere(): 1,
    }


@in_virtual_time
async def test_key_that_a_rule_refuses_is_no_failure_of_a_gateway() -> None:
    for reason in KEY_REFUSALS:
        fleet = Fleet()
        key = fleet.accept()
        fleet.confirm(key, "gw01", "gw02", reason=reason)
        assert not fleet.has(key)
        assert fleet.moved() == {}


@in_virtual_time
async def test_key_that_was_never_handed_over_is_confirmed_nowhere_without_being_counted() -> None:
    fleet = Fleet("gw01")
    fleet.add()
    await asyncio.sleep(KEPT_FOR + 1)
    fleet.keys.expire()
    assert len(fleet.keys) == 0
    assert fleet.moved() == {}


# --- waiting


@in_virtual_time
async def test_each_request_waits_for_its_own_gateway_only() -> None:
    fleet = Fleet()
    first, second = fleet.accept(1), fleet.accept(2)
    waiting = {
        "first": asyncio.ensure_future(first.receipt_of("gw01")),
        "second": asyncio.ensure_future(second.receipt_of("gw01")),
    }
    await settle()
    fleet.confirm(first, "gw02")
    await settle()
    assert not any(task.done() for task in waiting.values())
    fleet.confirm(second, "gw01", reason="EPERM")
    assert await waiting["second"] == "EPERM"
    assert not waiting["first"].done()
    fleet.confirm(first, "gw01")
    assert await waiting["first"] == ""


@in_virtual_time
async def test_receipt_that_no_request_waits_for_any_longer_counts() -> None:
    fleet = Fleet()
    key = fleet.accept()
    for worker in ("gw01", "gw02"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await key.receipt_of(worker)
    fleet.confirm(key, "gw01", "gw02")
    assert await key.receipt_of("gw02") == ""
    assert not fleet.has(key)
