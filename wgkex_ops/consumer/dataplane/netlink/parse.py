"""The bytes of netlink: what is said to the kernel about peers, routes and FDB entries, and what it answers.

Pure: nothing here opens a socket, and nothing keeps state beyond one dump. Numbers are those of the kernel's headers
(``include/uapi/linux``), under the names they have there; netlink speaks the machine's own byte order.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from msgspec import structs

from wgkex_ops.consumer.dataplane.netlink.runs import Layout
from wgkex_ops.model.peers import Peer

# linux/netlink.h
NETLINK_ROUTE: Final = 0
NETLINK_GENERIC: Final = 16
SOL_NETLINK: Final = 270
NETLINK_CAP_ACK: Final = 10
NETLINK_GET_STRICT_CHK: Final = 12
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_REQUEST: Final = 0x001
NLM_F_ACK: Final = 0x004
NLM_F_DUMP_INTR: Final = 0x010
NLM_F_REPLACE: Final = 0x100
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
_NLA_F_NESTED: Final = 0x8000
_NLA_TYPE_MASK: Final = 0x3FFF

# linux/genetlink.h
_GENL_ID_CTRL: Final = 0x10
_CTRL_CMD_GETFAMILY: Final = 3
_CTRL_ATTR_FAMILY_ID: Final = 1
_CTRL_ATTR_FAMILY_NAME: Final = 2

# linux/wireguard.h
WG_GENL_NAME: Final = "wireguard"
_WG_GENL_VERSION: Final = 1
_WG_CMD_GET_DEVICE: Final = 0
_WG_CMD_SET_DEVICE: Final = 1
_WGDEVICE_A_IFINDEX: Final = 1
_WGDEVICE_A_PUBLIC_KEY: Final = 4
_WGDEVICE_A_LISTEN_PORT: Final = 6
_WGDEVICE_A_PEERS: Final = 8
_WGPEER_A_PUBLIC_KEY: Final = 1
_WGPEER_A_PRESHARED_KEY: Final = 2
_WGPEER_A_FLAGS: Final = 3
_WGPEER_A_ENDPOINT: Final = 4
_WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL: Final = 5
_WGPEER_A_LAST_HANDSHAKE_TIME: Final = 6
_WGPEER_A_RX_BYTES: Final = 7
_WGPEER_A_TX_BYTES: Final = 8
_WGPEER_A_ALLOWEDIPS: Final = 9
_WGPEER_A_PROTOCOL_VERSION: Final = 10
_WGPEER_F_REMOVE_ME: Final = 1
_WGPEER_F_REPLACE_ALLOWEDIPS: Final = 2
_WGPEER_F_UPDATE_ONLY: Final = 4
_WGALLOWEDIP_A_FAMILY: Final = 1
_WGALLOWEDIP_A_IPADDR: Final = 2
_WGALLOWEDIP_A_CIDR_MASK: Final = 3

# linux/rtnetlink.h, linux/socket.h, linux/if.h, linux/if_link.h
_RTM_GETLINK: Final = 18
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
_RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
_RTM_GETNEIGH: Final = 30
_AF_UNSPEC: Final = 0
_AF_BRIDGE: Final = 7
_AF_INET6: Final = 10
_RT_TABLE_MAIN: Final = 254
_RT_SCOPE_UNIVERSE: Final = 0
_RTPROT_UNSPEC: Final = 0
_RTN_UNICAST: Final = 1
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_PRIORITY: Final = 6
_RTA_TABLE: Final = 15
_IFF_UP: Final = 1
_IFLA_IFNAME: Final = 3
_IFLA_EXT_MASK: Final = 29
_RTEXT_FILTER_SKIP_STATS: Final = 8

# linux/neighbour.h
_NDA_DST: Final = 1
_NDA_LLADDR: Final = 2
_NDA_IFINDEX: Final = 8
_NTF_SELF: Final = 0x02
_NUD_NOARP: Final = 0x40
_NUD_PERMANENT: Final = 0x80

# A netlink attribute tells its length in 16 bits, and all peers of a message share one attribute: at 92 bytes each 712
# would be the end. Fewer, because the kernel holds the lock of all network configuration while it works on a message.
PEERS_PER_MESSAGE: Final = 256

# The kernel answers while it still reads a send. If all of it fails, that many answers have to fit into the receive
# buffer, each with its bookkeeping (sk_buff and the page fragment around it).
MESSAGES_PER_SEND: Final = 256
_ANSWER_BYTES: Final = 1280
# What is asked for: the kernel doubles it (socket(7), SO_RCVBUF). By default, up to 208 KiB are granted.
RECEIVE_BUFFER_BYTES: Final = MESSAGES_PER_SEND * _ANSWER_BYTES // 2

# What one recv() can hold. The kernel makes no dump message longer than 32 KiB (net/netlink/af_netlink.c,
# netlink_dump), and what does not fit into the caller's buffer is lost.
DATAGRAM_BYTES: Final = 1 << 16

_ALL_ZERO_MAC: Final = bytes(6)
_KEY_BYTES: Final = 32
_ADDRESS_BYTES: Final = 16
_ADDRESS_BITS: Final = 128
SEQUENCE_MASK: Final = 0xFFFFFFFF

_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr: length, type
_GENERIC: Final = struct.Struct("=BBxx")  # struct genlmsghdr: command, version
_LINK: Final = struct.Struct("=BxHiII")  # struct ifinfomsg: family, device type, index, flags, change
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, index, state, flags, type
_INT: Final = struct.Struct("=i")
_U8: Final = struct.Struct("=B")
_U16: Final = struct.Struct("=H")
_U32: Final = struct.Struct("=I")
_U64: Final = struct.Struct("=Q")
_TIME: Final = struct.Struct("=qq")  # struct __kernel_timespec: seconds, nanoseconds


class DecodeError(ValueError):
    """The kernel's answer is not what its headers promise. `errnos` makes one of our errors of it."""


