"""The dataplane in memory keeps the promises of the interface."""

import asyncio
import itertools
import time
from dataclasses import replace
from ipaddress import IPv6Address

import pytest
import structlog

from tests.fakes import FaultyDataplane, Recorder
from tests.helpers import CITY, WELT, key
from wgkex_ops.consumer.dataplane.base import Dataplane, LinkEvent
from wgkex_ops.errors import DataplaneError, InterfaceMissingError
from wgkex_ops.model.changes import Change, Operation
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.peers import DomainState, Traffic

OTHER = IPv6Address("fe80::5:1").packed
ANOTHER = IPv6Address("fe80::5:2").packed


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def dataplane(recorder: Recorder) -> FaultyDataplane:
    return FaultyDataplane(observer=recorder, clock=lambda: 1000.0)


def install(number: int, domain: Domain = WELT) -> Change:
    return Change.install(domain, key(number))


def remove(number: int, domain: Domain = WELT) -> Change:
    return Change.remove(domain, key(number))


async def state(dataplane: Dataplane, domain: Domain = WELT) -> DomainState:
    return (await dataplane.snapshot()).domains[domain.name]


async def test_entering_logs_a_warning_that_nothing_is_installed(dataplane: FaultyDataplane) -> None:
    with structlog.testing.capture_logs() as events:
        async with dataplane as entered:
            assert entered is dataplane
    assert [(event["event"], event["log_level"]) for event in events] == [("memory_dataplane", "warning")]
    assert "NOTHING IS INSTALLED" in events[0]["detail"]


async def test_installed_peer_has_its_route_and_its_fdb_entry(dataplane: FaultyDataplane) -> None:
    assert await dataplane.apply([install(1), install(2), install(3, CITY)]) == [None, None, None]
    found = await state(dataplane)
    assert [peer.public_key for peer in found.peers] == [key(1).raw, key(2).raw]
    addresses = {key(1).link_local.packed, key(2).link_local.packed}
    assert {peer.link_local for peer in found.peers} == addresses
    assert found.routes == found.fdb_entries == addresses
    assert {(peer.handshake, peer.receive_bytes, peer.transmit_bytes) for peer in found.peers} == {(0.0, 0, 0)}
    assert await dataplane.installed(CITY) == [key(3).raw]


async def test_every_domain_has_interfaces_of_its_own_from_the_start(dataplane: FaultyDataplane) -> None:
    snapshot = await dataplane.snapshot()
    assert snapshot.taken_at == 1000.0
    assert list(snapshot.domains) == [WELT.name, CITY.name]
    states = snapshot.domains.values()
    assert all(one.ready and one.wg_present and one.vx_present and one.peers == () for one in states)
    for one in states:
        assert one.link_address == str(PublicKey(one.public_key).link_local)
    assert len({one.public_key for one in states}) == len({one.listen_port for one in states}) == 2


async def test_installing_again_keeps_the_handshake(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1)])
    assert dataplane.shake_hands(WELT, key(1))
    assert await dataplane.apply([install(1), install(1)]) == [None, None]
    assert [peer.handshake for peer in (await state(dataplane)).peers] == [1000.0]


async def test_handshakes_make_traffic_of_the_tunnel_and_of_the_mesh(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1), install(2)])
    first = await state(dataplane)
    assert first.wg_traffic == first.vx_traffic == Traffic(0, 0)
    seen = [first]
    for _ in range(2):
        dataplane.shake_hands(WELT, key(1))
        seen.append(await state(dataplane))
    for before, after in itertools.pairwise(seen):
        assert before.wg_traffic
        assert after.wg_traffic
        assert before.vx_traffic
        assert after.vx_traffic
        for direction in ("receive_bytes", "transmit_bytes"):
            mesh = getattr(after.vx_traffic, direction) - getattr(before.vx_traffic, direction)
            inside = getattr(after.wg_traffic, direction) - getattr(before.wg_traffic, direction)
            peer = getattr(after.peers[0], direction) - getattr(before.peers[0], direction)
            # Each wraps the one before.
            assert 0 < mesh < inside < peer
    assert seen[-1].peers[1].receive_bytes == 0
    other = await state(dataplane, CITY)
    assert other.wg_traffic == other.vx_traffic == Traffic(0, 0)


async def test_a_peer_without_fdb_entry_has_a_tunnel_and_no_mesh(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1)])
    dataplane.lose(WELT, key(1), "fdb")
    dataplane.shake_hands(WELT, key(1))
    found = await state(dataplane)
    assert found.wg_traffic == found.vx_traffic == Traffic(0, 0)
    assert (found.peers[0].receive_bytes, found.peers[0].transmit_bytes) == (148, 92)


