"""Which keys may be installed: nobody takes the address, and with it the tunnel, of a live session."""

from collections.abc import AsyncIterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import CITY, WELT, key
from tests.unit.consumer.upkeep.gateway import MINUTE, Gateway, running_gateway
from wgkex_ops.model.keys import PublicKey, link_local

# A computed collision: different keys, the same derived address (contract, section 3).
ONE: Final = PublicKey.parse("VrcBIVATAgV5ITICF5iCzEzjZaMwqC89ZIeXFsLKrwk=")
OTHER: Final = PublicKey.parse("oa62udj5Ylq1o3AcAg6aQg3YVhPbRZUtq478LJBc8qU=")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


async def led_to(gateway: Gateway, address: bytes) -> list[str]:
    """The domains whose interface a route of ours to an address leads over."""
    snapshot = await gateway.dataplane.snapshot()
    return [name for name, state in snapshot.domains.items() if address in state.routes]


def test_the_pair_shares_its_address() -> None:
    assert link_local(ONE.raw) == link_local(OTHER.raw)


# --- another domain


async def test_live_key_is_refused_in_another_domain(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    assert await gateway.process.request(CITY, key(1)) == "live_elsewhere"
    assert (await gateway.peers(WELT), await gateway.peers(CITY)) == ({1}, set())
    # Of course it is refreshed where it is.
    assert await gateway.process.request(WELT, key(1)) == ""


async def test_route_of_a_live_node_never_moves_however_often_its_key_is_requested_elsewhere(gateway: Gateway) -> None:
    """A client requests another node's key in another domain every 45 s; the node has a handshake every two minutes."""
    await gateway.connect(WELT, 1)
    address = link_local(key(1).raw)
    for second in range(0, 3600, 15):
        gateway.clocks.advance(15)
        if second % 120 == 0:
            gateway.shake_hands(WELT, 1)
        if second % 45 == 0:
            assert await gateway.process.request(CITY, key(1)) == "live_elsewhere"
        if second % 60 == 0:
            await gateway.reconcile()
        if second % 600 == 0:
            await gateway.clean()
        assert await led_to(gateway, address) == [WELT.name]
        assert await gateway.peers(WELT) == {1}


async def test_node_that_moves_gets_through_three_minutes_after_its_last_handshake(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.clocks.advance(179)
    assert await gateway.process.request(CITY, key(1)) == "live_elsewhere"
    gateway.clocks.advance(1)
    await gateway.request(CITY, 1)
    # It leaves nothing behind, here and in the journal.
    assert (await gateway.peers(WELT), await gateway.peers(CITY)) == (set(), {1})
    await gateway.reboot()
    assert (await gateway.peers(WELT), await gateway.peers(CITY)) == (set(), {1})


async def test_peer_makes_no_room_for_one_that_cannot_be_installed(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.dataplane.remove_interfaces(CITY)
    # The clock has jumped, so that a live session looks old.
    gateway.clocks.wall += 3600
    assert await gateway.process.request(CITY, key(1)) == "ENODEV"
    assert await gateway.peers(WELT) == {1}
    gateway.dataplane.create_interfaces(CITY)
    await gateway.request(CITY, 1)
    assert (await gateway.peers(WELT), await gateway.peers(CITY)) == (set(), {1})


async def test_node_without_a_session_moves_at_once(gateway: Gateway) -> None:
    for domain in (WELT, CITY, WELT, CITY):
        await gateway.request(domain, 1)
    assert (await gateway.peers(WELT), await gateway.peers(CITY)) == (set(), {1})


async def test_session_that_began_after_the_last_scan_counts(gateway: Gateway) -> None:
    await gateway.request(WELT, 1)
    await gateway.reconcile()
    gateway.shake_hands(WELT, 1)
    assert await gateway.process.request(CITY, key(1)) == "live_elsewhere"


async def test_session_of_before_the_restart_counts(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await gateway.restart()
    assert await gateway.process.request(CITY, key(1)) == "live_elsewhere"


async def test_handshake_of_the_future_is_one_of_a_live_session(gateway: Gateway) -> None:
    """The clock was set back, and no new handshake came yet."""
    await gateway.connect(WELT, 1)
    gateway.clocks.wall -= 7200
    assert await gateway.process.request(CITY, key(1)) == "live_elsewhere"


async def test_live_peer_of_the_older_wgkex_counts_as_well(gateway: Gateway) -> None:
    gateway.dataplane.add_static(WELT, key(1))
    gateway.shake_hands(WELT, 1)
    await gateway.reconcile()
    assert await gateway.process.request(CITY, key(1)) == "live_elsewhere"


# --- another key with the same address


@pytest.mark.parametrize("domain", [WELT, CITY], ids=str)
async def test_colliding_key_takes_nothing_from_a_live_peer(gateway: Gateway, domain: object) -> None:
    assert await gateway.process.request(WELT, ONE) == ""
    gateway.dataplane.shake_hands(WELT, ONE)
    where = WELT if domain == WELT else CITY
    for _ in range(20):
        gateway.clocks.advance(45)
        gateway.dataplane.shake_hands(WELT, ONE)
        assert await gateway.process.request(where, OTHER) == "address_taken"
        await gateway.reconcile()
        (peer,) = (await gateway.dataplane.snapshot()).domains[WELT.name].peers
        assert (peer.public_key, peer.link_local) == (ONE.raw, link_local(ONE.raw))
        assert await led_to(gateway, link_local(ONE.raw)) == [WELT.name]


async def test_colliding_key_displaces_a_peer_without_a_session_whole(gateway: Gateway) -> None:
    assert await gateway.process.request(WELT, ONE) == ""
    assert await gateway.process.request(WELT, OTHER) == ""
    (peer,) = (await gateway.dataplane.snapshot()).domains[WELT.name].peers
    assert (peer.public_key, peer.link_local) == (OTHER.raw, link_local(OTHER.raw))
    for _ in range(2):
        await gateway.reconcile()
        assert list(gateway.process.journal.rows) == [OTHER.raw]
        (peer,) = (await gateway.dataplane.snapshot()).domains[WELT.name].peers
        assert peer.public_key == OTHER.raw


# --- what is not ours


async def test_own_key_and_own_address_of_an_interface_are_refused(gateway: Gateway) -> None:
    state = (await gateway.dataplane.snapshot()).domains[WELT.name]
    own = PublicKey(state.public_key)
    # The memory dataplane derives the address from the key, as the interface of a gateway may have it.
    assert IPv6Address(state.link_address) == own.link_local
    assert await gateway.process.request(WELT, own) == "own_key"
    assert await gateway.process.request(CITY, own) == "address_taken"


async def test_static_peers_keep_their_keys_and_their_addresses(gateway: Gateway) -> None:
    address = IPv6Address("fe80::1").packed
    gateway.dataplane.add_static(WELT, key(1), address)
    gateway.dataplane.add_static(WELT, key(2), IPv6Address("fe80::2").packed, link_local(key(3).raw))
    gateway.dataplane.add_static(WELT, key(4), link_local(key(5).raw))
    await gateway.reconcile()
    before = await gateway.dataplane.snapshot()
    for number, reason in ((1, "static_key"), (2, "static_key"), (3, "address_taken"), (4, "static_key")):
        assert await gateway.process.request(WELT, key(number)) == reason
    # Be they live or not, and in whichever domain.
    for domain in (WELT, CITY):
        assert await gateway.process.request(domain, key(5)) == "address_taken"
    assert (await gateway.dataplane.snapshot()).domains == before.domains


# --- what it knows


async def test_it_is_not_ready_before_a_snapshot_could_be_read(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    assert not gateway.process.admission.ready.is_set()
    await gateway.start()
    try:
        assert gateway.process.admission.ready.is_set()
    finally:
        await gateway.stop()


async def test_requests_are_noted(gateway: Gateway) -> None:
    gateway.clocks.advance(10 * MINUTE)
    assert gateway.process.requests.age(key(1).raw) == 10 * MINUTE
    await gateway.connect(WELT, 1)
    gateway.clocks.advance(5)
    await gateway.process.request(CITY, key(1))
    assert gateway.process.requests.age(key(1).raw) == 0.0
    gateway.clocks.advance(5)
    assert gateway.process.requests.age(key(1).raw) == 5.0
    gateway.process.requests.forget(60.0, but=())
    assert gateway.process.requests.age(key(1).raw) == 5.0
    gateway.process.requests.forget(1.0, but={key(1).raw})
    assert gateway.process.requests.age(key(1).raw) == 5.0
    gateway.process.requests.forget(1.0, but=())
    assert gateway.process.requests.age(key(1).raw) == 10 * MINUTE + 10
