"""A domain has so many peers: who never connected makes room for new ones, and nobody else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers import CITY, WELT, key, until
from tests.unit.consumer.bench import Bench, bench
from tests.unit.consumer.upkeep.gateway import HOUR, MINUTE, Gateway, running_gateway
from wgkex_ops.model.changes import Change, Operation


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Room for three peers of each domain; the third key is protected."""
    async with running_gateway(tmp_path, max_peers=3, protected=[key(3)]) as gateway:
        yield gateway


async def request_in_turn(gateway: Gateway, *numbers: int) -> None:
    """Request keys, a second apart."""
    for number in numbers:
        gateway.clocks.advance(1)
        await gateway.request(WELT, number)


async def test_the_one_that_was_requested_longest_ago_goes(gateway: Gateway) -> None:
    await request_in_turn(gateway, 1, 2, 4)
    await request_in_turn(gateway, 1)
    await request_in_turn(gateway, 5)
    assert await gateway.peers() == {1, 4, 5}
    await request_in_turn(gateway, 6, 7)
    assert await gateway.peers() == {5, 6, 7}


async def test_what_went_does_not_come_back(gateway: Gateway) -> None:
    await request_in_turn(gateway, 1, 2, 4, 5)
    await gateway.reconcile()
    assert await gateway.peers() == {2, 4, 5}
    await gateway.reboot()
    assert await gateway.peers() == {2, 4, 5}


async def test_who_went_needs_room_to_come_back(gateway: Gateway) -> None:
    """Else a table would double from scan to scan."""
    await request_in_turn(gateway, 1, 2, 4)
    for number in range(10, 40, 3):
        there = sorted(await gateway.peers())
        await gateway.reconcile()
        await request_in_turn(gateway, number, number + 1, number + 2)
        await request_in_turn(gateway, *there)
        assert await gateway.peers() == set(there)


async def test_a_scan_that_was_begun_before_an_eviction_does_not_bring_its_room_back(gateway: Gateway) -> None:
    await request_in_turn(gateway, 1, 2, 4)
    begun, earlier = gateway.clocks.monotonic, await gateway.dataplane.snapshot()
    await request_in_turn(gateway, 5)
    await gateway.process.admission.learn(earlier, begun)
    await request_in_turn(gateway, 1)
    assert await gateway.peers() == {4, 5, 1}


