"""The bytes of netlink, on what a kernel really said (Linux 6.1) and on what none should ever say."""

import struct
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgkex_ops.consumer.dataplane.netlink import wire
from wgkex_ops.model.peers import Peer

KEY = bytes(range(32))
OTHER_KEY = bytes(range(32, 64))
ADDRESS = IPv6Address("fe80::7").packed
OTHER_ADDRESS = IPv6Address("fe80::8").packed

# Whole dumps with the end that belongs to them, and with sequence number 7. The interface has a peer as other gateways
# are, with an endpoint and two networks, and one as nodes are.
DEVICE = bytes.fromhex(
    "1c0200002000020007000000061500000001000006000600419c0000080007000000000008000100020000000900020077672d61000000002400"
    "0300407c7c9885732ab09cb0fb0c1851c623d24d5d2da05c820f46a189f14f73817624000400474d82955f94f3f94083c956f35309541fef1fc2"
    "c01f02d3e8c02015441d6f7e9c010880e400008024000100000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2400"
    "02000000000000000000000000000000000000000000000000000000000000000000140006000000000000000000000000000000000006000500"
    "190000000c00080094000000000000000c000700000000000000000008000a00010000001400040002009c41c000020100000000000000004800"
    "0980280000800500030080000000060001000a00000014000200fe8000000000000000000000000500011c000080050003000800000006000100"
    "02000000080002000a000000b400008024000100202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f240002000000"
    "000000000000000000000000000000000000000000000000000000000000140006000000000000000000000000000000000006000500000000000c"
    "00080000000000000000000c000700000000000000000008000a00010000002c000980280000800500030080000000060001000a000000140002"
    "00fe8000000000000000000000000000071400000003000200070000000615000000000000"
)
ROUTES = bytes.fromhex(
    "740000001800220007000000061500000a800000fe9e00010000000008000f00fe00000014000100fe80000000000000000000000000000708000"
    "60000040000080004000200000024000c000000000000000000000000000000000000000000000000000000000000000000050014000000000014"
    "00000003002200070000000615000000000000"
)
FDB = bytes.fromhex(
    "580000001c00020007000000061500000700000003000000c00002010a000200000000000000000014000100fe80000000000000000000000000"
    "0007080008000200000014000300000000002d0000002d00000000000000580000001c00020007000000061500000700000003000000c0000201"
    "0a000200020000000001000014000100fe8000000000000000000000000000080800080002000000140003000000000006000000060000000000"
    "00001400000003000200070000000615000000000000"
)
FAMILIES = bytes.fromhex(
    "88000000100002000700000000000000010200000b0002006e6c6374726c0000060001001000000008000300020000000800040000000000080005"
    "00000000002c000600140001000800010003000000080002000e00000014000200080001000a000000080002000c0000001c00070018000100080002"
    "00100000000b0001006e6f74696679000070000000100002000700000000000000010200000e0002007769726567756172640000000600010020"
    "0000000800030001000000080004000000000008000500080000002c000600140001000800010000000000080002001c00000014000200080001"
    "0001000000080002001a0000001400000003000200070000000000000000000000"
)
NO_SUCH_DEVICE = bytes.fromhex(
    "30000000020000000700000006150000edffffff1c0000002000050307000000000000000001000008000100e7030000"
)

DECODERS: dict[str, Callable[[Iterable[bytes]], object]] = {
    "families": wire.decode_families,
    "device": wire.decode_device,
    "links": lambda bodies: list(wire.decode_links(bodies)),
    "routes": lambda bodies: list(wire.decode_routes(bodies, 158)),
    "fdb": lambda bodies: list(wire.decode_fdb(bodies, 3)),
    "error": lambda bodies: [wire.decode_error(body) for body in bodies],
}
RECORDINGS = {
    "families": FAMILIES,
    "device": DEVICE,
    "routes": ROUTES,
    "fdb": FDB,
    "error": NO_SUCH_DEVICE,
}


def bodies(datagram: bytes) -> list[bytes]:
    return [message.body for message in wire.messages(datagram) if message.kind != wire.NLMSG_DONE]


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def allowed_ip(address: str) -> bytes:
    value = attribute(3, b"\x80") + attribute(1, b"\x0a\x00") + attribute(2, IPv6Address(address).packed)
    return attribute(0x8000, value)


