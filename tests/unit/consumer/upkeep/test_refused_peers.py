"""Peers of keys that the lists refuse are removed, and stay away."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers import CITY, WELT, key
from tests.unit.consumer.upkeep.gateway import Gateway, running_gateway
from wgkex_ops.model.changes import Operation
from wgkex_ops.model.key_lists import KeyLists, ListedKey


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


def denied(*numbers: int, expires: float = 1e12) -> KeyLists:
    return KeyLists(denied={key(number).raw: ListedKey("stolen", expires=expires) for number in numbers})


def removed(gateway: Gateway, reason: str) -> float:
    return gateway.process.count("peers_removed", f'domain="{WELT.name}",reason="{reason}"')


async def test_a_denied_key_loses_its_peer_even_with_a_live_session(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1, 2)
    gateway.lists = denied(1)
    await gateway.reconcile()
    assert await gateway.peers() == {2}
    assert removed(gateway, "denied") == 1
    (line,) = gateway.logged("peer_removed")
    assert line == {"domain": WELT.name, "public_key": str(key(1)), "reason": "denied", "name": "stolen"}
    # It is refused from then on, and does not come back after a reboot.
    assert await gateway.process.request(WELT, key(1)) == "denied_key"
    await gateway.reboot()
    assert await gateway.peers() == {2}


async def test_a_denied_key_is_not_restored_after_a_reboot(gateway: Gateway) -> None:
    await gateway.request(WELT, 1, 2)
    gateway.lists = denied(1)
    await gateway.reboot()
    assert await gateway.peers() == {2}


async def test_an_entry_that_has_expired_refuses_nobody(gateway: Gateway) -> None:
    await gateway.request(WELT, 1)
    gateway.lists = denied(1, expires=gateway.clocks.wall)
    await gateway.reconcile()
    assert await gateway.peers() == {1}


async def test_only_those_allowed_stay_where_a_domain_has_a_list(gateway: Gateway) -> None:
    await gateway.request(WELT, 1, 2)
    await gateway.request(CITY, 3)
    gateway.lists = KeyLists(allowed={WELT.name: {key(1).raw: ListedKey()}})
    await gateway.reconcile()
    assert (await gateway.peers(WELT), await gateway.peers(CITY)) == ({1}, {3})
    assert removed(gateway, "not_allowed") == 1
    assert await gateway.process.request(WELT, key(2)) == "not_allowed_key"


async def test_what_is_not_ours_stays(gateway: Gateway) -> None:
    gateway.dataplane.add_static(WELT, key(1))
    gateway.lists = denied(1)
    await gateway.reconcile()
    state = (await gateway.dataplane.snapshot()).domains[WELT.name]
    assert [peer.public_key for peer in state.peers] == [key(1).raw]


async def test_what_the_kernel_refuses_to_remove_is_removed_later(gateway: Gateway) -> None:
    await gateway.request(WELT, 1)
    gateway.lists = denied(1)
    gateway.dataplane.refuse(key(1), Operation.PEER_REMOVE, "EPERM")
    await gateway.reconcile()
    assert len(gateway.logged("peers_not_removed")) == 1
    gateway.dataplane.accept(key(1))
    await gateway.reconcile()
    assert await gateway.peers() == set()
    assert removed(gateway, "denied") == 1


async def test_a_peer_that_another_program_has_given_an_address_stays(gateway: Gateway) -> None:
    await gateway.request(WELT, 1)
    gateway.dataplane.readdress(WELT, key(1), bytes(16))
    gateway.lists = denied(1)
    await gateway.reconcile()
    state = (await gateway.dataplane.snapshot()).domains[WELT.name]
    assert [peer.public_key for peer in state.peers] == [key(1).raw]
    # It does not become ours again.
    assert key(1).raw not in gateway.process.journal.rows
