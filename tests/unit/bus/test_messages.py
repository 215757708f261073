"""The MQTT contract: literal topics and payloads, and what becomes of everything that follows no rule."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers import KEY, OTHER_KEY, TESTDATA
from wgkex_ops.bus import messages as topics
from wgkex_ops.bus.messages import (
    BrokerStatus,
    ConnectedPeers,
    Endpoint,
    KeyMessage,
    Origin,
    Receipt,
    ReceiptAddress,
    WorkerData,
    WorkerEvent,
    WorkerStatus,
    origin_properties,
    parse_key,
    parse_origin,
    parse_receipt,
    parse_worker_event,
    receipt_payload,
    split_correlation,
)
from wgkex_ops.errors import InvalidMessageError
from wgkex_ops.model.keys import PublicKey

T = TypeVar("T")

REJECTED: Final[dict[str, list[dict[str, Any]]]] = json.loads((TESTDATA / "public_keys_rejected.json").read_text())

ENDPOINT: Final = Endpoint("gw04.example.net", 40011, KEY, "fe80::27c:16ff:fec0:6c74")
DATA: Final[dict[str, Any]] = {
    "ExternalAddress": "gw04.example.net",
    "Port": 40011,
    "PublicKey": KEY,
    "LinkAddress": "fe80::27c:16ff:fec0:6c74",
}
DATA_TOPIC: Final = "wireguard-worker/gw04/ffmuc_welt/data"


def data(**changes: object) -> bytes:
    return json.dumps(DATA | changes).encode()


def test_topics_are_those_of_the_contract() -> None:
    assert topics.key_topic("ffmuc_welt") == "wireguard/ffmuc_welt/all"
    assert topics.key_topic("ffmuc_welt", "gw04") == "wireguard/ffmuc_welt/gw04"
    assert topics.key_subscription("ffmuc_welt") == "wireguard/ffmuc_welt/+"
    assert topics.worker_data_topic("gw04", "ffmuc_welt") == "wireguard-worker/gw04/ffmuc_welt/data"
    assert topics.worker_status_topic("gw04") == "wireguard-worker/gw04/status"
    assert topics.connected_peers_topic("ffmuc_welt", "gw04") == "wireguard-metrics/ffmuc_welt/gw04/connected_peers"
    assert topics.broker_status_topic("b1") == "wireguard-broker/b1/status"
    assert topics.receipt_topic("b1") == "wgkex/receipts/b1"
    assert topics.WORKER_EVENTS == (
        "wireguard-worker/+/+/data",
        "wireguard-worker/+/status",
        "wireguard-metrics/+/+/connected_peers",
        "wireguard-broker/+/status",
    )


def test_payloads_are_those_of_the_contract() -> None:
    assert topics.status_payload(online=True) == b"1"
    assert topics.status_payload(online=False) == b"0"
    assert json.loads(topics.data_payload(ENDPOINT)) == DATA
    # Workers that send receipts say so.
    assert json.loads(topics.data_payload(replace(ENDPOINT, receipts=True))) == DATA | {"Receipts": True}
    assert topics.PEERS_UNKNOWN == -1
    assert json.loads(topics.receipt_payload(Receipt("gw04"))) == {"worker": "gw04", "result": "installed"}
    assert json.loads(topics.receipt_payload(Receipt("gw04", "ENODEV"))) == {
        "worker": "gw04",
        "result": "failed",
        "reason": "ENODEV",
    }


@pytest.mark.parametrize(
    ("topic", "payload", "event"),
    [
        (DATA_TOPIC, data(), WorkerData("gw04", "ffmuc_welt", ENDPOINT)),
        (DATA_TOPIC, data(New="member", Another=None), WorkerData("gw04", "ffmuc_welt", ENDPOINT)),
        (DATA_TOPIC, data(LinkAddress="fe80::27c:16ff:fec0:6c74/128"), WorkerData("gw04", "ffmuc_welt", ENDPOINT)),
        (DATA_TOPIC, data(LinkAddress="fe80::27c:16ff:fec0:6c74/64"), WorkerData("gw04", "ffmuc_welt", ENDPOINT)),
        (DATA_TOPIC, data(Receipts=True), WorkerData("gw04", "ffmuc_welt", replace(ENDPOINT, receipts=True))),
        *(
            (DATA_TOPIC, data(Receipts=value), WorkerData("gw04", "ffmuc_welt", ENDPOINT))
            for value in (False, None, 1, "true", [True])
        ),
        (DATA_TOPIC, b"", WorkerData("gw04", "ffmuc_welt", None)),
        (DATA_TOPIC, b"{}", WorkerData("gw04", "ffmuc_welt", None)),
        *((DATA_TOPIC, data(**{member: None}), WorkerData("gw04", "ffmuc_welt", None)) for member in DATA),
        *(
            (DATA_TOPIC, data(**{member: ""}), WorkerData("gw04", "ffmuc_welt", None))
            for member in DATA
            if member != "Port"
        ),
        (DATA_TOPIC, data(Port="40011"), WorkerData("gw04", "ffmuc_welt", None)),
        (DATA_TOPIC, data(Port=40011.0), WorkerData("gw04", "ffmuc_welt", None)),
        (DATA_TOPIC, data(PublicKey=[KEY]), WorkerData("gw04", "ffmuc_welt", None)),
        ("wireguard-worker/gw04/status", b"1", WorkerStatus("gw04", online=True)),
        ("wireguard-worker/gw04/status", b"0", WorkerStatus("gw04", online=False)),
        ("wireguard-worker/gw04/status", b"", WorkerStatus("gw04", online=False)),
        ("wireguard-metrics/d/gw04/connected_peers", b"0", ConnectedPeers("gw04", "d", 0)),
        ("wireguard-metrics/d/gw04/connected_peers", b"123", ConnectedPeers("gw04", "d", 123)),
        ("wireguard-metrics/d/gw04/connected_peers", b"007", ConnectedPeers("gw04", "d", 7)),
        ("wireguard-metrics/d/gw04/connected_peers", b"-0", ConnectedPeers("gw04", "d", 0)),
        ("wireguard-metrics/d/gw04/connected_peers", b"-1", ConnectedPeers("gw04", "d", None)),
        ("wireguard-metrics/d/gw04/connected_peers", b"-7", ConnectedPeers("gw04", "d", None)),
        ("wireguard-metrics/d/gw04/connected_peers", b"", ConnectedPeers("gw04", "d", None)),
        ("wireguard-broker/b1/status", b"1", BrokerStatus("b1", online=True)),
        ("wireguard-broker/b1/status", b"0", BrokerStatus("b1", online=False)),
        ("wireguard-broker/b1/status", b"", BrokerStatus("b1", online=False)),
        ("wireguard-worker/gw04.in.ffmuc.net/status", b"1", WorkerStatus("gw04.in.ffmuc.net", online=True)),
        (f"wireguard-worker/{'x' * 253}/status", b"1", WorkerStatus("x" * 253, online=True)),
        ("wireguard-worker/gw 04/status", b"1", WorkerStatus("gw 04", online=True)),
        ("wireguard-worker/gätewäy/status", b"1", WorkerStatus("gätewäy", online=True)),
    ],
)
def test_event_of_a_worker_or_broker(topic: str, payload: bytes, event: WorkerEvent) -> None:
    assert parse_worker_event(topic, payload) == event


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        "wireguard-worker",
        "wireguard-worker/gw04",
        "wireguard-worker/gw04/ffmuc_welt",
        "wireguard-worker/gw04/ffmuc_welt/status",
        "wireguard-worker/gw04/ffmuc_welt/data/x",
        "wireguard-worker/gw04/data",
        "wireguard-worker/gw04/Status",
        "/wireguard-worker/gw04/status",
        "wireguard-worker/gw04/status/",
        "wireguard-worker//status",
        "wireguard-worker///data",
        "wireguard-worker/gw04//data",
        "wireguard-worker/gw\n04/status",
        "wireguard-worker/gw\0/status",
        "wireguard-worker/gw\x85/status",
        "wireguard-worker/gw\u2028/status",
        "wireguard-worker/\ud800/status",
        "wireguard-worker/+/status",
        "wireguard-worker/#/status",
        f"wireguard-worker/{'x' * 254}/status",
        "wireguard-metrics/d/gw04/peers",
        "wireguard-metrics/d/gw04",
        "wireguard-metrics//gw04/connected_peers",
        "wireguard-metrics/d//connected_peers",
        "wireguard-broker//status",
        "wireguard-broker/b1/x",
        "wireguard/ffmuc_welt/all",
        "wgkex/v1/x",
        "$SYS/broker/uptime",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("payload", [b"1", data()], ids=("status", "data"))
def test_malformed_topic_of_an_event(topic: str, payload: bytes) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        parse_worker_event(topic, payload)
    assert caught.value.reason == "malformed_topic"


PEERS_TOPIC: Final = "wireguard-metrics/d/gw04/connected_peers"


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        *(
            (topic, payload)
            for topic in ("wireguard-worker/gw04/status", "wireguard-broker/b1/status")
            for payload in (b"2", b"01", b"1\n", b" 1", b"true", b"online", b"\xff", b'"1"', b"1" * 10_000)
        ),
        *(
            (PEERS_TOPIC, payload)
            for payload in (b"x", b"1.5", b"1e3", b"+1", b" 1", b"1\n", b"--1", b"-", b"0x1", b"1_000", b"\xff", b"NaN")
        ),
        (PEERS_TOPIC, "٤".encode()),
        (PEERS_TOPIC, b"1" * 10),
        (PEERS_TOPIC, b"1" * 100_000),
        *(
            (DATA_TOPIC, payload)
            for payload in (b"x", b"{", b"[]", b"1", b"null", b"true", b'"x"', b"NaN", b"\xff", b"\0", data() + b"x")
        ),
        (DATA_TOPIC, b"[" * 4096),
        (DATA_TOPIC, b'{"a":' * 800),
        (DATA_TOPIC, b"9" * 4096),
        (DATA_TOPIC, data(Padding="x" * 4096)),
        *((DATA_TOPIC, data(Port=port)) for port in (0, -1, 65536, 10**400, True)),
        *((DATA_TOPIC, data(PublicKey=vector["public_key"])) for vector in REJECTED["small_order"]),
        *(
            (DATA_TOPIC, data(PublicKey=vector["public_key"]))
            for vector in REJECTED["malformed"]
            if vector["public_key"] and isinstance(vector["public_key"], str)
        ),
        *(
            (DATA_TOPIC, data(LinkAddress=address))
            for address in (
                "fe80::1%eth0",
                "fe80::1\n",
                " fe80::1",
                "192.0.2.1",
                "gw04",
                "fe80::1::1",
                "/128",
                "\ud800",
            )
        ),
        *(
            (DATA_TOPIC, data(ExternalAddress=address))
            for address in ("a b", "a\n", "\0", "a/b", "$(reboot)", "`x`", "gw;x", "gätewäy", "\ud800", '"', "x" * 254)
        ),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_malformed_payload_of_an_event(topic: str, payload: bytes) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        parse_worker_event(topic, payload)
    assert caught.value.reason == "malformed_payload"


@pytest.mark.parametrize("address", ["gw04", "gw04.example.net", "GW_4-a.example.net.", "192.0.2.1", "2001:db8::1"])
def test_address_may_be_any_name_or_number_of_a_host(address: str) -> None:
    event = parse_worker_event(DATA_TOPIC, data(ExternalAddress=address))
    assert isinstance(event, WorkerData)
    assert event.endpoint is not None
    assert event.endpoint.address == address


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


_levels = st.sampled_from(
    [
        "wireguard",
        "wireguard-worker",
        "wireguard-metrics",
        "wireguard-broker",
        "status",
        "data",
        "connected_peers",
        "gw04",
    ]
) | st.text(max_size=8)
_topics = st.lists(_levels, max_size=5).map("/".join) | st.sampled_from(
    [DATA_TOPIC, PEERS_TOPIC, "wireguard-worker/gw04/status", "wireguard-broker/b1/status", "wireguard/d/all"]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([KEY, "fe80::1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*DATA, "x"]), inner, max_size=5),
    max_leaves=10,
)
_payloads = (
    st.binary(max_size=64)
    | st.sampled_from([b"0", b"1", b"-1", KEY.encode(), OTHER_KEY.encode()])
    | _json.map(lambda value: json.dumps(value).encode())
)


def outcome(parse: Callable[[str, bytes], T], topic: str, payload: bytes) -> T | str:
    """What is parsed, or the reason why not."""
    try:
        return parse(topic, payload)
    except InvalidMessageError as error:
        return error.reason


@given(_topics, _payloads)
@example(DATA_TOPIC, data())
@example(DATA_TOPIC, data(PublicKey="\ud800"))
def test_whatever_arrives_is_an_event_or_an_invalid_message(topic: str, payload: bytes) -> None:
    event = outcome(parse_worker_event, topic, payload)
    if isinstance(event, str):
        assert event in ("malformed_topic", "malformed_payload")
    else:
        assert isinstance(event, WorkerEvent)
    offered = outcome(parse_key, topic, payload)
    if isinstance(offered, str):
        assert offered in ("malformed_topic", "invalid_public_key", "small_order_public_key")
    else:
        assert topic == f"wireguard/{offered.domain}/{offered.target}"
        assert payload == str(offered.key).encode()


@given(
    st.from_regex(r"[A-Za-z0-9.-]{1,40}", fullmatch=True),
    st.integers(1, 65535),
    st.sampled_from([KEY, OTHER_KEY]),
    st.ip_addresses(v=6),
    st.booleans(),
)
def test_what_a_worker_tells_is_what_a_broker_reads(
    address: str, port: int, public_key: str, link: object, receipts: bool
) -> None:
    endpoint = Endpoint(address, port, public_key, str(link), receipts)
    event = parse_worker_event(topics.worker_data_topic("gw", "d"), topics.data_payload(endpoint))
    assert event == WorkerData("gw", "d", endpoint)


def test_origin_survives_the_way_through_user_properties() -> None:
    origin = Origin("0123abcd", 1_800_000_000.25)
    assert origin_properties(origin) == {"wgkex-request-id": "0123abcd", "wgkex-accepted-at": "1800000000.250000"}
    assert parse_origin(origin_properties(origin)) == origin


@pytest.mark.parametrize("request_id", ["", " ", "a b", "x" * 65, "é", "a\n", "a\0"])
@pytest.mark.parametrize("accepted_at", ["", "nan", "inf", "-1", "1e9", "1" * 12, "1.", ".5", "٣", "1\n", "0x1"])
def test_odd_user_properties_are_unknown(request_id: str, accepted_at: str) -> None:
    assert parse_origin({"wgkex-request-id": request_id, "wgkex-accepted-at": accepted_at}) == Origin()
    assert parse_origin({}) == Origin()


# --- receipts


@pytest.mark.parametrize(
    ("payload", "receipt"),
    [
        (b'{"worker": "gw04", "result": "installed"}', Receipt("gw04")),
        (b'{"result":"installed","worker":"gw04.in.ffmuc.net","new":["member"]}', Receipt("gw04.in.ffmuc.net")),
        # A reason that tells of nothing.
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
            for worker in ("", "a/b", "+", "#", "a\n", "\ud800", "x" * 254, None, 4, ["gw04"])
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


@given(_payloads)
def test_whatever_arrives_is_a_receipt_or_an_invalid_message(payload: bytes) -> None:
    receipt = outcome(lambda _topic, payload: parse_receipt(payload), "", payload)
    assert receipt == "malformed_payload" or isinstance(receipt, Receipt)


@given(
    st.from_regex(r"[A-Za-z0-9.-]{1,40}", fullmatch=True),
    st.just("") | st.from_regex(r"[A-Za-z0-9_]{1,32}", fullmatch=True),
)
def test_what_a_worker_confirms_is_what_a_broker_reads(worker: str, reason: str) -> None:
    assert parse_receipt(receipt_payload(Receipt(worker, reason))) == Receipt(worker, reason)


@pytest.mark.parametrize("correlation", [b"x", b"\0" * 16, b"x" * 64], ids=len)
@pytest.mark.parametrize("broker", ["b1", "broker01.in.ffmuc.net", "x" * 253])
def test_receipt_is_wanted_where_a_broker_listens(broker: str, correlation: bytes) -> None:
    topic = topics.receipt_topic(broker)
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
def test_receipt_is_wanted_nowhere_else(topic: str) -> None:
    assert parse_origin({}, topic, b"x" * 16).receipt_to is None


@pytest.mark.parametrize("correlation", [b"", b"x" * 65, b"x" * 60_000], ids=len)
def test_receipt_without_a_mark_or_with_a_huge_one_is_not_wanted(correlation: bytes) -> None:
    properties = {"wgkex-request-id": "0123"}
    assert parse_origin(properties, "wgkex/receipts/b1", correlation) == Origin("0123")


def test_receipt_of_many_keys_is_taken_apart() -> None:
    marks = [bytes([number]) * 16 for number in range(3)]
    assert split_correlation(b"".join(marks)) == marks
    assert split_correlation(marks[0]) == marks[:1]
    assert split_correlation(b"".join(marks)[:-1]) == [*marks[:2], marks[2][:-1]]
    assert split_correlation(b"") == []


def test_no_worker_is_called_like_all_of_them() -> None:
    for topic, payload in (
        ("wireguard-worker/all/status", b"1"),
        ("wireguard-worker/all/ffmuc_welt/data", json.dumps(DATA).encode()),
        ("wireguard-metrics/ffmuc_welt/all/connected_peers", b"7"),
    ):
        with pytest.raises(InvalidMessageError):
            parse_worker_event(topic, payload)
    with pytest.raises(InvalidMessageError):
        parse_receipt(receipt_payload(Receipt("all")))