def peer(key: bytes, *allowed_ips: bytes, first: bool = True) -> bytes:
    """A peer as the kernel writes it; the second part of a peer has no more than key and addresses."""
    statistics = (
        attribute(2, bytes(32))
        + attribute(6, struct.pack("=qq", 1_700_000_000, 250_000_000))
        + attribute(5, b"\0\0")
        + attribute(8, struct.pack("=Q", 20))
        + attribute(7, struct.pack("=Q", 10))
        + attribute(10, struct.pack("=I", 1))
    )
    value = attribute(1, key) + (statistics if first else b"") + attribute(0x8009, b"".join(allowed_ips))
    return attribute(0x8000, value)


def device_message(*peers: bytes) -> bytes:
    return bytes(4) + attribute(0x8008, b"".join(peers))


# --- What we say


def test_only_the_last_request_asks_for_an_acknowledgement() -> None:
    sent = wire.encode(wire.Requests(24, 0x500, [b"1234", b"", b"5678"]), 41)
    assert list(wire.messages(sent)) == [(24, 0x501, 41, b"1234"), (24, 0x501, 42, b""), (24, 0x505, 43, b"5678")]
    assert list(wire.messages(wire.encode(wire.Requests(25, 0, [b"1234"]), 7))) == [(25, 0x005, 7, b"1234")]


def test_sequence_numbers_start_anew_after_32_bits() -> None:
    sent = wire.encode(wire.Requests(24, 0, [b""] * 3), 0x1_FFFF_FFFF)
    assert [message.sequence for message in wire.messages(sent)] == [0xFFFF_FFFF, 0, 1]


def test_adding_peers() -> None:
    one = (
        "5c000080"  # 92 bytes: element
        f"24000100{KEY.hex()}"
        "0800030002000000"  # flags: replace allowed IPs
        "2c000980"  # allowed IPs
        "28000080"
        "060001000a000000"  # family: IPv6
        f"14000200{ADDRESS.hex()}"
        "0500030080000000"  # 128 bits
    )
    peer = wire.new_peer(KEY, ADDRESS)
    requests = wire.set_peers(family=32, parts=[(5, [peer, peer]), (6, [peer])])
    two_of_one = bytes.fromhex(f"01010000 0800010005000000 bc000880 {one} {one}")
    one_of_another = bytes.fromhex(f"01010000 0800010006000000 60000880 {one}")
    assert requests == (32, 0, [two_of_one, one_of_another])


def test_a_key_of_another_length_leaves_the_message_readable() -> None:
    requests = wire.set_peers(32, [(5, [wire.new_peer(key, ADDRESS) for key in (KEY, KEY[:31], KEY)])])
    (peers,) = [value for kind, value in wire.walk(requests.bodies[0], 4) if kind == 8]
    assert [dict(wire.walk(peer))[1] for _, peer in wire.walk(peers)] == [KEY, KEY[:31], KEY]


def test_removing_peers() -> None:
    requests = wire.set_peers(family=32, parts=[(5, [wire.gone_peer(KEY)])])
    flags = "0800030005000000"  # remove me, update only
    body = bytes.fromhex(f"01010000 0800010005000000 34000880 30000080 24000100{KEY.hex()} {flags}")
    assert requests == (32, 0, [body])


def test_a_full_message_of_peers_fits_its_length_field() -> None:
    requests = wire.set_peers(32, [(5, [wire.new_peer(KEY, ADDRESS)] * wire.PEERS_PER_MESSAGE)])
    assert len(requests.bodies[0]) == 16 + wire.PEERS_PER_MESSAGE * 92 < 1 << 16


def test_routes() -> None:
    bodies = [
        bytes.fromhex(f"0a800000fe9e000100000000 14000100{address.hex()} 08000400{interface}000000")
        for address, interface in ((ADDRESS, "05"), (OTHER_ADDRESS, "05"), (ADDRESS, "06"))
    ]
    parts = [(5, [ADDRESS, OTHER_ADDRESS]), (6, [ADDRESS])]
    assert wire.add_routes(158, parts) == (24, 0x500, bodies)  # create, replace
    assert wire.remove_routes(158, parts) == (25, 0, bodies)


