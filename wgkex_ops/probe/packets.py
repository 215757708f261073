"""Packets as they come out of a WireGuard interface: bare IP, from whoever has the other end. Pure."""

import struct
from ipaddress import IPv6Address
from typing import Final

# RFC 8200, section 3: version and flow, payload length, next header, hop limit, source, destination.
_IPV6: Final = struct.Struct("!IHBx16s16s")
_UDP_PROTOCOL: Final = 17
# RFC 768: ports, length, checksum; RFC 7348, section 5: flags, VNI; RFC 7348, figure 1: the inner Ethernet header.
_UDP_VXLAN_ETHERNET: Final = struct.Struct("!4xH2xB7x12xH")
# "I": the VNI is valid. All others are to be ignored on receipt.
_VNI_IS_VALID: Final = 0x08
# linux/if_ether.h, ETH_P_BATMAN.
_BATMAN: Final = 0x4305


def is_mesh_packet(packet: bytes, source: IPv6Address, destination: IPv6Address) -> bool:
    """Whether a packet is VXLAN with batman-adv inside, on any UDP port.

    What else a VXLAN interface sends proves nothing: the kernel announces IPv6 addresses also on one that has left its
    mesh.

    Args:
        packet: from its IP header on.
        source: the gateway's address in the tunnel.
        destination: the address that derives from the canary's key: that is where the FDB entry sends packets to.
    """
    if len(packet) < _IPV6.size + _UDP_VXLAN_ETHERNET.size:
        return False
    first, payload_length, protocol, packet_source, packet_destination = _IPV6.unpack_from(packet)
    udp_length, flags, ether_type = _UDP_VXLAN_ETHERNET.unpack_from(packet, _IPV6.size)
    return bool(
        first >> 28 == 6  # noqa: PLR2004  the version
        and protocol == _UDP_PROTOCOL
        and packet_source == source.packed
        and packet_destination == destination.packed
        and _UDP_VXLAN_ETHERNET.size <= udp_length <= payload_length
        and flags & _VNI_IS_VALID != 0
        and ether_type == _BATMAN
    )
