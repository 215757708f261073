"""Publishing to a real MQTT server: acknowledgements, refusals, the window, and servers that hang or are killed."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.integration.inprocess import client
from tests.integration.loopback import eventually, free_port
from tests.integration.servers import Bench, Mosquitto, suspended
from tests.integration.sessions import VERSIONS
from wgkex_ops.errors import NoSubscribersError, NotConnectedError, PublishRefusedError, PublishTimeoutError


def open_files() -> int:
    """How many files and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


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


async def test_a_publish_without_subscribers_is_an_error_unless_it_is_retained(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port) as tester:
        with pytest.raises(NoSubscribersError):
            await tester.publish("no/subscribers")
        await tester.publish("no/subscribers", retain=True)


async def test_mqtt_3_1_1_knows_neither_refusals_nor_missing_subscribers(bench: Bench, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite allowed/#\n")
    server = await bench.mosquitto(f"acl_file {acl}")
    async with client(server.port, version="3.1.1") as tester:
        await tester.publish("forbidden/topic", properties={"name": "value"})
        await tester.publish("allowed/no-subscribers", properties={"name": "value"})


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


async def test_a_hanging_server_costs_a_publish_its_timeout_and_little_memory(bench: Bench) -> None:
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


async def test_unsent_data_does_not_delay_the_end_of_a_session_with_a_hanging_server(mosquitto: Mosquitto) -> None:
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
