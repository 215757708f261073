"""The public listener: exact answers to nodes, and what becomes of everything else that the internet sends."""

import asyncio
import contextlib
import errno
import gzip
import json
import logging
import random
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import pytest
import structlog
from aiohttp import ClientSession, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import TransferEncodingError
from aiohttp.web import RequestPayloadError
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from tests.fakes import run_in_virtual_time
from tests.helpers import (
    DOMAINS,
    KEY,
    OTHER_KEY,
    TESTDATA,
    WELT,
    Answer,
    connection,
    in_chunks,
    moved,
    read_answer,
    request,
    samples,
    send,
    settle,
    until,
)
from wgkex_ops.bus.messages import ConnectedPeers, Endpoint, Origin, Receipt, WorkerData, WorkerStatus
from wgkex_ops.config import Listen
from wgkex_ops.demo.routers import post_key
from wgkex_ops.errors import (
    BusError,
    NoSubscribersError,
    NotConnectedError,
    PublishRefusedError,
    PublishTimeoutError,
)
from wgkex_ops.http.gateways.choice import Assigner
from wgkex_ops.http.gateways.confirmations import Outstanding
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.public.app import HANDLERS, PATH_V1, PATH_V2, create_app
from wgkex_ops.http.public.exchange import KeyExchange
from wgkex_ops.http.public.responses import RejectedError
from wgkex_ops.http.public.submission import BODY_LIMIT, BODY_TIMEOUT, Submission, read_body
from wgkex_ops.http.server import serve
from wgkex_ops.metrics.broker import HttpMetrics, KeyMetrics, ReceiptMetrics
from wgkex_ops.model.keys import PublicKey

PATHS: Final = {"v1": PATH_V1, "v2": PATH_V2}
VERSIONS: Final = tuple(PATHS)
ENDPOINT: Final = Endpoint("gw04.example.net", 40011, OTHER_KEY, "fe80::27c:16ff:fec0:6c74")

REJECTED: Final[dict[str, list[dict[str, Any]]]] = json.loads((TESTDATA / "public_keys_rejected.json").read_text())


@dataclass
class Bus:
    """Takes keys in the place of the MQTT server, or fails as it does."""

    published: list[Submission] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    error: Exception | None = None
    while_publishing: Callable[[Origin], None] = lambda _origin: None

    async def publish(self, submission: Submission, origin: Origin) -> None:
        self.while_publishing(origin)
        if self.error is not None:
            raise self.error
        self.published.append(submission)
        self.origins.append(origin)


class Broker:
    """The public application with real gateways, a fake bus, and its own registry."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.gateways = Gateways({}, DOMAINS)
        self.registry = CollectorRegistry()
        metrics = ReceiptMetrics(self.registry, [])
        self.outstanding = Outstanding(self.gateways, topic="wgkex/receipts/b1", metrics=metrics, label=str)
        assigner = Assigner(
            self.gateways,
            confirm_timeout=0.75,
            assignments=Counter("assignments", "x", ["worker", "domain"], registry=self.registry),
            timeouts=metrics.timeouts,
            label=str,
        )
        exchange = KeyExchange(
            domains=DOMAINS,
            publish=self.bus.publish,
            outstanding=self.outstanding,
            assign=assigner.assign,
            metrics=KeyMetrics(self.registry, DOMAINS),
        )
        self.app = create_app(exchange, HttpMetrics(self.registry, HANDLERS))
        self.listen = Listen(port=0)
        for event in (
            WorkerStatus("gw04", online=True),
            WorkerData("gw04", WELT.name, ENDPOINT),
            ConnectedPeers("gw04", WELT.name, 7),
        ):
            self.gateways.update(event, 0.0)
        self._before = samples(self.registry)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Broker"]:
        async with serve(self.app, Listen(port=0), shutdown_timeout=1.0) as self.listen:
            yield self

    def moved(self) -> dict[str, float]:
        """What has become of the keys, by all counters that count them."""
        changes = moved(self._before, samples(self.registry))
        return {name: change for name, change in changes.items() if re.match(r"wgkex_broker_keys?_\w+_total\b", name)}

    def in_progress(self) -> float | None:
        return self.registry.get_sample_value("wgkex_broker_http_requests_in_progress")


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker().serving() as broker:
        yield broker


@pytest.fixture
def no_tracebacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails the test if a library logs an error, or we do."""
    with structlog.testing.capture_logs() as events:
        yield
    assert [event for event in events if event["log_level"] in ("error", "critical") or "exc_info" in event] == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def submission(domain: object = WELT.name, public_key: object = KEY, **extra: object) -> bytes:
    return json.dumps({"domain": domain, "public_key": public_key, **extra}).encode()


def padded(length: int) -> bytes:
    """A good submission of so many bytes."""
    body = submission(padding="")
    return body.replace(b'""', b'"' + b"x" * (length - len(body)) + b'"')


def assert_error(answer: Answer, status: int, reason: str) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json.keys() == {"error"}
    assert answer.json["error"].keys() == {"message", "reason"}
    assert answer.json["error"]["reason"] == reason
    assert re.fullmatch(r"[a-z].{10,}", answer.json["error"]["message"])


