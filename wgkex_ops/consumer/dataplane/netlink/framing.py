"""What every netlink message has: headers, attributes, and a way to report an error."""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from wgkex_ops.consumer.dataplane.netlink import uapi

SEQUENCE_MASK: Final = 0xFFFF_FFFF


class DecodeError(ValueError):
    """A message from the kernel is not what its headers promise."""


class Requests(NamedTuple):
    """Messages of one kind to the kernel. A socket gives them their sequence numbers.

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


def encode_messages(requests: Requests, first: int) -> bytes:
    """Join requests for one send, with ascending sequence numbers from `first` on.

    Only the last one asks for an acknowledgement. The kernel works in order and reports each failure unasked
    (net/netlink/af_netlink.c, netlink_rcv_skb): once the last one is acknowledged, all others without an error have
    succeeded. That saves a datagram for each.
    """
    kind, flags, bodies = requests
    flags |= uapi.NLM_F_REQUEST
    pack, size = uapi.NLMSGHDR.pack, uapi.NLMSGHDR.size
    parts: list[bytes] = []
    for sequence, body in enumerate(bodies, first):
        parts += (pack(size + len(body), kind, flags, sequence & SEQUENCE_MASK, 0), body)
    last = (first + len(bodies) - 1) & SEQUENCE_MASK
    parts[-2] = pack(size + len(parts[-1]), kind, flags | uapi.NLM_F_ACK, last, 0)
    return b"".join(parts)


def decode_messages(datagram: bytes) -> Iterator[Message]:
    """Split a datagram into its messages.

    Raises:
        DecodeError: a length leads out of it.
    """
    header, offset, end = uapi.NLMSGHDR, 0, len(datagram)
    while offset < end:
        if end - offset < header.size:
            raise DecodeError(f"a netlink header of {end - offset} bytes")
        length, kind, flags, sequence, _ = header.unpack_from(datagram, offset)
        if length < header.size or offset + length > end:
            raise DecodeError(f"a netlink message of {length} bytes where {end - offset} are left")
        yield Message(kind, flags, sequence, datagram[offset + header.size : offset + length])
        offset += (length + 3) & ~3


def decode_error(body: bytes) -> int:
    """Decode the errno of NLMSG_ERROR or NLMSG_DONE; 0 is success.

    Raises:
        DecodeError: it is too short, or the number is positive.
    """
    # Before Linux 4.16 the end of a dump had no number.
    code = unpack(uapi.S32, body)[0] if body else 0
    if code > 0:
        raise DecodeError(f"error {code}, which should be negative")
    return int(-code)


def encode_attribute(kind: int, value: bytes) -> bytes:
    """Put length and type before a value, and pad it to a multiple of four bytes."""
    return uapi.NLATTR.pack(4 + len(value), kind) + value + bytes(-len(value) & 3)


def encode_nested(kind: int, *attributes: bytes) -> bytes:
    """Put attributes into an attribute."""
    return encode_attribute(kind | uapi.NLA_F_NESTED, b"".join(attributes))


def decode_attributes(data: bytes, start: int = 0) -> list[tuple[int, bytes]]:
    """Decode the attributes from an offset to the end: types, without their flag bits, and values.

    Raises:
        DecodeError: a length leads out of the data.
    """
    found: list[tuple[int, bytes]] = []
    unpack_from, size, end = uapi.NLATTR.unpack_from, uapi.NLATTR.size, len(data)
    while start + size <= end:
        length, kind = unpack_from(data, start)
        if length < size or start + length > end:
            raise DecodeError(f"an attribute of {length} bytes where {end - start} are left")
        found.append((kind & uapi.NLA_TYPE_MASK, data[start + size : start + length]))
        start += (length + 3) & ~3
    return found


def decode_attribute(data: bytes, start: int) -> tuple[bytes, int]:
    """Decode the attribute at an offset: its value, and the offset of the next one.

    Raises:
        DecodeError: its length leads out of the data.
    """
    size, end = uapi.NLATTR.size, len(data)
    length = uapi.NLATTR.unpack_from(data, start)[0] if start + size <= end else 0
    if length < size or start + length > end:
        raise DecodeError(f"an attribute of {length} bytes where {end - start} are left")
    return data[start + size : start + length], start + ((length + 3) & ~3)


def unpack(layout: struct.Struct, data: bytes) -> tuple[int, ...]:
    """Decode a structure at the start of the data.

    Raises:
        DecodeError: the data is too short.
    """
    try:
        return layout.unpack_from(data)
    except struct.error:
        raise DecodeError(f"{len(data)} bytes where {layout.size} are needed") from None