class Requests(NamedTuple):
    """Messages of one kind to the kernel, without their sequence numbers: a socket gives them those.

    Attributes:
        kind: the messages' type; for generic netlink the number of the family.
        flags: NLM_F_…, without NLM_F_REQUEST and NLM_F_ACK.
        bodies: everything after the netlink header, of each.
    """

    kind: int
    flags: int
    bodies: Sequence[bytes]


class Message(NamedTuple):
    """One message from the kernel; `kind` and `flags` are those of requests."""

    kind: int
    flags: int
    sequence: int
    body: bytes


class Link(NamedTuple):
    """A network interface."""

    number: int
    name: str
    up: bool


class Route(NamedTuple):
    """A route to one address: its destination (16 bytes), the interface's index, and the number of who made it."""

    destination: bytes
    interface: int
    protocol: int


class FdbEntry(NamedTuple):
    """A destination (16 bytes) of a VXLAN interface's all-zero entry, and the index of the interface in between."""

    destination: bytes
    via: int


@dataclass(frozen=True, slots=True)
class Device:
    """A WireGuard interface, in the words of `DomainState`: its own key, its UDP port and its peers."""

    public_key: bytes
    listen_port: int
    peers: tuple[Peer, ...]
    shared_addresses: frozenset[bytes]


# --- Encoding -----------------------------------------------------------------------------------------------------


def encode(requests: Requests, first: int) -> bytes:
    """Join requests for one send, with ascending sequence numbers from `first` on.

    Only the last one asks for an acknowledgement. The kernel works in order and reports a failure whether it is asked
    to or not (net/netlink/af_netlink.c, netlink_rcv_skb), so the one at the end tells that all others, having said
    nothing, have succeeded. That saves a datagram for each.
    """
    kind, flags, bodies = requests
    flags |= NLM_F_REQUEST
    parts: list[bytes] = []
    for sequence, body in enumerate(bodies, first):
        parts += (_HEADER.pack(_HEADER.size + len(body), kind, flags, sequence & SEQUENCE_MASK, 0), body)
    last = first + len(bodies) - 1
    parts[-2:-1] = [_HEADER.pack(_HEADER.size + len(parts[-1]), kind, flags | NLM_F_ACK, last & SEQUENCE_MASK, 0)]
    return b"".join(parts)