def rejected(version: str, reason: str, domain: str = "unknown") -> dict[str, float]:
    """The counters that one refused submission moves."""
    return {
        f'wgkex_broker_key_requests_total{{api_version="{version}",domain="{domain}"}}': 1.0,
        f'wgkex_broker_key_rejections_total{{reason="{reason}"}}': 1.0,
    }


def accepted(version: str) -> dict[str, float]:
    return {
        f'wgkex_broker_key_requests_total{{api_version="{version}",domain="{WELT.name}"}}': 1.0,
        f'wgkex_broker_keys_published_total{{domain="{WELT.name}"}}': 1.0,
    }


def failed(version: str, reason: str) -> dict[str, float]:
    return {
        f'wgkex_broker_key_requests_total{{api_version="{version}",domain="{WELT.name}"}}': 1.0,
        f'wgkex_broker_key_failures_total{{reason="{reason}"}}': 1.0,
    }


# --- what a node gets


async def test_version_1_says_ok(broker: Broker, no_tracebacks: None) -> None:
    answer = await send(broker.listen, request("POST", PATH_V1, submission()))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.body == b'{"Message": "OK"}'
    assert broker.bus.published == [Submission(WELT, PublicKey.parse(KEY))]
    assert broker.moved() == accepted("v1")


async def test_version_2_names_the_gateway_with_a_port_that_is_a_string(broker: Broker, no_tracebacks: None) -> None:
    answer = await send(broker.listen, request("POST", PATH_V2, submission()))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    # Without "Message" anywhere: a node would take that for version 1, and set no gateway.
    assert answer.body.decode() == (
        '{"Endpoint": {"Address": "gw04.example.net", "Port": "40011", "AllowedIPs": ["fe80::27c:16ff:fec0:6c74"], '
        f'"PublicKey": "{OTHER_KEY}"}}}}'
    )
    assert broker.bus.published == [Submission(WELT, PublicKey.parse(KEY))]
    assert broker.moved() == accepted("v2")


async def test_simulated_router_gets_its_answers_by_the_real_request(broker: Broker, no_tracebacks: None) -> None:
    key = PublicKey.parse(KEY)
    assert await post_key(broker.listen, 1, WELT.name, key) == (200, {"Message": "OK"})
    status, answer = await post_key(broker.listen, 2, WELT.name, key)
    assert (status, answer["Endpoint"]["Address"]) == (200, "gw04.example.net")
    assert broker.bus.published == [Submission(WELT, key)] * 2


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Content-Type: application/x-www-form-urlencoded",),
        ("Content-Type: application/json",),
        ("Content-Type: multipart/form-data; boundary=x",),
        ("Content-Type: \xff;;=",),
        ("X-Forwarded-For: 192.0.2.1", "X-Real-IP: 192.0.2.1"),
    ],
    ids=("none", "form", "json", "multipart", "nonsense", "forwarded"),
)
@pytest.mark.parametrize("chunked", [False, True], ids=("length", "chunked"))
async def test_content_type_does_not_matter(
    broker: Broker, version: str, headers: tuple[str, ...], chunked: bool
) -> None:
    answer = await send(broker.listen, request("POST", PATHS[version], submission(), *headers, chunked=chunked))
    assert answer.status == 200
    assert broker.moved() == accepted(version)


async def test_body_in_chunks_of_one_byte_and_packets_of_one_byte(broker: Broker) -> None:
    head, _, _ = request("POST", PATH_V1, b"", chunked=True).partition(b"\r\n\r\n")
    raw = head + b"\r\n\r\n" + in_chunks(submission(), 1) + b"0\r\n\r\n"
    async with connection(broker.listen) as (reader, writer):
        for position in range(len(raw)):
            writer.write(raw[position : position + 1])
            await asyncio.sleep(0)
        answer = await read_answer(reader)
    assert answer.body == b'{"Message": "OK"}'


async def test_chunk_extensions_and_trailers_are_no_part_of_the_body(broker: Broker) -> None:
    body = submission()
    raw = request("POST", PATH_V1, b"", chunked=True).removesuffix(b"0\r\n\r\n")
    raw += b"%x;name=value\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(body), body)
    assert (await send(broker.listen, raw)).body == b'{"Message": "OK"}'


async def test_version_2_without_a_gateway_fails_but_the_key_is_published(broker: Broker) -> None:
    broker.gateways.update(WorkerStatus("gw04", online=False), 1.0)
    answer = await send(broker.listen, request("POST", PATH_V2, submission()))
    assert_error(answer, 503, "no_worker")
    assert answer.headers["retry-after"] == "30"
    assert broker.bus.published == [Submission(WELT, PublicKey.parse(KEY))]
    assert broker.moved() == failed("v2", "no_worker")


async def test_version_1_needs_no_gateway(broker: Broker) -> None:
    broker.gateways.update(WorkerStatus("gw04", online=False), 1.0)
    assert (await send(broker.listen, request("POST", PATH_V1, submission()))).status == 200


BUS_ERRORS: Final = [
    (NotConnectedError("there is no connection"), "mqtt_disconnected"),
    (PublishRefusedError(0x87), "publish_refused"),
    (NoSubscribersError("nobody has subscribed"), "no_worker"),
    (PublishTimeoutError("no answer in time"), "publish_timeout"),
    (BusError("something else"), "internal"),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("error", "reason"), BUS_ERRORS, ids=lambda value: value if isinstance(value, str) else "")
