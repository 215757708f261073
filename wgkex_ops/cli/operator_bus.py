"""The bus for commands of operators: their own user, and a client id of its own for each command."""

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry

from wgkex_ops.bus.client import Connection
from wgkex_ops.bus.messages import parse_worker_event
from wgkex_ops.bus.values import ConnectionFailedError, Message
from wgkex_ops.config import Config
from wgkex_ops.errors import BusError, ConfigError, InvalidMessageError, NotConnectedError, PublishTimeoutError
from wgkex_ops.http.gateways.registry import Gateways, UnknownOriginError
from wgkex_ops.metrics.mqtt import MqttMetrics

_CONNECT_TIMEOUT: Final = 5.0
_PUBLISH_TIMEOUT: Final = 3.0
# What is retained comes in one go; nothing says that it was all.
_QUIET_FOR: Final = 0.2
_RETAINED_WITHIN: Final = 2.0

_Result = TypeVar("_Result")


def asker_name() -> str:
    """A name for one command, which no other one has: answers go to topics with it."""
    return f"wgkex-operator-{os.getpid()}-{secrets.token_hex(4)}"


class RetainedFleet:
    """The fleet, as the MQTT server has it retained.

    Attributes:
        gateways: that, and what comes later.
    """

    def __init__(self, config: Config) -> None:
        self.gateways = Gateways(config.workers, [domain.name for domain in config.domains])
        self._news = asyncio.Event()
        self._known = False

    def take(self, message: Message) -> None:
        """Take in what a worker or broker has published; brokers log what breaks a rule."""
        with contextlib.suppress(InvalidMessageError, UnknownOriginError):
            event = parse_worker_event(message.topic, message.payload, message.properties)
            self.gateways.update(event, time.monotonic())
        self._news.set()

    async def known(self) -> None:
        """Return when nothing more comes; at once if that was so before."""
        deadline = asyncio.get_running_loop().time() + _RETAINED_WITHIN
        with contextlib.suppress(TimeoutError):
            while not self._known:
                self._news.clear()
                async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + _QUIET_FOR)):
                    await self._news.wait()
        self._known = True


class OperatorBus:
    """The connection of one command."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def publish(self, topic: str, payload: bytes, **properties: Any) -> None:  # noqa: ANN401
        """Publish as `Session.publish` does."""
        deadline = asyncio.get_running_loop().time() + _PUBLISH_TIMEOUT
        try:
            await self._connection.publish(
                topic, payload, retain=False, properties=None, deadline=deadline, **properties
            )
        except TimeoutError:
            raise PublishTimeoutError("the MQTT server did not acknowledge in time") from None

    async def while_connected(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Do something that waits for messages.

        Raises:
            NotConnectedError: the connection ends meanwhile, so no more will come.
        """
        task, lost = asyncio.ensure_future(work), self._connection.lost
        try:
            waits: set[asyncio.Future[Any]] = {task, lost}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise NotConnectedError(
                    f"the MQTT server has ended the connection ({lost.result()}): "
                    "does another command use the same user?"
                )
            return await task
        finally:
            task.cancel()


@contextlib.asynccontextmanager
async def operator_connection(
    config: Config, asker: str, subscriptions: Sequence[str], deliver: Callable[[Message], None]
) -> AsyncIterator[OperatorBus]:
    """Connect with the MQTT server as the operators' user.

    Args:
        config: its ``mqtt`` and ``operator``.
        asker: from `asker_name`; it becomes the client id.
        subscriptions: topic filters, in place when this yields.
        deliver: called on the event loop with each message that arrives; it acknowledges.

    Yields:
        what publishes, and notices when the connection ends.

    Raises:
        ConfigError: there is no such user in the configuration.
        BusError: there is no connection, or a subscription is refused; the message names the setting.
    """
    if config.operator.username is None:
        problem = (
            "operator.username is not set: this asks over the MQTT server, as a user of operators "
            "(docs/fleet.md); the users of brokers and gateways may not"
        )
        raise ConfigError([problem])
    mqtt = config.mqtt_of("operator")
    connection = Connection(
        mqtt,
        client_id=asker,
        will=None,
        session_expiry=0,
        deliver=deliver,
        metrics=MqttMetrics(CollectorRegistry()),
    )
    try:
        try:
            await connection.open(subscriptions, (), _CONNECT_TIMEOUT)
        except ConnectionFailedError as failure:
            raise _explained(config, failure) from None
        yield OperatorBus(connection)
    finally:
        await connection.close()


def _explained(config: Config, failure: ConnectionFailedError) -> BusError:
    """The failure with the setting that may be its cause."""
    hint = {
        "refused": "check operator.username and operator.password",
        "subscription_refused": f"may {config.operator.username} read there? See deploy/mosquitto/wgkex.acl",
        "tls": "check mqtt.tls",
    }.get(failure.reason, "check mqtt.broker_url and mqtt.broker_port")
    return NotConnectedError(f"MQTT server {config.mqtt.host}:{config.mqtt.port}: {failure}; {hint}")
