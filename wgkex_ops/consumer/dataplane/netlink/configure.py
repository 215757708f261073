"""Encodes changes: WireGuard peers, routes and FDB entries."""

from collections.abc import Iterable
from typing import Final

from wgkex_ops.consumer.dataplane.netlink import uapi
from wgkex_ops.consumer.dataplane.netlink.framing import Requests, encode_attribute, encode_nested

# The attribute around all peers of a message has a length of 16 bits: 712 peers of 92 bytes would fill it. Fewer,
# because the kernel holds the lock of all network configuration while it works on a message.
PEERS_PER_MESSAGE: Final = 256


def encode_peer(key: bytes, address: bytes) -> bytes:
    """Encode a peer for `set_peers` that is added, or changed if it is there.

    Args:
        key: its public key (32 bytes).
        address: its link-local address (16 bytes), which becomes its only allowed one.
    """
    if len(key) != uapi.KEY_BYTES:
        # The kernel refuses this key, and no other one of the message with it as long as all lengths are right.
        return _encode_peer(key, address)
    start, middle, end = _PEER_TEMPLATE
    return start + key + middle + address + end


def encode_peer_removal(key: bytes) -> bytes:
    """Encode a peer for `set_peers` that is removed; the kernel ignores it if it is not there."""
    flags = uapi.U32.pack(uapi.WGPEER_F_REMOVE_ME | uapi.WGPEER_F_UPDATE_ONLY)
    return encode_nested(
        0, encode_attribute(uapi.WGPEER_A_PUBLIC_KEY, key), encode_attribute(uapi.WGPEER_A_FLAGS, flags)
    )


def set_peers(family: int, parts: Iterable[tuple[int, Iterable[bytes]]]) -> Requests:
    """Add, change or remove WireGuard peers.

    Args:
        family: WireGuard's number among the generic netlink families.
        parts: one for each message: the index of a WireGuard interface, and at most PEERS_PER_MESSAGE peers from
            `encode_peer` and `encode_peer_removal`.
    """
    start = uapi.GENLMSGHDR.pack(uapi.WG_CMD_SET_DEVICE, uapi.WG_GENL_VERSION)
    return Requests(
        family,
        0,
        [
            start
            + encode_attribute(uapi.WGDEVICE_A_IFINDEX, uapi.U32.pack(interface))
            + encode_nested(uapi.WGDEVICE_A_PEERS, *peers)
            for interface, peers in parts
        ],
    )


def add_routes(protocol: int, parts: Iterable[tuple[int, Iterable[bytes]]]) -> Requests:
    """Route IPv6 addresses over interfaces, each in place of any route of the same metric to it.

    Args:
        protocol: the protocol number of the routes.
        parts: the index of an interface, and the addresses (16 bytes).
    """
    return Requests(uapi.RTM_NEWROUTE, uapi.NLM_F_CREATE | uapi.NLM_F_REPLACE, _encode_routes(protocol, parts))


def remove_routes(protocol: int, parts: Iterable[tuple[int, Iterable[bytes]]]) -> Requests:
    """Remove routes that `add_routes` made. One with another protocol number stays: the kernel returns ESRCH."""
    return Requests(uapi.RTM_DELROUTE, 0, _encode_routes(protocol, parts))


def add_fdb_entries(parts: Iterable[tuple[int, int, Iterable[bytes]]]) -> Requests:
    """Add destinations to VXLAN interfaces' all-zero entries; one that is there already is no error.

    Args:
        parts: the indices of a VXLAN interface and of the WireGuard interface that it uses, and the addresses (16
            bytes).
    """
    return Requests(uapi.RTM_NEWNEIGH, uapi.NLM_F_CREATE | uapi.NLM_F_APPEND, _encode_fdb_entries(parts))


def remove_fdb_entries(parts: Iterable[tuple[int, int, Iterable[bytes]]]) -> Requests:
    """Remove exactly these destinations of the all-zero entries. For one that is absent the kernel returns ENOENT."""
    return Requests(uapi.RTM_DELNEIGH, 0, _encode_fdb_entries(parts))


def _encode_peer(key: bytes, address: bytes) -> bytes:
    allowed_ip = encode_nested(
        0,
        encode_attribute(uapi.WGALLOWEDIP_A_FAMILY, uapi.U16.pack(uapi.AF_INET6)),
        encode_attribute(uapi.WGALLOWEDIP_A_IPADDR, address),
        encode_attribute(uapi.WGALLOWEDIP_A_CIDR_MASK, uapi.U8.pack(uapi.ADDRESS_BITS)),
    )
    return encode_nested(
        0,
        encode_attribute(uapi.WGPEER_A_PUBLIC_KEY, key),
        encode_attribute(uapi.WGPEER_A_FLAGS, uapi.U32.pack(uapi.WGPEER_F_REPLACE_ALLOWEDIPS)),
        encode_nested(uapi.WGPEER_A_ALLOWEDIPS, allowed_ip),
    )


def _make_peer_template() -> tuple[bytes, bytes, bytes]:
    """The bytes before a peer's key, between key and address, and after the address."""
    key, address = b"K" * uapi.KEY_BYTES, b"A" * uapi.ADDRESS_BYTES
    start, _, rest = _encode_peer(key, address).partition(key)
    middle, _, end = rest.partition(address)
    return start, middle, end


# All peers have the same bytes but these two: thousands are encoded when many nodes come back at once.
_PEER_TEMPLATE: Final = _make_peer_template()


def _encode_routes(protocol: int, parts: Iterable[tuple[int, Iterable[bytes]]]) -> list[bytes]:
    start = uapi.RTMSG.pack(
        uapi.AF_INET6,
        uapi.ADDRESS_BITS,
        0,
        0,
        uapi.RT_TABLE_MAIN,
        protocol,
        uapi.RT_SCOPE_UNIVERSE,
        uapi.RTN_UNICAST,
        0,
    ) + uapi.NLATTR.pack(uapi.NLATTR.size + uapi.ADDRESS_BYTES, uapi.RTA_DST)
    bodies: list[bytes] = []
    for interface, addresses in parts:
        end = encode_attribute(uapi.RTA_OIF, uapi.U32.pack(interface))
        bodies += [start + address + end for address in addresses]
    return bodies


def _encode_fdb_entries(parts: Iterable[tuple[int, int, Iterable[bytes]]]) -> list[bytes]:
    of_mac = encode_attribute(uapi.NDA_LLADDR, uapi.ALL_ZERO_MAC)
    of_destination = uapi.NLATTR.pack(uapi.NLATTR.size + uapi.ADDRESS_BYTES, uapi.NDA_DST)
    bodies: list[bytes] = []
    for vxlan, wireguard, addresses in parts:
        start = uapi.NDMSG.pack(uapi.AF_BRIDGE, vxlan, uapi.NUD_NOARP | uapi.NUD_PERMANENT, uapi.NTF_SELF, 0)
        start += of_mac + of_destination
        end = encode_attribute(uapi.NDA_IFINDEX, uapi.U32.pack(wireguard))
        bodies += [start + address + end for address in addresses]
    return bodies