def test_fdb_entries() -> None:
    bodies = [
        bytes.fromhex(
            f"07000000{vxlan}000000c0000200 0a00020000000000 00000000 14000100{address.hex()} 08000800{wireguard}000000"
        )
        for vxlan, wireguard, address in (("06", "05", ADDRESS), ("06", "05", OTHER_ADDRESS), ("08", "07", ADDRESS))
    ]
    parts = [(6, 5, [ADDRESS, OTHER_ADDRESS]), (8, 7, [ADDRESS])]
    assert wire.add_fdb_entries(parts) == (28, 0xC00, bodies)  # create, append
    assert wire.remove_fdb_entries(parts) == (29, 0, bodies)


def test_dumps() -> None:
    assert wire.dump_families() == (16, 0x300, [bytes.fromhex("03010000")])
    assert wire.dump_device(32, 5) == (32, 0x300, [bytes.fromhex("00010000 0800010005000000")])
    assert wire.dump_links() == (18, 0x300, [bytes(16) + bytes.fromhex("08001d0008000000")])
    assert wire.dump_routes(158) == (26, 0x300, [bytes.fromhex("0a000000fe9e000100000000")])
    assert wire.dump_routes_over(5) == (26, 0x300, [bytes.fromhex("0a000000fe0000010000000008000400 05000000")])
    assert wire.dump_fdb(6) == (30, 0x300, [bytes.fromhex("070000000600000000000000")])


# --- What the kernel says


def test_families() -> None:
    assert wire.decode_families(bodies(FAMILIES)) == {"nlctrl": 16, "wireguard": 32}


def test_device() -> None:
    device = wire.decode_device(bodies(DEVICE))
    assert device.public_key.hex() == "474d82955f94f3f94083c956f35309541fef1fc2c01f02d3e8c02015441d6f7e"
    assert device.listen_port == 40001
    assert device.peers == (
        Peer(KEY, handshake=0.0, receive_bytes=0, transmit_bytes=148, link_local=b""),
        Peer(OTHER_KEY, handshake=0.0, receive_bytes=0, transmit_bytes=0, link_local=ADDRESS),
    )


def test_a_device_without_key_and_peers() -> None:
    assert wire.decode_device([bytes(4) + attribute(6, b"\x41\x9c")]) == wire.Device(b"", 40001, (), frozenset())


def test_a_peer_that_continues_in_the_next_message() -> None:
    split = wire.decode_device(
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


def test_addresses_that_a_peer_has_beside_others() -> None:
    """Networks are none, and who has one address only, has it for itself."""
    network = attribute(0x8000, attribute(3, b"\x40") + attribute(1, b"\x0a\x00") + attribute(2, ADDRESS))
    device = wire.decode_device(
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
    device = wire.decode_device([device_message(attribute(0x8000, value))])
    assert device.peers == (Peer(KEY, 5.0, receive_bytes=10, transmit_bytes=20, link_local=ADDRESS),)


def many(seed: int, count: int, *allowed_ips: str, endpoint: int = 0, handshake: int = 5) -> list[bytes]:
    """Peers as the kernel writes them, of different keys."""
    return [
        attribute(
            0x8000,
            attribute(1, bytes((seed, number)) * 16)
            + attribute(2, bytes(32))
            + attribute(6, struct.pack("=qq", handshake, 250_000_000))
            + attribute(5, b"\0\0")
            + attribute(8, struct.pack("=Q", number))
            + attribute(7, struct.pack("=Q", 2**40 + number))
            + attribute(10, struct.pack("=I", 1))
            + (attribute(4, bytes(range(endpoint))) if endpoint else b"")
            + attribute(0x8009, b"".join(map(allowed_ip, allowed_ips))),
        )
        for number in range(count)
    ]


def one_by_one(peers: list[bytes]) -> list[Peer]:
    return [found for peer in peers for found in wire.decode_device([device_message(peer)]).peers]


@pytest.mark.parametrize("endpoint", [0, 16, 28])
def test_a_run_of_peers_of_the_usual_kind(endpoint: int) -> None:
    run = many(1, 50, "fe80::7", endpoint=endpoint)
    peers = wire.decode_device([device_message(*run)]).peers
    assert peers[3] == Peer(bytes((1, 3)) * 16, 5.25, receive_bytes=2**40 + 3, transmit_bytes=3, link_local=ADDRESS)
    assert list(peers) == one_by_one(run)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([(), ("fe80::7",), ("fe80::7", "fe80::8")]),
            st.sampled_from([0, 16, 28]),
            st.integers(0, 20),
        ),
        max_size=8,
    )
)
def test_runs_of_all_kinds_after_one_another(kinds: list[tuple[tuple[str, ...], int, int]]) -> None:
    peers = [
        peer
        for seed, (allowed_ips, endpoint, count) in enumerate(kinds)
        for peer in many(seed, count, *allowed_ips, endpoint=endpoint)
    ]
    assert list(wire.decode_device([device_message(*peers)]).peers) == one_by_one(peers)


