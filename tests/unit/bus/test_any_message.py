"""Any topic and payload give a typed message or an InvalidMessageError, and nothing else."""

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar

from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers import KEY, OTHER_KEY
from wgkex_ops.bus.messages import (
    Origin,
    Receipt,
    WorkerEvent,
    parse_key,
    parse_origin,
    parse_receipt,
    parse_worker_event,
    split_correlation,
)
from wgkex_ops.errors import InvalidMessageError

T = TypeVar("T")

DATA_TOPIC: Final = "wireguard-worker/gw04/ffmuc_welt/data"
TOPICS: Final = (
    DATA_TOPIC,
    "wireguard-worker/gw04/status",
    "wireguard-metrics/d/gw04/connected_peers",
    "wireguard-broker/b1/status",
    "wireguard/d/all",
    "wgkex/receipts/b1",
    "wgkex/receipts/b1/gw04",
)
DATA: Final[dict[str, Any]] = {
    "ExternalAddress": "gw04.example.net",
    "Port": 40011,
    "PublicKey": KEY,
    "LinkAddress": "fe80::1",
    "Receipts": True,
}
RECEIPT: Final[dict[str, Any]] = {"worker": "gw04", "result": "failed", "reason": "ENODEV"}

_levels = st.sampled_from(sorted({level for topic in TOPICS for level in topic.split("/")})) | st.text(max_size=8)
_topics = st.sampled_from(TOPICS) | st.lists(_levels, max_size=5).map("/".join)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([KEY, "all"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
_members = st.sampled_from([*DATA, *RECEIPT]) | st.text(max_size=3)
_changes = st.dictionaries(_members, _values, max_size=2)
_json = _values | _changes.map(lambda changes: DATA | changes) | _changes.map(lambda changes: RECEIPT | changes)
_payloads = (
    st.binary(max_size=64)
    | st.sampled_from([b"0", b"1", b"-1", KEY.encode(), OTHER_KEY.encode()])
    | _json.map(lambda value: json.dumps(value).encode())
)


def parsed(parse: Callable[..., T], *arguments: object) -> T | str:
    """What is parsed, or the reason why not."""
    try:
        return parse(*arguments)
    except InvalidMessageError as error:
        return error.reason


@given(_topics, _payloads)
@example(DATA_TOPIC, json.dumps(DATA).encode())
@example(DATA_TOPIC, json.dumps(DATA | {"PublicKey": "\ud800"}).encode())
@example(DATA_TOPIC, b'{"x":' + b"[" * 4000)
def test_whatever_arrives_is_a_typed_message_or_invalid(topic: str, payload: bytes) -> None:
    event = parsed(parse_worker_event, topic, payload)
    assert isinstance(event, WorkerEvent) or event in ("malformed_topic", "malformed_payload")
    receipt = parsed(parse_receipt, topic, payload)
    assert isinstance(receipt, Receipt) or receipt in ("malformed_payload", "worker_mismatch")
    key = parsed(parse_key, topic, payload)
    if isinstance(key, str):
        assert key in ("malformed_topic", "invalid_public_key", "small_order_public_key")
    else:
        assert topic == f"wireguard/{key.domain}/{key.target}"
        assert payload == str(key.key).encode()


@given(
    st.dictionaries(st.sampled_from(["wgkex-request-id", "wgkex-accepted-at"]) | st.text(max_size=3), st.text()),
    _topics,
    st.binary(max_size=80),
)
def test_whatever_comes_with_a_key_gives_an_origin(
    properties: dict[str, str], response_topic: str, correlation: bytes
) -> None:
    assert isinstance(parse_origin(properties, response_topic, correlation), Origin)
    assert b"".join(split_correlation(correlation)) == correlation
