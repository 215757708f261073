"""Sessions that the server keeps between connections, and what it delivers afterwards."""

import asyncio
import contextlib
import signal

import pytest

from tests.integration.inprocess import client
from tests.integration.loopback import TIMEOUT, eventually, eventually_answered
from tests.integration.relay import relay
from tests.integration.servers import Bench, Mosquitto, suspended
from tests.integration.sessions import VERSIONS
from wgkex_ops.errors import NoSubscribersError, NotConnectedError, PublishTimeoutError


@VERSIONS
async def test_what_comes_while_the_client_is_away_arrives_when_it_is_back(mosquitto: Mosquitto, version: str) -> None:
    async def live(*expected: str) -> None:
        disconnects = mosquitto.output.count("Received DISCONNECT from tester")
        async with client(mosquitto.port, version=version, subscriptions=["some/+"], session_expiry=3600) as tester:
            for payload in expected:
                message = await tester.next()
                assert message.payload == payload.encode()
                message.acknowledge()
        # It comes after all acknowledgements.
        await eventually(
            lambda: mosquitto.output.count("Received DISCONNECT from tester") == disconnects + 1, "a DISCONNECT"
        )

    await live()
    for life in range(2):
        payloads = [f"{life} {number}" for number in range(100)]
        async with client(mosquitto.port, client_id="sender") as sender:
            await asyncio.gather(*(sender.publish("some/topic", payload.encode()) for payload in payloads))
        await live(*payloads)


@VERSIONS
async def test_nothing_is_kept_of_a_session_without_expiry(mosquitto: Mosquitto, version: str) -> None:
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


async def test_the_server_keeps_a_session_for_as_long_as_requested(mosquitto: Mosquitto) -> None:
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
async def test_a_subscription_of_an_earlier_process_can_be_ended(mosquitto: Mosquitto, version: str) -> None:
    async with client(mosquitto.port, version=version, subscriptions=["old/+", "new/+"], session_expiry=3600):
        pass
    async with (
        client(mosquitto.port, version=version, subscriptions=["new/+"], session_expiry=3600) as tester,
        client(mosquitto.port, client_id="sender") as sender,
    ):
        await sender.publish("old/topic")
        assert (await tester.next()).topic == "old/topic"
        await tester.session.unsubscribe("old/+", timeout=TIMEOUT)
        assert tester.metric("publishes_in_flight") == 0
        with pytest.raises(NoSubscribersError):
            await sender.publish("old/topic")
        await sender.publish("new/topic")
        assert (await tester.next()).topic == "new/topic"
        # It had a place in the window, and has given it back.
        await asyncio.gather(*(tester.publish("new/topic") for _ in range(100)))


async def test_a_subscription_is_not_ended_without_an_acknowledgement(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, keepalive=60) as tester:
        with suspended(mosquitto), pytest.raises(PublishTimeoutError):
            await tester.session.unsubscribe("some/+", timeout=0.2)
        await mosquitto.stop(signal.SIGKILL)
        await eventually(lambda: not tester.session.connected, "the end of the connection")
        with pytest.raises(NotConnectedError):
            await tester.session.unsubscribe("some/+", timeout=0.2)
