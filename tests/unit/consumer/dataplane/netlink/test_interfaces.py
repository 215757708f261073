"""The bytes of what configures interfaces, attribute by attribute, and of what the kernel says of them."""

import struct
from ipaddress import IPv6Address

import pytest

from tests.unit.consumer.dataplane.netlink.recordings import KEY
from wgkex_ops.consumer.dataplane.netlink import framing, interfaces, uapi
from wgkex_ops.consumer.dataplane.netlink.framing import DecodeError, encode_attribute, encode_nested
from wgkex_ops.consumer.dataplane.netlink.interfaces import LinkSettings, VxlanSettings

ADDRESS = IPv6Address("fe80::27c:16ff:fec0:6c74")
VXLAN = VxlanSettings(vni=4831583, port=8472, lower=5, local=ADDRESS, learning=True)


def link_header(index: int, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, flags, change)


def test_creating_a_wireguard_interface() -> None:
    name = "0b000300" + b"wg-a-b\0".hex() + "00"
    info = "14001280" + "0e000100" + b"wireguard\0".hex() + "0000"
    # RTM_NEWLINK; create, not if it is there
    assert interfaces.create_wireguard("wg-a-b") == (16, 0x600, [link_header(0) + bytes.fromhex(name + info)])


def test_creating_a_vxlan_interface() -> None:
    (body,) = interfaces.create_vxlan("vx-welt", VXLAN).bodies
    found = dict(framing.decode_attributes(body, 16))
    assert found[3] == b"vx-welt\0"
    info = dict(framing.decode_attributes(found[18]))
    assert info[1] == b"vxlan\0"
    assert dict(framing.decode_attributes(info[2])) == {
        1: struct.pack("=I", 4831583),
        3: struct.pack("=I", 5),
        7: b"\1",
        15: bytes.fromhex("2118"),  # 8472 in network byte order
        17: ADDRESS.packed,
    }


def test_changing_a_vxlan_interface_names_only_what_the_kernel_lets_change() -> None:
    kind, flags, (body,) = interfaces.change_vxlan(7, VXLAN)
    assert (kind, flags, body[:16]) == (16, 0, link_header(7))
    info = dict(framing.decode_attributes(dict(framing.decode_attributes(body, 16))[18]))
    assert dict(framing.decode_attributes(info[2])) == {7: b"\1", 17: ADDRESS.packed}


def test_mtu_up_nothing_and_no_address() -> None:
    assert interfaces.set_mtu(7, 1420) == (16, 0, [link_header(7) + bytes.fromhex("080004008c050000")])
    assert interfaces.set_up(7) == (16, 0, [link_header(7, flags=1, change=1)])
    assert interfaces.change_nothing() == (16, 0, [link_header(1)])
    none = bytes.fromhex("10001a80 0c000a80 0500080001000000")
    assert interfaces.generate_no_address(7) == (16, 0, [link_header(7) + none])


def test_adding_an_address() -> None:
    body = bytes.fromhex(f"0a800000 07000000 14000200{ADDRESS.packed.hex()} 14000100{ADDRESS.packed.hex()}")
    assert interfaces.add_address(7, ADDRESS) == (20, 0x600, [body])
    assert interfaces.decode_addresses([body]) == [ADDRESS]
    # On a point-to-point interface, the other end's has another number.
    other = encode_attribute(uapi.IFA_ADDRESS, IPv6Address("fe80::1").packed)
    assert interfaces.decode_addresses([body[:28] + other]) == [ADDRESS]
    assert interfaces.decode_addresses([body[:8] + other]) == [IPv6Address("fe80::1")]


def test_requesting_addresses() -> None:
    assert interfaces.dump_addresses(7) == (22, 0x300, [bytes.fromhex("0a000000 07000000")])


def test_key_and_port_of_a_wireguard_interface() -> None:
    body = bytes.fromhex(f"01010000 0800010005000000 24000300{KEY.hex()} 060006004b9c0000")
    assert interfaces.set_device(32, 5, KEY, 40011) == (32, 0, [body])
    assert interfaces.decode_private_key([body]) == KEY
    assert interfaces.decode_private_key([body[:12], body[:12]]) == b""


def described(index: int, name: bytes, *attributes: bytes, flags: int = 0) -> bytes:
    mtu = encode_attribute(uapi.IFLA_MTU, uapi.U32.pack(1350))
    return link_header(index, flags) + encode_attribute(uapi.IFLA_IFNAME, name + b"\0") + mtu + b"".join(attributes)


def test_decoding_interfaces() -> None:
    (vxlan,) = interfaces.create_vxlan("vx-welt", VXLAN).bodies
    (wireguard,) = interfaces.create_wireguard("wg-welt").bodies
    mtu = encode_attribute(uapi.IFLA_MTU, uapi.U32.pack(1420))
    bodies = [described(1, b"eth0", flags=1), link_header(5) + wireguard[16:] + mtu, link_header(6) + vxlan[16:] + mtu]
    assert interfaces.decode_links(bodies) == [
        LinkSettings(1, "eth0", up=True, mtu=1350, kind="", vxlan=None),
        LinkSettings(5, "wg-welt", up=False, mtu=1420, kind="wireguard", vxlan=None),
        LinkSettings(6, "vx-welt", up=False, mtu=1420, kind="vxlan", vxlan=VXLAN),
    ]


def test_a_vxlan_interface_over_ipv4_has_neither_a_lower_interface_nor_our_address() -> None:
    data = encode_nested(
        uapi.IFLA_INFO_DATA,
        encode_attribute(uapi.IFLA_VXLAN_ID, uapi.U32.pack(7)),
        encode_attribute(uapi.IFLA_VXLAN_PORT, uapi.BE16.pack(4789)),
        encode_attribute(uapi.IFLA_VXLAN_LEARNING, b"\0"),
    )
    info = encode_nested(uapi.IFLA_LINKINFO, encode_attribute(uapi.IFLA_INFO_KIND, b"vxlan\0"), data)
    (found,) = interfaces.decode_links([described(3, b"vx\xff", info)])
    assert found.name == "vx\udcff"
    assert found.vxlan == VxlanSettings(vni=7, port=4789, lower=0, local=None, learning=False)


@pytest.mark.parametrize("cut", [3, 20])
def test_a_body_that_is_cut_cannot_be_decoded(cut: int) -> None:
    with pytest.raises(DecodeError):
        interfaces.decode_links([described(1, b"eth0")[:cut]])