async def test_key_that_cannot_be_handed_over_is_503(
    broker: Broker, version: str, error: BusError, reason: str
) -> None:
    broker.bus.error = error
    answer = await send(broker.listen, request("POST", PATHS[version], submission()))
    assert_error(answer, 503, reason)
    assert answer.headers["retry-after"] == "30"
    assert broker.moved() == failed(version, reason)


def test_every_bus_error_is_among_those() -> None:
    assert {type(error) for error, _ in BUS_ERRORS} == {BusError, *BusError.__subclasses__()}


@pytest.mark.parametrize("version", VERSIONS)
async def test_crash_while_publishing_is_503_and_logged_with_its_traceback(broker: Broker, version: str) -> None:
    broker.bus.error = ZeroDivisionError("the secret of the stack")
    with structlog.testing.capture_logs() as events:
        answer = await send(broker.listen, request("POST", PATHS[version], submission()))
    assert_error(answer, 503, "internal")
    assert b"secret" not in answer.body
    assert answer.headers["retry-after"] == "30"
    assert [event["event"] for event in events if event.get("exc_info")] == ["key_exchange_crashed"]
    # The domain was valid, and the key too: all that failed is ours.
    assert broker.moved() == failed(version, "internal")


# --- what stays outstanding


def tell_of_receipts(broker: Broker, *workers: str) -> None:
    """Let workers come that tell what becomes of each key; by their names they are all worse than gw04."""
    for worker in workers:
        broker.gateways.update(WorkerData(worker, WELT.name, replace(ENDPOINT, receipts=True)), 0.0)
        broker.gateways.update(ConnectedPeers(worker, WELT.name, 7), 0.0)
        broker.gateways.update(WorkerStatus(worker, online=True), 0.0)


@pytest.mark.parametrize("version", VERSIONS)
async def test_accepted_key_is_outstanding_until_it_is_confirmed(broker: Broker, version: str) -> None:
    tell_of_receipts(broker, "gw05")
    answer = await send(broker.listen, request("POST", PATHS[version], submission()))
    assert answer.status == 200
    [origin] = broker.bus.origins
    assert origin.request_id == answer.headers["x-request-id"]
    assert origin.receipt_to is not None
    assert origin.receipt_to.topic == "wgkex/receipts/b1"
    handover = broker.outstanding.find(origin.receipt_to.correlation)
    assert handover is not None
    assert (handover.acknowledged, handover.expected) == (True, {"gw05"})
    assert handover.submission == broker.bus.published[0]
    broker.outstanding.take(handover, Receipt("gw05"))
    assert len(broker.outstanding) == 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("error", [BusError("x"), ZeroDivisionError("x")], ids=("bus", "crash"))
async def test_key_that_is_answered_with_503_is_not_outstanding(broker: Broker, version: str, error: Exception) -> None:
    tell_of_receipts(broker, "gw05")
    broker.bus.error = error
    assert (await send(broker.listen, request("POST", PATHS[version], submission()))).status == 503
    assert len(broker.outstanding) == 0


async def test_key_without_a_gateway_is_not_outstanding_although_it_is_published(broker: Broker) -> None:
    broker.gateways.update(WorkerStatus("gw04", online=False), 1.0)
    assert (await send(broker.listen, request("POST", PATH_V2, submission()))).status == 503
    assert len(broker.bus.published) == 1
    assert len(broker.outstanding) == 0


async def test_rejected_key_never_was_outstanding(broker: Broker) -> None:
    assert (await send(broker.listen, request("POST", PATH_V1, b"{}"))).status == 400
    assert broker.bus.origins == []
    assert len(broker.outstanding) == 0


@pytest.mark.parametrize("reason", ["", "ENODEV"], ids=("installed", "failed"))
async def test_receipts_that_come_before_the_acknowledgement_count(broker: Broker, reason: str) -> None:
    broker.gateways.update(WorkerStatus("gw04", online=False), 1.0)
    tell_of_receipts(broker, "gw05", "gw06")

    def receive(origin: Origin) -> None:
        assert origin.receipt_to is not None
        handover = broker.outstanding.find(origin.receipt_to.correlation)
        assert handover is not None
        broker.outstanding.take(handover, Receipt("gw05", reason))
        broker.outstanding.take(handover, Receipt("gw06", reason))

    broker.bus.while_publishing = receive
    answer = await send(broker.listen, request("POST", PATH_V2, submission()))
    if reason:
        assert_error(answer, 503, "no_worker")
        assert broker.moved() == failed("v2", "no_worker") | {
            f'wgkex_broker_key_install_failures_total{{worker="{worker}"}}': 1.0 for worker in ("gw05", "gw06")
        }
    else:
        assert answer.status == 200
        assert broker.moved() == accepted("v2")
    assert len(broker.outstanding) == 0


