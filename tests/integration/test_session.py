"""A session connects, connects again, and ends: with a real MQTT server that is stopped, restarted, or not there."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.certificates import Certificates
from tests.integration.inprocess import client
from tests.integration.loopback import eventually, run
from tests.integration.servers import Bench, Mosquitto
from tests.integration.sessions import VERSIONS, kick, tls_settings
from wgkex_ops.bus.session import Will


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


async def test_connections_have_numbers_and_the_time_of_their_beginning(mosquitto: Mosquitto) -> None:
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


async def test_a_clean_disconnect_sends_no_will(bench: Bench, mosquitto: Mosquitto) -> None:
    observer = await bench.observe(mosquitto)
    async with client(mosquitto.port, will=Will("wills/tester", b"gone")):
        pass
    await eventually(lambda: "Received DISCONNECT from tester" in mosquitto.output, "a DISCONNECT")
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
async def test_a_wrong_password_is_tried_for_ever_until_the_servers_file_is_corrected(
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
        await eventually(lambda: mosquitto.connects_of("twin") >= 8, "the twins disconnecting each other")
        assert time.monotonic() - start > 1.7
        assert one.metric("disconnects_total") + other.metric("disconnects_total") >= 6


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
