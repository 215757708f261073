"""Receipts: literal payloads, and what becomes of all that break a rule."""

import json
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgkex_ops.bus.messages import (
    Receipt,
    is_receipt,
    parse_receipt,
    receipt_payload,
    receipt_topic,
    receipt_topic_of,
    split_correlation,
)
from wgkex_ops.errors import InvalidMessageError

# That of workers of earlier revisions.
TOPIC: Final = "wgkex/receipts/b1"


def test_topic_and_payloads_are_those_of_the_contract() -> None:
    assert receipt_topic("b1") == "wgkex/receipts/b1"
    assert receipt_topic_of("gw04", "wgkex/receipts/b1") == "wgkex/receipts/b1/gw04"
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
    assert parse_receipt(TOPIC, payload) == receipt
    assert parse_receipt(f"{TOPIC}/{receipt.worker}", payload) == receipt


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
        parse_receipt(TOPIC, payload)
    assert caught.value.reason == "malformed_payload"


@pytest.mark.parametrize("publisher", ["gw05", "", "all", "GW04", "gw04/x", "/gw04", "gw04/gw04"])
def test_a_receipt_in_the_name_of_another_worker(publisher: str) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        parse_receipt(f"{TOPIC}/{publisher}", receipt_payload(Receipt("gw04")))
    assert caught.value.reason == "worker_mismatch"


def test_receipts_are_known_by_their_topic() -> None:
    assert is_receipt(TOPIC)
    assert is_receipt(f"{TOPIC}/gw04")
    assert not is_receipt("wireguard-worker/gw04/status")


@given(
    st.from_regex(r"[A-Za-z0-9.-]{1,40}", fullmatch=True),
    st.just("") | st.from_regex(r"[A-Za-z0-9_]{1,32}", fullmatch=True),
)
def test_a_broker_reads_the_receipt_that_a_worker_sends(worker: str, reason: str) -> None:
    topic = receipt_topic_of(worker, receipt_topic("b1"))
    assert parse_receipt(topic, receipt_payload(Receipt(worker, reason))) == Receipt(worker, reason)


def test_a_receipt_of_many_keys_is_split() -> None:
    marks = [bytes([number]) * 16 for number in range(3)]
    assert split_correlation(b"".join(marks)) == marks
    assert split_correlation(marks[0]) == marks[:1]
    assert split_correlation(b"".join(marks)[:-1]) == [*marks[:2], marks[2][:-1]]
    assert split_correlation(b"") == []