def test_version_2_waits_for_the_gateway_and_version_1_for_nobody() -> None:
    async def scenario() -> dict[str, float]:
        now = asyncio.get_running_loop().time
        seconds = {}
        async with Broker().serving() as broker:
            broker.gateways.update(WorkerStatus("gw04", online=False), 1.0)
            tell_of_receipts(broker, "gw05")
            for version in VERSIONS:
                start = now()
                assert (await send(broker.listen, request("POST", PATHS[version], submission()))).status == 200
                seconds[version] = now() - start
            assert broker.moved() == {
                **accepted("v1"),
                **accepted("v2"),
                f'wgkex_broker_keys_published_total{{domain="{WELT.name}"}}': 2.0,
                'wgkex_broker_key_confirmation_timeouts_total{worker="gw05"}': 1.0,
            }
        return seconds

    seconds = run_in_virtual_time(scenario(), grace=0.005)
    assert seconds["v2"] == pytest.approx(0.75, abs=0.3)
    assert seconds["v1"] < 0.3


# --- what everybody else gets


class BadBody(NamedTuple):
    """A body, the reason why it is refused, and the label of the domain."""

    body: bytes
    reason: str
    domain: str


def _bad_bodies() -> dict[str, BadBody]:
    unknown = "unknown"
    bodies = {
        "empty": (b"", "malformed_json", unknown),
        "blank": (b" \r\n", "malformed_json", unknown),
        "broken": (submission()[:-1], "malformed_json", unknown),
        "text behind it": (submission() + b"x", "malformed_json", unknown),
        "two documents": (submission() * 2, "malformed_json", unknown),
        "single quotes": (submission().replace(b'"', b"'"), "malformed_json", unknown),
        "form": (b"domain=ffmuc_welt&public_key=x", "malformed_json", unknown),
        "array": (b"[" + submission() + b"]", "malformed_json", unknown),
        "string": (json.dumps(submission().decode()).encode(), "malformed_json", unknown),
        "number": (b"42", "malformed_json", unknown),
        "huge number": (b"9" * BODY_LIMIT, "malformed_json", unknown),
        "huge exponent": (b"1e999999999", "malformed_json", unknown),
        "null": (b"null", "malformed_json", unknown),
        "true": (b"true", "malformed_json", unknown),
        "NaN": (b"NaN", "malformed_json", unknown),
        "brackets to the limit": (b"[" * BODY_LIMIT, "malformed_json", unknown),
        "braces to the limit": (b'{"a":' * (BODY_LIMIT // 5), "malformed_json", unknown),
        "invalid UTF-8": (submission().replace(b"welt", b"w\xffelt"), "malformed_json", unknown),
        "overlong UTF-8": (submission().replace(b"welt", b"\xc0\xaf"), "malformed_json", unknown),
        "UTF-8 of a surrogate": (submission().replace(b"welt", b"\xed\xa0\x80"), "malformed_json", unknown),
        "byte order mark": (b"\xef\xbb\xbf" + submission(), "malformed_json", unknown),
        "UTF-16": (submission().decode().encode("utf-16"), "malformed_json", unknown),
        "UTF-32": (submission().decode().encode("utf-32"), "malformed_json", unknown),
        "NUL": (submission() + b"\0", "malformed_json", unknown),
        "control character in a string": (submission().replace(b"welt", b"w\nelt"), "malformed_json", unknown),
        "gzip": (gzip.compress(submission()), "malformed_json", unknown),
        "key twice, the same": (
            submission()[:-1] + f', "public_key": "{KEY}"}}'.encode(),
            "malformed_json",
            unknown,
        ),
        "key twice, another": (
            submission()[:-1] + f', "public_key": "{OTHER_KEY}"}}'.encode(),
            "malformed_json",
            unknown,
        ),
        "domain twice": (submission()[:-1] + b', "domain": "ffmuc_muc_cty"}', "malformed_json", unknown),
        "key twice, once escaped": (
            submission()[:-1] + f', "public\\u005fkey": "{OTHER_KEY}"}}'.encode(),
            "malformed_json",
            unknown,
        ),
        "twice deep inside": (submission()[:-1] + b', "x": [{"a": 1, "a": 2}]}', "malformed_json", unknown),
        "no members": (b"{}", "missing_field", unknown),
        "no domain": (json.dumps({"public_key": KEY}).encode(), "missing_field", unknown),
        "no key": (json.dumps({"domain": WELT.name}).encode(), "missing_field", WELT.name),
        "no key, unknown domain": (b'{"domain": "x"}', "missing_field", unknown),
        "members in the wrong case": (submission().replace(b"domain", b"Domain"), "missing_field", unknown),
        "members one level down": (b'{"data": ' + submission() + b"}", "missing_field", unknown),
        "unknown domain": (submission("ffmuc_nowhere"), "unknown_domain", unknown),
        "unknown domain and bad key": (submission("ffmuc_nowhere", "x"), "unknown_domain", unknown),
        "domain with a line feed": (submission(WELT.name + "\n"), "unknown_domain", unknown),
        "domain in capitals": (submission(WELT.name.upper()), "unknown_domain", unknown),
        "domain is a topic": (submission("#"), "unknown_domain", unknown),
        "empty domain": (submission(""), "unknown_domain", unknown),
        "domain is a lone surrogate": (b'{"domain": "\\ud800", "public_key": ""}', "unknown_domain", unknown),
        "domain is a number": (submission(1), "unknown_domain", unknown),
        "domain is null": (submission(None), "unknown_domain", unknown),
        "domain is a list": (submission([WELT.name]), "unknown_domain", unknown),
        "domain is NaN": (submission(float("nan")), "unknown_domain", unknown),
        "domain is infinite": (b'{"domain": 1e999, "public_key": ""}', "unknown_domain", unknown),
        "key is a lone surrogate": (submission(public_key="\ud800"), "invalid_public_key", WELT.name),
        "key is NaN": (submission(public_key=float("nan")), "invalid_public_key", WELT.name),
        "key to the limit": (
            padded(BODY_LIMIT).replace(b"padding", b"x").replace(KEY.encode(), b"A" * len(KEY + "123")),
            "invalid_public_key",
            WELT.name,
        ),
    }
    for vector in REJECTED["malformed"]:
        body = submission(public_key=vector["public_key"])
        bodies[f"key: {vector['why']}"] = (body, "invalid_public_key", WELT.name)
    for vector in REJECTED["small_order"]:
        bodies[f"key: {vector['why']}"] = (
            submission(public_key=vector["public_key"]),
            "small_order_public_key",
            WELT.name,
        )
    return {name: BadBody(*case) for name, case in bodies.items()}


BAD_BODIES: Final = _bad_bodies()


def test_all_rejected_keys_of_the_vectors_are_asked_for() -> None:
    assert sum(name.startswith("key: ") for name in BAD_BODIES) == 16 + 14


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("chunked", [False, True], ids=("length", "chunked"))
@pytest.mark.parametrize("bad", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_bad_input_is_400_and_nothing_is_published(
    broker: Broker, no_tracebacks: None, bad: BadBody, chunked: bool, version: str
) -> None:
    answer = await send(broker.listen, request("POST", PATHS[version], bad.body, chunked=chunked))
    assert_error(answer, 400, bad.reason)
    assert broker.moved() == rejected(version, bad.reason, bad.domain)
    assert broker.bus.published == []


async def test_answers_never_repeat_what_the_sender_wrote(broker: Broker) -> None:
    for body in (submission("<script>"), submission(public_key="<script>"), b"<script>"):
        answer = await send(broker.listen, request("POST", PATH_V1, body))
        assert answer.status == 400
        assert b"script" not in answer.body


async def test_other_members_are_ignored(broker: Broker) -> None:
    body = submission(hostname="x", nested={"domain": 1, "list": [{"public_key": 2}]}, number=float("nan"))
    assert (await send(broker.listen, request("POST", PATH_V1, body))).status == 200
    assert broker.moved() == accepted("v1")


# --- how large, how long


@pytest.mark.parametrize("chunked", [False, True], ids=("length", "chunked"))
async def test_body_of_4096_bytes_is_accepted(broker: Broker, chunked: bool) -> None:
    assert BODY_LIMIT == 4096
    answer = await send(broker.listen, request("POST", PATH_V1, padded(4096), chunked=chunked))
    assert answer.status == 200
    assert broker.moved() == accepted("v1")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("length", [4097, 10_000_000], ids=("4097", "10MB"))
@pytest.mark.parametrize("chunked", [False, True], ids=("length", "chunked"))
async def test_longer_body_is_413(
    broker: Broker, no_tracebacks: None, version: str, length: int, chunked: bool
) -> None:
    answer = await send(broker.listen, request("POST", PATHS[version], padded(length), chunked=chunked))
    assert_error(answer, 413, "too_large")
    assert broker.moved() == rejected(version, "too_large")
    assert broker.bus.published == []


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"1000\r\n" + b" " * 0x1000 + b"\r\n"], ids=("tiny", "large"))
async def test_fast_body_without_an_end_is_413(broker: Broker, no_tracebacks: None, chunk: bytes) -> None:
    async with connection(broker.listen) as (reader, writer):
        writer.write(request("POST", PATH_V1, b"", chunked=True).removesuffix(b"0\r\n\r\n"))
        answering = asyncio.ensure_future(read_answer(reader))
        while not answering.done():
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)
        assert_error(answering.result(), 413, "too_large")
    assert broker.moved() == rejected("v1", "too_large")