def test_the_last_peer_of_a_run_may_continue_in_the_next_message() -> None:
    run = many(1, 20, "fe80::7")
    rest = peer(bytes((1, 19)) * 16, allowed_ip("fe80::8"), first=False)
    peers = wire.decode_device([device_message(*run), device_message(rest)]).peers
    assert [one.link_local for one in peers] == [ADDRESS] * 19 + [b""]


@pytest.mark.parametrize("position", range(4, 184, 7))
def test_a_peer_in_a_run_with_something_new_in_it_is_read_for_itself(position: int) -> None:
    """Or complained about, if that is what would happen to it anyway."""
    run = many(1, 30, "fe80::7")
    run[15] = run[15][:position] + bytes((run[15][position] ^ 0x40,)) + run[15][position + 1 :]

    def decoded(decode: Callable[[], list[Peer]]) -> list[Peer] | str:
        try:
            return decode()
        except wire.DecodeError as error:
            return str(error)

    together = decoded(lambda: list(wire.decode_device([device_message(*run)]).peers))
    assert together == decoded(lambda: one_by_one(run))


@pytest.mark.parametrize("left_out", [1, 6, 7, 8])
def test_a_peer_that_lacks_something(left_out: int) -> None:
    parts = {1: KEY, 6: bytes(16), 7: bytes(8), 8: bytes(8)}
    value = b"".join(attribute(kind, part) for kind, part in parts.items() if kind != left_out)
    with pytest.raises(wire.DecodeError, match=f"a WireGuard peer without attribute {left_out}"):
        wire.decode_device([device_message(attribute(0x8000, value))])


def test_routes_of_ours() -> None:
    assert list(wire.decode_routes(bodies(ROUTES), 158)) == [(ADDRESS, 2, 158)]
    assert list(wire.decode_routes(bodies(ROUTES), 4)) == []
    assert list(wire.decode_routes(bodies(ROUTES))) == [(ADDRESS, 2, 158)]


def test_fdb_entries_that_are_all_zero() -> None:
    assert list(wire.decode_fdb(bodies(FDB), 3)) == [(ADDRESS, 2)]
    assert list(wire.decode_fdb(bodies(FDB), 4)) == []


def in_reverse(body: bytes, start: int = 12) -> bytes:
    """The same message with its attributes in another order."""
    return body[:start] + b"".join(attribute(kind, value) for kind, value in reversed(wire.walk(body, start)))


def test_routes_and_fdb_entries_in_another_order() -> None:
    assert [in_reverse(in_reverse(body)) for body in bodies(FDB)] == bodies(FDB)
    assert list(wire.decode_routes([in_reverse(body) for body in bodies(ROUTES)], 158)) == [(ADDRESS, 2, 158)]
    assert list(wire.decode_routes([in_reverse(body) for body in bodies(ROUTES)], 4)) == []
    assert list(wire.decode_fdb([in_reverse(body) for body in bodies(FDB)], 3)) == [(ADDRESS, 2)]


@pytest.mark.parametrize(("position", "value"), [(0, 2), (1, 64), (4, 255), (7, 2)])
def test_routes_of_another_kind_are_none_of_ours(position: int, value: int) -> None:
    """Another family (which the kernel would not send), a network, another table, a local address."""
    (body,) = bodies(ROUTES)
    changed = body[:position] + bytes((value,)) + body[position + 1 :]
    expected = [(ADDRESS, 2, 158)] if position == 0 else []
    assert list(wire.decode_routes([changed], 158)) == expected


