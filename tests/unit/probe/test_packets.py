"""What counts as a VXLAN packet of the mesh: packets made by hand, and what a hostile gateway could send."""

import random
import struct
from ipaddress import IPv6Address
from typing import Final

import pytest

from wgkex_ops.probe.packets import is_mesh_packet

GATEWAY: Final = IPv6Address("fe80::27c:16ff:fec0:6c74")
CANARY: Final = IPv6Address("fe80::2aa:bbff:fecc:ddee")
BATMAN: Final = 0x4305


def packet(
    *,
    version: int = 6,
    protocol: int = 17,
    source: IPv6Address = GATEWAY,
    destination: IPv6Address = CANARY,
    port: int = 8472,
    flags: int = 0x08,
    ether_type: int = BATMAN,
    payload: bytes = b"an OGM",
    udp_length: int | None = None,
    payload_length: int | None = None,
) -> bytes:
    """An IPv6 packet with UDP, VXLAN and an Ethernet frame, from RFCs 8200, 768 and 7348."""
    ethernet = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x01" + struct.pack("!H", ether_type) + payload
    vxlan = struct.pack("!B3xI", flags, 4831583 << 8) + ethernet
    length = 8 + len(vxlan)
    udp = struct.pack("!HHHH", 50000, port, length if udp_length is None else udp_length, 0xBEEF) + vxlan
    header = struct.pack(
        "!IHBB", version << 28 | 0x12345, len(udp) if payload_length is None else payload_length, protocol, 64
    )
    return header + source.packed + destination.packed + udp


def is_one(data: bytes) -> bool:
    return is_mesh_packet(data, source=GATEWAY, destination=CANARY)


@pytest.mark.parametrize("port", [8472, 4789, 1])
@pytest.mark.parametrize("flags", [0x08, 0x88, 0xFF])
def test_batman_adv_in_vxlan_on_any_port_and_with_any_reserved_flag(port: int, flags: int) -> None:
    assert is_one(packet(port=port, flags=flags))
    assert is_one(packet(port=port, flags=flags, payload=b""))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(packet(version=4), id="version"),
        pytest.param(packet(protocol=58), id="ICMPv6"),
        pytest.param(packet(protocol=0), id="options before UDP"),
        pytest.param(packet(source=CANARY), id="from another one"),
        pytest.param(packet(destination=GATEWAY), id="to another one"),
        pytest.param(packet(destination=IPv6Address("ff02::1")), id="to all"),
        pytest.param(packet(flags=0x00), id="no VNI"),
        pytest.param(packet(flags=0xF7), id="all flags but that one"),
        pytest.param(packet(ether_type=0x86DD), id="IPv6 inside: the kernel announces an address"),
        pytest.param(packet(ether_type=0x0806), id="ARP inside"),
        pytest.param(packet(udp_length=0), id="UDP without a length"),
        pytest.param(packet(udp_length=29), id="UDP ends before the frame"),
        pytest.param(packet(udp_length=1000), id="UDP is longer than the packet"),
        pytest.param(packet(payload_length=29), id="IPv6 ends before the frame"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_anything_else_is_none(data: bytes) -> None:
    assert not is_one(data)


def test_a_packet_that_is_cut_off_is_none_until_it_has_the_type_of_the_frame() -> None:
    whole = packet(payload=b"")
    assert [length for length in range(len(whole) + 1) if is_one(whole[:length])] == [len(whole)]


def test_noise_is_none_and_raises_nothing() -> None:
    seeded = random.Random(1)
    for _ in range(2_000):
        assert not is_one(seeded.randbytes(seeded.randrange(200)))
    whole = packet()
    for at in range(len(whole)):
        is_one(whole[:at] + seeded.randbytes(1) + whole[at + 1 :])