def new_peer(key: bytes, address: bytes) -> bytes:
    """What WireGuard is told of a peer that is to be there, new or not.

    Args:
        key: its public key (32 bytes).
        address: its link-local address (16 bytes), which becomes its only allowed one.
    """
    if len(key) != _KEY_BYTES:
        # It is the kernel's to refuse, and no reason to send it a message that is no message.
        return _new_peer(key, address)
    start, middle, end = _NEW_PEER
    return start + key + middle + address + end


def gone_peer(key: bytes) -> bytes:
    """What WireGuard is told of a peer that is to go; the kernel passes over one that is not there."""
    return nested(0, attribute(_WGPEER_A_PUBLIC_KEY, key), _REMOVE_IF_THERE)


def set_peers(family: int, parts: Iterable[tuple[int, Iterable[bytes]]]) -> Requests:
    """Add, refresh or remove WireGuard peers.

    Args:
        family: WireGuard's number among the generic netlink families.
        parts: what becomes one message each: the index of a WireGuard interface, and at most PEERS_PER_MESSAGE of what
            `new_peer` and `gone_peer` return.
    """
    start = _GENERIC.pack(_WG_CMD_SET_DEVICE, _WG_GENL_VERSION)
    return Requests(
        family,
        0,
        [
            start + attribute(_WGDEVICE_A_IFINDEX, _U32.pack(interface)) + nested(_WGDEVICE_A_PEERS, *peers)
            for interface, peers in parts
        ],
    )


def add_routes(protocol: int, parts: Iterable[tuple[int, Iterable[bytes]]]) -> Requests:
    """Route IPv6 addresses to interfaces, each in place of any route of the same metric to it.

    Args:
        protocol: the number that the routes carry.
        parts: the index of an interface, and the addresses (16 bytes).
    """
    return Requests(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _routes(protocol, parts))


def remove_routes(protocol: int, parts: Iterable[tuple[int, Iterable[bytes]]]) -> Requests:
    """Remove routes that `add_routes` made; one with another protocol number stays, and the kernel says ESRCH."""
    return Requests(RTM_DELROUTE, 0, _routes(protocol, parts))


def add_fdb_entries(parts: Iterable[tuple[int, int, Iterable[bytes]]]) -> Requests:
    """Add destinations to VXLAN interfaces' all-zero entries; one that is there already is no error.

    Args:
        parts: the indices of a VXLAN interface and of the WireGuard interface in between, and the addresses (16 bytes).
    """
    return Requests(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_APPEND, _fdb_entries(parts))


def remove_fdb_entries(parts: Iterable[tuple[int, int, Iterable[bytes]]]) -> Requests:
    """Remove exactly these destinations of the all-zero entries; the kernel says ENOENT of one that is not there."""
    return Requests(RTM_DELNEIGH, 0, _fdb_entries(parts))


def dump_families() -> Requests:
    """Ask for all generic netlink families.

    To ask for one by name would make the kernel load its module (net/netlink/genetlink.c, ctrl_getfamily).
    """
    return Requests(_GENL_ID_CTRL, NLM_F_DUMP, [_GENERIC.pack(_CTRL_CMD_GETFAMILY, 1)])


def dump_device(family: int, interface: int) -> Requests:
    """Ask for a WireGuard interface and its peers."""
    body = _GENERIC.pack(_WG_CMD_GET_DEVICE, _WG_GENL_VERSION) + attribute(_WGDEVICE_A_IFINDEX, _U32.pack(interface))
    return Requests(family, NLM_F_DUMP, [body])


