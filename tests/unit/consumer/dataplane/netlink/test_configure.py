"""The bytes of changes and of requests for dumps, attribute by attribute."""

from tests.unit.consumer.dataplane.netlink.recordings import ADDRESS, KEY, OTHER_ADDRESS
from wgkex_ops.consumer.dataplane.netlink import configure, framing, query


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
    peer = configure.encode_peer(KEY, ADDRESS)
    requests = configure.set_peers(family=32, parts=[(5, [peer, peer]), (6, [peer])])
    two_of_one = bytes.fromhex(f"01010000 0800010005000000 bc000880 {one} {one}")
    one_of_another = bytes.fromhex(f"01010000 0800010006000000 60000880 {one}")
    assert requests == (32, 0, [two_of_one, one_of_another])


def test_a_key_of_another_length_leaves_the_message_readable() -> None:
    keys = [KEY, KEY[:31], KEY]
    requests = configure.set_peers(32, [(5, [configure.encode_peer(key, ADDRESS) for key in keys])])
    (peers,) = [value for kind, value in framing.decode_attributes(requests.bodies[0], 4) if kind == 8]
    assert [dict(framing.decode_attributes(peer))[1] for _, peer in framing.decode_attributes(peers)] == keys


def test_removing_peers() -> None:
    requests = configure.set_peers(family=32, parts=[(5, [configure.encode_peer_removal(KEY)])])
    flags = "0800030005000000"  # remove me, update only
    body = bytes.fromhex(f"01010000 0800010005000000 34000880 30000080 24000100{KEY.hex()} {flags}")
    assert requests == (32, 0, [body])


def test_a_full_message_of_peers_fits_its_length_field() -> None:
    requests = configure.set_peers(32, [(5, [configure.encode_peer(KEY, ADDRESS)] * configure.PEERS_PER_MESSAGE)])
    assert len(requests.bodies[0]) == 16 + configure.PEERS_PER_MESSAGE * 92 < 1 << 16


def test_routes() -> None:
    bodies = [
        bytes.fromhex(f"0a800000fe9e000100000000 14000100{address.hex()} 08000400{interface}000000")
        for address, interface in ((ADDRESS, "05"), (OTHER_ADDRESS, "05"), (ADDRESS, "06"))
    ]
    parts = [(5, [ADDRESS, OTHER_ADDRESS]), (6, [ADDRESS])]
    assert configure.add_routes(158, parts) == (24, 0x500, bodies)  # create, replace
    assert configure.remove_routes(158, parts) == (25, 0, bodies)


def test_fdb_entries() -> None:
    bodies = [
        bytes.fromhex(
            f"07000000{vxlan}000000c0000200 0a00020000000000 00000000 14000100{address.hex()} 08000800{wireguard}000000"
        )
        for vxlan, wireguard, address in (("06", "05", ADDRESS), ("06", "05", OTHER_ADDRESS), ("08", "07", ADDRESS))
    ]
    parts = [(6, 5, [ADDRESS, OTHER_ADDRESS]), (8, 7, [ADDRESS])]
    assert configure.add_fdb_entries(parts) == (28, 0xC00, bodies)  # create, append
    assert configure.remove_fdb_entries(parts) == (29, 0, bodies)


def test_dumps() -> None:
    assert query.dump_families() == (16, 0x300, [bytes.fromhex("03010000")])
    assert query.dump_device(32, 5) == (32, 0x300, [bytes.fromhex("00010000 0800010005000000")])
    assert query.dump_links() == (18, 0x300, [bytes(16) + bytes.fromhex("08001d0008000000")])
    assert query.dump_routes(158) == (26, 0x300, [bytes.fromhex("0a000000fe9e000100000000")])
    assert query.dump_routes_over(5) == (26, 0x300, [bytes.fromhex("0a000000fe0000010000000008000400 05000000")])
    assert query.dump_fdb(6) == (30, 0x300, [bytes.fromhex("070000000600000000000000")])
