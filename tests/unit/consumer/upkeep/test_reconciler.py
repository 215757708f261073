"""The dataplane becomes what the journal wants, whatever the reason why it was not; what is not ours stays."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import CITY, WELT, key, running, settle, until
from tests.unit.consumer.upkeep.gateway import MINUTE, NEVER_AFTER, Gateway, running_gateway
from wgkex_ops.consumer.upkeep.reconciler import Reconciler
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.changes import Change, Operation
from wgkex_ops.model.keys import link_local
from wgkex_ops.model.peers import ROUTE_PROTOCOL

STRANGE = IPv6Address("fe80::1234").packed


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


def restored(gateway: Gateway) -> float:
    return gateway.process.count("peers_restored", f'domain="{WELT.name}"')


def repaired(gateway: Gateway, part: str) -> float:
    return gateway.process.count("drift_repairs", f'domain="{WELT.name}",missing="{part}"')


# --- what was lost comes back


async def test_peers_are_restored_after_a_reboot(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1, 2)
    await gateway.request(CITY, 3)
    await gateway.reboot()
    assert (await gateway.peers(WELT), await gateway.peers(CITY)) == ({1, 2}, {3})
    assert (restored(gateway), repaired(gateway, "peer")) == (2, 0)
    assert gateway.logged("peers_repaired") == [
        {"domain": WELT.name, "restored": 2},
        {"domain": CITY.name, "restored": 1},
    ]


@pytest.mark.parametrize("seconds", [-86_400.0, -3600.0, 3600.0, 86_400.0, 400 * 86_400.0])
async def test_peers_are_restored_whatever_the_clock_shows_after_the_reboot(gateway: Gateway, seconds: float) -> None:
    await gateway.connect(WELT, 1)
    gateway.clocks.wall += seconds
    await gateway.reboot()
    assert await gateway.peers() == {1}


async def test_those_with_the_latest_handshake_are_restored_first(gateway: Gateway) -> None:
    await gateway.request(WELT, *range(4))
    gateway.clocks.advance(5 * MINUTE)
    for number in (2, 0, 3):
        gateway.clocks.advance(2 * MINUTE)
        gateway.shake_hands(WELT, number)
        await gateway.reconcile()
    await gateway.reboot()
    assert gateway.dataplane.batches[-1] == [Change.install(WELT, key(number)) for number in (3, 0, 2, 1)]


@pytest.mark.parametrize("part", ["peer", "route", "fdb"])
async def test_a_part_that_was_deleted_by_hand_is_back_after_one_scan(gateway: Gateway, part: Any) -> None:  # noqa: ANN401
    await gateway.connect(WELT, 1, 2)
    gateway.dataplane.lose(WELT, key(1), part)
    await gateway.reconcile()
    assert await gateway.peers() == {1, 2}
    assert (repaired(gateway, part), restored(gateway)) == (1, 0)
    assert gateway.logged("peers_repaired") == [{"domain": WELT.name, part: 1}]


async def test_two_missing_parts_are_counted_both(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.dataplane.lose(WELT, key(1), "route", "fdb")
    await gateway.reconcile()
    assert await gateway.peers() == {1}
    assert [repaired(gateway, part) for part in ("peer", "route", "fdb")] == [0, 1, 1]


async def test_allowed_ips_that_were_deleted_by_hand_are_back_after_one_scan(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.dataplane.readdress(WELT, key(1))
    await gateway.reconcile()
    assert (await gateway.peers(), repaired(gateway, "peer")) == ({1}, 1)
    # Nor is such a peer a static one, if its node requests its key before that.
    gateway.dataplane.readdress(WELT, key(1))
    await gateway.reconcile()
    gateway.dataplane.readdress(WELT, key(1))
    assert await gateway.process.request(WELT, key(1)) == ""


async def test_a_peer_that_was_removed_by_hand_comes_back(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.dataplane.lose(WELT, key(1), "peer", "route", "fdb")
    await gateway.reconcile()
    assert (await gateway.peers(), restored(gateway)) == ({1}, 1)


async def test_an_interface_that_was_created_anew_gets_its_peers(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1, 2)
    gateway.dataplane.remove_interfaces(WELT)
    await gateway.reconcile()
    assert await gateway.peers() == set()
    gateway.dataplane.create_interfaces(WELT)
    await gateway.reconcile()
    assert await gateway.peers() == {1, 2}


async def test_peers_of_a_missing_interface_come_when_it_comes(gateway: Gateway) -> None:
    await gateway.request(WELT, 1)
    await gateway.request(CITY, 2)
    gateway.dataplane.remove_interfaces(CITY)
    await gateway.restart()
    assert await gateway.peers(WELT) == {1}
    gateway.dataplane.create_interfaces(CITY)
    await gateway.reconcile()
    assert await gateway.peers(CITY) == {2}


async def test_peers_of_ours_that_the_journal_does_not_know_are_entered(gateway: Gateway) -> None:
    await gateway.dataplane.apply([Change.install(WELT, key(1))])
    await gateway.reconcile()
    assert list(gateway.process.journal.rows) == [key(1).raw]
    await gateway.reboot()
    assert await gateway.peers() == {1}


async def test_a_restored_peer_has_time_for_a_handshake(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.clocks.advance(2 * NEVER_AFTER)
    gateway.dataplane.lose(WELT, key(1), "peer")
    await gateway.reconcile()
    assert gateway.process.requests.age(key(1).raw) == 0.0


async def test_peers_that_are_complete_are_left_alone(gateway: Gateway) -> None:
    await gateway.connect(WELT, *range(10))
    gateway.dataplane.batches.clear()
    await gateway.reconcile()
    assert (gateway.dataplane.batches, gateway.events) == ([], [])


# --- what leads to no peer goes


async def test_route_and_fdb_entry_of_ours_that_lead_to_no_peer_are_removed(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.dataplane.reroute(WELT, STRANGE, ROUTE_PROTOCOL)
    gateway.dataplane.forward(WELT, STRANGE)
    await gateway.reconcile()
    assert await gateway.peers() == {1}
    assert gateway.logged("peers_repaired") == [{"domain": WELT.name, "removed": 1}]


async def test_routes_and_fdb_entries_of_others_stay_wherever_they_lead(gateway: Gateway) -> None:
    gateway.dataplane.reroute(WELT, STRANGE, 4)
    gateway.dataplane.forward(WELT, STRANGE)
    before = (await gateway.dataplane.snapshot()).domains
    await gateway.reconcile()
    assert (await gateway.dataplane.snapshot()).domains == before


async def test_a_peer_that_was_left_behind_without_its_route_goes_unless_it_is_live(gateway: Gateway) -> None:
    await gateway.request(CITY, 1)
    # As another program, or an older version, may leave it.
    gateway.dataplane.readdress(WELT, key(1), link_local(key(1).raw))
    gateway.dataplane.forward(WELT, link_local(key(1).raw))
    gateway.shake_hands(WELT, 1)
    await gateway.reconcile()
    assert len((await gateway.dataplane.snapshot()).domains[WELT.name].peers) == 1
    gateway.clocks.advance(180)
    await gateway.reconcile()
    assert (await gateway.peers(WELT), await gateway.peers(CITY)) == (set(), {1})


# --- what is not ours stays


async def test_an_address_that_another_program_has_taken_meanwhile_is_left_to_it(gateway: Gateway) -> None:
    await gateway.request(WELT, *range(1, 6))
    addresses = [link_local(key(number).raw) for number in range(6)]
    await gateway.stop()
    for domain in (WELT, CITY):
        gateway.dataplane.remove_interfaces(domain)
        gateway.dataplane.create_interfaces(domain)
    # The key's peer has another address; another peer has the address, alone or as one of several, here or elsewhere.
    gateway.dataplane.add_static(WELT, key(1), STRANGE)
    gateway.dataplane.add_static(WELT, key(11), addresses[2])
    gateway.dataplane.readdress(WELT, key(12), IPv6Address("fe80::4321").packed, addresses[3])
    gateway.dataplane.add_static(CITY, key(13), addresses[4])
    before = (await gateway.dataplane.snapshot()).domains
    await gateway.restart()
    state = (await gateway.dataplane.snapshot()).domains[WELT.name]
    assert state.routes == {addresses[5]}
    assert {peer for peer in state.peers if peer.public_key != key(5).raw} == set(before[WELT.name].peers)
    assert (await gateway.dataplane.snapshot()).domains[CITY.name] == before[CITY.name]


async def test_a_route_over_an_interface_of_no_domain_is_not_taken(gateway: Gateway) -> None:
    await gateway.request(WELT, 1)
    gateway.dataplane.lose(WELT, key(1), "route")
    gateway.dataplane.routed_elsewhere = frozenset({link_local(key(1).raw)})
    gateway.dataplane.batches.clear()
    await gateway.reconcile()
    assert gateway.dataplane.batches == []


async def test_the_own_key_of_an_interface_is_no_peer(gateway: Gateway) -> None:
    await gateway.request(WELT, 1)
    gateway.dataplane.lose(WELT, key(1), "peer", "route", "fdb")
    state = gateway.dataplane.interfaces[WELT.name]
    gateway.dataplane.interfaces[WELT.name].state = type(state.state)(
        **{name: getattr(state.state, name) for name in state.state.__slots__} | {"public_key": key(1).raw}
    )
    gateway.dataplane.batches.clear()
    await gateway.reconcile()
    assert gateway.dataplane.batches == []


async def test_a_peer_without_a_route_that_nobody_knows_is_left_alone(gateway: Gateway) -> None:
    gateway.dataplane.readdress(WELT, key(1), link_local(key(1).raw))
    before = (await gateway.dataplane.snapshot()).domains
    await gateway.reconcile()
    assert (await gateway.dataplane.snapshot()).domains == before


# --- trouble


async def test_a_kernel_that_hangs_does_not_hold_up_the_start(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        await gateway.request(WELT, 1)
        gateway.dataplane.may_read.clear()
        await gateway.process.reconciler.restore(0.01)
        assert gateway.logged("restore_unfinished")
        gateway.dataplane.may_read.set()


async def test_a_kernel_that_cannot_be_read_is_read_again(gateway: Gateway) -> None:
    await gateway.request(WELT, 1)
    gateway.dataplane.lose(WELT, key(1), "route")
    gateway.dataplane.snapshot_error = DataplaneError(Operation.DUMP, "EINTR")
    await gateway.reconcile()
    assert gateway.logged("snapshot_failed") == [{"error": "dump: EINTR"}]
    gateway.dataplane.snapshot_error = None
    await gateway.reconcile()
    assert await gateway.peers() == {1}


async def test_a_peer_that_the_kernel_refuses_is_tried_again(gateway: Gateway) -> None:
    await gateway.request(WELT, 1, 2)
    gateway.dataplane.lose(WELT, key(1), "fdb")
    gateway.dataplane.lose(WELT, key(2), "fdb")
    gateway.dataplane.refuse(key(1), Operation.FDB_ADD, "ENOBUFS")
    await gateway.reconcile()
    assert gateway.logged("peers_repaired") == [{"domain": WELT.name, "fdb": 1}]
    assert gateway.logged("peers_not_repaired") == [{"count": 1, "error": "fdb_add: ENOBUFS"}]
    gateway.dataplane.accept(key(1))
    await gateway.reconcile()
    assert await gateway.peers() == {1, 2}


async def test_without_a_file_the_journal_in_memory_counts(gateway: Gateway) -> None:
    await gateway.stop()
    gateway.folder = gateway.folder / "missing" / "folder"
    await gateway.restart()
    await gateway.request(WELT, 1)
    gateway.dataplane.remove_interfaces(WELT)
    gateway.dataplane.create_interfaces(WELT)
    await gateway.reconcile()
    assert await gateway.peers() == {1}


# --- beside others


async def test_what_a_node_requests_meanwhile_wins(gateway: Gateway) -> None:
    await gateway.request(WELT, 1)
    gateway.dataplane.lose(WELT, key(1), "route")
    gateway.dataplane.may_read.clear()
    async with running(gateway.reconcile()) as reconciling:
        await settle()
        # The node moves, after the snapshot was begun and before the repair.
        await gateway.process.dataplane.apply([Change.remove(WELT, key(1)), Change.install(CITY, key(1))])
        await gateway.process.journal.install([(CITY, key(1))])
        gateway.dataplane.batches.clear()
        gateway.dataplane.may_read.set()
        await reconciling
    assert gateway.dataplane.batches == []
    assert (await gateway.peers(WELT), await gateway.peers(CITY)) == (set(), {1})


async def test_keys_that_nodes_request_have_their_turn_between_batches(gateway: Gateway) -> None:
    await gateway.request(WELT, *range(1200))
    gateway.dataplane.remove_interfaces(WELT)
    gateway.dataplane.create_interfaces(WELT)
    gateway.dataplane.batches.clear()
    gateway.dataplane.may_apply.clear()
    async with running(gateway.reconcile()) as reconciling:
        await until(lambda: bool(gateway.dataplane.batches))
        requested = asyncio.create_task(gateway.process.dataplane.apply([Change.install(WELT, key(5000))]))
        await settle()
        gateway.dataplane.may_apply.set()
        await reconciling
        assert await requested == [None]
    assert [len(batch) for batch in gateway.dataplane.batches] == [500, 1, 500, 200]


async def test_there_is_one_scan_at_a_time(gateway: Gateway) -> None:
    gateway.dataplane.may_read.clear()
    before = gateway.dataplane.snapshots
    async with running(gateway.reconcile()) as first, running(gateway.clean()) as second:
        await settle()
        assert gateway.dataplane.snapshots == before + 1
        gateway.dataplane.may_read.set()
        await asyncio.gather(first, second)
    assert gateway.dataplane.snapshots == before + 2


async def test_it_scans_again_and_again_and_soon_after_a_trigger(gateway: Gateway) -> None:
    process = gateway.process
    for interval, triggered in ((0.01, False), (3600.0, True)):
        reconciler = Reconciler(
            process.dataplane,
            process.journal,
            process.admission,
            process.requests,
            (WELT, CITY),
            refused=process.refused,
            connectivity=process.connectivity,
            metrics=process.repair_metrics,
            interval=interval,
        )
        before = gateway.dataplane.snapshots
        async with running(reconciler.run()):
            async with asyncio.timeout(30):
                while gateway.dataplane.snapshots < before + (1 if triggered else 3):
                    if triggered:
                        reconciler.trigger()
                    await asyncio.sleep(0.01)