async def test_interfaces_that_are_missing_carry_nothing_and_new_ones_begin_at_0(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1)])
    dataplane.shake_hands(WELT, key(1))
    dataplane.remove_interfaces(WELT)
    found = await state(dataplane)
    assert found.wg_traffic is found.vx_traffic is None
    dataplane.create_interfaces(WELT)
    found = await state(dataplane)
    assert found.wg_traffic == found.vx_traffic == Traffic(0, 0)


async def test_only_peers_have_handshakes(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1)])
    assert not dataplane.shake_hands(WELT, key(2))
    assert not dataplane.shake_hands(CITY, key(1))


async def test_removed_peer_leaves_nothing_and_removing_what_is_absent_is_no_error(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1), install(2)])
    assert await dataplane.apply([remove(1), remove(1), remove(3), remove(2, CITY)]) == [None] * 4
    found = await state(dataplane)
    assert [peer.public_key for peer in found.peers] == [key(2).raw]
    assert found.routes == found.fdb_entries == {key(2).link_local.packed}


async def test_changes_of_one_batch_are_carried_out_in_their_order(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1), remove(1), remove(2), install(2)])
    assert await dataplane.installed() == [key(2).raw]


async def test_one_refused_key_affects_no_other_and_can_be_applied_again(
    dataplane: FaultyDataplane, recorder: Recorder
) -> None:
    dataplane.refuse(key(2), Operation.ROUTE_ADD, "EBUSY")
    outcomes = await dataplane.apply([install(1), install(2), install(3), remove(4)])
    assert [outcomes[0], *outcomes[2:]] == [None] * 3
    assert isinstance(outcomes[1], DataplaneError)
    assert (outcomes[1].operation, outcomes[1].error) == ("route_add", "EBUSY")
    found = await state(dataplane)
    # What comes before the step that failed is done, and what comes after it is not tried.
    assert [peer.public_key for peer in found.peers] == [key(1).raw, key(2).raw, key(3).raw]
    assert found.routes == found.fdb_entries == {key(1).link_local.packed, key(3).link_local.packed}
    assert recorder.seen[:6] == [
        (Operation.PEER_ADD, 3, ()),
        (Operation.ROUTE_ADD, 3, ("EBUSY",)),
        (Operation.FDB_ADD, 2, ()),
        (Operation.FDB_REMOVE, 1, ()),
        (Operation.ROUTE_REMOVE, 1, ()),
        (Operation.PEER_REMOVE, 1, ()),
    ]
    assert recorder.seen[6:] == [(Operation.DUMP, 1, ())]
    assert isinstance((await dataplane.apply([install(2)]))[0], DataplaneError)


async def test_nothing_to_do_is_not_observed(dataplane: FaultyDataplane, recorder: Recorder) -> None:
    assert await dataplane.apply([]) == []
    assert recorder.seen == []


async def test_missing_interface_is_an_outcome_and_no_error_of_the_snapshot(
    dataplane: FaultyDataplane, recorder: Recorder
) -> None:
    await dataplane.apply([install(1)])
    port = (await state(dataplane, CITY)).listen_port
    dataplane.remove_interfaces(CITY)
    outcomes = await dataplane.apply([install(2), install(2, CITY), remove(2, CITY)])
    assert (outcomes[0], outcomes[2]) == (None, None)
    assert isinstance(outcomes[1], InterfaceMissingError)
    assert outcomes[1].interface == "wg-muc_cty"
    # Nothing was tried, and nothing is observed.
    assert [count for operation, count, _ in recorder.seen if operation is not Operation.DUMP] == [1] * 6
    assert await state(dataplane, CITY) == DomainState()
    assert await dataplane.installed() == [key(1).raw, key(2).raw]
    dataplane.create_interfaces(CITY)
    assert await dataplane.apply([install(2, CITY)]) == [None]
    found = await state(dataplane, CITY)
    assert found.ready
    assert found.listen_port == port


async def test_events_of_interfaces_come_in_order(dataplane: FaultyDataplane) -> None:
    dataplane.remove_interfaces(WELT)
    dataplane.create_interfaces(WELT)
    events = dataplane.events()
    assert [await anext(events) for _ in range(4)] == [
        LinkEvent("wg-welt", present=False, up=False),
        LinkEvent("vx-welt", present=False, up=False),
        LinkEvent("wg-welt", present=True, up=True),
        LinkEvent("vx-welt", present=True, up=True),
    ]
    following = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    assert not following.done()
    dataplane.remove_interfaces(CITY)
    assert (await following).interface == "wg-muc_cty"


