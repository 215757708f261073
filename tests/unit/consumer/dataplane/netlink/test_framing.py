"""Headers, attributes and errors of netlink messages."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.consumer.dataplane.netlink.recordings import NO_SUCH_DEVICE, ROUTES
from wgkex_ops.consumer.dataplane.netlink import uapi
from wgkex_ops.consumer.dataplane.netlink.framing import (
    DecodeError,
    Requests,
    decode_attributes,
    decode_error,
    decode_messages,
    encode_attribute,
    encode_messages,
)


def test_only_the_last_request_asks_for_an_acknowledgement() -> None:
    sent = encode_messages(Requests(24, 0x500, [b"1234", b"", b"5678"]), 41)
    assert list(decode_messages(sent)) == [
        (24, 0x501, 41, b"1234"),
        (24, 0x501, 42, b""),
        (24, 0x505, 43, b"5678"),
    ]
    sent = encode_messages(Requests(25, 0, [b"1234"]), 7)
    assert list(decode_messages(sent)) == [(25, 0x005, 7, b"1234")]


def test_sequence_numbers_start_anew_after_32_bits() -> None:
    sent = encode_messages(Requests(24, 0, [b""] * 3), 0x1_FFFF_FFFF)
    assert [message.sequence for message in decode_messages(sent)] == [0xFFFF_FFFF, 0, 1]


def test_an_error() -> None:
    (message,) = decode_messages(NO_SUCH_DEVICE)
    assert (message.kind, message.sequence) == (uapi.NLMSG_ERROR, 7)
    assert decode_error(message.body) == 19  # ENODEV
    assert decode_error(bytes(20)) == 0


def test_the_end_of_a_dump() -> None:
    *_, end = decode_messages(ROUTES)
    assert (end.kind, end.flags, decode_error(end.body)) == (uapi.NLMSG_DONE, 0x22, 0)


@pytest.mark.parametrize(
    ("datagram", "message"),
    [
        (b"\x10\0\0\0", "a netlink header of 4 bytes"),
        (struct.pack("=IHHII", 0, 3, 0, 0, 0), "a netlink message of 0 bytes where 16 are left"),
        (struct.pack("=IHHII", 17, 3, 0, 0, 0), "a netlink message of 17 bytes where 16 are left"),
    ],
)
def test_messages_that_lead_out_of_the_datagram(datagram: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        list(decode_messages(datagram))


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_attributes_that_lead_out_of_their_message(length: int) -> None:
    with pytest.raises(DecodeError, match=f"an attribute of {length} bytes where 8 are left"):
        decode_attributes(struct.pack("=HHI", length, 1, 0))


def test_an_error_that_is_none() -> None:
    with pytest.raises(DecodeError, match="error 19, which should be negative"):
        decode_error(struct.pack("=i", 19))


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_come_back_as_they_were(attributes: list[tuple[int, bytes]]) -> None:
    encoded = b"".join(encode_attribute(kind, value) for kind, value in attributes)
    assert decode_attributes(encoded) == attributes
