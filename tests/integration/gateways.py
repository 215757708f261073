"""Gateways that are played, and waiting for what a broker knows of gateways and keys."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.helpers import KEY, WELT
from tests.integration.inprocess import Client, RunningBroker, client
from tests.integration.loopback import eventually_answered
from tests.integration.servers import Mosquitto
from wgkex_ops.bus.messages import (
    Endpoint,
    Receipt,
    connected_peers_topic,
    data_payload,
    key_subscription,
    receipt_payload,
    receipt_topic_of,
    worker_data_topic,
    worker_status_topic,
)
from wgkex_ops.bus.session import Message
from wgkex_ops.model.keys import PublicKey


class Gateway:
    """A worker that is played: it sends the receipts that a test wants, when the test wants them."""

    def __init__(self, bus: Client, name: str, *, receipts: bool) -> None:
        self.bus = bus
        self.name = name
        self._receipts = receipts

    async def announce(self) -> None:
        endpoint = Endpoint(f"{self.name}.example.net", 40011, KEY, "fe80::1", self._receipts)
        await self.bus.publish(worker_data_topic(self.name, WELT.name), data_payload(endpoint), retain=True)
        await self.bus.publish(connected_peers_topic(WELT.name, self.name), b"0", retain=True)
        await self.bus.publish(worker_status_topic(self.name), b"1", retain=True)

    async def gets(self, key: PublicKey, target: str = "all") -> Message:
        """Take the next key, which is this one, on this way."""
        message = await self.bus.next()
        message.acknowledge()
        assert (message.topic, message.payload) == (f"wireguard/{WELT.name}/{target}", str(key).encode())
        return message

    async def confirm(self, message: Message, reason: str = "") -> None:
        payload = receipt_payload(Receipt(self.name, reason))
        topic = receipt_topic_of(self.name, message.response_topic)
        await self.bus.publish(topic, payload, correlation=message.correlation)


@contextlib.asynccontextmanager
async def gateway(
    mosquitto: Mosquitto,
    name: str,
    *,
    receipts: bool = True,
    **mqtt: Any,  # noqa: ANN401  what a file may have
) -> AsyncIterator[Gateway]:
    async with client(
        mosquitto.port,
        client_id=name,
        # All keys of the domain but those for other gateways.
        subscriptions=[key_subscription(WELT.name).replace("+", target) for target in ("all", name)],
        **mqtt,
    ) as bus:
        played = Gateway(bus, name, receipts=receipts)
        await played.announce()
        yield played


async def gateways_known(broker: RunningBroker, *workers: str) -> None:
    """Wait until exactly these workers are online for the broker."""

    async def known() -> bool:
        await broker.page("/metrics")
        online = {
            sample.labels["worker"]
            for family in broker.registry.collect()
            for sample in family.samples
            if sample.name == "wgkex_broker_worker_online" and sample.value
        }
        return online == set(workers)

    await eventually_answered(known, f"gateways {workers}")


async def awaiting(broker: RunningBroker, count: int) -> None:
    """Wait until so many keys wait for receipts."""

    async def so_many() -> bool:
        await broker.page("/metrics")
        return broker.metric("wgkex_broker_keys_awaiting_receipts") == count

    await eventually_answered(so_many, f"{count} keys that wait for receipts")
