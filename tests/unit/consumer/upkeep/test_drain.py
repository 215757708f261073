"""A gateway that drains: who follows the order, and whose peers are released."""

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers import CITY, WELT, key
from tests.unit.consumer.upkeep.gateway import HOUR, MINUTE, Gateway, running_gateway
from wgkex_ops.consumer.upkeep.drain_file import (
    FASTEST_RELEASE,
    FILE,
    DrainFileError,
    DrainOrder,
    read_order,
    remove_order,
    write_order,
)
from wgkex_ops.model.changes import Operation
from wgkex_ops.model.key_lists import KeyLists, ListedKey


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(tmp_path) as running:
        yield running


async def pass_time(gateway: Gateway, seconds: float, *connected: int) -> None:
    """Let time pass in steps as the process follows and releases; some nodes use their tunnels."""
    for _ in range(int(seconds)):
        gateway.clocks.advance(1)
        for number in connected:
            if gateway.dataplane.shake_hands(WELT, key(number)):
                continue
        await gateway.process.drain.follow()
        await gateway.process.drain.release()


def draining(gateway: Gateway) -> float:
    value = gateway.process.registry.get_sample_value("wgkex_worker_draining")
    assert value is not None
    return value


async def test_the_order_is_followed_and_outlives_the_process(gateway: Gateway) -> None:
    changes: list[bool] = []
    drain = gateway.process.drain
    drain.on_change = lambda: changes.append(drain.order is not None)
    await drain.follow()
    assert (drain.order, draining(gateway), changes) == (None, 0, [])

    write_order(gateway.folder, DrainOrder(1.0))
    await drain.follow()
    assert (drain.order, draining(gateway), changes) == (DrainOrder(1.0), 1, [True])
    # Another pace is no news for brokers.
    write_order(gateway.folder, DrainOrder(1.0, 20))
    await drain.follow()
    assert (drain.order, changes) == (DrainOrder(1.0, 20), [True])

    await gateway.restart()
    await gateway.process.drain.follow()
    assert draining(gateway) == 1
    assert remove_order(gateway.folder)
    assert not remove_order(gateway.folder)
    await gateway.process.drain.follow()
    assert draining(gateway) == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"since": "now"}', '{"since": 1.0, "release_per_minute": -1}'])
async def test_a_damaged_file_is_an_order_without_a_release(gateway: Gateway, content: str) -> None:
    (gateway.folder / FILE).write_text(content)
    with pytest.raises(DrainFileError, match=FILE):
        read_order(gateway.folder)
    for _ in range(3):
        await gateway.process.drain.follow()
    assert draining(gateway) == 1
    assert gateway.process.drain.order == DrainOrder(gateway.clocks.wall)
    assert [entry["draining"] for entry in gateway.logged("drain_file_unreadable")] == [True]


def test_nobody_releases_faster_than_a_storm(tmp_path: Path) -> None:
    write_order(tmp_path, DrainOrder(1.0, FASTEST_RELEASE + 1))
    with pytest.raises(DrainFileError, match=f"should be from 0 to {FASTEST_RELEASE}"):
        read_order(tmp_path)


async def test_what_cannot_be_read_changes_nothing(gateway: Gateway) -> None:
    write_order(gateway.folder, DrainOrder(1.0))
    await gateway.process.drain.follow()
    (gateway.folder / FILE).unlink()
    (gateway.folder / FILE).mkdir()
    await gateway.process.drain.follow()
    assert draining(gateway) == 1
    assert "Is a directory" in gateway.logged("drain_file_unreadable")[0]["detail"]
    (gateway.folder / FILE).rmdir()


async def test_live_peers_of_version_2_go_at_the_pace_that_was_asked_for(gateway: Gateway) -> None:
    second = tuple(range(1, 11))
    await gateway.connect(WELT, *second, api_version=2)
    await gateway.connect(WELT, 11, 12)
    await gateway.connect(CITY, 13, api_version=2)
    # It has no tunnel here: its node is elsewhere.
    await gateway.request(WELT, 14, api_version=2)
    write_order(gateway.folder, DrainOrder(gateway.clocks.wall, 6))
    await gateway.process.drain.follow()

    await pass_time(gateway, MINUTE / 2 + 1, *second)
    assert len(await gateway.peers()) == 13 - 3
    await pass_time(gateway, 2 * MINUTE, *second)
    assert await gateway.peers() == {11, 12, 14}
    assert await gateway.peers(CITY) == set()
    assert gateway.process.count("peers_removed", 'domain="ffmuc_welt",reason="released"') == 10
    assert len(gateway.logged("peer_removed")) == 11
    # Nothing brings them back but their nodes.
    await gateway.reconcile()
    assert await gateway.peers() == {11, 12, 14}
    await gateway.connect(WELT, 3)
    await pass_time(gateway, 2 * MINUTE, 3)
    assert await gateway.peers() == {3, 11, 12, 14}


