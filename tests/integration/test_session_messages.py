"""Messages that arrive: their acknowledgement, their properties, their order, and whatever other clients publish."""

import asyncio
import signal

from tests.integration.inprocess import client
from tests.integration.loopback import eventually
from tests.integration.servers import Bench, Mosquitto
from tests.integration.sessions import VERSIONS, kick


async def test_a_message_is_acknowledged_when_its_consumer_does_so_and_only_once(
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


async def test_response_topic_and_correlation_data_arrive(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, subscriptions=["some/+"]) as tester:
        await tester.publish("some/topic", response_topic="responses/münchen", correlation=bytes(range(256)))
        message = await tester.next()
        assert (message.response_topic, message.correlation) == ("responses/münchen", bytes(range(256)))
        await tester.publish("some/topic")
        message = await tester.next()
        assert (message.response_topic, message.correlation) == ("", b"")


async def test_only_messages_that_the_server_keeps_are_unacknowledged(mosquitto: Mosquitto) -> None:
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
        mosquitto.publish("some/topic", "x", "-V", "5", *(argument for option in twice for argument in option))
        assert (await tester.next()).properties == {"name": "last"}


@VERSIONS
async def test_whatever_other_clients_publish_arrives_as_it_is(mosquitto: Mosquitto, version: str) -> None:
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


async def test_messages_come_in_the_order_of_their_arrival(mosquitto: Mosquitto) -> None:
    async with (
        client(mosquitto.port, subscriptions=["some/+"]) as tester,
        client(mosquitto.port, client_id="sender") as sender,
    ):
        await asyncio.gather(*(sender.publish("some/topic", str(number).encode()) for number in range(200)))
        for number in range(200):
            message = await tester.next()
            assert message.payload == str(number).encode()
            message.acknowledge()
