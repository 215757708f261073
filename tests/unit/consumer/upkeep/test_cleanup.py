"""Which peers are removed, and which stay: the cleanup trusts only what it saw."""

from collections.abc import AsyncIterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

import pytest

from tests.fakes import run_in_virtual_time
from tests.helpers import CITY, WELT, key, running, settle, until
from tests.unit.consumer.upkeep.gateway import (
    HOUR,
    MINUTE,
    NEVER_AFTER,
    STALE_AFTER,
    Gateway,
    number_of,
    running_gateway,
)
from wgkex_ops.config import CleanupConfig
from wgkex_ops.consumer.upkeep.cleanup import UNCHANGED_FOR, Cleanup
from wgkex_ops.errors import DataplaneError
from wgkex_ops.metrics.cleanup import RESULTS
from wgkex_ops.model.changes import Change, Operation
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import link_local

STRANGE: Final = IPv6Address("fe80::1234").packed


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


def removed(gateway: Gateway, reason: str, domain: Domain = WELT) -> float:
    return gateway.process.count("peers_removed", f'domain="{domain.name}",reason="{reason}"')


def runs(gateway: Gateway) -> dict[str, float]:
    return {result: gateway.process.count("cleanup_runs", f'result="{result}"') for result in RESULTS}


async def clean_twice(gateway: Gateway) -> None:
    """Two runs, as far apart as it takes to see that a handshake does not change."""
    await gateway.clean()
    gateway.clocks.advance(UNCHANGED_FOR)
    await gateway.clean()


# --- removal candidates