async def test_without_a_pace_all_peers_stay(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1, api_version=2)
    write_order(gateway.folder, DrainOrder(gateway.clocks.wall))
    await pass_time(gateway, 2 * MINUTE, 1)
    assert await gateway.peers() == {1}


async def test_a_node_counts_by_its_last_request_and_across_a_reboot(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1, 2, api_version=2)
    await gateway.connect(WELT, 2)
    await gateway.reconcile()
    await gateway.reboot()
    gateway.shake_hands(WELT, 1, 2)
    gateway.clocks.advance(HOUR)
    gateway.shake_hands(WELT, 1, 2)
    # The journal notes the handshakes, and nothing else changes.
    await gateway.reconcile()
    write_order(gateway.folder, DrainOrder(gateway.clocks.wall, 60))
    await pass_time(gateway, 5, 1, 2)
    assert await gateway.peers() == {2}


async def test_protected_peers_and_those_of_others_stay(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, protected=[key(1)]) as gateway:
        await gateway.connect(WELT, 1, 2, api_version=2)
        gateway.dataplane.add_static(WELT, key(3))
        before = {peer.public_key for peer in (await gateway.dataplane.snapshot()).domains[WELT.name].peers}
        write_order(gateway.folder, DrainOrder(gateway.clocks.wall, 60))
        await pass_time(gateway, 10, 1, 2)
        left = {peer.public_key for peer in (await gateway.dataplane.snapshot()).domains[WELT.name].peers}
        assert before - left == {key(2).raw}


async def test_what_the_kernel_does_not_remove_is_tried_again(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1, api_version=2)
    write_order(gateway.folder, DrainOrder(gateway.clocks.wall, 60))
    gateway.dataplane.refuse(key(1), Operation.PEER_REMOVE, "EPERM")
    await pass_time(gateway, 3, 1)
    assert gateway.logged("peers_not_removed")[0]["count"] == 1
    gateway.dataplane.accept(key(1))
    # Its parts are put back first.
    await gateway.reconcile()
    await pass_time(gateway, 2 * MINUTE, 1)
    assert await gateway.peers() == set()


async def test_a_kernel_that_keeps_one_peer_does_not_keep_the_others_at_the_slowest_pace(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1, 2, 3, api_version=2)
    gateway.dataplane.refuse(key(1), Operation.PEER_REMOVE, "EPERM")
    write_order(gateway.folder, DrainOrder(gateway.clocks.wall, 1))
    await pass_time(gateway, 3 * MINUTE + 3, 1, 2, 3)
    left = {peer.public_key for peer in (await gateway.dataplane.snapshot()).domains[WELT.name].peers}
    assert left == {key(1).raw}


async def test_what_happens_between_search_and_turn_keeps_a_peer(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1, 2, 3, 4, api_version=2)
    write_order(gateway.folder, DrainOrder(gateway.clocks.wall, 60))
    await pass_time(gateway, 2, 1, 2, 3, 4)
    assert await gateway.peers() == {2, 3, 4}
    gateway.lists = KeyLists(protected={key(2).raw: ListedKey()})
    # Its node asks by version 1, as after a change of its firmware, and would come back here.
    await gateway.connect(WELT, 3)
    # It has been removed meanwhile.
    await gateway.process.journal.forget([key(4).raw])
    await pass_time(gateway, 10, 2, 3, 4)
    assert await gateway.peers() == {2, 3, 4}
    gateway.lists = KeyLists()
    await pass_time(gateway, MINUTE, 2, 3, 4)
    assert await gateway.peers() == {3, 4}


async def test_a_peer_that_goes_idle_before_its_turn_stays(gateway: Gateway) -> None:
    nodes = tuple(range(1, 9))
    await gateway.connect(WELT, *nodes, api_version=2)
    write_order(gateway.folder, DrainOrder(gateway.clocks.wall, 1))
    await pass_time(gateway, 2 * MINUTE + 2, *nodes)
    assert len(await gateway.peers()) == 6
    # Their nodes have found another gateway.
    await pass_time(gateway, 10 * MINUTE)
    assert len(await gateway.peers()) == 3


async def test_after_a_standstill_few_peers_go_at_once(gateway: Gateway) -> None:
    nodes = tuple(range(1, 31))
    await gateway.connect(WELT, *nodes, api_version=2)
    write_order(gateway.folder, DrainOrder(gateway.clocks.wall, 60))
    await pass_time(gateway, 2, *nodes)
    assert len(await gateway.peers()) == 29
    gateway.clocks.advance(HOUR)
    await pass_time(gateway, 1, *nodes)
    assert len(await gateway.peers()) == 24
    # The pace goes on as before.
    await pass_time(gateway, 3, *nodes)
    assert len(await gateway.peers()) == 21


async def test_what_is_ordered_and_taken_back_survives_a_power_cut(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[list[str]] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced.append([path.name for path in gateway.folder.glob("*.json")])
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_order(gateway.folder, DrainOrder(1.0))
    assert synced == [[FILE]]
    remove_order(gateway.folder)
    assert synced == [[FILE], []]
