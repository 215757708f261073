"""Encodes and decodes how interfaces are configured: kind, MTU, VXLAN, addresses, WireGuard's key and port.

Only `wgkex-ops interfaces` uses it; the worker takes the interfaces as they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from wgkex_ops.consumer.dataplane.netlink import uapi
from wgkex_ops.consumer.dataplane.netlink.framing import (
    Requests,
    decode_attributes,
    encode_attribute,
    encode_nested,
    unpack,
)
from wgkex_ops.consumer.dataplane.netlink.parse import decode_name

WIREGUARD_KIND: Final = "wireguard"
VXLAN_KIND: Final = "vxlan"


@dataclass(frozen=True, slots=True)
class VxlanSettings:
    """How a VXLAN interface is configured.

    Attributes:
        vni: its VXLAN network identifier.
        port: the UDP port of the other ends, and of this one.
        lower: the index of the interface that its packets go over; 0 if none is set.
        local: the source address of its packets; None if none is set, or an IPv4 address.
        learning: whether it learns behind which destination a MAC address is.
    """

    vni: int
    port: int
    lower: int
    local: IPv6Address | None
    learning: bool


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How an interface is configured.

    Attributes:
        index: its index.
        name: its name.
        up: whether it is up.
        mtu: in bytes.
        kind: such as "wireguard"; empty for a network card.
        vxlan: if it is a VXLAN interface.
    """

    index: int
    name: str
    up: bool
    mtu: int
    kind: str
    vxlan: VxlanSettings | None


# --- Changes


def create_wireguard(name: str) -> Requests:
    """Create a WireGuard interface, which is down."""
    return _create(name, WIREGUARD_KIND)


def create_vxlan(name: str, settings: VxlanSettings) -> Requests:
    """Create a VXLAN interface, which is down. EEXIST: another one has the VNI, as well."""
    return _create(
        name,
        VXLAN_KIND,
        encode_attribute(uapi.IFLA_VXLAN_ID, uapi.U32.pack(settings.vni)),
        encode_attribute(uapi.IFLA_VXLAN_LINK, uapi.U32.pack(settings.lower)),
        encode_attribute(uapi.IFLA_VXLAN_PORT, uapi.BE16.pack(settings.port)),
        *_changeable(settings),
    )


def change_vxlan(index: int, settings: VxlanSettings) -> Requests:
    """Change what the kernel lets change of a VXLAN interface that exists: address and learning."""
    info = _link_info(VXLAN_KIND, *_changeable(settings))
    return Requests(uapi.RTM_NEWLINK, 0, [uapi.IFINFOMSG.pack(uapi.AF_UNSPEC, 0, index, 0, 0) + info])


def set_mtu(index: int, mtu: int) -> Requests:
    """Set the MTU of an interface, in bytes."""
    body = uapi.IFINFOMSG.pack(uapi.AF_UNSPEC, 0, index, 0, 0)
    return Requests(uapi.RTM_NEWLINK, 0, [body + encode_attribute(uapi.IFLA_MTU, uapi.U32.pack(mtu))])


def set_up(index: int) -> Requests:
    """Set an interface up."""
    return Requests(uapi.RTM_NEWLINK, 0, [uapi.IFINFOMSG.pack(uapi.AF_UNSPEC, 0, index, uapi.IFF_UP, uapi.IFF_UP)])


def change_nothing() -> Requests:
    """Change nothing of the loopback interface, which always has the index 1. EPERM: changes are not allowed."""
    return Requests(uapi.RTM_NEWLINK, 0, [uapi.IFINFOMSG.pack(uapi.AF_UNSPEC, 0, 1, 0, 0)])


def generate_no_address(index: int) -> Requests:
    """Keep the kernel from giving an interface a link-local address when it is set up."""
    mode = encode_attribute(uapi.IFLA_INET6_ADDR_GEN_MODE, uapi.U8.pack(uapi.IN6_ADDR_GEN_MODE_NONE))
    specific = encode_nested(uapi.IFLA_AF_SPEC, encode_nested(uapi.AF_INET6, mode))
    return Requests(uapi.RTM_NEWLINK, 0, [uapi.IFINFOMSG.pack(uapi.AF_UNSPEC, 0, index, 0, 0) + specific])


def add_address(index: int, address: IPv6Address) -> Requests:
    """Give an interface an IPv6 address, as a /128."""
    body = uapi.IFADDRMSG.pack(uapi.AF_INET6, uapi.ADDRESS_BITS, 0, uapi.RT_SCOPE_UNIVERSE, index)
    body += encode_attribute(uapi.IFA_LOCAL, address.packed) + encode_attribute(uapi.IFA_ADDRESS, address.packed)
    return Requests(uapi.RTM_NEWADDR, uapi.NLM_F_CREATE | uapi.NLM_F_EXCL, [body])


