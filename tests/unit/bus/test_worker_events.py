"""What workers and brokers publish about themselves: literal payloads, and what becomes of all that break a rule."""

import json
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import KEY, OTHER_KEY, TESTDATA
from wgkex_ops.bus.messages import (
    PEERS_UNKNOWN,
    WORKER_EVENTS,
    BrokerStatus,
    ConnectedPeers,
    Endpoint,
    WorkerData,
    WorkerEvent,
    WorkerStatus,
    broker_status_topic,
    connected_peers_topic,
    data_payload,
    parse_worker_event,
    status_payload,
    worker_data_topic,
    worker_status_topic,
)
from wgkex_ops.errors import InvalidMessageError

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


def test_topics_and_payloads_are_those_of_the_contract() -> None:
    assert worker_data_topic("gw04", "ffmuc_welt") == "wireguard-worker/gw04/ffmuc_welt/data"
    assert worker_status_topic("gw04") == "wireguard-worker/gw04/status"
    assert connected_peers_topic("ffmuc_welt", "gw04") == "wireguard-metrics/ffmuc_welt/gw04/connected_peers"
    assert broker_status_topic("b1") == "wireguard-broker/b1/status"
    assert WORKER_EVENTS == (
        "wireguard-worker/+/+/data",
        "wireguard-worker/+/status",
        "wireguard-metrics/+/+/connected_peers",
        "wireguard-broker/+/status",
    )
    assert status_payload(online=True) == b"1"
    assert status_payload(online=False) == b"0"
    assert PEERS_UNKNOWN == -1
    assert data_payload(ENDPOINT) == data()
    # Workers that send receipts announce it.
    assert data_payload(replace(ENDPOINT, receipts=True)) == data(Receipts=True)
    # Old brokers have never got anything but ASCII.
    assert data_payload(replace(ENDPOINT, address="gätewäy")) == data(ExternalAddress="gätewäy")


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


@given(
    st.from_regex(r"[A-Za-z0-9.-]{1,40}", fullmatch=True),
    st.integers(1, 65535),
    st.sampled_from([KEY, OTHER_KEY]),
    st.ip_addresses(v=6),
    st.booleans(),
)
def test_a_broker_reads_the_endpoint_that_a_worker_publishes(
    address: str, port: int, public_key: str, link: object, receipts: bool
) -> None:
    endpoint = Endpoint(address, port, public_key, str(link), receipts)
    event = parse_worker_event(worker_data_topic("gw", "d"), data_payload(endpoint))
    assert event == WorkerData("gw", "d", endpoint)


def test_no_worker_has_the_name_of_all_of_them() -> None:
    for topic, payload in (
        ("wireguard-worker/all/status", b"1"),
        ("wireguard-worker/all/ffmuc_welt/data", json.dumps(DATA).encode()),
        ("wireguard-metrics/ffmuc_welt/all/connected_peers", b"7"),
    ):
        with pytest.raises(InvalidMessageError):
            parse_worker_event(topic, payload)


@pytest.mark.parametrize(
    ("properties", "version"),
    [
        ({}, ""),
        ({"wgkex-version": "1.2.3rc1+g1234"}, "1.2.3rc1+g1234"),
        ({"wgkex-version": ""}, ""),
        ({"wgkex-version": "1\n2"}, ""),
        ({"wgkex-version": "1" * 65}, ""),
        ({"wgkex-version": "<b>"}, ""),
    ],
)
def test_a_status_has_the_version_of_the_software(properties: dict[str, str], version: str) -> None:
    assert parse_worker_event("wireguard-worker/gw01/status", b"1", properties) == WorkerStatus(
        "gw01", online=True, version=version
    )
    assert parse_worker_event("wireguard-broker/b1/status", b"0", properties) == BrokerStatus(
        "b1", online=False, version=version
    )
