"""Decoding a WireGuard interface with its peers."""

import struct
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.unit.consumer.dataplane.netlink.recordings import (
    ADDRESS,
    DEVICE,
    KEY,
    OTHER_ADDRESS,
    OTHER_KEY,
    allowed_ip,
    attribute,
    bodies,
    device_message,
    peer,
)
from wgkex_ops.consumer.dataplane.netlink import framing, parse
from wgkex_ops.model.peers import Peer


def test_device() -> None:
    device = parse.decode_device(bodies(DEVICE))
    assert device.public_key.hex() == "474d82955f94f3f94083c956f35309541fef1fc2c01f02d3e8c02015441d6f7e"
    assert device.listen_port == 40001
    assert device.peers == (
        Peer(KEY, handshake=0.0, receive_bytes=0, transmit_bytes=148, link_local=b"", endpoint="IPv4"),
        Peer(OTHER_KEY, handshake=0.0, receive_bytes=0, transmit_bytes=0, link_local=ADDRESS),
    )


def test_a_device_without_key_and_peers() -> None:
    assert parse.decode_device([bytes(4) + attribute(6, b"\x41\x9c")]) == parse.Device(
        b"", 40001, (), frozenset(), frozenset()
    )


def test_a_peer_that_continues_in_the_next_message() -> None:
    split = parse.decode_device(
        [
            device_message(peer(KEY)),
            device_message(peer(KEY, allowed_ip("fe80::7"), first=False), peer(OTHER_KEY, allowed_ip("fe80::8"))),
            device_message(peer(OTHER_KEY, allowed_ip("fe80::9"), first=False)),
            device_message(peer(OTHER_KEY, allowed_ip("fe80::a"), first=False)),
        ]
    )
    assert split.peers == (
        Peer(KEY, 1_700_000_000.25, receive_bytes=10, transmit_bytes=20, link_local=ADDRESS),
        Peer(OTHER_KEY, 1_700_000_000.25, receive_bytes=10, transmit_bytes=20, link_local=b""),
    )
    assert split.shared_addresses == {IPv6Address(f"fe80::{last}").packed for last in "89a"}


def test_shared_addresses_are_those_of_peers_with_several_allowed_ips() -> None:
    """Networks do not count, and the only address of a peer is not shared."""
    network = attribute(0x8000, attribute(3, b"\x40") + attribute(1, b"\x0a\x00") + attribute(2, ADDRESS))
    device = parse.decode_device(
        [
            device_message(peer(bytes(32), network), peer(KEY, allowed_ip("fe80::1"))),
            device_message(peer(KEY, allowed_ip("fe80::2"), first=False), peer(bytes(31) + b"1")),
            device_message(peer(OTHER_KEY, allowed_ip("fe80::3")), peer(bytes(31) + b"2", network, allowed_ip("::4"))),
        ]
    )
    assert device.shared_addresses == {IPv6Address(one).packed for one in ("fe80::1", "fe80::2", "::4")}
    assert [one.link_local for one in device.peers] == [b"", b"", b"", IPv6Address("fe80::3").packed, b""]


def test_attributes_in_another_order() -> None:
    value = (
        attribute(0x8009, attribute(0x8000, attribute(2, ADDRESS) + attribute(99, b"new") + attribute(3, b"\x80")))
        + attribute(7, struct.pack("=Q", 10))
        + attribute(99, b"something new")
        + attribute(8, struct.pack("=Q", 20))
        + attribute(6, struct.pack("=qq", 5, 0))
        + attribute(1, KEY)
    )
    device = parse.decode_device([device_message(attribute(0x8000, value))])
    assert device.peers == (Peer(KEY, 5.0, receive_bytes=10, transmit_bytes=20, link_local=ADDRESS),)


def usual(number: int, *allowed_ips: str, endpoint: int = 0) -> bytes:
    """A peer as the kernel writes it, with an endpoint of so many bytes."""
    return attribute(
        0x8000,
        attribute(1, bytes((1, number)) * 16)
        + attribute(2, bytes(32))
        + attribute(6, struct.pack("=qq", 5, 250_000_000))
        + attribute(5, b"\0\0")
        + attribute(8, struct.pack("=Q", number))
        + attribute(7, struct.pack("=Q", 2**40 + number))
        + attribute(10, struct.pack("=I", 1))
        + (attribute(4, bytes(range(endpoint))) if endpoint else b"")
        + attribute(0x8009, b"".join(map(allowed_ip, allowed_ips))),
    )


def reordered(peer: bytes) -> bytes:
    """The same peer with its attributes in the opposite order."""
    attributes = reversed(framing.decode_attributes(peer, 4))
    return attribute(0x8000, b"".join(attribute(kind, value) for kind, value in attributes))


def decode(*peers: bytes) -> list[Peer]:
    return list(parse.decode_device([device_message(*peers)]).peers)


@pytest.mark.parametrize(("endpoint", "family"), [(0, ""), (16, "IPv4"), (28, "IPv6")])
def test_a_usual_peer(endpoint: int, family: str) -> None:
    peer = usual(3, "fe80::7", endpoint=endpoint)
    expected = Peer(bytes((1, 3)) * 16, 5.25, receive_bytes=2**40 + 3, transmit_bytes=3, link_local=ADDRESS)
    assert decode(peer) == decode(reordered(peer)) == [structs.replace(expected, endpoint=family)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([(), ("fe80::7",), ("fe80::7", "fe80::8")]),
            st.sampled_from([0, 16, 28]),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_usual_and_unusual_peers_mixed(kinds: list[tuple[tuple[str, ...], int, bool]]) -> None:
    peers = [usual(number, *allowed_ips, endpoint=size) for number, (allowed_ips, size, _) in enumerate(kinds)]
    some_reordered = [reordered(peer) if kind[2] else peer for peer, kind in zip(peers, kinds, strict=True)]
    assert decode(*some_reordered) == decode(*peers) == decode(*map(reordered, peers))


def test_a_usual_peer_may_continue_in_the_next_message() -> None:
    rest = peer(bytes((1, 2)) * 16, allowed_ip("fe80::8"), first=False)
    device = parse.decode_device([device_message(usual(1, "fe80::7"), usual(2, "fe80::7")), device_message(rest)])
    assert [one.link_local for one in device.peers] == [ADDRESS, b""]
    assert device.shared_addresses == {ADDRESS, OTHER_ADDRESS}


@pytest.mark.parametrize("endpoint", [0, 16, 28])
def test_a_usual_peer_with_one_byte_changed(endpoint: int) -> None:
    """It is decoded attribute by attribute, or cannot be decoded at all."""

    def decoded(change: Callable[[bytes], bytes]) -> list[Peer] | None:
        try:
            return decode(before, change(bytes(changed)), after)
        except framing.DecodeError:
            return None

    before, peer, after = (usual(number, "fe80::7", endpoint=endpoint) for number in (1, 2, 3))
    for position in range(4, len(peer)):
        changed = bytearray(peer)
        changed[position] ^= 0x40
        assert decoded(bytes) == decoded(reordered)


@pytest.mark.parametrize("left_out", [1, 6, 7, 8])
def test_a_peer_that_lacks_something(left_out: int) -> None:
    parts = {1: KEY, 6: bytes(16), 7: bytes(8), 8: bytes(8)}
    value = b"".join(attribute(kind, part) for kind, part in parts.items() if kind != left_out)
    with pytest.raises(framing.DecodeError, match=f"a WireGuard peer without attribute {left_out}"):
        parse.decode_device([device_message(attribute(0x8000, value))])