def set_device(family: int, index: int, private_key: bytes, port: int) -> Requests:
    """Set key (32 bytes) and UDP port of a WireGuard interface; its peers stay."""
    body = uapi.GENLMSGHDR.pack(uapi.WG_CMD_SET_DEVICE, uapi.WG_GENL_VERSION)
    body += encode_attribute(uapi.WGDEVICE_A_IFINDEX, uapi.U32.pack(index))
    body += encode_attribute(uapi.WGDEVICE_A_PRIVATE_KEY, private_key)
    body += encode_attribute(uapi.WGDEVICE_A_LISTEN_PORT, uapi.U16.pack(port))
    return Requests(family, 0, [body])


def _create(name: str, kind: str, *data: bytes) -> Requests:
    body = uapi.IFINFOMSG.pack(uapi.AF_UNSPEC, 0, 0, 0, 0)
    body += encode_attribute(uapi.IFLA_IFNAME, name.encode() + b"\0") + _link_info(kind, *data)
    return Requests(uapi.RTM_NEWLINK, uapi.NLM_F_CREATE | uapi.NLM_F_EXCL, [body])


def _link_info(kind: str, *data: bytes) -> bytes:
    info = [encode_attribute(uapi.IFLA_INFO_KIND, kind.encode() + b"\0")]
    if data:
        info.append(encode_nested(uapi.IFLA_INFO_DATA, *data))
    return encode_nested(uapi.IFLA_LINKINFO, *info)


def _changeable(settings: VxlanSettings) -> list[bytes]:
    changeable = [encode_attribute(uapi.IFLA_VXLAN_LEARNING, uapi.U8.pack(settings.learning))]
    if settings.local is not None:
        changeable.append(encode_attribute(uapi.IFLA_VXLAN_LOCAL6, settings.local.packed))
    return changeable


# --- Dumps; `query` has the requests for interfaces and WireGuard devices


def dump_addresses(index: int) -> Requests:
    """Request the IPv6 addresses of an interface. The socket needs NETLINK_GET_STRICT_CHK."""
    return Requests(uapi.RTM_GETADDR, uapi.NLM_F_DUMP, [uapi.IFADDRMSG.pack(uapi.AF_INET6, 0, 0, 0, index)])


def decode_addresses(bodies: Iterable[bytes]) -> list[IPv6Address]:
    """Decode addresses."""
    addresses = []
    for body in bodies:
        found = dict(decode_attributes(body, uapi.IFADDRMSG.size))
        # On a point-to-point interface IFA_ADDRESS is the other end's, and IFA_LOCAL our own.
        addresses.append(IPv6Address(found.get(uapi.IFA_LOCAL) or found[uapi.IFA_ADDRESS]))
    return addresses


def decode_links(bodies: Iterable[bytes]) -> list[LinkSettings]:
    """Decode interfaces."""
    links = []
    for body in bodies:
        _, _, index, flags, _ = unpack(uapi.IFINFOMSG, body)
        found = dict(decode_attributes(body, uapi.IFINFOMSG.size))
        info = dict(decode_attributes(found.get(uapi.IFLA_LINKINFO, b"")))
        kind = decode_name(info.get(uapi.IFLA_INFO_KIND, b""))
        links.append(
            LinkSettings(
                index=index,
                name=decode_name(found.get(uapi.IFLA_IFNAME, b"")),
                up=bool(flags & uapi.IFF_UP),
                mtu=unpack(uapi.U32, found.get(uapi.IFLA_MTU, b""))[0],
                kind=kind,
                vxlan=_decode_vxlan(info.get(uapi.IFLA_INFO_DATA, b"")) if kind == VXLAN_KIND else None,
            )
        )
    return links


def decode_private_key(bodies: Iterable[bytes]) -> bytes:
    """Decode the private key (32 bytes) of a WireGuard interface; empty if it has none."""
    for body in bodies:
        found = dict(decode_attributes(body, uapi.GENLMSGHDR.size))
        if uapi.WGDEVICE_A_PRIVATE_KEY in found:
            return found[uapi.WGDEVICE_A_PRIVATE_KEY]
    return b""


def _decode_vxlan(data: bytes) -> VxlanSettings:
    found = dict(decode_attributes(data))
    local = found.get(uapi.IFLA_VXLAN_LOCAL6)
    return VxlanSettings(
        vni=unpack(uapi.U32, found.get(uapi.IFLA_VXLAN_ID, b""))[0],
        port=unpack(uapi.BE16, found.get(uapi.IFLA_VXLAN_PORT, b""))[0],
        # The kernel leaves out what was never set.
        lower=unpack(uapi.U32, found[uapi.IFLA_VXLAN_LINK])[0] if uapi.IFLA_VXLAN_LINK in found else 0,
        local=IPv6Address(local) if local else None,
        learning=found.get(uapi.IFLA_VXLAN_LEARNING) == b"\1",
    )
