"""Decodes the kernel's dumps: families, interfaces, WireGuard peers, routes and FDB entries.

The bodies of a dump's messages go in, values come out. Every decoder raises DecodeError for what it cannot read.

Of peers, routes and FDB entries there are thousands, and nearly all have the same attributes, of the same size, in the
same order. Those are read with one call of `struct`, their constant bytes compared with what is expected: that takes a
third to a quarter of the time of going from attribute to attribute, which is left for all others.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from msgspec import structs

from wgkex_ops.consumer.dataplane.netlink import uapi
from wgkex_ops.consumer.dataplane.netlink.framing import (
    DecodeError,
    decode_attribute,
    decode_attributes,
    encode_attribute,
    encode_nested,
    unpack,
)
from wgkex_ops.model.peers import Peer, Traffic


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface.

    Attributes:
        traffic: what it has carried; None where that was not read. Two links that differ only in it are equal: more
            traffic is no change of a link.
    """

    index: int
    name: str
    up: bool
    traffic: Traffic | None = field(default=None, compare=False)


class Route(NamedTuple):
    """A route to one address: its destination (16 bytes), its interface's index, its protocol number."""

    destination: bytes
    interface: int
    protocol: int


class FdbEntry(NamedTuple):
    """A destination (16 bytes) of a VXLAN interface's all-zero entry, and the index of the interface it goes over."""

    destination: bytes
    via: int


@dataclass(frozen=True, slots=True)
class Device:
    """A WireGuard interface; the fields are those of `DomainState`."""

    public_key: bytes
    listen_port: int
    peers: tuple[Peer, ...]
    shared_addresses: frozenset[bytes]
    unaddressed: frozenset[bytes]


def decode_families(bodies: Iterable[bytes]) -> dict[str, int]:
    """Decode generic netlink families: number by name."""
    families: dict[str, int] = {}
    for body in bodies:
        found = dict(decode_attributes(body, uapi.GENLMSGHDR.size))
        name = found.get(uapi.CTRL_ATTR_FAMILY_NAME, b"")
        families[decode_name(name)] = unpack(uapi.U16, found.get(uapi.CTRL_ATTR_FAMILY_ID, b""))[0]
    return families


def decode_links(bodies: Iterable[bytes]) -> Iterator[Link]:
    """Decode interfaces."""
    for body in bodies:
        _, _, index, flags, _ = unpack(uapi.IFINFOMSG, body)
        found = dict(decode_attributes(body, uapi.IFINFOMSG.size))
        traffic = None
        if uapi.IFLA_STATS64 in found:
            traffic = Traffic(*unpack(uapi.RTNL_LINK_STATS64, found[uapi.IFLA_STATS64]))
        name = decode_name(found.get(uapi.IFLA_IFNAME, b""))
        yield Link(index, name, bool(flags & uapi.IFF_UP), traffic)


def decode_device(bodies: Iterable[bytes]) -> Device:
    """Decode one WireGuard interface with its peers."""
    public_key, listen_port = b"", 0
    peers = _Peers()
    for body in bodies:
        found = dict(decode_attributes(body, uapi.GENLMSGHDR.size))
        public_key = found.get(uapi.WGDEVICE_A_PUBLIC_KEY, public_key)
        if uapi.WGDEVICE_A_LISTEN_PORT in found:
            (listen_port,) = unpack(uapi.U16, found[uapi.WGDEVICE_A_LISTEN_PORT])
        peers.decode(found.get(uapi.WGDEVICE_A_PEERS, b""))
    return Device(public_key, listen_port, tuple(peers.found), peers.shared_addresses, peers.unaddressed)


def decode_routes(bodies: Iterable[bytes], protocol: int | None = None) -> Iterator[Route]:
    """Decode IPv6 routes: those of the main table to one address, with one protocol number or with any."""
    for body in bodies:
        if len(body) >= _USUAL_ROUTE.size:
            start, carried, kind, table, of_dst, destination, of_priority, of_oif, interface = _USUAL_ROUTE.unpack_from(
                body
            )
            if (start, kind, table, of_dst, of_priority, of_oif) == _USUAL_ROUTE_CONSTANTS:
                if protocol in (None, carried):
                    yield Route(destination, interface, carried)
                continue
        yield from _decode_unusual_route(body, protocol)


def decode_fdb(bodies: Iterable[bytes], vxlan: int) -> Iterator[FdbEntry]:
    """Decode forwarding databases: the destinations of one VXLAN interface's all-zero entry."""
    for body in bodies:
        if len(body) >= _USUAL_FDB_ENTRY.size:
            interface, flags, mac, of_dst, destination, of_via, via = _USUAL_FDB_ENTRY.unpack_from(body)
            if (mac, of_dst, of_via) == _USUAL_FDB_ENTRY_CONSTANTS:
                if interface == vxlan and flags & uapi.NTF_SELF:
                    yield FdbEntry(destination, via)
                continue
        yield from _decode_unusual_fdb_entry(body, vxlan)


