"""When a gateway that promises receipts counts as silent, by a clock that needs no waiting."""

import asyncio

import structlog

from tests.fakes import in_virtual_time
from tests.helpers import CITY, WELT
from tests.unit.http.gateways.fleet import Fleet
from wgkex_ops.http.gateways.silence import SILENT_AFTER, SILENT_KEYS, Silence


@in_virtual_time
async def test_gateway_is_silent_when_it_has_confirmed_none_of_five_keys_for_a_minute() -> None:
    assert (SILENT_KEYS, SILENT_AFTER) == (5, 60.0)
    fleet = Fleet("gw01", "gw02")
    for number in range(4):
        fleet.confirm(fleet.accept(number), "gw02")
    await asyncio.sleep(61)
    fleet.silences.check()
    assert fleet.silences.silent_in(WELT.name) == ()
    fifth = fleet.accept(5)
    fleet.confirm(fifth, "gw02")
    with structlog.testing.capture_logs() as events:
        fleet.silences.check()
        fleet.silences.check()
    assert fleet.silences.silent_in(WELT.name) == {"gw01"}
    assert [(each["event"], each["worker"], each["domain"], each["keys"], each["seconds"]) for each in events] == [
        ("worker_confirms_nothing", "gw01", WELT.name, 5, 61)
    ]
    assert "access rules" in events[0]["detail"]
    with structlog.testing.capture_logs() as events:
        fleet.confirm(fifth, "gw01")
        fleet.confirm(fifth, "gw01")
    assert [(each["event"], each["worker"], each["domain"]) for each in events] == [
        ("worker_confirms_again", "gw01", WELT.name)
    ]
    fleet.silences.check()
    assert fleet.silences.silent == frozenset()


@in_virtual_time
async def test_each_receipt_ends_a_silence_whatever_it_reports() -> None:
    fleet = Fleet("gw01")
    for number in range(20):
        key = fleet.accept(number)
        await asyncio.sleep(30)
        fleet.confirm(key, "gw01", reason="ENOMEM")
        fleet.silences.check()
        assert fleet.silences.silent == frozenset()


@in_virtual_time
async def test_each_domain_counts_for_itself() -> None:
    fleet = Fleet("gw01")
    fleet.come("gw01", domain=CITY)
    for number in range(SILENT_KEYS):
        fleet.accept(number, CITY)
        fleet.confirm(fleet.accept(number, WELT), "gw01")
    await asyncio.sleep(SILENT_AFTER)
    fleet.confirm(fleet.accept(9, WELT), "gw01")
    fleet.silences.check()
    assert (fleet.silences.silent_in(CITY.name), fleet.silences.silent_in(WELT.name)) == ({"gw01"}, ())
    assert fleet.silences.silent == {"gw01"}


@in_virtual_time
async def test_gateway_is_not_blamed_for_the_time_when_it_was_offline() -> None:
    fleet = Fleet("gw01")
    for number in range(SILENT_KEYS):
        fleet.accept(number)
    fleet.go("gw01")
    await asyncio.sleep(100)
    assert list(fleet.silences.waiting(0)) == []
    fleet.come("gw01")
    await asyncio.sleep(SILENT_AFTER - 1)
    fleet.silences.check()
    assert fleet.silences.silent == frozenset()
    await asyncio.sleep(1)
    fleet.silences.check()
    assert fleet.silences.silent == {"gw01"}


@in_virtual_time
async def test_gateway_that_promises_no_receipts_is_never_silent() -> None:
    fleet = Fleet("old")
    for number in range(50):
        fleet.accept(number)
    await asyncio.sleep(SILENT_AFTER + 1)
    fleet.silences.check()
    assert list(fleet.silences.waiting(0)) == []


@in_virtual_time
async def test_waiting_keys_are_known_long_before_the_gateway_is_silent() -> None:
    fleet = Fleet("gw01")
    for number in range(7):
        fleet.accept(number)
        await asyncio.sleep(2)
    assert list(fleet.silences.waiting(15)) == []
    await asyncio.sleep(2)
    assert list(fleet.silences.waiting(15)) == [Silence("gw01", WELT.name, 7, 16.0)]
