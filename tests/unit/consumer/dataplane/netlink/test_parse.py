"""Decoding what a kernel sends, and what none should ever send."""

import struct
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.consumer.dataplane.netlink.recordings import (
    ADDRESS,
    FAMILIES,
    FDB,
    RECORDINGS,
    ROUTES,
    attribute,
    bodies,
)
from wgkex_ops.consumer.dataplane.netlink import framing, parse
from wgkex_ops.model.peers import Traffic

DECODERS: dict[str, Callable[[Iterable[bytes]], object]] = {
    "families": parse.decode_families,
    "device": parse.decode_device,
    "links": lambda bodies: list(parse.decode_links(bodies)),
    "routes": lambda bodies: list(parse.decode_routes(bodies, 158)),
    "fdb": lambda bodies: list(parse.decode_fdb(bodies, 3)),
    "error": lambda bodies: [framing.decode_error(body) for body in bodies],
}


def test_families() -> None:
    assert parse.decode_families(bodies(FAMILIES)) == {"nlctrl": 16, "wireguard": 32}


def test_routes_of_ours() -> None:
    assert list(parse.decode_routes(bodies(ROUTES), 158)) == [(ADDRESS, 2, 158)]
    assert list(parse.decode_routes(bodies(ROUTES), 4)) == []
    assert list(parse.decode_routes(bodies(ROUTES))) == [(ADDRESS, 2, 158)]


def test_fdb_entries_that_are_all_zero() -> None:
    assert list(parse.decode_fdb(bodies(FDB), 3)) == [(ADDRESS, 2)]
    assert list(parse.decode_fdb(bodies(FDB), 4)) == []


def in_reverse(body: bytes, start: int = 12) -> bytes:
    """The same message with its attributes in another order."""
    return body[:start] + b"".join(
        attribute(kind, value) for kind, value in reversed(framing.decode_attributes(body, start))
    )


def test_routes_and_fdb_entries_in_another_order() -> None:
    assert [in_reverse(in_reverse(body)) for body in bodies(FDB)] == bodies(FDB)
    assert list(parse.decode_routes([in_reverse(body) for body in bodies(ROUTES)], 158)) == [(ADDRESS, 2, 158)]
    assert list(parse.decode_routes([in_reverse(body) for body in bodies(ROUTES)], 4)) == []
    assert list(parse.decode_fdb([in_reverse(body) for body in bodies(FDB)], 3)) == [(ADDRESS, 2)]


@pytest.mark.parametrize(("position", "value"), [(0, 2), (1, 64), (4, 255), (7, 2)])
def test_routes_of_another_kind_are_none_of_ours(position: int, value: int) -> None:
    """Another family (which the kernel would not send), a network, another table, a local address."""
    (body,) = bodies(ROUTES)
    changed = body[:position] + bytes((value,)) + body[position + 1 :]
    expected = [(ADDRESS, 2, 158)] if position == 0 else []
    assert list(parse.decode_routes([changed], 158)) == expected


def test_fdb_entries_that_are_not_ours() -> None:
    """One of a bridge has flags without NTF_SELF. One may go over no particular interface."""
    body = bodies(FDB)[0]
    assert list(parse.decode_fdb([body[:10] + b"\0" + body[11:]], 3)) == []
    without_interface = body[:12] + b"".join(
        attribute(kind, value) for kind, value in framing.decode_attributes(body, 12) if kind != 8
    )
    assert list(parse.decode_fdb([without_interface], 3)) == [(ADDRESS, 0)]


def test_links() -> None:
    down = struct.pack("=BxHiII", 0, 65534, 8, 0x1042, 0) + attribute(3, b"vx-\xff\0")
    up = struct.pack("=BxHiII", 0, 65534, 7, 0x1043, 0) + attribute(13, b"\0\0\0\0") + attribute(3, b"wg-a\0")
    assert list(parse.decode_links([down, up])) == [
        parse.Link(8, "vx-\udcff", up=False),
        parse.Link(7, "wg-a", up=True),
    ]


def statistics(*values: int) -> bytes:
    """struct rtnl_link_stats64 of Linux 6.1: 24 numbers, of which tests give the first ones."""
    return attribute(23, struct.pack("=24Q", *values, *bytes(24 - len(values))))


def test_links_with_what_they_have_carried() -> None:
    header = struct.pack("=BxHiII", 0, 65534, 7, 0x1043, 0)
    older = attribute(7, struct.pack("=24I", *range(100, 124)))
    body = header + attribute(3, b"wg-a\0") + older + statistics(1, 2, 2**40, 2**41, 5)
    (link,) = parse.decode_links([body])
    assert link.traffic == Traffic(receive_bytes=2**40, transmit_bytes=2**41)
    (without,) = parse.decode_links([header + attribute(3, b"wg-a\0") + older])
    assert without.traffic is None
    with pytest.raises(framing.DecodeError):
        list(parse.decode_links([header + attribute(23, bytes(31))]))


def decode_or_refuse(decode: Callable[[Iterable[bytes]], object], datagram: bytes) -> None:
    """It can be decoded, or a DecodeError has the reason: no other exception, and no endless loop."""
    try:
        decode(bodies(datagram))
    except framing.DecodeError as reason:
        assert str(reason)  # noqa: PT017  either is right


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_cut_off_anywhere(name: str) -> None:
    for length in range(len(RECORDINGS[name])):
        decode_or_refuse(DECODERS[name], RECORDINGS[name][:length])


@given(st.sampled_from(sorted(RECORDINGS)), st.data())
def test_a_recording_with_some_bytes_changed(name: str, data: st.DataObject) -> None:
    changed = bytearray(RECORDINGS[name])
    positions = st.integers(min_value=0, max_value=len(changed) - 1)
    for position, value in data.draw(st.dictionaries(positions, st.integers(0, 255), max_size=8)).items():
        changed[position] = value
    decode_or_refuse(DECODERS[name], bytes(changed))


@given(st.sampled_from(sorted(DECODERS)), st.lists(st.binary(max_size=200), max_size=4))
def test_any_bytes(name: str, anything: list[bytes]) -> None:
    try:
        DECODERS[name](anything)
    except framing.DecodeError as reason:
        assert str(reason)  # noqa: PT017  either is right