# --- Peers

# A list of allowed IPs with one IPv6 /128 in it, up to the address itself at its end.
_ONE_ADDRESS: Final = encode_nested(
    0,
    encode_attribute(uapi.WGALLOWEDIP_A_CIDR_MASK, uapi.U8.pack(uapi.ADDRESS_BITS)),
    encode_attribute(uapi.WGALLOWEDIP_A_FAMILY, uapi.U16.pack(uapi.AF_INET6)),
    encode_attribute(uapi.WGALLOWEDIP_A_IPADDR, bytes(uapi.ADDRESS_BYTES)),
)[: -uapi.ADDRESS_BYTES]


# By the size of an endpoint: struct sockaddr_in, sockaddr_in6, or 0 for none.
_FAMILIES: Final = {0: "", 16: "IPv4", 28: "IPv6"}


class _UsualPeer:
    """How every kernel so far writes a peer with one allowed address (drivers/net/wireguard/netlink.c, get_peer).

    Args:
        endpoint: the size of its endpoint, one of `_FAMILIES`.
    """

    def __init__(self, endpoint: int) -> None:
        self.family = _FAMILIES[endpoint]
        header = uapi.NLATTR.pack
        middle = encode_attribute(uapi.WGPEER_A_PROTOCOL_VERSION, uapi.U32.pack(1))
        if endpoint:
            middle += header(4 + endpoint, uapi.WGPEER_A_ENDPOINT)
        allowed_size = len(_ONE_ADDRESS) + uapi.ADDRESS_BYTES
        end = header(4 + allowed_size, uapi.WGPEER_A_ALLOWEDIPS | uapi.NLA_F_NESTED) + _ONE_ADDRESS
        self.layout = struct.Struct(
            f"=8s32s 4s32x 4sqq 4s4x 4sQ 4sQ {len(middle)}s{endpoint}x {len(end)}s{uapi.ADDRESS_BYTES}s"
        )
        self.header = header(self.layout.size, uapi.NLA_F_NESTED)
        self.constants = (
            self.header + header(36, uapi.WGPEER_A_PUBLIC_KEY),
            header(36, uapi.WGPEER_A_PRESHARED_KEY),
            header(20, uapi.WGPEER_A_LAST_HANDSHAKE_TIME),
            header(6, uapi.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL),
            header(12, uapi.WGPEER_A_TX_BYTES),
            header(12, uapi.WGPEER_A_RX_BYTES),
            middle,
            end,
        )


# By the header of the peer, which has its length.
_USUAL_PEERS: Final = {usual.header: usual for usual in map(_UsualPeer, _FAMILIES)}


class _Peers:
    """The peers of one interface, which may be spread over several messages.

    A peer with many allowed addresses continues in the next message. There it has its public key and the rest of the
    addresses only (drivers/net/wireguard/netlink.c, get_peer).

    Attributes:
        found: the peers so far.
    """

    def __init__(self) -> None:
        self.found: list[Peer] = []
        # The lists of allowed IPs of all peers that have not exactly one address, by key.
        self._several: dict[bytes, bytes] = {}

    @property
    def shared_addresses(self) -> frozenset[bytes]:
        """The addresses of peers that have more than one allowed IP."""
        return frozenset(address for allowed in self._several.values() for address in _decode_addresses(allowed))

    @property
    def unaddressed(self) -> frozenset[bytes]:
        """The keys of peers that have no allowed IP."""
        return frozenset(key for key, allowed in self._several.items() if not allowed)

    def decode(self, elements: bytes) -> None:
        """Decode the peers of one message."""
        start, end = 0, len(elements)
        while start < end:
            usual = _USUAL_PEERS.get(elements[start : start + uapi.NLATTR.size])
            if usual is not None and start + usual.layout.size <= end:
                unpack_from = usual.layout.unpack_from
                c1, key, c2, c3, seconds, nanoseconds, c4, c5, tx, c6, rx, c7, c8, address = unpack_from(
                    elements, start
                )
                if (c1, c2, c3, c4, c5, c6, c7, c8) == usual.constants:
                    self.found.append(Peer(key, seconds + nanoseconds / 1e9, rx, tx, address, usual.family))
                    start += usual.layout.size
                    continue
            element, start = decode_attribute(elements, start)
            self._decode_unusual(dict(decode_attributes(element)))

    def _decode_unusual(self, attributes: dict[int, bytes]) -> None:
        allowed = attributes.get(uapi.WGPEER_A_ALLOWEDIPS, b"")
        if self.found and self.found[-1].public_key == attributes.get(uapi.WGPEER_A_PUBLIC_KEY):
            peer = self.found.pop()
            before = _ONE_ADDRESS + peer.link_local if peer.link_local else self._several[peer.public_key]
            allowed = before + allowed
        else:
            peer = _decode_peer(attributes)
        peer = structs.replace(peer, link_local=_only_address(allowed))
        self.found.append(peer)
        if not peer.link_local:
            self._several[peer.public_key] = allowed


