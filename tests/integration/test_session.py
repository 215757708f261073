"""The session against a real MQTT server that is stopped, killed, hung and restarted; and against what is none."""

import asyncio
import contextlib
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.integration.certificates import Certificates
from tests.integration.inprocess import client
from tests.integration.relay import relay
from tests.integration.servers import (
    LOOPBACK,
    PATIENCE,
    Bench,
    Mosquitto,
    eventually,
    eventually_answered,
    free_port,
    run,
    suspended,
)
from wgkex_ops.bus.session import Will
from wgkex_ops.demo.embedded import mqtt_server
from wgkex_ops.errors import NoSubscribersError, NotConnectedError, PublishRefusedError, PublishTimeoutError

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])
WELCOME = bytes.fromhex("2003000000")  # a CONNACK of MQTT 5 without properties
NOT_AUTHORIZED = bytes.fromhex("2003008700")


def kick(server: Mosquitto, client_id: str = "tester") -> None:
    """Break a client's connection: the server closes the older one of two with the same name."""
    server.publish("kicks", "out", "-i", client_id)


def open_files() -> int:
    """How many files and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def failure(logs: Sequence[MutableMapping[str, Any]]) -> MutableMapping[str, Any]:
    """The one line that told of failing attempts to connect."""
    [line] = [line for line in logs if line["event"] == "mqtt_connection_failed"]
    return line


Answerer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def tcp_server(answer: Answerer, certificates: Certificates | None = None) -> AsyncIterator[int]:
    """Something that listens, with TLS if it has certificates, and is no MQTT server. Yields its port."""
    context = None
    if certificates is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.server)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


# --- publishing


@VERSIONS
async def test_a_publish_returns_when_the_server_has_acknowledged(
    bench: Bench, mosquitto: Mosquitto, version: str
) -> None:
    observer = await bench.observe(mosquitto)
    async with client(mosquitto.port, version=version) as tester:
        await tester.publish("some/topic", b"payload")
        assert "Sending PUBACK to tester" in mosquitto.output
        assert tester.metric("publishes_in_flight") == 0
    await observer.sees("some/topic", b"payload")
    assert [(seen.qos, seen.retained) for seen in observer.messages] == [(1, False)]


async def test_a_retained_publish_is_kept_by_the_server(bench: Bench, mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port) as tester:
        await tester.publish("kept/topic", b"kept", retain=True)
    observer = await bench.observe(mosquitto)
    await observer.sees("kept/topic", b"kept")


async def test_a_publish_that_an_acl_forbids_is_refused_with_the_code(bench: Bench, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite allowed/#\n")
    server = await bench.mosquitto(f"acl_file {acl}")
    await bench.observe(server)
    async with client(server.port) as tester:
        with pytest.raises(PublishRefusedError) as caught:
            await tester.publish("forbidden/topic")
        assert caught.value.code == 0x87
        with pytest.raises(PublishRefusedError):
            await tester.publish("forbidden/topic", retain=True)
        await tester.publish("allowed/topic", retain=True)
        assert tester.metric("publishes_in_flight") == 0


async def test_a_publish_without_subscribers_is_told_as_that_unless_it_is_retained(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port) as tester:
        with pytest.raises(NoSubscribersError):
            await tester.publish("nobody/listens")
        await tester.publish("nobody/listens", retain=True)


async def test_mqtt_3_1_1_knows_neither_refusals_nor_missing_subscribers(bench: Bench, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite allowed/#\n")
    server = await bench.mosquitto(f"acl_file {acl}")
    async with client(server.port, version="3.1.1") as tester:
        await tester.publish("forbidden/topic", properties={"name": "value"})
        await tester.publish("allowed/nobody-listens", properties={"name": "value"})


@pytest.mark.parametrize(("limit", "version"), [(0, "5"), (1, "5"), (2, "5"), (20, "5"), (20, "3.1.1")], ids=str)
async def test_more_publishes_at_once_than_the_server_takes_all_succeed(bench: Bench, limit: int, version: str) -> None:
    server = await bench.mosquitto(f"max_inflight_messages {limit}")
    async with client(server.port, client_id="reader", subscriptions=["many/+"]) as reader:
        async with client(server.port, version=version) as tester:
            await asyncio.gather(*(tester.publish(f"many/{number}") for number in range(500)))
            assert tester.metric("publishes_in_flight") == 0
            assert tester.metric("disconnects_total") == 0
        arrived = []
        for _ in range(500):
            message = await reader.next()
            message.acknowledge()
            arrived.append(message.topic)
        assert arrived == [f"many/{number}" for number in range(500)]


async def test_a_hanging_server_costs_a_publish_its_time_limit_and_little_memory(bench: Bench) -> None:
    server = await bench.mosquitto("max_inflight_messages 20")
    async with client(server.port, keepalive=60) as tester:
        with suspended(server):
            for _ in range(2):
                start = time.monotonic()
                results = await asyncio.gather(
                    *(tester.publish("some/topic", timeout=0.5, retain=True) for _ in range(200)),
                    return_exceptions=True,
                )
                assert 0.5 <= time.monotonic() - start < 5
                assert {type(result) for result in results} == {PublishTimeoutError}
                assert tester.metric("publishes_in_flight") < 20
        await tester.publish("some/topic", retain=True)
        await eventually(lambda: tester.metric("publishes_in_flight") == 0, "nothing in flight")
        assert tester.metric("disconnects_total") == 0


async def test_unsent_data_does_not_hold_the_goodbye_to_a_hanging_server(mosquitto: Mosquitto) -> None:
    files_before = open_files()
    with suspended(mosquitto):
        async with client(mosquitto.port, keepalive=60, connected=False) as tester:
            mosquitto.send(signal.SIGCONT)
            await tester.connection_after(0)
            mosquitto.send(signal.SIGSTOP)
            # More than the kernel's buffers hold.
            publishes = [tester.publish("some/topic", bytes(2**22), timeout=0.2) for _ in range(8)]
            results = await asyncio.gather(*publishes, return_exceptions=True)
            assert {type(result) for result in results} == {PublishTimeoutError}
            start = time.monotonic()
        assert time.monotonic() - start < 3
        await eventually(lambda: open_files() <= files_before, "closed sockets", 5)


async def test_a_server_that_hangs_for_long_is_given_up_and_found_again(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, keepalive=1, connect_timeout=0.5) as tester:
        with suspended(mosquitto):
            await eventually(lambda: tester.metric("disconnects_total") == 1, "the end of the connection")
            with pytest.raises(NotConnectedError):
                await tester.publish("some/topic")
            await tester.failed("timed_out")
        await tester.connection_after(1)
        await tester.publish("some/topic", retain=True)


async def test_publishes_in_flight_fail_at_once_when_the_server_is_killed(bench: Bench) -> None:
    server = await bench.mosquitto("max_inflight_messages 20")
    async with client(server.port, keepalive=60) as tester:
        server.send(signal.SIGSTOP)
        publishes = asyncio.gather(*(tester.publish("some/topic") for _ in range(50)), return_exceptions=True)
        await eventually(lambda: tester.metric("publishes_in_flight") > 0, "publishes in flight")
        await server.stop(signal.SIGKILL)
        async with asyncio.timeout(5):
            results = await publishes
        assert {type(result) for result in results} == {NotConnectedError}
        assert tester.metric("publishes_in_flight") == 0
        assert tester.metric("connected") == 0
        await server.start()
        await tester.connection_after(1)
        await tester.publish("some/topic", retain=True)


async def test_a_publish_without_a_connection_fails_at_once() -> None:
    async with client(free_port(), connected=False) as tester:
        with pytest.raises(NotConnectedError):
            await tester.publish("some/topic")


# --- connecting


async def test_a_server_that_comes_later_is_found(bench: Bench) -> None:
    server = Mosquitto(bench, ())
    async with client(server.port, connected=False) as tester:
        await tester.failed("unreachable", times=2)
        assert not tester.session.connected
        await server.start()
        await tester.connection_after(0)
        await tester.publish("some/topic", retain=True)
        assert tester.metric("connected") == 1
        assert tester.metric("connects_total") == 1
        assert tester.metric("disconnects_total") == 0


async def test_a_reconnect_renews_subscriptions_and_brings_retained_messages_again(mosquitto: Mosquitto) -> None:
    mosquitto.publish("kept/topic", "kept", "-r", "-q", "1")
    async with client(mosquitto.port, subscriptions=["kept/+", "live/+"]) as tester:
        first = await tester.next()
        assert (first.topic, first.payload, first.retained) == ("kept/topic", b"kept", True)
        assert tester.metric("last_message_received_timestamp_seconds") == pytest.approx(time.time(), abs=60)
        kick(mosquitto)
        again = await tester.next()
        assert (again.topic, again.payload, again.retained) == ("kept/topic", b"kept", True)
        mosquitto.publish("live/topic", "live")
        live = await tester.next()
        assert (live.topic, live.payload, live.retained) == ("live/topic", b"live", False)


async def test_connections_are_numbered_and_tell_when_they_were_begun(mosquitto: Mosquitto) -> None:
    before = time.monotonic()
    async with client(mosquitto.port) as tester:
        assert await tester.connection_after(0) == 1
        first = tester.session.opened_at
        assert before <= first <= time.monotonic()
        next_one = asyncio.create_task(tester.connection_after(1))
        kick(mosquitto)
        assert await next_one == 2
        assert first < tester.session.opened_at <= time.monotonic()
        assert await tester.connection_after(0) == 2
        assert tester.metric("connects_total") == 2
        assert tester.metric("disconnects_total") == 1


async def test_a_clean_goodbye_sends_no_will(bench: Bench, mosquitto: Mosquitto) -> None:
    observer = await bench.observe(mosquitto)
    async with client(mosquitto.port, will=Will("wills/tester", b"gone")):
        pass
    await eventually(lambda: "Received DISCONNECT from tester" in mosquitto.output, "a goodbye")
    mosquitto.publish("sentinel", "1")
    await observer.sees("sentinel", "1")
    assert observer.payloads("wills/tester") == []


async def test_a_broken_connection_sends_the_will_retained(bench: Bench, mosquitto: Mosquitto) -> None:
    observer = await bench.observe(mosquitto)
    async with client(mosquitto.port, will=Will("wills/tester", b"gone")):
        kick(mosquitto)
        await observer.sees("wills/tester", b"gone")
    assert [(seen.qos, seen.retained) for seen in observer.messages if seen.topic == "wills/tester"] == [(1, True)]


async def test_names_that_are_not_ascii_work(bench: Bench, mosquitto: Mosquitto) -> None:
    observer = await bench.observe(mosquitto)
    async with client(mosquitto.port, client_id="münchen-ß", will=Will("wills/münchen-ß", b"gone")) as tester:
        await tester.publish("topics/münchen-ß", "Grüße".encode(), properties={"Straße": "Isar, Ufer"})
        await observer.sees("topics/münchen-ß", "Grüße")
        kick(mosquitto, "münchen-ß")
        await observer.sees("wills/münchen-ß", b"gone")


@pytest.mark.parametrize("encrypted", [False, True], ids=["tcp", "tls"])
@VERSIONS
async def test_a_wrong_password_is_tried_for_ever_until_the_servers_file_is_mended(
    bench: Bench, certificates: Certificates, tmp_path: Path, version: str, encrypted: bool
) -> None:
    passwords = tmp_path / "passwords"
    run("mosquitto_passwd", "-b", "-c", str(passwords), "wgkex", "another one")
    server = await bench.mosquitto(f"password_file {passwords}", *(tls_settings(certificates) if encrypted else ()))
    login: dict[str, Any] = {"username": "wgkex", "password": "the right one, ß"}
    login["tls"] = {"ca_file": certificates.authority} if encrypted else False
    async with client(server.port, connected=False, version=version, **login) as tester:
        await tester.failed("refused", times=2)
        run("mosquitto_passwd", "-b", "-c", str(passwords), "wgkex", "the right one, ß")
        server.send(signal.SIGHUP)
        await tester.connection_after(0)
        assert tester.metric("connection_failures_total", reason="closed") == 0


async def test_two_clients_with_one_name_do_not_spin(mosquitto: Mosquitto) -> None:
    start = time.monotonic()
    async with (
        client(mosquitto.port, client_id="twin", connected=False) as one,
        client(mosquitto.port, client_id="twin", connected=False) as other,
    ):
        # Each one's pauses double from 0.125 s at the least: after three rounds it is 0.875 s, and growing.
        await eventually(lambda: mosquitto.connects_of("twin") >= 8, "the twins throwing each other out")
        assert time.monotonic() - start > 1.7
        assert one.metric("disconnects_total") + other.metric("disconnects_total") >= 6


async def test_a_server_that_says_nothing_times_out() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_server(say_nothing) as port, client(port, connected=False, connect_timeout=0.2) as tester:
        await tester.failed("timed_out", times=2)


async def test_a_server_that_says_nothing_of_the_subscriptions_times_out() -> None:
    async def say_welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WELCOME)
        await reader.read()
        await reader.read()

    async with (
        tcp_server(say_welcome) as port,
        client(port, connected=False, connect_timeout=0.2, subscriptions=["some/topic"]) as tester,
    ):
        await tester.failed("timed_out", times=2)


async def test_a_server_that_closes_at_once_is_told_with_a_hint() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    with capture_logs() as logs:
        async with tcp_server(close) as port, client(port, connected=False) as tester:
            await tester.failed("closed", times=3)
    # The same failure is told once, not at each attempt.
    line = failure(logs)
    assert line["log_level"] == "warning"
    assert line["reason"] == "closed"
    assert "mqtt.version" in line["detail"]


async def test_a_server_that_knows_only_mqtt_3_1_1_works_with_that_and_is_told_with_a_hint_else() -> None:
    async with mqtt_server() as port:
        async with client(port, version="3.1.1") as tester:
            await tester.publish("some/topic")
        with capture_logs() as logs:
            async with client(port, connected=False, connect_timeout=0.5) as tester:
                # It asks that nobody tries again, and keeps the connection.
                await tester.failed("timed_out")
    assert "mqtt.version" in failure(logs)["detail"]


@pytest.mark.parametrize(
    ("words", "subscriptions"),
    [
        pytest.param(WELCOME, [], id="welcome"),
        pytest.param(WELCOME, ["some/topic"], id="welcome-but-no-subscription"),
        pytest.param(WELCOME + b"\xe0\x01\x8e", ["some/topic"], id="welcome-and-goodbye"),
        pytest.param(WELCOME + b"\x40\x00\x40\x01\x00\x90\x00\x30\x00\xf0\x00\x00\x00", [], id="welcome-and-nonsense"),
        pytest.param(b"\x20\x00", [], id="empty-answer"),
        pytest.param(b"\x20\x04\x00\x00\x01\xff", [], id="unknown-property"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", [], id="http"),
        pytest.param(b"\xff" * 100, [], id="noise"),
    ],
)
async def test_a_server_that_says_something_and_closes_ends_nothing(words: bytes, subscriptions: list[str]) -> None:
    attempts = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await reader.read(1)
        writer.write(words)

    async with (
        tcp_server(speak) as port,
        client(port, connected=False, connect_timeout=0.5, subscriptions=subscriptions),
    ):
        await eventually(lambda: attempts == 4, "attempts that go on")


@pytest.mark.parametrize("encrypted", [False, True], ids=["tcp", "tls"])
async def test_a_refusal_counts_as_that_even_if_the_server_closes_in_the_same_moment(
    certificates: Certificates, encrypted: bool
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(NOT_AUTHORIZED)

    tls = {"ca_file": certificates.authority} if encrypted else False
    async with (
        tcp_server(refuse, certificates if encrypted else None) as port,
        client(port, connected=False, tls=tls) as tester,
    ):
        await tester.failed("refused", times=3)
        assert tester.metric("connection_failures_total", reason="closed") == 0


@pytest.mark.parametrize(
    "name",
    [
        # The resolver itself refuses each of these, and asks no name server.
        pytest.param("fe80::1%nowhere", id="unknown-interface"),
        pytest.param("a..b", id="empty-label"),
        pytest.param("x" * 64, id="long-label"),
    ],
)
async def test_a_name_that_does_not_resolve_is_tried_for_ever(name: str) -> None:
    async with client(1, connected=False, broker_url=name) as tester:
        await tester.failed("unreachable", times=2)


async def test_a_crash_of_the_loop_comes_out_of_the_context(mosquitto: Mosquitto) -> None:
    # A client id is two bytes of length and no more: nothing that a configuration could lead to.
    with pytest.raises(ExceptionGroup) as caught:
        async with client(mosquitto.port, client_id="x" * 70_000, connected=False):
            await asyncio.get_running_loop().create_future()
    assert len(caught.value.exceptions) == 1


# --- TLS


def tls_settings(certificates: Certificates, *further: str) -> tuple[str, ...]:
    pem = certificates.server
    return (f"cafile {certificates.authority}", f"certfile {pem}", f"keyfile {pem}", *further)


@VERSIONS
async def test_tls_with_a_client_certificate_works(bench: Bench, certificates: Certificates, version: str) -> None:
    server = await bench.mosquitto(*tls_settings(certificates, "require_certificate true"))
    tls = {"ca_file": certificates.authority, "cert_file": certificates.client}
    async with client(server.port, version=version, tls=tls, subscriptions=["some/+"]) as tester:
        await tester.publish("some/topic", b"x" * 65_536)
        assert (await tester.next()).payload == b"x" * 65_536
    await eventually(lambda: "Received DISCONNECT from tester" in server.output, "a goodbye")


@VERSIONS
async def test_a_server_that_wants_a_certificate_of_ours_is_told_with_a_hint(
    bench: Bench, certificates: Certificates, version: str
) -> None:
    server = await bench.mosquitto(*tls_settings(certificates, "require_certificate true"))
    with capture_logs() as logs:
        tls = {"ca_file": certificates.authority}
        async with client(server.port, connected=False, version=version, tls=tls) as tester:
            await tester.failed("closed", times=2)
    assert "mqtt.tls.cert_file" in failure(logs)["detail"]


@VERSIONS
async def test_a_server_of_another_authority_is_not_talked_to(
    bench: Bench, certificates: Certificates, version: str
) -> None:
    server = await bench.mosquitto(*tls_settings(certificates))
    tls = {"ca_file": certificates.other_authority}
    async with client(server.port, connected=False, version=version, tls=tls) as tester:
        await tester.failed("tls", times=2)
    assert server.connects_of("tester") == 0


async def test_a_certificate_for_another_name_is_not_trusted(bench: Bench, certificates: Certificates) -> None:
    server = await bench.mosquitto(*tls_settings(certificates))
    tls = {"ca_file": certificates.authority}
    async with client(server.port, connected=False, broker_url="localhost", tls=tls) as tester:
        await tester.failed("tls", times=2)


async def test_without_verification_any_server_will_do(bench: Bench, certificates: Certificates) -> None:
    server = await bench.mosquitto(*tls_settings(certificates))
    async with client(server.port, tls={"verify": False}) as tester:
        await tester.publish("some/topic", retain=True)


async def test_the_systems_authorities_do_not_vouch_for_a_private_one(bench: Bench, certificates: Certificates) -> None:
    server = await bench.mosquitto(*tls_settings(certificates))
    async with client(server.port, connected=False, tls=True) as tester:
        await tester.failed("tls")


async def test_a_server_without_tls_is_told_as_a_matter_of_tls(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, connected=False, tls={"verify": False}) as tester:
        await eventually(
            lambda: sum(
                tester.metric("connection_failures_total", reason=reason) for reason in ("tls", "unreachable", "closed")
            ),
            "a failure",
        )
        assert tester.metric("connected") == 0


@pytest.mark.parametrize("damage", ["gone", "half-written"])
async def test_a_certificate_that_is_damaged_while_running_is_waited_for(
    bench: Bench, certificates: Certificates, tmp_path: Path, damage: str
) -> None:
    server = await bench.mosquitto(*tls_settings(certificates, "require_certificate true"))
    certificate = tmp_path / "renewed.pem"
    content = certificates.client.read_text()
    certificate.write_text(content)
    async with client(
        server.port, connected=False, tls={"ca_file": certificates.authority, "cert_file": certificate}
    ) as tester:
        await tester.connection_after(0)
        if damage == "gone":
            certificate.unlink()
        else:
            certificate.write_text(content[: len(content) // 2])
        await server.restart()
        await tester.failed("tls")
        certificate.write_text(content)
        await tester.connection_after(1)


# --- messages


async def test_a_message_is_acknowledged_when_its_reader_says_so_and_only_once(
    bench: Bench, mosquitto: Mosquitto
) -> None:
    async with client(mosquitto.port, subscriptions=["some/+"]) as tester:
        mosquitto.publish("some/topic", "first", "-q", "1")
        mosquitto.publish("some/topic", "second", "-q", "1")
        first, second = await tester.next(), await tester.next()
        assert (first.payload, second.payload) == (b"first", b"second")
        assert "Received PUBACK from tester" not in mosquitto.output
        # In any order: MQTT wants the order of arrival only of those who acknowledge at once.
        second.acknowledge()
        second.acknowledge()
        await eventually(lambda: mosquitto.output.count("Received PUBACK from tester") == 1, "an acknowledgement")
        first.acknowledge()
        await eventually(lambda: mosquitto.output.count("Received PUBACK from tester") == 2, "another one")
        assert tester.metric("disconnects_total") == 0


async def test_an_acknowledgement_after_the_connection_broke_does_nothing(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, subscriptions=["some/+"]) as tester:
        mosquitto.publish("some/topic", "before", "-q", "1")
        before = await tester.next()
        kick(mosquitto)
        await tester.connection_after(1)
        mosquitto.publish("some/topic", "after", "-q", "1")
        after = await tester.next()
        # The session is a clean one: what was not acknowledged does not come again.
        assert after.payload == b"after"
        before.acknowledge()
        await tester.publish("some/other", retain=True)
        assert "Received PUBACK from tester" not in mosquitto.output
        after.acknowledge()
        await eventually(lambda: "Received PUBACK from tester" in mosquitto.output, "an acknowledgement")


async def test_an_acknowledgement_while_there_is_no_connection_does_nothing(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, subscriptions=["some/+"]) as tester:
        mosquitto.publish("some/topic", "before", "-q", "1")
        message = await tester.next()
        await mosquitto.stop(signal.SIGKILL)
        message.acknowledge()
        await eventually(lambda: not tester.session.connected, "the end of the connection")
        await mosquitto.start()
        await tester.connection_after(1)


# --- sessions that the server keeps


@VERSIONS
async def test_what_comes_while_the_client_is_away_arrives_when_it_is_back(mosquitto: Mosquitto, version: str) -> None:
    async def live(*expected: str) -> None:
        goodbyes = mosquitto.output.count("Received DISCONNECT from tester")
        async with client(mosquitto.port, version=version, subscriptions=["some/+"], session_expiry=3600) as tester:
            for payload in expected:
                message = await tester.next()
                assert message.payload == payload.encode()
                message.acknowledge()
        # That comes behind all acknowledgements.
        await eventually(lambda: mosquitto.output.count("Received DISCONNECT from tester") == goodbyes + 1, "a goodbye")

    await live()
    for life in range(2):
        payloads = [f"{life} {number}" for number in range(100)]
        async with client(mosquitto.port, client_id="sender") as sender:
            await asyncio.gather(*(sender.publish("some/topic", payload.encode()) for payload in payloads))
        await live(*payloads)


@VERSIONS
async def test_nothing_is_kept_of_a_session_that_is_to_end_at_once(mosquitto: Mosquitto, version: str) -> None:
    async with client(mosquitto.port, version=version, subscriptions=["some/+"], session_expiry=3600):
        pass
    mosquitto.publish("some/topic", "away", "-q", "1")
    # It ends the kept one, too, and leaves none behind.
    async with client(mosquitto.port, version=version, subscriptions=["some/+"]) as tester:
        mosquitto.publish("some/topic", "there", "-q", "1")
        message = await tester.next()
        assert message.payload == b"there"
        message.acknowledge()
    async with client(mosquitto.port, client_id="sender") as sender:
        with pytest.raises(NoSubscribersError):
            await sender.publish("some/topic")


async def test_the_server_keeps_a_session_for_as_long_as_it_is_told(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, subscriptions=["some/+"], session_expiry=1):
        pass
    async with client(mosquitto.port, client_id="sender") as sender:
        await sender.publish("some/topic")

        async def has_ended() -> bool:
            with contextlib.suppress(NoSubscribersError):
                await sender.publish("some/topic")
                return False
            return True

        await eventually_answered(has_ended, "the end of the session")


@VERSIONS
async def test_what_was_not_acknowledged_comes_again_and_is_acknowledged_where_it_came(
    mosquitto: Mosquitto, version: str
) -> None:
    def acknowledged() -> int:
        return mosquitto.output.count("Received PUBACK from tester")

    async with (
        relay(mosquitto.port) as network,
        client(network.port, version=version, subscriptions=["some/+"], session_expiry=3600) as tester,
    ):
        for number in range(3):
            mosquitto.publish("some/topic", f"{number}", "-q", "1")
        before = [await tester.next() for _ in range(3)]
        before[1].acknowledge()
        await eventually(lambda: acknowledged() == 1, "an acknowledgement")
        network.cut()
        again = [await tester.next() for _ in range(2)]
        assert [message.payload for message in again] == [b"0", b"2"]
        # The identifiers of the earlier connection mean nothing to this one.
        for message in (before[0], before[2]):
            message.acknowledge()
        await tester.connection_after(1)
        await tester.publish("other/topic", retain=True)
        assert acknowledged() == 1
        for message in again:
            message.acknowledge()
        await eventually(lambda: acknowledged() == 3, "all acknowledgements")
        network.cut()
        await tester.connection_after(2)
        mosquitto.publish("some/topic", "new", "-q", "1")
        assert (await tester.next()).payload == b"new"


async def test_an_acknowledgement_before_the_subscriptions_are_renewed_counts(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, subscriptions=["some/+"], session_expiry=3600):
        pass
    mosquitto.publish("some/topic", "kept", "-q", "1")
    async with client(mosquitto.port, subscriptions=["some/+"], session_expiry=3600, connected=False) as tester:
        (await tester.next()).acknowledge()
        await tester.connection_after(0)
        await eventually(lambda: "Received PUBACK from tester" in mosquitto.output, "an acknowledgement")
    lines = mosquitto.output.splitlines()
    (sent,) = (number for number, line in enumerate(lines) if "Sending PUBLISH to tester" in line)
    assert sent < max(number for number, line in enumerate(lines) if "Sending SUBACK to tester" in line)


async def test_the_server_sends_no_more_than_it_may_and_nothing_is_lost_by_that(bench: Bench) -> None:
    server = await bench.mosquitto("max_inflight_messages 0")
    async with client(server.port, subscriptions=["some/+"], session_expiry=3600) as tester:
        async with client(server.port, client_id="sender") as sender:
            await asyncio.gather(*(sender.publish("some/topic", f"{number}".encode()) for number in range(5000)))
        messages = [await tester.next() for _ in range(2000)]
        # There would be more if it could send them.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(tester.session.messages())
        assert server.output.count("Sending PUBLISH to tester") == 2000
        for _ in range(3000):
            messages.pop(0).acknowledge()
            messages.append(await tester.next())
        assert messages[-1].payload == b"4999"
        assert tester.metric("messages_dropped_total") == 0


@VERSIONS
async def test_a_subscription_of_an_earlier_life_can_be_given_up(mosquitto: Mosquitto, version: str) -> None:
    async with client(mosquitto.port, version=version, subscriptions=["old/+", "new/+"], session_expiry=3600):
        pass
    async with (
        client(mosquitto.port, version=version, subscriptions=["new/+"], session_expiry=3600) as tester,
        client(mosquitto.port, client_id="sender") as sender,
    ):
        await sender.publish("old/topic")
        assert (await tester.next()).topic == "old/topic"
        await tester.session.unsubscribe("old/+", timeout=PATIENCE)
        assert tester.metric("publishes_in_flight") == 0
        with pytest.raises(NoSubscribersError):
            await sender.publish("old/topic")
        await sender.publish("new/topic")
        assert (await tester.next()).topic == "new/topic"
        # It had a place in the window, and has given it back.
        await asyncio.gather(*(tester.publish("new/topic") for _ in range(100)))


async def test_a_subscription_cannot_be_given_up_without_an_answer(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, keepalive=60) as tester:
        with suspended(mosquitto), pytest.raises(PublishTimeoutError):
            await tester.session.unsubscribe("some/+", timeout=0.2)
        await mosquitto.stop(signal.SIGKILL)
        await eventually(lambda: not tester.session.connected, "the end of the connection")
        with pytest.raises(NotConnectedError):
            await tester.session.unsubscribe("some/+", timeout=0.2)


async def test_response_topic_and_correlation_data_arrive(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, subscriptions=["some/+"]) as tester:
        await tester.publish("some/topic", response_topic="answers/münchen", correlation=bytes(range(256)))
        message = await tester.next()
        assert (message.response_topic, message.correlation) == ("answers/münchen", bytes(range(256)))
        await tester.publish("some/topic")
        message = await tester.next()
        assert (message.response_topic, message.correlation) == ("", b"")


async def test_only_what_the_server_keeps_wants_to_be_acknowledged(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, subscriptions=["some/+"]) as tester:
        mosquitto.publish("some/topic", "x", "-q", "0")
        assert not (await tester.next()).unacknowledged
        mosquitto.publish("some/topic", "x", "-q", "1")
        message = await tester.next()
        assert message.unacknowledged
        message.acknowledge()
        assert not message.unacknowledged


async def test_user_properties_arrive(bench: Bench, mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, subscriptions=["some/+"]) as tester:
        await tester.publish("some/topic", properties={"wgkex-request-id": "0123", "other": "ß"})
        assert (await tester.next()).properties == {"wgkex-request-id": "0123", "other": "ß"}
        twice = [("-D", "publish", "user-property", "name", value) for value in ("first", "last")]
        mosquitto.publish("some/topic", "x", "-V", "5", *(word for option in twice for word in option))
        assert (await tester.next()).properties == {"name": "last"}


@VERSIONS
async def test_whatever_others_publish_arrives_as_it_is_and_ends_nothing(mosquitto: Mosquitto, version: str) -> None:
    hostile = [
        ("some/topic", b"\xff\xfe\x00\x80"),
        ("some/topic", bytes(range(256)) * 256),
        ("some/topic", b""),
        ("some/" + "x" * 60_000, b"long"),
        ("some/\u202e\U0001f480", b"strange"),
        ("some/ /../$SYS//", b"odd"),
    ]
    async with client(mosquitto.port, version=version, subscriptions=["some/#"]) as tester:
        for qos in ("0", "1", "2"):
            for topic, payload in hostile:
                mosquitto.publish(topic, payload, "-q", qos)
                message = await tester.next()
                message.acknowledge()
                assert (message.topic, message.payload) == (topic, payload)
        assert tester.metric("disconnects_total") == 0


async def test_messages_are_told_in_the_order_of_their_arrival(mosquitto: Mosquitto) -> None:
    async with (
        client(mosquitto.port, subscriptions=["some/+"]) as tester,
        client(mosquitto.port, client_id="sender") as sender,
    ):
        await asyncio.gather(*(sender.publish("some/topic", str(number).encode()) for number in range(200)))
        for number in range(200):
            message = await tester.next()
            assert message.payload == str(number).encode()
            message.acknowledge()