@pytest.mark.parametrize("chunked", [False, True], ids=("length", "chunked"))
def test_slow_body_without_an_end_is_400_after_ten_seconds(no_tracebacks: None, chunked: bool) -> None:
    async def trickle() -> tuple[Answer, float, dict[str, float]]:
        async with Broker().serving() as broker, connection(broker.listen) as (reader, writer):
            head = request("POST", PATH_V1, b" " * 4000)
            writer.write(
                request("POST", PATH_V1, b"", chunked=True).removesuffix(b"0\r\n\r\n") if chunked else head[:-4000]
            )
            now = asyncio.get_running_loop().time
            start = now()
            answering = asyncio.ensure_future(read_answer(reader))
            while not answering.done():
                writer.write(b"1\r\n \r\n" if chunked else b" ")
                await asyncio.wait([answering], timeout=0.3)
            seconds = now() - start
            return answering.result(), seconds, broker.moved()

    answer, seconds, changes = run_in_virtual_time(trickle(), grace=0.005)
    assert_error(answer, 400, "malformed_json")
    assert answer.json["error"]["message"] == "the body was not complete after 10 s"
    assert BODY_TIMEOUT == 10.0
    assert seconds == pytest.approx(10.0, abs=0.5)
    assert changes == rejected("v1", "malformed_json")


