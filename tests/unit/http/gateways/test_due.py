"""Which keys are to be sent again, to which gateway and when, by a clock that needs no waiting."""

import asyncio
import time
from typing import Final

import pytest

from tests.fakes import in_virtual_time
from tests.helpers import CITY
from tests.unit.http.gateways.fleet import Fleet, count, installs
from wgkex_ops.bus.messages import BrokerStatus
from wgkex_ops.http.gateways.confirmations import KEPT_FOR, LIMIT, RESENT_AFTER, next_due

NEVER: Final = float("inf")


@pytest.mark.parametrize(
    ("sent_at", "online_since", "confirms", "expected"),
    [
        # Accepted at 100 by a gateway that was online.
        (100, 0, True, 105),
        (104, 0, True, 105),
        (105, 0, True, 115),
        (107, 0, True, 115),
        (115, 0, True, 135),
        (135, 0, True, 175),
        (175, 0, True, NEVER),
        (190, 0, True, NEVER),
        # It has come online since the key was last sent.
        (100, 103, True, 103),
        (105, 190, True, 190),
        (190, 190, True, NEVER),
        (103, 103, True, 105),
        # One that sends no receipts.
        (100, 0, False, NEVER),
        (100, 103, False, 103),
        (103, 103, False, NEVER),
    ],
)
def test_next_due(sent_at: float, online_since: float, confirms: bool, expected: float) -> None:
    assert next_due(100, sent_at, online_since, confirms=confirms) == expected


def test_all_times_lie_within_that_for_which_a_key_is_kept() -> None:
    assert RESENT_AFTER == (5.0, 15.0, 35.0, 75.0)
    assert max(RESENT_AFTER) < KEPT_FOR


@in_virtual_time
async def test_gateway_that_does_not_confirm_gets_the_key_four_times_again() -> None:
    fleet = Fleet()
    fleet.confirm(fleet.accept(), "gw01")
    assert await fleet.resent_until(121) == [(5, "gw02"), (15, "gw02"), (35, "gw02"), (75, "gw02")]
    assert fleet.moved() == {
        installs("gw01"): 1,
        count("keys_republished", "gw02"): 4,
        count("keys_unconfirmed", "gw02"): 1,
    }


@in_virtual_time
async def test_key_is_due_for_each_gateway_that_has_not_confirmed_it() -> None:
    fleet = Fleet()
    confirmed, one_missing, two_missing = (fleet.accept(number) for number in range(3))
    fleet.confirm(confirmed, "gw01", "gw02")
    fleet.confirm(one_missing, "gw01")
    await asyncio.sleep(5)
    assert fleet.keys.due(0.0) == [(one_missing, "gw02"), (two_missing, "gw01"), (two_missing, "gw02")]
    fleet.confirm(two_missing, "gw02", reason="EPERM")
    assert fleet.keys.due(0.0) == [(one_missing, "gw02"), (two_missing, "gw01")]


@in_virtual_time
async def test_key_that_got_no_success_is_never_due() -> None:
    fleet = Fleet()
    dropped, not_acknowledged = fleet.accept(1), fleet.add(2)
    fleet.keys.drop(dropped)
    await asyncio.sleep(1)
    fleet.come("gw01")
    await asyncio.sleep(5)
    assert fleet.resent() == []
    assert fleet.has(not_acknowledged)


@in_virtual_time
async def test_what_was_not_sent_remains_due_and_what_was_refused_is_not_until_its_next_time() -> None:
    fleet = Fleet("gw01")
    key = fleet.accept()
    await asyncio.sleep(5)
    assert fleet.keys.due(0.0) == [(key, "gw01")]
    assert fleet.keys.due(0.0) == [(key, "gw01")]
    fleet.keys.refused(key, "gw01")
    assert fleet.keys.due(0.0) == []
    assert fleet.moved() == {}
    await asyncio.sleep(9.9)
    assert fleet.keys.due(0.0) == []
    await asyncio.sleep(0.1)
    assert fleet.keys.due(0.0) == [(key, "gw01")]


# --- gateways that come online


@in_virtual_time
async def test_gateway_that_is_away_gets_the_key_when_it_comes_online_and_then_at_the_usual_times() -> None:
    fleet = Fleet("gw01")
    fleet.accept()
    fleet.go("gw01")
    assert await fleet.resent_until(60) == []
    fleet.come("gw01")
    assert await fleet.resent_until(121) == [(60, "gw01"), (75, "gw01")]