async def test_own_key_is_silently_no_peer_as_in_the_kernel(dataplane: FaultyDataplane) -> None:
    own = PublicKey((await state(dataplane)).public_key)
    assert await dataplane.apply([Change.install(WELT, own)]) == [None]
    found = await state(dataplane)
    assert found.peers == ()
    assert found.routes == found.fdb_entries == {own.link_local.packed}
    assert await dataplane.apply([Change.remove(WELT, own)]) == [None]
    assert (await state(dataplane)).routes == frozenset()


async def test_the_route_follows_a_key_to_another_domain(dataplane: FaultyDataplane) -> None:
    address = key(1).link_local.packed
    await dataplane.apply([install(1), install(1, CITY)])
    old, new = await state(dataplane), await state(dataplane, CITY)
    assert [peer.link_local for peer in old.peers] == [peer.link_local for peer in new.peers] == [address]
    assert not old.routes
    assert new.routes == {address}
    assert old.fdb_entries == new.fdb_entries == {address}

    assert await dataplane.apply([remove(1)]) == [None]
    old, new = await state(dataplane), await state(dataplane, CITY)
    assert (old.peers, old.fdb_entries) == ((), frozenset())
    assert new.routes == new.fdb_entries == {address}


async def test_interfaces_are_deleted_with_their_own_routes_only(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1), install(1, CITY), install(2)])
    dataplane.remove_interfaces(WELT)
    assert (await state(dataplane, CITY)).routes == {key(1).link_local.packed}
    dataplane.create_interfaces(WELT)
    assert (await state(dataplane)).routes == frozenset()
    await dataplane.apply([install(2)])
    assert (await state(dataplane)).routes == {key(2).link_local.packed}


async def test_refused_removal_leaves_what_comes_after_it(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1), install(2)])
    dataplane.refuse(key(1), Operation.ROUTE_REMOVE, "EBUSY")
    (outcome, other) = await dataplane.apply([remove(1), remove(2)])
    assert isinstance(outcome, DataplaneError)
    assert (outcome.operation, outcome.error, other) == ("route_remove", "EBUSY", None)
    found = await state(dataplane)
    assert [peer.public_key for peer in found.peers] == [key(1).raw]
    assert found.routes == {key(1).link_local.packed}
    assert not found.fdb_entries


async def test_handshakes_may_be_at_any_time_and_end_with_the_peer(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1), install(2)])
    assert dataplane.shake_hands(WELT, key(1), 5.5)
    assert dataplane.shake_hands(WELT, key(2), 2e9)
    assert [peer.handshake for peer in (await state(dataplane)).peers] == [5.5, 2e9]
    dataplane.lose(WELT, key(1), "peer")
    assert not dataplane.shake_hands(WELT, key(1))
    await dataplane.apply([install(1), install(2)])
    assert {peer.public_key: peer.handshake for peer in (await state(dataplane)).peers} == {
        key(1).raw: 0.0,
        key(2).raw: 2e9,
    }


async def test_lost_parts_are_installed_again(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1)])
    whole = await state(dataplane)
    dataplane.lose(WELT, key(1), "route", "fdb")
    dataplane.lose(CITY, key(1), "peer", "route", "fdb")
    assert await state(dataplane) == replace(whole, routes=frozenset(), fdb_entries=frozenset())
    await dataplane.apply([install(1)])
    dataplane.lose(WELT, key(1), "peer")
    assert await state(dataplane) == replace(whole, peers=())
    await dataplane.apply([install(1)])
    assert await state(dataplane) == whole
    # A route over another domain's interface stays.
    await dataplane.apply([install(1, CITY)])
    dataplane.lose(WELT, key(1), "route")
    assert (await state(dataplane, CITY)).routes == whole.routes


async def test_static_peers_stay_as_they_are(dataplane: FaultyDataplane) -> None:
    dataplane.add_static(WELT, key(8))
    dataplane.add_static(WELT, key(9), OTHER, ANOTHER, protocol=42)
    found = await state(dataplane)
    assert [peer.link_local for peer in found.peers] == [key(8).link_local.packed, b""]
    assert not found.routes
    assert found.fdb_entries == {key(8).link_local.packed, OTHER, ANOTHER}
    assert found.foreign_routes == {key(8).link_local.packed: 4, OTHER: 42, ANOTHER: 42}
    assert found.shared_addresses == {OTHER, ANOTHER}
    for change in (install(1), install(1), remove(1)):
        assert await dataplane.apply([change]) == [None]
    assert await state(dataplane) == found


async def test_removal_leaves_a_foreign_route_and_installation_replaces_it(
    dataplane: FaultyDataplane,
) -> None:
    dataplane.add_static(WELT, key(1))
    assert await dataplane.apply([remove(1)]) == [None]
    found = await state(dataplane)
    assert (found.peers, found.fdb_entries) == ((), frozenset())
    dataplane.readdress(WELT, key(2), OTHER)
    assert (await state(dataplane)).foreign_routes == {key(1).link_local.packed: 4}
    await dataplane.apply([install(1)])
    found = await state(dataplane)
    assert found.routes == {key(1).link_local.packed}
    assert found.foreign_routes == {}


