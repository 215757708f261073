"""The key exchange: what a node gets, and what is counted and logged of it."""

import asyncio
import re

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import (
    DOMAINS,
    KEY,
    OTHER_KEY,
    WELT,
    connection,
    in_chunks,
    post_key,
    read_answer,
    request,
    samples,
    send,
)
from tests.unit.http.public.application import (
    BUS_ERRORS,
    PATHS,
    VERSIONS,
    Broker,
    accepted,
    assert_error,
    failed,
    padded,
    rejected,
    submission,
)
from tests.unit.http.public.bad_bodies import BAD_BODIES
from wgkex_ops.bus.messages import WorkerStatus
from wgkex_ops.errors import BusError
from wgkex_ops.http.public.app import PATH_V1, PATH_V2
from wgkex_ops.http.public.submission import Submission
from wgkex_ops.model.key_lists import KeyLists, ListedKey
from wgkex_ops.model.keys import PublicKey

RAW = PublicKey.parse(KEY).raw


def requests_of(broker: Broker) -> list[tuple[str, str, str]]:
    """What operators see of KEY's requests: domain, reason of a failure, gateway."""
    return [(one.domain, one.failure, one.named) for one in broker.requests.of(RAW)]


# --- what a node gets


async def test_version_1_gets_ok(broker: Broker, no_tracebacks: None) -> None:
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


async def test_simulated_router_sends_the_request_of_a_real_one(broker: Broker, no_tracebacks: None) -> None:
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
    assert requests_of(broker) == [(WELT.name, "no_worker", "")]


async def test_version_1_needs_no_gateway(broker: Broker) -> None:
    broker.gateways.update(WorkerStatus("gw04", online=False), 1.0)
    assert (await send(broker.listen, request("POST", PATH_V1, submission()))).status == 200


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
    assert requests_of(broker) == [(WELT.name, reason, "")]


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
    assert requests_of(broker) == [(WELT.name, "internal", "")]
    # The domain was valid, and the key too: all that failed is ours.
    assert broker.moved() == failed(version, "internal")


async def test_request_id_is_in_the_response_and_in_all_log_lines(broker: Broker) -> None:
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


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        (KeyLists(denied={RAW: ListedKey("stolen")}), "denied_key"),
        (KeyLists(allowed={WELT.name: {}}), "not_allowed_key"),
    ],
)
async def test_a_key_that_the_lists_refuse_is_403_and_not_published(
    broker: Broker, version: str, lists: KeyLists, reason: str
) -> None:
    broker.lists = lists
    with structlog.testing.capture_logs():
        answer = await send(broker.listen, request("POST", PATHS[version], submission()))
    assert_error(answer, 403, reason)
    assert broker.moved() == rejected(version, reason, WELT.name)
    assert not broker.bus.published
    assert requests_of(broker) == [(WELT.name, reason, "")]


async def test_operators_see_a_router_that_is_configured_with_another_domain(broker: Broker) -> None:
    answer = await send(broker.listen, request("POST", PATH_V2, submission(domain="ffmuc_nowhere")))
    assert_error(answer, 400, "unknown_domain")
    assert requests_of(broker) == [("", "unknown_domain", "")]
    # Without a key, there is nothing to look for.
    await send(broker.listen, request("POST", PATH_V2, submission(domain="ffmuc_nowhere", public_key="x")))
    assert broker.requests.keys() == {RAW}


async def test_operators_see_which_gateway_a_response_has_named(broker: Broker) -> None:
    await send(broker.listen, request("POST", PATH_V2, submission()))
    assert requests_of(broker) == [(WELT.name, "", "gw04")]
    await send(broker.listen, request("POST", PATH_V1, submission()))
    assert requests_of(broker) == [(WELT.name, "", ""), (WELT.name, "", "gw04")]
