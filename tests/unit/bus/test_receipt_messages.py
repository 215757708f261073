"""Receipts: literal payloads, and what becomes of all that break a rule."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgkex_ops.bus.messages import Receipt, parse_receipt, receipt_payload, receipt_topic, split_correlation
from wgkex_ops.errors import InvalidMessageError


def test_topic_and_payloads_are_those_of_the_contract() -> None:
    assert receipt_topic("b1") == "wgkex/receipts/b1"
    assert receipt_payload(Receipt("gw04")) == b'{"worker": "gw04", "result": "installed"}'
    assert receipt_payload(Receipt("gw04", "ENODEV")) == b'{"worker": "gw04", "result": "failed", "reason": "ENODEV"}'


@pytest.mark.parametrize(
    ("payload", "receipt"),
    [
        (b'{"worker": "gw04", "result": "installed"}', Receipt("gw04")),
        (b'{"result":"installed","worker":"gw04.in.ffmuc.net","new":["member"]}', Receipt("gw04.in.ffmuc.net")),
        # A reason without a failure.
        (b'{"worker": "gw04", "result": "installed", "reason": "ENODEV"}', Receipt("gw04")),
        (b'{"worker": "gw04", "result": "failed", "reason": "ENODEV"}', Receipt("gw04", "ENODEV")),
        (b'{"worker": "gw04", "result": "failed", "reason": "own_key"}', Receipt("gw04", "own_key")),
        (f'{{"worker": "{"x" * 253}", "result": "installed"}}'.encode(), Receipt("x" * 253)),
    ],
)
def test_receipt(payload: bytes, receipt: Receipt) -> None:
    assert parse_receipt(payload) == receipt


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        b"\xff",
        b"[]",
        b"null",
        b"1",
        b"{}",
        b'{"worker": "gw04"}',
        b'{"result": "installed"}',
        b'{"worker": "gw04", "result": "perhaps"}',
        b'{"worker": "gw04", "result": true}',
        b'{"worker": "gw04", "result": null}',
        *(
            json.dumps({"worker": worker, "result": "installed"}).encode()
            for worker in ("", "all", "a/b", "+", "#", "a\n", "\ud800", "x" * 254, None, 4, ["gw04"])
        ),
        b'{"worker": "gw04", "result": "failed"}',
        *(
            json.dumps({"worker": "gw04", "result": "failed", "reason": reason}).encode()
            for reason in ("", " ", "a b", "a-b", "<b>", "ä", "a\n", "x" * 33, None, 19, ["ENODEV"])
        ),
        b"[" * 4096,
        b'{"a":' * 800,
        json.dumps({"worker": "gw04", "result": "installed", "padding": "x" * 4096}).encode(),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_malformed_receipt(payload: bytes) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        parse_receipt(payload)
    assert caught.value.reason == "malformed_payload"


@given(
    st.from_regex(r"[A-Za-z0-9.-]{1,40}", fullmatch=True),
    st.just("") | st.from_regex(r"[A-Za-z0-9_]{1,32}", fullmatch=True),
)
def test_a_broker_reads_the_receipt_that_a_worker_sends(worker: str, reason: str) -> None:
    assert parse_receipt(receipt_payload(Receipt(worker, reason))) == Receipt(worker, reason)


def test_a_receipt_of_many_keys_is_split() -> None:
    marks = [bytes([number]) * 16 for number in range(3)]
    assert split_correlation(b"".join(marks)) == marks
    assert split_correlation(marks[0]) == marks[:1]
    assert split_correlation(b"".join(marks)[:-1]) == [*marks[:2], marks[2][:-1]]
    assert split_correlation(b"") == []