BROKEN_CHUNKS: Final = {
    "no number": b"xyz\r\n",
    "negative": b"-1\r\n",
    "huge": b"ffffffffffffffffffff\r\n",
    "too long": b"3\r\nabcd\r\n",
    "trailer": b"0\r\nbroken trailer\r\n\r\n",
    "behind the document": in_chunks(submission()) + b"nonsense\r\n\r\n",
}


@pytest.mark.parametrize("rest", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
async def test_request_with_broken_chunks_is_no_request(broker: Broker, no_tracebacks: None, rest: bytes) -> None:
    answer = await send(broker.listen, request("POST", PATH_V1, b"", chunked=True).removesuffix(b"0\r\n\r\n") + rest)
    assert_error(answer, 400, "bad_request")
    assert broker.moved() == {}
    assert broker.bus.published == []


@pytest.mark.parametrize("rest", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
def test_chunks_that_break_after_the_head_are_a_bad_body(no_tracebacks: None, rest: bytes) -> None:
    # The server's library does not tell the reader of a body that no more will come: the answer takes BODY_TIMEOUT.
    async def send_in_two() -> tuple[Answer, Broker]:
        async with Broker().serving() as broker, connection(broker.listen) as (reader, writer):
            writer.write(request("POST", PATH_V1, b"", chunked=True).removesuffix(b"0\r\n\r\n"))
            await until(lambda: broker.in_progress() == 1.0)
            writer.write(rest)
            return await read_answer(reader), broker

    answer, broker = run_in_virtual_time(send_in_two(), grace=0.005)
    assert_error(answer, 400, "malformed_json")
    assert broker.moved() == rejected("v1", "malformed_json")
    assert broker.bus.published == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransferEncodingError("x"), RejectedError),
        (RequestPayloadError("x"), RejectedError),
        (ConnectionResetError("x"), ConnectionError),
        (OSError(errno.EHOSTUNREACH, "x"), ConnectionError),
    ],
    ids=("broken encoding", "broken payload", "reset", "unreachable"),
)
async def test_body_that_breaks_off_is_the_senders_fault_or_its_absence(
    error: Exception, expected: type[Exception]
) -> None:
    content = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
    content.feed_data(b"{")
    content.set_exception(error)
    with pytest.raises(expected):
        await read_body(content)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(submission())),
        ("gzip", b"garbage"),
        ("gzip", gzip.compress(b" " * 50_000_000)[:4096]),
        ("deflate", zlib.compress(submission())),
        ("deflate", b"garbage"),
        ("br", b"garbage"),
        ("zstd", b"garbage"),
        ("quantum", b"garbage"),
    ],
    ids=("gzip", "gzip garbage", "gzip bomb", "deflate", "deflate garbage", "br", "zstd", "unknown"),
)
async def test_compressed_body_is_no_json(broker: Broker, no_tracebacks: None, encoding: str, body: bytes) -> None:
    answer = await send(broker.listen, request("POST", PATH_V1, body, f"Content-Encoding: {encoding}"))
    assert_error(answer, 400, "malformed_json")
    assert broker.moved() == rejected("v1", "malformed_json")
    assert broker.bus.published == []


# --- HTTP itself


async def test_expect_100_continue_is_answered_before_the_body_is_sent(broker: Broker) -> None:
    body = submission()
    raw = request("POST", PATH_V1, body, "Expect: 100-continue")
    async with connection(broker.listen) as (reader, writer):
        writer.write(raw.removesuffix(body))
        assert (await read_answer(reader)).status == 100
        writer.write(body)
        assert (await read_answer(reader)).body == b'{"Message": "OK"}'


@pytest.mark.parametrize("path", [PATH_V1, "/nowhere"])
async def test_other_expectations_are_417(broker: Broker, path: str) -> None:
    answer = await send(broker.listen, request("POST", path, submission(), "Expect: <script>"))
    assert_error(answer, 417, "expectation_failed")
    assert b"script" not in answer.body
    assert broker.moved() == {}


async def test_this_is_no_proxy(broker: Broker, no_tracebacks: None) -> None:
    async with connection(broker.listen) as (reader, writer):
        writer.write(b"CONNECT example.net:443 HTTP/1.1\r\nHost: example.net\r\n\r\n")
        assert_error(await read_answer(reader), 404, "not_found")
    answer = await send(broker.listen, request("GET", "http://example.net/"))
    assert_error(answer, 404, "not_found")


async def test_offer_to_speak_another_protocol_is_declined(broker: Broker, no_tracebacks: None) -> None:
    headers = ("Connection: upgrade", "Upgrade: websocket")
    async with connection(broker.listen) as (reader, writer):
        writer.write(request("GET", "/api", None, *headers, close=False))
        assert_error(await read_answer(reader), 404, "not_found")