async def test_one_that_connected_never_goes_however_long_ago(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await gateway.reconcile()
    gateway.clocks.advance(HOUR)
    await request_in_turn(gateway, *range(10, 30))
    assert await gateway.peers() == {1, 28, 29}


async def test_one_that_connected_before_a_reboot_never_goes(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await gateway.reconcile()
    await gateway.reboot()
    gateway.clocks.advance(MINUTE)
    await request_in_turn(gateway, *range(10, 30))
    assert await gateway.peers() == {1, 28, 29}


async def test_one_that_has_just_connected_does_not_go(gateway: Gateway) -> None:
    """The latest scan does not know of it."""
    await request_in_turn(gateway, 1, 2, 4)
    await gateway.reconcile()
    gateway.shake_hands(WELT, 1)
    await request_in_turn(gateway, 5)
    assert await gateway.peers() == {1, 4, 5}


async def test_protected_and_static_ones_never_go_and_have_their_places(gateway: Gateway) -> None:
    gateway.dataplane.add_static(WELT, key(9))
    await gateway.reconcile()
    await request_in_turn(gateway, 3, 4, 5, 6)
    routed = (await gateway.dataplane.snapshot()).domains[WELT.name].routes
    assert {Change.install(WELT, key(number)).address for number in (3, 6)} == routed


async def test_new_ones_are_refused_when_nobody_may_go(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1, 2, 4)
    assert await gateway.process.request(WELT, key(5)) == "table_full"
    await gateway.reconcile()
    assert await gateway.process.request(WELT, key(5)) == "table_full"
    assert await gateway.peers() == {1, 2, 4}
    # Of course the others are refreshed, and other domains have tables of their own.
    await gateway.request(WELT, 1, 2, 4)
    await gateway.request(CITY, 5)


async def test_a_batch_gets_the_room_that_there_is(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await request_in_turn(gateway, 2)
    changes = [Change.install(WELT, key(number)) for number in (2, *range(10, 20))]
    verdict = await gateway.process.admission.judge(changes)
    # Its own second key needs no room, and gives none.
    assert not verdict.evicted
    assert verdict.refused == {change.address: "table_full" for change in changes[2:]}


async def test_a_batch_does_not_evict_more_than_it_needs(gateway: Gateway) -> None:
    await request_in_turn(gateway, 1, 2, 4)
    verdict = await gateway.process.admission.judge([Change.install(WELT, key(number)) for number in (5, 6)])
    assert [change.key for change in verdict.evicted.values()] == [key(1).raw, key(2).raw]
    assert not verdict.refused


async def test_a_large_batch_gets_free_places_and_those_of_the_candidates(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, max_peers=40) as gateway:
        await gateway.connect(WELT, *range(1, 28))
        await request_in_turn(gateway, *range(30, 40))
        changes = [Change.install(WELT, key(number)) for number in range(1000, 1500)]
        verdict = await gateway.process.admission.judge(changes)
        assert len(verdict.evicted) == 10
        assert set(verdict.refused.values()) == {"table_full"}
        assert len(changes) - len(verdict.refused) == 3 + 10


async def test_a_node_that_moves_to_a_full_domain_keeps_what_it_has(gateway: Gateway) -> None:
    await gateway.connect(CITY, 9)
    await gateway.connect(WELT, 1, 2, 4)
    gateway.clocks.advance(HOUR)
    await gateway.reconcile()
    verdict = await gateway.process.admission.judge([Change.install(WELT, key(9))])
    assert set(verdict.refused.values()) == {"table_full"}
    assert not verdict.displaced


async def test_a_lowered_limit_removes_nothing_and_the_table_grows_no_more(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        await request_in_turn(gateway, *range(1, 9))
        gateway.settings["max_peers"] = 3
        await gateway.reboot()
        assert await gateway.peers() == set(range(1, 9))
        await request_in_turn(gateway, 10, 11)
        assert await gateway.peers() == {*range(3, 9), 10, 11}


async def test_nobody_goes_where_nothing_can_be_installed(gateway: Gateway) -> None:
    await request_in_turn(gateway, 1, 2, 4)
    gateway.dataplane.remove_interfaces(WELT)
    assert await gateway.process.request(WELT, key(5)) == "ENODEV"
    gateway.dataplane.create_interfaces(WELT)
    await gateway.reconcile()
    assert await gateway.peers() == {1, 2, 4}


def test_the_installer_counts_and_reports_both() -> None:
    async def body(made: Bench) -> None:
        for number in (1, 2):
            await made.request(number)
        await until(lambda: not made.waiting)
        made.journal_knows(1, 2)
        made.dataplane.shake_hands(WELT, key(2))
        await made.request(3, receipt_to=b"r3")
        await until(lambda: not made.waiting)
        assert made.receipts == [([b"r3"], "")]
        assert made.count("peers_evicted") == 1
        assert made.journal.noted[-2:] == [([], [key(1).raw]), ([key(3)], [])]
        made.journal_knows(2, 3)
        made.dataplane.shake_hands(WELT, key(3))
        await made.request(4, receipt_to=b"r4")
        await until(lambda: not made.waiting)
        assert made.receipts[1:] == [([b"r4"], "table_full")]
        assert made.done == {f"{WELT.name} {number}": 1 for number in (1, 2, 3, 4)}

    bench(body, limit=2)


@pytest.mark.parametrize(
    ("step", "outcome", "peers"),
    [
        # It lost its route before, and so the next attempt chooses another one.
        (Operation.PEER_REMOVE, "", (1, 3)),
        (Operation.FDB_REMOVE, "EBUSY", (1, 2)),
    ],
)
def test_nobody_is_installed_in_the_place_of_one_that_the_kernel_does_not_remove(
    step: Operation, outcome: str, peers: tuple[int, ...]
) -> None:
    async def body(made: Bench) -> None:
        await made.request(1)
        await until(lambda: not made.waiting, every=0.1)
        await made.request(2)
        await until(lambda: not made.waiting, every=0.1)
        made.journal_knows(1, 2)
        made.dataplane.refuse(key(1), step, "EBUSY")
        await made.request(3, receipt_to=b"r3")
        while not made.receipts:
            await asyncio.sleep(0.1)
            assert len(await made.dataplane.installed()) == 2
        assert made.receipts == [([b"r3"], outcome)]
        assert set(await made.dataplane.installed()) == {key(number).raw for number in peers}
        assert made.count("peers_evicted") == (not outcome)
        assert not any(key(1).raw in gone for _, gone in made.journal.noted)

    bench(body, limit=2)
