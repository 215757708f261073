"""The session with the MQTT server. It outlives any number of network connections, each of which is a `Connection`."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Final, NoReturn, Self

import structlog

from wgkex_ops.bus.client import CLOSE_TIMEOUT, Connection
from wgkex_ops.bus.values import ConnectionFailedError, Message, Will
from wgkex_ops.config import MqttConfig
from wgkex_ops.errors import NotConnectedError, PublishTimeoutError
from wgkex_ops.metrics.mqtt import MqttMetrics

__all__ = ["CONNECT_TIMEOUT", "STUCK_AFTER", "Message", "Session", "Will"]

_log = structlog.get_logger(__name__)

# Seconds from the first look-up of the server's name to the last SUBACK.
CONNECT_TIMEOUT: Final = 10.0

# Pauses between attempts double up to a low limit: a few processes are no load for a server, and keys wait meanwhile.
# Half of each pause is random, so that all processes do not come back at the same time.
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
# A connection must have lasted this long before the pauses start over: two processes with one client id disconnect each
# other at once, and must not do so without a pause.
_STABLE_AFTER: Final = 10.0
# An attempt, its end and the pause after it take less. A loop without progress for longer is stuck.
STUCK_AFTER: Final = CONNECT_TIMEOUT + CLOSE_TIMEOUT + _LONGEST_PAUSE + 5.0

# The same failure is logged again after this long.
_REPEAT_WARNING_AFTER: Final = 60.0
# How many messages with QoS 0 may wait here. The server limits all others by our receive maximum.
_INBOX_LIMIT: Final = 50_000


class Session:
    """A session with the MQTT server, which connects again for ever.

    Use it as an asynchronous context manager. Leaving it disconnects cleanly: the server does not publish the will, so
    publish its payload before. If its loop crashes, the body is cancelled and the error comes out of the context.

    Args:
        config: the server and how to reach it.
        client_id: unique among all clients of the server.
        subscriptions: topic filters, renewed with each connection.
        optional_subscriptions: further ones, which the server may refuse without ending the session.
        urgent: topics, also optional, whose messages do not wait behind others, neither here nor at the server: with
            QoS 0, since it keeps back all of QoS 1 while too many are unacknowledged. `urgent_messages` yields them.
        will: the last will; None for none.
        metrics: the instruments that are kept.
        session_expiry: for how many seconds the server keeps the subscriptions, and what comes for them, while there is
            no connection; 0 for not at all, 4,294,967,295 for ever. MQTT 3.1.1 knows only whether, and not for how
            long. What was not acknowledged comes again, before the subscriptions are renewed.
        connect_timeout: seconds for each attempt to connect.
    """

    def __init__(
        self,
        config: MqttConfig,
        *,
        client_id: str,
        subscriptions: Sequence[str],
        optional_subscriptions: Sequence[str] = (),
        urgent: Sequence[str] = (),
        will: Will | None,
        metrics: MqttMetrics,
        session_expiry: int = 0,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self._config = config
        self._client_id = client_id
        self._subscriptions = subscriptions
        self._optional_subscriptions = (*optional_subscriptions, *urgent)
        self._urgent = urgent
        self._will = will
        self._metrics = metrics
        self._session_expiry = session_expiry
        self._connect_timeout = connect_timeout
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._urgent_inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._connection: Connection | None = None
        # How many there have been. Guarded by the condition, which is notified of each new one.
        self._connections = 0
        self._new_connection = asyncio.Condition()
        self._opened_at = 0.0
        self._last_progress = time.monotonic()
        self._last_failure: tuple[str, float] | None = None
        self._stack = contextlib.AsyncExitStack()
        self._log = _log.bind(server=f"{config.host}:{config.port}")

    async def __aenter__(self) -> Self:
        self._last_progress = time.monotonic()
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        loop = group.create_task(self._run(), name="mqtt")
        self._stack.callback(loop.cancel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    @property
    def connected(self) -> bool:
        """Whether the server could take a message now."""
        return self._connection is not None

    @property
    def opened_at(self) -> float:
        """When the latest attempt to connect began, by `time.monotonic`: all that its connection delivered is later."""
        return self._opened_at

    @property
    def stuck(self) -> bool:
        """Whether it should have tried to connect by now, and has not: a bug that a new process may not have."""
        return not self.connected and time.monotonic() - self._last_progress > STUCK_AFTER

    async def connection_after(self, seen: int) -> int:
        """Wait until connected by a later connection than the one seen last, and return its number.

        A caller that publishes something on each connection begins with 0, and continues with what was returned.
        """
        async with self._new_connection:
            await self._new_connection.wait_for(lambda: self.connected and self._connections > seen)
            return self._connections

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        timeout: float,  # noqa: ASYNC109  a timeout is an error of its own, and covers the wait for a slot
        retain: bool = False,
        properties: Mapping[str, str] | None = None,
        response_topic: str = "",
        correlation: bytes = b"",
        expires_after: int = 0,
    ) -> None:
        """Publish with QoS 1, and return when the server has acknowledged.

        Args:
            topic: a topic without wildcards.
            payload: as it is sent.
            timeout: seconds to wait at the most; the wait for the server's receive maximum counts as well.
            retain: whether the server keeps it for later subscribers.
            properties: user properties; MQTT 3.1.1 has none, and leaves them out.
            response_topic: where a response is wanted; empty for none (MQTT 5 only).
            correlation: what the response is to carry back; empty for nothing (MQTT 5 only).
            expires_after: seconds for which the server keeps it for absent subscribers; 0 for ever (MQTT 5 only).

        Raises:
            NotConnectedError: there is no connection, or it broke; the server may or may not have got the message.
            PublishRefusedError: the server refused the message (MQTT 5 only).
            NoSubscribersError: there is no subscription to the topic, and the message is not retained (MQTT 5 only; not
                every server reports it).
            PublishTimeoutError: no acknowledgement in time; the message may still arrive.
        """
        connection = self._usable_connection()
        try:
            await connection.publish(
                topic,
                payload,
                retain=retain,
                properties=properties,
                response_topic=response_topic,
                correlation=correlation,
                expires_after=expires_after,
                deadline=asyncio.get_running_loop().time() + timeout,
            )
        except TimeoutError:
            raise _timeout_error(timeout) from None

    async def unsubscribe(self, topic_filter: str, *, timeout: float) -> None:  # noqa: ASYNC109  as in publish
        """End a subscription that the server has kept for this session from an earlier process.

        Args:
            topic_filter: as it was subscribed to, in ASCII.
            timeout: seconds to wait at the most.

        Raises:
            NotConnectedError: there is no connection, or it broke.
            PublishTimeoutError: no acknowledgement in time.
        """
        connection = self._usable_connection()
        try:
            await connection.unsubscribe(topic_filter, asyncio.get_running_loop().time() + timeout)
        except TimeoutError:
            raise _timeout_error(timeout) from None

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what arrives, in order, across reconnects, for ever. The consumer acknowledges each message."""
        while True:
            yield await self._inbox.get()

    async def urgent_messages(self) -> AsyncIterator[Message]:
        """Yield the urgent ones in the same way."""
        while True:
            yield await self._urgent_inbox.get()

    def _usable_connection(self) -> Connection:
        if self._connection is None:
            raise NotConnectedError("there is no connection with the MQTT server")
        return self._connection

    async def _run(self) -> NoReturn:
        pause = _FIRST_PAUSE
        while True:
            started = time.monotonic()
            try:
                await self._stay_connected()
            except ConnectionFailedError as failure:
                self._report(failure)
            else:
                self._last_failure = None
                if time.monotonic() - started > _STABLE_AFTER:
                    pause = _FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter needs no secrecy
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _stay_connected(self) -> None:
        """Connect, and return when the connection is lost."""
        self._opened_at = self._last_progress = time.monotonic()
        connection = Connection(
            self._config,
            client_id=self._client_id,
            will=self._will,
            session_expiry=self._session_expiry,
            deliver=self._deliver,
            metrics=self._metrics,
        )
        try:
            refused = await connection.open(
                self._subscriptions, self._optional_subscriptions, self._connect_timeout, at_most_once=self._urgent
            )
            if refused:
                self._log.warning("subscription_refused", topics=refused)
            self._metrics.connected.set(1)
            self._metrics.connects.inc()
            self._log.info("mqtt_connected", client_id=self._client_id, window=connection.window_size)
            async with self._new_connection:
                self._connection = connection
                self._connections += 1
                self._new_connection.notify_all()
            why = await connection.lost
            self._metrics.disconnects.inc()
            self._log.warning("mqtt_disconnected", detail=why)
        finally:
            # Without the condition: nothing waits for the end of a connection, and this must not wait when cancelled.
            self._connection = None
            self._last_progress = time.monotonic()
            self._metrics.connected.set(0)
            await connection.close()

    def _report(self, failure: ConnectionFailedError) -> None:
        """Count a failed attempt, and log it, but not every few seconds while its reason is the same."""
        self._metrics.connection_failures.labels(failure.reason).inc()
        now = time.monotonic()
        if self._last_failure is not None:
            reason, logged_at = self._last_failure
            if failure.reason == reason and now - logged_at <= _REPEAT_WARNING_AFTER:
                return
        self._log.warning("mqtt_connection_failed", reason=failure.reason, detail=str(failure))
        self._last_failure = (failure.reason, now)

    def _deliver(self, message: Message) -> None:
        self._metrics.last_message_received.set_to_current_time()
        inbox = self._urgent_inbox if message.topic in self._urgent else self._inbox
        if inbox.qsize() >= _INBOX_LIMIT and not message.unacknowledged:
            self._metrics.messages_dropped.inc()
            return
        inbox.put_nowait(message)


def _timeout_error(seconds: float) -> PublishTimeoutError:
    return PublishTimeoutError(f"the MQTT server did not acknowledge within {seconds:g} s")