async def test_routes_of_others_are_read_only_if_a_peer_has_none_of_ours(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1)])
    dataplane.reroute(WELT, OTHER, 4)
    dataplane.readdress(WELT, key(9), OTHER, ANOTHER)
    assert (await state(dataplane)).foreign_routes == {}
    dataplane.readdress(WELT, key(9), OTHER)
    assert (await state(dataplane)).foreign_routes == {OTHER: 4}
    dataplane.lose(WELT, key(9), "peer")
    assert (await state(dataplane)).foreign_routes == {}
    await dataplane.apply([install(1, CITY)])
    assert (await state(dataplane)).foreign_routes == {OTHER: 4}
    assert (await state(dataplane, CITY)).foreign_routes == {}


async def test_an_allowed_address_is_one_peers_of_an_interface(dataplane: FaultyDataplane) -> None:
    address = key(1).link_local.packed
    dataplane.add_static(WELT, key(9), address, OTHER)
    dataplane.readdress(CITY, key(9), address)
    await dataplane.apply([install(1)])
    assert {peer.public_key: peer.link_local for peer in (await state(dataplane)).peers} == {
        key(9).raw: OTHER,
        key(1).raw: address,
    }
    assert [peer.link_local for peer in (await state(dataplane, CITY)).peers] == [address]
    dataplane.readdress(WELT, key(8), address)
    assert [peer.link_local for peer in (await state(dataplane)).peers] == [OTHER, b"", address]
    await dataplane.apply([install(1), remove(8)])
    assert [peer.link_local for peer in (await state(dataplane)).peers] == [OTHER, address]


async def test_nothing_is_added_to_missing_interfaces(dataplane: FaultyDataplane) -> None:
    dataplane.remove_interfaces(WELT)
    dataplane.add_static(WELT, key(1))
    dataplane.lose(WELT, key(1), "peer", "route", "fdb")
    assert await state(dataplane) == DomainState()


async def test_snapshot_of_many_peers_is_fast(dataplane: FaultyDataplane) -> None:
    """Nothing is done for each peer: what is kept is copied."""
    changes = [install(number) for number in range(20_000)]
    await dataplane.apply(changes)
    first, second = await state(dataplane), await state(dataplane)
    assert all(one is other for one, other in zip(first.peers, second.peers, strict=True))

    copying, deriving = [], []
    for _ in range(5):
        start = time.perf_counter()
        await dataplane.snapshot()
        copying.append(time.perf_counter() - start)
        start = time.perf_counter()
        for number in range(len(changes)):
            link_local(key(number).raw)
        deriving.append(time.perf_counter() - start)
    assert min(copying) < min(deriving) / 2


async def test_snapshot_does_not_change_afterwards(dataplane: FaultyDataplane) -> None:
    await dataplane.apply([install(1)])
    before = await dataplane.snapshot()
    await dataplane.apply([install(2), remove(1)])
    dataplane.remove_interfaces(CITY)
    assert [peer.public_key for peer in before.domains[WELT.name].peers] == [key(1).raw]
    assert before.domains[CITY.name].ready


async def test_a_cleared_address_loses_our_route_and_its_fdb_entry_and_nothing_else(
    dataplane: FaultyDataplane, recorder: Recorder
) -> None:
    await dataplane.apply([install(1), install(2)])
    dataplane.lose(WELT, key(1), "peer")
    dataplane.reroute(WELT, OTHER, 4)
    dataplane.forward(WELT, OTHER)
    recorder.seen.clear()
    cleared = [Change.clear(WELT, address) for address in (key(1).link_local.packed, OTHER, ANOTHER)]
    assert await dataplane.apply(cleared) == [None] * 3
    assert recorder.seen == [(Operation.FDB_REMOVE, 3, ()), (Operation.ROUTE_REMOVE, 3, ())]
    found = await state(dataplane)
    assert await dataplane.complete() == {key(2).raw}
    assert found.routes == found.fdb_entries == {key(2).link_local.packed}
    assert dataplane.interfaces[WELT.name].foreign_routes == {OTHER: 4}


async def test_a_refused_step_is_carried_out_when_it_is_accepted_again(dataplane: FaultyDataplane) -> None:
    dataplane.refuse(key(1), Operation.FDB_ADD, "ENOBUFS")
    await dataplane.apply([install(1)])
    assert await dataplane.complete() == set()
    dataplane.accept(key(1))
    assert await dataplane.apply([install(1)]) == [None]
    assert await dataplane.complete() == {key(1).raw}