@pytest.mark.parametrize("path", [PATH_V1, PATH_V2])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
async def test_other_methods_are_405(broker: Broker, no_tracebacks: None, path: str, method: str) -> None:
    answer = await send(broker.listen, request(method, path, submission()), head_only=method == "HEAD")
    if method == "HEAD":
        assert answer.status == 405
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
    else:
        assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert broker.moved() == {}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/metrics",
        "/-/healthy",
        "/-/ready",
        "/api/v1/wg/key/exchange/",
        "/api/v3/wg/key/exchange",
        "/API/v1/wg/key/exchange",
        "//api/v1/wg/key/exchange",
        "/api/v1/../v1/wg/key/exchange/x",
        "/%00",
        "/%ff",
        "/?a=1",
        "/" + "x" * 5000,
    ],
    ids=lambda path: path[:40],
)
async def test_other_paths_are_404(broker: Broker, no_tracebacks: None, method: str, path: str) -> None:
    answer = await send(broker.listen, request(method, path, submission() if method == "POST" else None))
    assert_error(answer, 404, "not_found")
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert broker.moved() == {}


async def test_query_does_not_matter(broker: Broker) -> None:
    assert (await send(broker.listen, request("POST", PATH_V1 + "?domain=x", submission()))).status == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\ngarbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)) + b"\r\n\r\n",
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"x" * 10_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: 1\r\n" % number for number in range(1000)) + b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=(
        "text",
        "TLS hello",
        "zeros",
        "half a line",
        "version",
        "no colon",
        "NUL in a header",
        "long line",
        "long header",
        "many headers",
        "negative length",
        "two lengths",
        "length and chunks",
        "HTTP/2",
    ),
)
async def test_garbage_instead_of_http_is_400(broker: Broker, no_tracebacks: None, raw: bytes) -> None:
    async with connection(broker.listen) as (reader, writer):
        writer.write(raw)
        answer = await read_answer(reader)
        assert await reader.read() == b""
    assert_error(answer, 400, "bad_request")
    assert broker.moved() == {}
    assert broker.bus.published == []


@pytest.mark.parametrize("garbage", [random.Random(seed).randbytes(2000) for seed in range(20)], ids=range(20))
async def test_random_bytes_are_never_more_than_a_400(broker: Broker, no_tracebacks: None, garbage: bytes) -> None:
    async with connection(broker.listen) as (reader, writer):
        writer.write(garbage + b"\r\n\r\n")
        answer = await read_answer(reader)
    assert_error(answer, 400, "bad_request")
    # It goes on serving.
    assert (await send(broker.listen, request("POST", PATH_V1, submission()))).status == 200


@pytest.mark.parametrize("abort", [False, True], ids=("closes", "resets"))
async def test_client_that_leaves_in_the_middle_of_the_body_counts_nothing(
    broker: Broker, no_tracebacks: None, abort: bool
) -> None:
    body = submission()
    async with connection(broker.listen) as (_, writer):
        writer.write(request("POST", PATH_V1, body).removesuffix(body) + body[:20])
        await until(lambda: broker.in_progress() == 1.0)
        if abort:
            writer.transport.abort()
    await until(lambda: broker.in_progress() == 0.0)
    await settle()
    assert broker.moved() == {}
    assert broker.bus.published == []
    assert (await send(broker.listen, request("POST", PATH_V1, body))).status == 200


async def test_client_of_http_1_0_is_served_and_the_connection_ends(broker: Broker) -> None:
    body = submission()
    async with connection(broker.listen) as (reader, writer):
        writer.write(f"POST {PATH_V1} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await read_answer(reader)
        assert answer.body == b'{"Message": "OK"}'
        assert await reader.read() == b""


async def test_one_connection_serves_many_requests(broker: Broker) -> None:
    async with connection(broker.listen) as (reader, writer):
        request_ids = set()
        for path, body, status in (
            (PATH_V1, submission(), 200),
            (PATH_V2, submission("x"), 400),
            ("/x", b"", 404),
            (PATH_V2, submission(), 200),
        ):
            writer.write(request("POST", path, body, close=False))
            answer = await read_answer(reader)
            assert answer.status == status
            request_ids.add(answer.headers["x-request-id"])
        assert len(request_ids) == 4


async def test_pipelined_requests_are_answered_in_their_order(broker: Broker) -> None:
    async with connection(broker.listen) as (reader, writer):
        writer.write(
            request("POST", PATH_V1, submission(), close=False)
            + request("POST", PATH_V1, submission("x"), close=False, chunked=True)
            + request("POST", PATH_V2, submission(), close=False)
            + request("GET", "/api")
        )
        answers = [await read_answer(reader) for _ in range(4)]
        assert await reader.read() == b""
    assert [answer.status for answer in answers] == [200, 400, 200, 404]
    assert answers[0].body == b'{"Message": "OK"}'
    assert "Endpoint" in answers[2].json
    assert len(broker.bus.published) == 2


async def test_ordinary_http_client_is_served(broker: Broker) -> None:
    async with ClientSession(f"http://{broker.listen}") as session:
        async with session.post(PATH_V1, json={"domain": WELT.name, "public_key": KEY}) as response:
            assert (response.status, await response.json()) == (200, {"Message": "OK"})
        async with session.post(PATH_V2, data=submission()) as response:
            assert response.status == 200


async def test_request_id_is_in_the_answer_and_in_all_log_lines(broker: Broker) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as events:
        good = await send(broker.listen, request("POST", PATH_V2, submission(), "X-Request-Id: mine"))
        bad = await send(broker.listen, request("POST", PATH_V2, b""))
    assert re.fullmatch("[0-9a-f]{32}", good.headers["x-request-id"])
    by_event = {event["event"]: event["request_id"] for event in events}
    assert by_event == {
        "gateway_chosen": good.headers["x-request-id"],
        "key_accepted": good.headers["x-request-id"],
        "key_rejected": bad.headers["x-request-id"],
    }
    # The context of one request is not that of the next, or of anything else.
    assert structlog.contextvars.get_contextvars() == {}


async def test_key_is_logged_once_per_request(broker: Broker) -> None:
    with structlog.testing.capture_logs() as events:
        await send(broker.listen, request("POST", PATH_V2, submission()))
    assert sum(KEY in str(event) for event in events) == 1


# --- counting


async def test_whatever_is_asked_for_there_are_only_so_many_series(broker: Broker) -> None:
    seeded = random.Random(1)
    methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "MKCOL", "LOCK"]
    before = samples(broker.registry)
    async with connection(broker.listen) as (reader, writer):
        for number in range(1000):
            method = seeded.choice(methods)
            path = f"/{seeded.randbytes(seeded.randrange(20)).hex()}/{number}"
            writer.write(request(method, path, close=False))
            answer = await read_answer(reader, head_only=method == "HEAD")
            assert answer.status == 404
    after = samples(broker.registry)
    assert after.keys() == before.keys()
    labels = {name for name in after if name.startswith("wgkex_broker_http_requests_total")}
    for name in labels:
        assert re.search(r'code="(200|400|404|405|413|503)",handler="(/api/v[12]/wg/key/exchange|unknown)"', name)
        assert re.search(r'method="(GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS|unknown)"', name)
    total = moved(before, after)
    counted = sum(change for name, change in total.items() if name.startswith("wgkex_broker_http_requests_total"))
    assert counted == 1000