def test_fdb_entries_that_are_somebody_elses() -> None:
    """Of a bridge, whose flags lack NTF_SELF, and towards nowhere in particular."""
    body = bodies(FDB)[0]
    assert list(wire.decode_fdb([body[:10] + b"\0" + body[11:]], 3)) == []
    without_interface = body[:12] + b"".join(attribute(kind, value) for kind, value in wire.walk(body, 12) if kind != 8)
    assert list(wire.decode_fdb([without_interface], 3)) == [(ADDRESS, 0)]


def test_links() -> None:
    down = struct.pack("=BxHiII", 0, 65534, 8, 0x1042, 0) + attribute(3, b"vx-\xff\0")
    up = struct.pack("=BxHiII", 0, 65534, 7, 0x1043, 0) + attribute(13, b"\0\0\0\0") + attribute(3, b"wg-a\0")
    assert list(wire.decode_links([down, up])) == [(8, "vx-\udcff", False), (7, "wg-a", True)]


def test_an_error() -> None:
    (message,) = wire.messages(NO_SUCH_DEVICE)
    assert (message.kind, message.sequence) == (wire.NLMSG_ERROR, 7)
    assert wire.decode_error(message.body) == 19  # ENODEV
    assert wire.decode_error(bytes(20)) == 0


def test_the_end_of_a_dump() -> None:
    *_, end = wire.messages(ROUTES)
    assert (end.kind, end.flags, wire.decode_error(end.body)) == (wire.NLMSG_DONE, 0x22, 0)


# --- What none should ever say


@pytest.mark.parametrize(
    ("datagram", "complaint"),
    [
        (b"\x10\0\0\0", "4 bytes are no netlink header"),
        (struct.pack("=IHHII", 0, 3, 0, 0, 0), "a netlink message of 0 bytes where 16 are left"),
        (struct.pack("=IHHII", 17, 3, 0, 0, 0), "a netlink message of 17 bytes where 16 are left"),
    ],
)
def test_messages_that_lead_out_of_the_datagram(datagram: bytes, complaint: str) -> None:
    with pytest.raises(wire.DecodeError, match=complaint):
        list(wire.messages(datagram))


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_attributes_that_lead_out_of_their_message(length: int) -> None:
    with pytest.raises(wire.DecodeError, match=f"an attribute of {length} bytes where 8 are left"):
        wire.walk(struct.pack("=HHI", length, 1, 0))


def test_an_error_that_is_none() -> None:
    with pytest.raises(wire.DecodeError, match="19 where an error would be negative"):
        wire.decode_error(struct.pack("=i", 19))


def decode_or_complain(decode: Callable[[Iterable[bytes]], object], datagram: bytes) -> None:
    """Either it can be read, or it is said why not: no other exception, and an end to it."""
    try:
        decode(bodies(datagram))
    except wire.DecodeError as complaint:
        assert str(complaint)  # noqa: PT017 - either way is right


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_cut_off_anywhere(name: str) -> None:
    for length in range(len(RECORDINGS[name])):
        decode_or_complain(DECODERS[name], RECORDINGS[name][:length])


@given(st.sampled_from(sorted(RECORDINGS)), st.data())
def test_a_recording_with_some_bytes_changed(name: str, data: st.DataObject) -> None:
    changed = bytearray(RECORDINGS[name])
    positions = st.integers(min_value=0, max_value=len(changed) - 1)
    for position, value in data.draw(st.dictionaries(positions, st.integers(0, 255), max_size=8)).items():
        changed[position] = value
    decode_or_complain(DECODERS[name], bytes(changed))


@given(st.sampled_from(sorted(DECODERS)), st.lists(st.binary(max_size=200), max_size=4))
def test_any_bytes(name: str, anything: list[bytes]) -> None:
    try:
        DECODERS[name](anything)
    except wire.DecodeError as complaint:
        assert str(complaint)  # noqa: PT017 - either way is right


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_come_back_as_they_were(attributes: list[tuple[int, bytes]]) -> None:
    assert wire.walk(b"".join(wire.attribute(kind, value) for kind, value in attributes)) == attributes