async def test_a_peer_whose_handshake_is_too_old_and_does_not_change_is_removed(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.clocks.advance(1)
    await gateway.connect(WELT, 2)
    gateway.clocks.advance(STALE_AFTER - 1)
    # Old enough, but not seen yet; then not for long enough.
    await gateway.clean()
    gateway.clocks.advance(UNCHANGED_FOR - 1)
    await gateway.clean()
    assert await gateway.peers() == {1, 2}
    gateway.clocks.advance(1)
    await gateway.clean()
    assert await gateway.peers() == {2}
    # The other one looked old at the second run only.
    gateway.clocks.advance(UNCHANGED_FOR - 1)
    await gateway.clean()
    assert await gateway.peers() == set()
    assert removed(gateway, "stale") == 2
    assert gateway.logged("peer_removed") == [
        {"domain": WELT.name, "public_key": str(key(number)), "reason": "stale"} for number in (1, 2)
    ]
    assert dict(gateway.process.journal.rows) == {}


async def test_a_new_handshake_begins_all_anew(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.clocks.advance(STALE_AFTER)
    await gateway.clean()
    gateway.shake_hands(WELT, 1)
    gateway.clocks.advance(STALE_AFTER)
    await clean_twice(gateway)
    assert await gateway.peers() == set()
    assert removed(gateway, "stale") == 1


async def test_a_peer_that_never_had_a_handshake_is_removed_some_time_after_the_last_request(gateway: Gateway) -> None:
    await gateway.request(WELT, 1, 2)
    gateway.clocks.advance(NEVER_AFTER - 1)
    await gateway.request(WELT, 1)
    gateway.clocks.advance(1)
    await gateway.clean()
    assert await gateway.peers() == {1}
    gateway.clocks.advance(NEVER_AFTER)
    await gateway.clean()
    assert await gateway.peers() == set()
    assert (removed(gateway, "never_connected"), removed(gateway, "stale")) == (2, 0)
    assert gateway.logged("peers_removed") == [{"never_connected": 1}] * 2


async def test_an_old_peer_that_was_just_requested_again_has_time_for_a_handshake(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.clocks.advance(2 * STALE_AFTER)
    await gateway.clean()
    await gateway.request(WELT, 1)
    gateway.clocks.advance(NEVER_AFTER - 1)
    await gateway.clean()
    assert await gateway.peers() == {1}
    gateway.clocks.advance(1)
    await gateway.clean()
    assert await gateway.peers() == set()


async def test_after_a_restart_all_begins_anew(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await gateway.request(WELT, 2)
    gateway.clocks.advance(STALE_AFTER)
    await gateway.clean()
    assert await gateway.peers() == {1}
    gateway.clocks.advance(UNCHANGED_FOR)
    await gateway.request(WELT, 2)
    gateway.clocks.advance(NEVER_AFTER - 1)
    await gateway.restart()
    gateway.clocks.advance(NEVER_AFTER - 1)
    await gateway.clean()
    assert await gateway.peers() == {1, 2}
    gateway.clocks.advance(1)
    await gateway.clean()
    assert await gateway.peers() == {1}
    gateway.clocks.advance(UNCHANGED_FOR)
    await gateway.clean()
    assert await gateway.peers() == set()


async def test_each_domain_is_judged_by_itself(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await gateway.connect(CITY, 2)
    gateway.clocks.advance(STALE_AFTER)
    gateway.shake_hands(CITY, 2)
    await clean_twice(gateway)
    assert (await gateway.peers(WELT), await gateway.peers(CITY)) == (set(), {2})


async def test_protected_peers_stay(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, protected=[key(1), key(2)]) as gateway:
        await gateway.connect(WELT, 1, 3)
        await gateway.request(WELT, 2, 4)
        gateway.clocks.advance(10 * STALE_AFTER)
        await clean_twice(gateway)
        assert await gateway.peers() == {1, 2}


# --- clocks: no live peer is removed, whatever the clock of the day shows


@pytest.mark.parametrize("jump", [-86_400.0, -5 * HOUR, -HOUR, HOUR, 5 * HOUR, 86_400.0, 400 * 86_400.0])
@pytest.mark.parametrize("event", ["nothing", "restart", "reboot"])
async def test_no_jump_of_the_clock_removes_a_live_peer(gateway: Gateway, jump: float, event: str) -> None:
    """Peers with a handshake every two minutes and runs of the cleanup, while the clock is set to and fro."""
    await gateway.connect(WELT, *range(5))
    for minute in range(60):
        gateway.clocks.advance(MINUTE)
        if minute % 20 == 3:
            gateway.clocks.wall += jump
            if event == "restart":
                await gateway.restart()
            elif event == "reboot":
                await gateway.reboot()
        if minute % 20 == 13:
            gateway.clocks.wall -= jump
        if minute % 2:
            gateway.shake_hands(WELT, *range(5))
        # More often than by default, and at any distance from a jump.
        if minute % 3 == 0:
            await gateway.clean()
        await gateway.reconcile()
        assert await gateway.peers() == set(range(5))
    assert [removed(gateway, reason) for reason in ("stale", "never_connected")] == [0, 0]


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
async def test_peers_of_nodes_that_have_gone_are_removed_in_spite_of_jumps(gateway: Gateway, jump: float) -> None:
    await gateway.connect(WELT, 1)
    gateway.clocks.wall += jump
    for _ in range(20):
        gateway.clocks.advance(10 * MINUTE)
        await gateway.clean()
    assert await gateway.peers() == set()


async def test_a_handshake_of_the_future_gets_old_from_when_it_was_first_seen(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.clocks.wall -= 400 * 86_400.0
    await gateway.clean()
    gateway.clocks.advance(STALE_AFTER - 1)
    await gateway.clean()
    assert await gateway.peers() == {1}
    gateway.clocks.advance(1)
    await gateway.clean()
    assert await gateway.peers() == set()


# --- what is not ours


async def test_what_is_not_ours_stays(gateway: Gateway) -> None:
    dataplane, address = gateway.dataplane, link_local(key(6).raw)
    # Of another program's making: allowed IPs, the route's number, no route, a route of ours to a strange address.
    dataplane.add_static(WELT, key(1), STRANGE)
    dataplane.add_static(WELT, key(2), link_local(key(2).raw), STRANGE)
    dataplane.add_static(WELT, key(3))
    dataplane.add_static(WELT, key(4), protocol=42)
    dataplane.readdress(WELT, key(5), link_local(key(5).raw))
    dataplane.add_static(WELT, key(7), address, protocol=158)
    for number in (1, 2, 3):
        gateway.shake_hands(WELT, number)
    gateway.clocks.advance(10 * STALE_AFTER)
    before = (await dataplane.snapshot()).domains
    await clean_twice(gateway)
    assert (await dataplane.snapshot()).domains == before
    assert runs(gateway) == {"completed": 2, "failed": 0}


# --- peers of the older wgkex


async def test_peers_of_the_older_wgkex_are_taken_over_and_then_ours(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, adopt=True, protected=[key(4)]) as gateway:
        gateway.dataplane.add_static(WELT, key(1))
        gateway.dataplane.add_static(CITY, key(2))
        gateway.dataplane.add_static(WELT, key(3), STRANGE)
        gateway.dataplane.add_static(WELT, key(4))
        gateway.shake_hands(WELT, 1)
        gateway.clocks.advance(10 * STALE_AFTER)
        await gateway.clean()
        snapshot = await gateway.dataplane.snapshot()
        assert snapshot.domains[WELT.name].routes == {link_local(key(1).raw)}
        assert snapshot.domains[CITY.name].routes == {link_local(key(2).raw)}
        assert gateway.logged("peers_adopted") == [{WELT.name: 1, CITY.name: 1}]
        assert gateway.process.count("peers_adopted", f'domain="{WELT.name}"') == 1
        # From now on they are removed like all others of ours, but not before there was time for a handshake.
        gateway.clocks.advance(NEVER_AFTER)
        await clean_twice(gateway)
        snapshot = await gateway.dataplane.snapshot()
        assert {number_of(peer.public_key) for peer in snapshot.domains[WELT.name].peers} == {3, 4}
        assert snapshot.domains[CITY.name].peers == ()


async def test_a_peer_that_cannot_be_taken_over_is_logged(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, adopt=True) as gateway:
        gateway.dataplane.add_static(WELT, key(1))
        gateway.dataplane.refuse(key(1), Operation.ROUTE_ADD, "ENOBUFS")
        await gateway.clean()
        assert gateway.logged("peers_not_adopted") == [{"count": 1, "error": "route_add: ENOBUFS"}]
        assert runs(gateway) == {"completed": 0, "failed": 1}


# --- beside others


async def test_a_peer_that_is_requested_while_the_cleanup_runs_stays(gateway: Gateway) -> None:
    await gateway.request(WELT, 1, 2)
    gateway.clocks.advance(NEVER_AFTER)
    gateway.dataplane.may_read.clear()
    async with running(gateway.clean()) as cleaning:
        await settle()
        # After its snapshot was begun.
        assert await gateway.process.dataplane.apply([Change.install(WELT, key(1))]) == [None]
        gateway.dataplane.may_read.set()
        await cleaning
    assert await gateway.peers() == {1}
    assert list(gateway.process.journal.rows) == [key(1).raw]


async def test_what_is_requested_right_after_its_removal_is_not_forgotten(gateway: Gateway) -> None:
    await gateway.request(WELT, 1)
    gateway.clocks.advance(NEVER_AFTER)
    gateway.dataplane.batches.clear()
    gateway.dataplane.may_apply.clear()
    async with running(gateway.clean()) as cleaning:
        await until(lambda: bool(gateway.dataplane.batches), every=0.001)
        async with running(gateway.request(WELT, 1)) as requesting:
            await settle()
            gateway.dataplane.may_apply.set()
            await cleaning
            await requesting
    assert await gateway.peers() == {1}
    assert list(gateway.process.journal.rows) == [key(1).raw]


async def test_keys_that_nodes_request_have_their_turn_between_batches(gateway: Gateway) -> None:
    await gateway.request(WELT, *range(600))
    gateway.clocks.advance(NEVER_AFTER)
    gateway.dataplane.batches.clear()
    await gateway.clean()
    assert [len(batch) for batch in gateway.dataplane.batches] == [250, 250, 100]


# --- trouble


async def test_a_kernel_that_cannot_be_read_is_a_failure(gateway: Gateway) -> None:
    gateway.dataplane.snapshot_error = DataplaneError(Operation.DUMP, "EINTR")
    await gateway.clean()
    assert (runs(gateway), gateway.logged("snapshot_failed")) == (
        {"completed": 0, "failed": 1},
        [{"error": "dump: EINTR"}],
    )
    gateway.dataplane.snapshot_error = None
    await gateway.clean()
    assert runs(gateway) == {"completed": 1, "failed": 1}


async def test_a_peer_that_the_kernel_does_not_remove_is_logged_and_tried_again(gateway: Gateway) -> None:
    await gateway.request(WELT, 1, 2)
    gateway.clocks.advance(NEVER_AFTER)
    gateway.dataplane.refuse(key(1), Operation.FDB_REMOVE, "ENOBUFS")
    await gateway.clean()
    assert await gateway.peers() == {1}
    assert gateway.logged("peers_not_removed") == [{"count": 1, "error": "fdb_remove: ENOBUFS"}]
    assert runs(gateway) == {"completed": 0, "failed": 1}
    gateway.dataplane.accept(key(1))
    await gateway.clean()
    assert await gateway.peers() == set()
    assert runs(gateway) == {"completed": 1, "failed": 1}


async def test_missing_interfaces_are_no_trouble(gateway: Gateway) -> None:
    await gateway.request(WELT, 1)
    gateway.dataplane.remove_interfaces(WELT)
    gateway.clocks.advance(NEVER_AFTER)
    await gateway.clean()
    assert runs(gateway) == {"completed": 1, "failed": 0}
    # They are wanted when the interfaces come.
    assert list(gateway.process.journal.rows) == [key(1).raw]


async def test_nothing_to_do_logs_nothing(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.dataplane.batches.clear()
    await gateway.clean()
    assert (gateway.events, gateway.dataplane.batches) == ([], [])


def test_it_cleans_again_and_again_not_in_step_with_other_gateways(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_gateway(tmp_path) as gateway:
            process = gateway.process
            cleanups = [
                Cleanup(
                    process.dataplane,
                    process.journal,
                    process.requests,
                    (WELT, CITY),
                    protected=(),
                    lists=KeyLists,
                    settings=CleanupConfig(interval=600),
                    metrics=process.cleanup_metrics,
                )
                for _ in range(2)
            ]
            async with running(cleanups[0].run()), running(cleanups[1].run()):
                await until(lambda: runs(gateway)["completed"] >= 20, every=60.0)

    run_in_virtual_time(run(), grace=0.01)