def dump_links() -> Requests:
    """Ask for all interfaces."""
    body = _LINK.pack(_AF_UNSPEC, 0, 0, 0, 0) + attribute(_IFLA_EXT_MASK, _U32.pack(_RTEXT_FILTER_SKIP_STATS))
    return Requests(_RTM_GETLINK, NLM_F_DUMP, [body])


def dump_routes(protocol: int) -> Requests:
    """Ask for the IPv6 routes of the main table that carry a protocol number (which needs NETLINK_GET_STRICT_CHK)."""
    body = _ROUTE.pack(_AF_INET6, 0, 0, 0, _RT_TABLE_MAIN, protocol, 0, _RTN_UNICAST, 0)
    return Requests(_RTM_GETROUTE, NLM_F_DUMP, [body])


def dump_routes_over(interface: int) -> Requests:
    """Ask for the IPv6 routes of the main table over one interface, whoever has made them (needs the same)."""
    body = _ROUTE.pack(_AF_INET6, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_UNSPEC, 0, _RTN_UNICAST, 0)
    return Requests(_RTM_GETROUTE, NLM_F_DUMP, [body + attribute(_RTA_OIF, _U32.pack(interface))])


def dump_fdb(vxlan: int) -> Requests:
    """Ask for the forwarding database of one interface (which needs NETLINK_GET_STRICT_CHK)."""
    return Requests(_RTM_GETNEIGH, NLM_F_DUMP, [_NEIGHBOUR.pack(_AF_BRIDGE, vxlan, 0, 0, 0)])


def attribute(kind: int, value: bytes) -> bytes:
    """Put type and length before a value. Each attribute starts at a multiple of four bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) & 3)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Put attributes into an attribute."""
    return attribute(kind | _NLA_F_NESTED, b"".join(attributes))


# What is the same for every peer.
_ONLY_THESE_ALLOWED_IPS: Final = attribute(_WGPEER_A_FLAGS, _U32.pack(_WGPEER_F_REPLACE_ALLOWEDIPS))
_REMOVE_IF_THERE: Final = attribute(_WGPEER_A_FLAGS, _U32.pack(_WGPEER_F_REMOVE_ME | _WGPEER_F_UPDATE_ONLY))
_FAMILY_INET6: Final = attribute(_WGALLOWEDIP_A_FAMILY, _U16.pack(_AF_INET6))
_WHOLE_ADDRESS: Final = attribute(_WGALLOWEDIP_A_CIDR_MASK, _U8.pack(_ADDRESS_BITS))


def _new_peer(key: bytes, address: bytes) -> bytes:
    allowed_ip = nested(0, _FAMILY_INET6, attribute(_WGALLOWEDIP_A_IPADDR, address), _WHOLE_ADDRESS)
    return nested(
        0,
        attribute(_WGPEER_A_PUBLIC_KEY, key),
        _ONLY_THESE_ALLOWED_IPS,
        nested(_WGPEER_A_ALLOWEDIPS, allowed_ip),
    )


def _around(key: bytes, address: bytes) -> tuple[bytes, bytes, bytes]:
    """What is before a new peer's key, between key and address, and after the address."""
    start, _, rest = _new_peer(key, address).partition(key)
    middle, _, end = rest.partition(address)
    return start, middle, end


# A storm of keys is made of these: put together once, with two gaps.
_NEW_PEER: Final = _around(b"K" * _KEY_BYTES, b"A" * _ADDRESS_BYTES)


def _routes(protocol: int, parts: Iterable[tuple[int, Iterable[bytes]]]) -> list[bytes]:
    start = _ROUTE.pack(_AF_INET6, _ADDRESS_BITS, 0, 0, _RT_TABLE_MAIN, protocol, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0)
    start += _ATTRIBUTE.pack(_ATTRIBUTE.size + _ADDRESS_BYTES, _RTA_DST)
    bodies: list[bytes] = []
    for interface, addresses in parts:
        end = attribute(_RTA_OIF, _U32.pack(interface))
        bodies += [start + address + end for address in addresses]
    return bodies


