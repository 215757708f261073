"""Keys on their way to workers, and where they come from."""

import json
from typing import Any, Final

import pytest

from tests.helpers import KEY, TESTDATA
from wgkex_ops.bus.messages import (
    KeyMessage,
    Origin,
    ReceiptAddress,
    key_subscription,
    key_topic,
    origin_properties,
    parse_key,
    parse_origin,
    receipt_topic,
)
from wgkex_ops.errors import InvalidMessageError
from wgkex_ops.model.keys import PublicKey

REJECTED: Final[dict[str, list[dict[str, Any]]]] = json.loads((TESTDATA / "public_keys_rejected.json").read_text())


def test_topics_are_those_of_the_contract() -> None:
    assert key_topic("ffmuc_welt") == "wireguard/ffmuc_welt/all"
    assert key_topic("ffmuc_welt", "gw04") == "wireguard/ffmuc_welt/gw04"
    assert key_subscription("ffmuc_welt") == "wireguard/ffmuc_welt/+"


@pytest.mark.parametrize("target", ["all", "gw04", "gw04.in.ffmuc.net", "a b", "+"])
def test_key_on_its_way_to_a_worker(target: str) -> None:
    topic = f"wireguard/ffmuc_welt/{target}"
    assert parse_key(topic, KEY.encode()) == KeyMessage("ffmuc_welt", target, PublicKey.parse(KEY))


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "wireguard",
        "wireguard/ffmuc_welt",
        "wireguard/ffmuc_welt/",
        "wireguard//all",
        "wireguard/ffmuc_welt/all/x",
        "/wireguard/ffmuc_welt/all",
        "Wireguard/ffmuc_welt/all",
        "wireguard-worker/gw04/status",
    ],
)
def test_malformed_topic_of_a_key(topic: str) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        parse_key(topic, KEY.encode())
    assert caught.value.reason == "malformed_topic"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        *(
            (vector["public_key"].encode(), "invalid_public_key")
            for vector in REJECTED["malformed"]
            if isinstance(vector["public_key"], str)
        ),
        *((vector["public_key"].encode(), "small_order_public_key") for vector in REJECTED["small_order"]),
        (f'"{KEY}"'.encode(), "invalid_public_key"),
        (KEY.encode("utf-16"), "invalid_public_key"),
        (b"\xff" * 44, "invalid_public_key"),
        (PublicKey.parse(KEY).raw, "invalid_public_key"),
        (KEY.encode() * 100_000, "invalid_public_key"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_malformed_key(payload: bytes, reason: str) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        parse_key("wireguard/ffmuc_welt/all", payload)
    assert caught.value.reason == reason


def test_origin_survives_the_way_through_user_properties() -> None:
    origin = Origin("0123abcd", 1_800_000_000.25)
    assert origin_properties(origin) == {"wgkex-request-id": "0123abcd", "wgkex-accepted-at": "1800000000.250000"}
    assert parse_origin(origin_properties(origin)) == origin


@pytest.mark.parametrize("request_id", ["", " ", "a b", "x" * 65, "é", "a\n", "a\0"])
@pytest.mark.parametrize("accepted_at", ["", "nan", "inf", "-1", "1e9", "1" * 12, "1.", ".5", "٣", "1\n", "0x1"])
def test_odd_user_properties_are_unknown(request_id: str, accepted_at: str) -> None:
    assert parse_origin({"wgkex-request-id": request_id, "wgkex-accepted-at": accepted_at}) == Origin()
    assert parse_origin({}) == Origin()


@pytest.mark.parametrize("correlation", [b"x", b"\0" * 16, b"x" * 64], ids=len)
@pytest.mark.parametrize("broker", ["b1", "broker01.in.ffmuc.net", "x" * 253])
def test_a_receipt_goes_to_the_topic_of_a_broker(broker: str, correlation: bytes) -> None:
    topic = receipt_topic(broker)
    assert parse_origin({}, topic, correlation) == Origin(receipt_to=ReceiptAddress(topic, correlation))


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "wgkex/receipts/",
        "wgkex/receipts",
        "wgkex/receipts/a/b",
        "wgkex/receipts//b",
        "wgkex/receipts/+",
        "wgkex/receipts/#",
        "wgkex/receipts/a\n",
        f"wgkex/receipts/{'x' * 254}",
        "/wgkex/receipts/b1",
        "WGKEX/receipts/b1",
        "wgkex/other/b1",
        "wireguard/ffmuc_welt/all",
        "wireguard-worker/gw04/status",
        "$SYS/x",
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_receipt_goes_nowhere_else(topic: str) -> None:
    assert parse_origin({}, topic, b"x" * 16).receipt_to is None


@pytest.mark.parametrize("correlation", [b"", b"x" * 65, b"x" * 60_000], ids=len)
def test_a_receipt_needs_a_mark_that_is_not_huge(correlation: bytes) -> None:
    properties = {"wgkex-request-id": "0123"}
    assert parse_origin(properties, "wgkex/receipts/b1", correlation) == Origin("0123")