@in_virtual_time
async def test_gateway_that_sends_no_receipts_gets_the_key_only_when_it_comes_online() -> None:
    fleet = Fleet("gw01", "old")
    key = fleet.accept()
    fleet.accept(2, CITY)
    await asyncio.sleep(1)
    fleet.come("old")
    assert key.awaited == {"gw01"}
    assert await fleet.resent_until(16) == [(1, "old"), (5, "gw01"), (15, "gw01")]
    assert fleet.moved() == {count("keys_republished", "old"): 1, count("keys_republished", "gw01"): 2}


@in_virtual_time
async def test_gateway_gets_no_keys_of_other_domains_and_none_that_it_has_confirmed() -> None:
    fleet = Fleet()
    fleet.accept(1, CITY)
    fleet.confirm(fleet.accept(2), "gw01")
    await asyncio.sleep(1)
    fleet.come("gw01")
    assert fleet.resent() == []


# --- the connection with the MQTT server


@in_virtual_time
async def test_after_a_reconnect_each_gateway_gets_the_key_once_it_is_heard() -> None:
    fleet = Fleet()
    key = fleet.accept()
    fleet.confirm(key, "gw01")
    await asyncio.sleep(2)
    opened_at = 1.5
    # What was known before does not count: it may have died with the server.
    assert fleet.resent(opened_at) == []
    # Retained statuses come from the new connection.
    for worker in ("gw01", "gw02", "old"):
        fleet.come(worker, heard_at=opened_at)
    assert fleet.resent(opened_at) == ["gw02", "old"]
    assert fleet.resent(opened_at) == []
    assert await fleet.resent_until(6, opened_at) == [(5, "gw02")]


@in_virtual_time
async def test_gateway_that_is_not_heard_after_a_reconnect_gets_nothing() -> None:
    fleet = Fleet()
    fleet.accept()
    assert await fleet.resent_until(80, opened_at=0.5) == []


@in_virtual_time
async def test_key_reaches_gateways_that_were_not_known_when_it_was_accepted_after_a_reconnect() -> None:
    # The broker has just started: the retained messages have not arrived, and the connection breaks before they do.
    fleet = Fleet("gw01", receipt_topic="")
    fleet.gateways.forget_before(NEVER)
    key = fleet.accept()
    await asyncio.sleep(1)
    assert fleet.resent() == []
    for worker in ("gw01", "old"):
        fleet.come(worker, heard_at=0.5)
    assert fleet.keys.due(0.5) == [(key, "gw01"), (key, "old")]


@in_virtual_time
async def test_key_accepted_on_this_connection_is_not_due_for_a_gateway_whose_retained_status_comes_late() -> None:
    fleet = Fleet("gw02")
    await asyncio.sleep(1)
    fleet.accept()
    fleet.come("old", heard_at=0.5)
    fleet.come("gw01", heard_at=0.5)
    assert fleet.resent() == []
    # It may have got the key, but it has to confirm it.
    assert await fleet.resent_until(7) == [(6, "gw01"), (6, "gw02")]


@in_virtual_time
async def test_order_of_the_retained_messages_of_a_gateway_does_not_matter() -> None:
    fleet = Fleet("gw01")
    key = fleet.accept()
    await asyncio.sleep(1)
    gw02 = fleet.gateways.workers["gw02"]
    fleet.come("gw02", heard_at=0.5)
    endpoints, gw02.endpoints = gw02.endpoints, {}
    assert fleet.keys.due(0.5) == []
    gw02.endpoints = endpoints
    assert fleet.keys.due(0.5) == [(key, "gw02")]
    # Nor does what is heard of brokers.
    fleet.gateways.update(BrokerStatus("b1", online=True), 0.5)
    assert fleet.keys.due(0.5) == [(key, "gw02")]


@in_virtual_time
async def test_without_receipts_each_gateway_gets_the_key_once_after_a_reconnect() -> None:
    fleet = Fleet(receipt_topic="")
    fleet.accept()
    await asyncio.sleep(1)
    for worker in ("gw01", "gw02", "old"):
        fleet.come(worker, heard_at=0.5)
    assert await fleet.resent_until(100, opened_at=0.5) == [(1, "gw01"), (1, "gw02"), (1, "old")]


@in_virtual_time
async def test_the_largest_number_of_keys_is_checked_in_no_time() -> None:
    fleet = Fleet()
    for number in range(LIMIT):
        fleet.accept(number)
    started = time.process_time()
    for _ in range(10):
        fleet.keys.expire()
        assert fleet.keys.due(0.0) == []
    # The event loop serves nodes meanwhile. The limit is far above what it takes.
    assert (time.process_time() - started) / 10 < 0.1