def _fdb_entries(parts: Iterable[tuple[int, int, Iterable[bytes]]]) -> list[bytes]:
    bodies: list[bytes] = []
    for vxlan, wireguard, addresses in parts:
        start = _NEIGHBOUR.pack(_AF_BRIDGE, vxlan, _NUD_NOARP | _NUD_PERMANENT, _NTF_SELF, 0)
        start += attribute(_NDA_LLADDR, _ALL_ZERO_MAC) + _ATTRIBUTE.pack(_ATTRIBUTE.size + _ADDRESS_BYTES, _NDA_DST)
        end = attribute(_NDA_IFINDEX, _U32.pack(wireguard))
        bodies += [start + address + end for address in addresses]
    return bodies


# --- Decoding -----------------------------------------------------------------------------------------------------


def messages(datagram: bytes) -> Iterator[Message]:
    """Walk the messages of a datagram.

    Raises:
        DecodeError: a length leads out of it.
    """
    offset, end = 0, len(datagram)
    while offset < end:
        if end - offset < _HEADER.size:
            raise DecodeError(f"{end - offset} bytes are no netlink header")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size or offset + length > end:
            raise DecodeError(f"a netlink message of {length} bytes where {end - offset} are left")
        yield Message(kind, flags, sequence, datagram[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def walk(data: bytes, start: int = 0) -> list[tuple[int, bytes]]:
    """Read the attributes from an offset to the end: types, without their flag bits, and values.

    Raises:
        DecodeError: a length leads out of the data.
    """
    found: list[tuple[int, bytes]] = []
    unpack, header, end = _ATTRIBUTE.unpack_from, _ATTRIBUTE.size, len(data)
    while start + header <= end:
        length, kind = unpack(data, start)
        if length < header or start + length > end:
            raise DecodeError(f"an attribute of {length} bytes where {end - start} are left")
        found.append((kind & _NLA_TYPE_MASK, data[start + header : start + length]))
        start += (length + 3) & ~3
    return found


def _next(data: bytes, start: int) -> tuple[bytes, int]:
    """The value of the attribute at an offset, and the offset of the one after it."""
    length = _ATTRIBUTE.unpack_from(data, start)[0] if start + _ATTRIBUTE.size <= len(data) else 0
    if length < _ATTRIBUTE.size or start + length > len(data):
        raise DecodeError(f"an attribute of {length} bytes where {len(data) - start} are left")
    return data[start + _ATTRIBUTE.size : start + length], start + ((length + 3) & ~3)


def decode_error(body: bytes) -> int:
    """Read NLMSG_ERROR or NLMSG_DONE: the errno, 0 for success.

    Raises:
        DecodeError: it is too short, or no errno.
    """
    # The end of a dump came without a number before Linux 4.16.
    code = _unpack(_INT, body)[0] if body else 0
    if code > 0:
        raise DecodeError(f"{code} where an error would be negative")
    return int(-code)


def decode_families(bodies: Iterable[bytes]) -> dict[str, int]:
    """Read a dump of generic netlink families: number by name.

    Raises:
        DecodeError: it cannot be read. This holds for all decoders below.
    """
    families: dict[str, int] = {}
    for body in bodies:
        found = dict(walk(body, _GENERIC.size))
        name = found.get(_CTRL_ATTR_FAMILY_NAME, b"")
        families[_text(name)] = _unpack(_U16, found.get(_CTRL_ATTR_FAMILY_ID, b""))[0]
    return families


def decode_device(bodies: Iterable[bytes]) -> Device:
    """Read the dump of one WireGuard interface.

    A big one is spread over several messages, and a peer with its allowed addresses may continue in the next one; the
    second part then has the public key and the rest of the addresses only (drivers/net/wireguard/netlink.c, get_peer).
    """
    public_key, listen_port = b"", 0
    peers: list[Peer] = []
    allowed = b""  # the last peer's list of addresses
    several: dict[bytes, bytes] = {}  # the same by key, of peers that have not exactly one
    for body in bodies:
        found = dict(walk(body, _GENERIC.size))
        public_key = found.get(_WGDEVICE_A_PUBLIC_KEY, public_key)
        if _WGDEVICE_A_LISTEN_PORT in found:
            (listen_port,) = _unpack(_U16, found[_WGDEVICE_A_LISTEN_PORT])
        elements, start = found.get(_WGDEVICE_A_PEERS, b""), 0
        while start < len(elements):
            layout = _USUAL_PEERS.get(elements[start : start + _ATTRIBUTE.size])
            if layout is not None and (count := layout.count(elements, start)):
                peers += [
                    Peer(key, seconds + nanoseconds / 1e9, rx, tx, address)
                    for key, seconds, nanoseconds, tx, rx, address in layout.read(elements, start, count)
                ]
                allowed = _ONE_ADDRESS + peers[-1].link_local
                start += count * layout.size
                continue
            element, start = _next(elements, start)
            if peers and element.startswith(peers[-1].public_key, _ATTRIBUTE.size):
                allowed += dict(walk(element)).get(_WGPEER_A_ALLOWEDIPS, b"")
                peers[-1] = structs.replace(peers[-1], link_local=_only_address(allowed))
            else:
                peer, allowed = _decode_peer(element)
                peers.append(peer)
            if not peers[-1].link_local:
                several[peers[-1].public_key] = allowed
    shared = frozenset(address for some in several.values() for address in _addresses(some))
    return Device(public_key, listen_port, tuple(peers), shared)


def decode_links(bodies: Iterable[bytes]) -> Iterator[Link]:
    """Read a dump of interfaces."""
    for body in bodies:
        _, _, index, flags, _ = _unpack(_LINK, body)
        yield Link(index, _text(dict(walk(body, _LINK.size)).get(_IFLA_IFNAME, b"")), bool(flags & _IFF_UP))


# How every kernel so far writes a route to one address over one interface (net/ipv6/route.c, rt6_fill_node), and a
# destination of an all-zero FDB entry (drivers/net/vxlan, vxlan_fdb_info): as far as it matters, attributes of constant
# size in a constant order. To read them with one call makes the decoding three times as fast.
_USUAL_ROUTE: Final = struct.Struct("=5sBxB4x8s4s16s4s4x4sI")
_USUAL_ROUTE_PARTS: Final = (
    bytes((_AF_INET6, _ADDRESS_BITS, 0, 0, _RT_TABLE_MAIN)),
    _RTN_UNICAST,
    attribute(_RTA_TABLE, _U32.pack(_RT_TABLE_MAIN)),
    _ATTRIBUTE.pack(20, _RTA_DST),
    _ATTRIBUTE.pack(8, _RTA_PRIORITY),
    _ATTRIBUTE.pack(8, _RTA_OIF),
)
_USUAL_FDB_ENTRY: Final = struct.Struct("=4xi2xBx12s4s16s4sI")
_USUAL_FDB_ENTRY_PARTS: Final = (
    attribute(_NDA_LLADDR, _ALL_ZERO_MAC),
    _ATTRIBUTE.pack(20, _NDA_DST),
    _ATTRIBUTE.pack(8, _NDA_IFINDEX),
)


def decode_routes(bodies: Iterable[bytes], protocol: int | None = None) -> Iterator[Route]:
    """Read a dump of IPv6 routes: those of the main table to one address, with one protocol number or with any."""
    for body in bodies:
        if len(body) >= _USUAL_ROUTE.size:
            start, carried, kind, table, of_dst, destination, of_priority, of_oif, interface = _USUAL_ROUTE.unpack_from(
                body
            )
            if (start, kind, table, of_dst, of_priority, of_oif) == _USUAL_ROUTE_PARTS:
                if protocol in (None, carried):
                    yield Route(destination, interface, carried)
                continue
        yield from _decode_unusual_route(body, protocol)


def _decode_unusual_route(body: bytes, protocol: int | None) -> Iterator[Route]:
    _, bits, _, _, table, carried, _, kind, _ = _unpack(_ROUTE, body)
    if protocol in (None, carried) and (bits, table, kind) == (_ADDRESS_BITS, _RT_TABLE_MAIN, _RTN_UNICAST):
        found = dict(walk(body, _ROUTE.size))
        destination = found.get(_RTA_DST, b"")
        # A route over several interfaces has none of its own, and is none that we made.
        if len(destination) == _ADDRESS_BYTES and _RTA_OIF in found:
            yield Route(destination, _unpack(_U32, found[_RTA_OIF])[0], carried)


def decode_fdb(bodies: Iterable[bytes], vxlan: int) -> Iterator[FdbEntry]:
    """Read a dump of forwarding databases: the destinations of one VXLAN interface's all-zero entry."""
    for body in bodies:
        if len(body) >= _USUAL_FDB_ENTRY.size:
            interface, flags, mac, of_dst, destination, of_via, via = _USUAL_FDB_ENTRY.unpack_from(body)
            if (mac, of_dst, of_via) == _USUAL_FDB_ENTRY_PARTS:
                if interface == vxlan and flags & _NTF_SELF:
                    yield FdbEntry(destination, via)
                continue
        yield from _decode_unusual_fdb_entry(body, vxlan)


def _decode_unusual_fdb_entry(body: bytes, vxlan: int) -> Iterator[FdbEntry]:
    _, interface, _, flags, _ = _unpack(_NEIGHBOUR, body)
    found = dict(walk(body, _NEIGHBOUR.size))
    if interface == vxlan and flags & _NTF_SELF and found.get(_NDA_LLADDR) == _ALL_ZERO_MAC:
        # The one destination that came with the interface may lead over none in particular.
        via = _unpack(_U32, found[_NDA_IFINDEX])[0] if _NDA_IFINDEX in found else 0
        destination = found.get(_NDA_DST, b"")
        if len(destination) == _ADDRESS_BYTES:
            yield FdbEntry(destination, via)


# How every kernel so far writes the start of a peer (drivers/net/wireguard/netlink.c, get_peer): attributes of constant
# size in a constant order. To read them with one call makes the decoding of a dump twice as fast.
_PEER: Final = struct.Struct("=4s32s 4s32x 4sqq 4s4x 4sQ 4sQ")
_PEER_HEADERS: Final = (
    _ATTRIBUTE.pack(36, _WGPEER_A_PUBLIC_KEY),
    _ATTRIBUTE.pack(36, _WGPEER_A_PRESHARED_KEY),
    _ATTRIBUTE.pack(20, _WGPEER_A_LAST_HANDSHAKE_TIME),
    _ATTRIBUTE.pack(6, _WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL),
    _ATTRIBUTE.pack(12, _WGPEER_A_TX_BYTES),
    _ATTRIBUTE.pack(12, _WGPEER_A_RX_BYTES),
)


def _decode_peer(element: bytes) -> tuple[Peer, bytes]:
    """Read a peer, and its list of addresses as it stands there."""
    if len(element) >= _PEER.size:
        of_key, key, of_psk, of_time, seconds, nanoseconds, of_keepalive, of_tx, tx, of_rx, rx = _PEER.unpack_from(
            element
        )
        if (of_key, of_psk, of_time, of_keepalive, of_tx, of_rx) == _PEER_HEADERS:
            allowed = dict(walk(element, _PEER.size)).get(_WGPEER_A_ALLOWEDIPS, b"")
            return Peer(key, seconds + nanoseconds / 1e9, rx, tx, _only_address(allowed)), allowed
    return _decode_unusual_peer(dict(walk(element)))


def _decode_unusual_peer(found: dict[int, bytes]) -> tuple[Peer, bytes]:
    try:
        seconds, nanoseconds = _TIME.unpack(found[_WGPEER_A_LAST_HANDSHAKE_TIME])
        (rx,) = _U64.unpack(found[_WGPEER_A_RX_BYTES])
        (tx,) = _U64.unpack(found[_WGPEER_A_TX_BYTES])
        key = found[_WGPEER_A_PUBLIC_KEY]
    except KeyError as missing:
        raise DecodeError(f"a WireGuard peer without attribute {missing}") from None
    except struct.error as problem:
        raise DecodeError(f"a WireGuard peer: {problem}") from None
    allowed = found.get(_WGPEER_A_ALLOWEDIPS, b"")
    return Peer(key, seconds + nanoseconds / 1e9, rx, tx, _only_address(allowed)), allowed


# How the kernel spells a list of nothing but one IPv6 /128: all bytes but the address itself at the end.
_ONE_ADDRESS: Final = nested(0, _WHOLE_ADDRESS, _FAMILY_INET6, attribute(_WGALLOWEDIP_A_IPADDR, bytes(_ADDRESS_BYTES)))[
    :-_ADDRESS_BYTES
]


def _usual_peer(endpoint: int) -> Layout:
    """A whole peer with one allowed address, and an endpoint of so many bytes; 0 for none."""
    version = attribute(_WGPEER_A_PROTOCOL_VERSION, _U32.pack(1))
    allowed = _ATTRIBUTE.pack(
        _ATTRIBUTE.size + len(_ONE_ADDRESS) + _ADDRESS_BYTES, _WGPEER_A_ALLOWEDIPS | _NLA_F_NESTED
    )
    of_endpoint = _ATTRIBUTE.pack(_ATTRIBUTE.size + endpoint, _WGPEER_A_ENDPOINT) if endpoint else b""
    size = _PEER.size + len(version) + len(of_endpoint) + endpoint + len(allowed) + len(_ONE_ADDRESS) + _ADDRESS_BYTES
    of_key, of_psk, of_time, of_keepalive, of_tx, of_rx = _PEER_HEADERS
    return Layout(
        _ATTRIBUTE.pack(_ATTRIBUTE.size + size, _NLA_F_NESTED),
        of_key,
        "32s",
        of_psk,
        32,
        of_time,
        "qq",
        of_keepalive,
        4,
        of_tx,
        "Q",
        of_rx,
        "Q",
        version,
        of_endpoint,
        endpoint,
        allowed + _ONE_ADDRESS,
        "16s",
    )


# By the header of the peer, which tells the length: without an endpoint, and with one of IPv4 or IPv6 (struct
# sockaddr_in and sockaddr_in6).
_USUAL_PEERS: Final = {
    _ATTRIBUTE.pack(layout.size, _NLA_F_NESTED): layout for layout in (_usual_peer(0), _usual_peer(16), _usual_peer(28))
}


def _only_address(allowed: bytes) -> bytes:
    """The address of a peer that has exactly one IPv6 /128, else nothing."""
    if len(allowed) == len(_ONE_ADDRESS) + _ADDRESS_BYTES and allowed.startswith(_ONE_ADDRESS):
        return allowed[-_ADDRESS_BYTES:]
    return next(_addresses(allowed), b"") if len(walk(allowed)) == 1 else b""


def _addresses(allowed: bytes) -> Iterator[bytes]:
    """All IPv6 /128 of a peer's list of allowed IPs."""
    for _, entry in walk(allowed):
        found = dict(walk(entry))
        address = found.get(_WGALLOWEDIP_A_IPADDR, b"")
        if found.get(_WGALLOWEDIP_A_CIDR_MASK) == _U8.pack(_ADDRESS_BITS) and len(address) == _ADDRESS_BYTES:
            yield address


def _unpack(layout: struct.Struct, data: bytes) -> tuple[int, ...]:
    """Read a fixed structure at the start of the data."""
    try:
        return layout.unpack_from(data)
    except struct.error:
        raise DecodeError(f"{len(data)} bytes where {layout.size} are needed") from None


def _text(data: bytes) -> str:
    """A name: it ends at the first NUL. Interface names may have any bytes."""
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