def _decode_peer(attributes: dict[int, bytes]) -> Peer:
    """Decode a peer, but for its addresses."""
    try:
        seconds, nanoseconds = unpack(uapi.KERNEL_TIMESPEC, attributes[uapi.WGPEER_A_LAST_HANDSHAKE_TIME])
        (rx,) = unpack(uapi.U64, attributes[uapi.WGPEER_A_RX_BYTES])
        (tx,) = unpack(uapi.U64, attributes[uapi.WGPEER_A_TX_BYTES])
        key = attributes[uapi.WGPEER_A_PUBLIC_KEY]
    except KeyError as missing:
        raise DecodeError(f"a WireGuard peer without attribute {missing}") from None
    family = _FAMILIES.get(len(attributes.get(uapi.WGPEER_A_ENDPOINT, b"")), "")
    return Peer(key, seconds + nanoseconds / 1e9, rx, tx, b"", family)


def _only_address(allowed: bytes) -> bytes:
    """The address of a list of allowed IPs that has exactly one IPv6 /128, else nothing."""
    return next(_decode_addresses(allowed), b"") if len(decode_attributes(allowed)) == 1 else b""


def _decode_addresses(allowed: bytes) -> Iterator[bytes]:
    """All IPv6 /128 of a list of allowed IPs."""
    for _, entry in decode_attributes(allowed):
        found = dict(decode_attributes(entry))
        address = found.get(uapi.WGALLOWEDIP_A_IPADDR, b"")
        whole = found.get(uapi.WGALLOWEDIP_A_CIDR_MASK) == uapi.U8.pack(uapi.ADDRESS_BITS)
        if whole and len(address) == uapi.ADDRESS_BYTES:
            yield address


# --- Routes and FDB entries

# How every kernel so far writes a route to one address over one interface (net/ipv6/route.c, rt6_fill_node), and a
# destination of an all-zero FDB entry (drivers/net/vxlan, vxlan_fdb_info), as far as it matters.
_USUAL_ROUTE: Final = struct.Struct("=5sBxB4x8s4s16s4s4x4sI")
_USUAL_ROUTE_CONSTANTS: Final = (
    bytes((uapi.AF_INET6, uapi.ADDRESS_BITS, 0, 0, uapi.RT_TABLE_MAIN)),
    uapi.RTN_UNICAST,
    encode_attribute(uapi.RTA_TABLE, uapi.U32.pack(uapi.RT_TABLE_MAIN)),
    uapi.NLATTR.pack(20, uapi.RTA_DST),
    uapi.NLATTR.pack(8, uapi.RTA_PRIORITY),
    uapi.NLATTR.pack(8, uapi.RTA_OIF),
)
_USUAL_FDB_ENTRY: Final = struct.Struct("=4xi2xBx12s4s16s4sI")
_USUAL_FDB_ENTRY_CONSTANTS: Final = (
    encode_attribute(uapi.NDA_LLADDR, uapi.ALL_ZERO_MAC),
    uapi.NLATTR.pack(20, uapi.NDA_DST),
    uapi.NLATTR.pack(8, uapi.NDA_IFINDEX),
)


def _decode_unusual_route(body: bytes, protocol: int | None) -> Iterator[Route]:
    _, bits, _, _, table, carried, _, kind, _ = unpack(uapi.RTMSG, body)
    of_one_address = (bits, table, kind) == (uapi.ADDRESS_BITS, uapi.RT_TABLE_MAIN, uapi.RTN_UNICAST)
    if of_one_address and protocol in (None, carried):
        found = dict(decode_attributes(body, uapi.RTMSG.size))
        destination = found.get(uapi.RTA_DST, b"")
        # A route over several interfaces has no RTA_OIF of its own, and is not ours.
        if len(destination) == uapi.ADDRESS_BYTES and uapi.RTA_OIF in found:
            yield Route(destination, unpack(uapi.U32, found[uapi.RTA_OIF])[0], carried)


def _decode_unusual_fdb_entry(body: bytes, vxlan: int) -> Iterator[FdbEntry]:
    _, interface, _, flags, _ = unpack(uapi.NDMSG, body)
    found = dict(decode_attributes(body, uapi.NDMSG.size))
    if interface == vxlan and flags & uapi.NTF_SELF and found.get(uapi.NDA_LLADDR) == uapi.ALL_ZERO_MAC:
        # The destination that the interface was created with may name no interface to go over.
        via = unpack(uapi.U32, found[uapi.NDA_IFINDEX])[0] if uapi.NDA_IFINDEX in found else 0
        destination = found.get(uapi.NDA_DST, b"")
        if len(destination) == uapi.ADDRESS_BYTES:
            yield FdbEntry(destination, via)


def decode_name(data: bytes) -> str:
    """Decode a name, which ends at the first NUL. Interface names may have any bytes."""
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