async def test_requests_are_counted_by_method_route_and_code(broker: Broker) -> None:
    before = samples(broker.registry)
    await send(broker.listen, request("POST", PATH_V1, submission()))
    await send(broker.listen, request("POST", PATH_V2, b""))
    await send(broker.listen, request("GET", PATH_V2))
    await send(broker.listen, request("GET", "/api"))
    changes = {
        name: change
        for name, change in moved(before, samples(broker.registry)).items()
        if name.startswith(("wgkex_broker_http_requests_total", "wgkex_broker_http_request_duration_seconds_count"))
    }
    assert changes == {
        f'wgkex_broker_http_requests_total{{code="200",handler="{PATH_V1}",method="POST"}}': 1.0,
        f'wgkex_broker_http_requests_total{{code="400",handler="{PATH_V2}",method="POST"}}': 1.0,
        'wgkex_broker_http_requests_total{code="405",handler="unknown",method="GET"}': 1.0,
        'wgkex_broker_http_requests_total{code="404",handler="unknown",method="GET"}': 1.0,
        f'wgkex_broker_http_request_duration_seconds_count{{handler="{PATH_V1}"}}': 1.0,
        f'wgkex_broker_http_request_duration_seconds_count{{handler="{PATH_V2}"}}': 1.0,
        'wgkex_broker_http_request_duration_seconds_count{handler="unknown"}': 2.0,
    }


@given(
    st.lists(
        st.tuples(
            st.sampled_from(VERSIONS),
            st.sampled_from([submission(), submission(), *(bad.body for bad in BAD_BODIES.values()), padded(5000)]),
            st.sampled_from([None, *(error for error, _ in BUS_ERRORS), ZeroDivisionError()]),
            st.booleans(),
        ),
        max_size=12,
    )
)
@settings(max_examples=25, deadline=None)
def test_every_request_is_published_rejected_or_failed(mix: list[tuple[str, bytes, Exception | None, bool]]) -> None:
    async def send_all() -> None:
        async with Broker().serving() as broker, connection(broker.listen) as (reader, writer):
            statuses = []
            for version, body, error, online in mix:
                broker.bus.error = error
                broker.gateways.update(WorkerStatus("gw04", online), 1.0)
                writer.write(request("POST", PATHS[version], body, close=False))
                statuses.append((await read_answer(reader)).status)
            changes = broker.moved()

        def total(name: str) -> float:
            return sum(change for sample, change in changes.items() if sample.startswith(f"wgkex_broker_{name}_total"))

        assert total("key_requests") == len(mix)
        assert total("keys_published") == statuses.count(200)
        assert total("key_rejections") == statuses.count(400) + statuses.count(413)
        assert total("key_failures") == statuses.count(503)
        assert total("key_requests") == total("keys_published") + total("key_rejections") + total("key_failures")

    with structlog.testing.capture_logs():
        asyncio.run(send_all())


async def test_all_series_that_can_be_known_are_there_from_the_start() -> None:
    fresh = samples(Broker().registry)
    for reason in ("malformed_json", "missing_field", "invalid_public_key", "small_order_public_key"):
        assert fresh[f'wgkex_broker_key_rejections_total{{reason="{reason}"}}'] == 0.0
    for reason in ("mqtt_disconnected", "publish_refused", "publish_timeout", "no_worker", "internal"):
        assert fresh[f'wgkex_broker_key_failures_total{{reason="{reason}"}}'] == 0.0
    for domain in (*DOMAINS, "unknown"):
        for version in VERSIONS:
            assert fresh[f'wgkex_broker_key_requests_total{{api_version="{version}",domain="{domain}"}}'] == 0.0
