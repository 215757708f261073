"""The session with the MQTT server: the only file that knows gmqtt.

A session outlives any number of network connections. Each of them is a gmqtt client of its own, made and thrown away by
the loop in here: gmqtt's own reconnecting pauses for a fixed time, replays what was given up long ago, and gives up for
ever on refusals that an operator mends in a minute.

Two of gmqtt's packet handlers are replaced, since its public interface cannot do what a key's way needs: the one for
PUBACK, because it drops the reason code (a publish that an ACL forbids would look like a success), and the one for
QoS 1 messages, because an acknowledgement that waits for the work is only possible with a task for each message. So is
the function that opens the network connection: gmqtt crashes over one that ends before it has got to know it.
"""

import asyncio
import contextlib
import logging
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Self

import gmqtt
import structlog
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.mqtt.protocol import MQTTProtocol
from gmqtt.storage import PersistentStorage

from wgkex_ops.config import MqttConfig, TlsConfig
from wgkex_ops.errors import (
    NoSubscribersError,
    NotConnectedError,
    PublishRefusedError,
    PublishTimeoutError,
)
from wgkex_ops.metrics.mqtt import MqttMetrics

_log = structlog.get_logger(__name__)

# Seconds from the first look-up of the server's name to the last SUBACK.
CONNECT_TIMEOUT: Final = 10.0
_DISCONNECT_TIMEOUT: Final = 0.5
# An attempt, its end, and the pause after it take less: a loop that is at one of them for longer is stuck.
STUCK_AFTER: Final = 20.0

# Pauses between attempts double up to a cap that is low, since a few processes are no crowd and keys wait meanwhile.
# Half of each pause is random, so that all processes do not come back in one moment.
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
# A connection must have lived this long before the pauses start over; two processes with one client id throw each other
# out at once, and must not spin.
_PROVEN_AFTER: Final = 10.0
# The same failure is told again after this long.
_REPEAT_WARNING_AFTER: Final = 60.0

# How many unacknowledged messages the server may send us (MQTT 5, section 3.3.4): some batches of the worker's
# installer, which is never idle then, and with those that wait in it for an interface still less than it has room for.
# All that is beyond stays with the server, and each reconnect brings as much again at the most.
_RECEIVE_MAXIMUM: Final = 2000
# How many messages wait here at the most if those come that no server holds back (QoS 0).
_QUEUE_LIMIT: Final = 50_000
# Ours have a few hundred bytes. gmqtt takes minutes over one of the 256 MB that a server lets through otherwise.
_LARGEST_PACKET: Final = 262_144
# What the server may have from us unacknowledged unless it says otherwise (MQTT 5, section 3.2.2.3.3).
_DEFAULT_WINDOW: Final = 65_535

_AT_LEAST_ONCE: Final = 1
_NO_MATCHING_SUBSCRIBERS: Final = 0x10
_FAILURE: Final = 0x80

# gmqtt compares the number of failures with this and takes -1 for "no limit".
_NEVER_BY_ITSELF: Final = -2

_VERSIONS: Final = {"5": MQTTv50, "3.1.1": MQTTv311}


@dataclass(slots=True)
class Message:
    """A message that arrived.

    Attributes:
        topic: its topic; bytes that are no UTF-8 are replaced, so that it matches nothing.
        payload: as it came.
        retained: whether the server had kept it for us.
        properties: MQTT 5 user properties; of several with one name, the last one.
        response_topic: where its sender wants an answer (MQTT 5); empty if it wants none.
        correlation: what the answer is to carry back (MQTT 5).
    """

    topic: str
    payload: bytes
    retained: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)
    response_topic: str = ""
    correlation: bytes = b""
    _acknowledge: Callable[[], None] | None = None

    @property
    def unacknowledged(self) -> bool:
        """Whether the server keeps it until it is acknowledged; never so for one that came with QoS 0."""
        return self._acknowledge is not None

    def acknowledge(self) -> None:
        """Tell the server that the work is done, so that it need not send this again. Once is enough."""
        acknowledge, self._acknowledge = self._acknowledge, None
        if acknowledge is not None:
            acknowledge()


@dataclass(frozen=True, slots=True)
class Will:
    """What the server says for us, retained, when we vanish without a goodbye."""

    topic: str
    payload: bytes


class _ConnectionFailedError(Exception):
    """An attempt led to no session.

    Attributes:
        reason: one of `metrics.mqtt.FAILURE_REASONS`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Session:
    """A session with the MQTT server, renewed for ever.

    Use as an asynchronous context manager; leaving it disconnects cleanly, so say goodbye before. If its loop crashes,
    the body is cancelled and the error comes out of the context.

    Args:
        config: the server and how to talk to it.
        client_id: unique among all clients of the server.
        subscriptions: topic filters, renewed with each connection.
        optional_subscriptions: further ones, without which there is a session as well if the server refuses them.
        will: the last will.
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
        will: Will,
        metrics: MqttMetrics,
        session_expiry: int = 0,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self._config = config
        self._client_id = client_id
        self._subscriptions = subscriptions
        self._optional_subscriptions = optional_subscriptions
        self._will = will
        self._metrics = metrics
        self._session_expiry = session_expiry
        self._connect_timeout = connect_timeout
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._connection: _Connection | None = None
        self._connections = 0
        self._opened_at = 0.0
        self._got_on_at = time.monotonic()
        self._changed = asyncio.Condition()
        self._stack = contextlib.AsyncExitStack()
        self._log = _log.bind(server=f"{config.host}:{config.port}")

    async def __aenter__(self) -> Self:
        self._got_on_at = time.monotonic()
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        loop = group.create_task(self._run(), name="mqtt")
        self._stack.callback(loop.cancel)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.__aexit__(*exc)  # type: ignore[arg-type]  # what `async with` hands over fits

    @property
    def connected(self) -> bool:
        """Whether the server could take a message now."""
        return self._connection is not None

    @property
    def opened_at(self) -> float:
        """When the latest connection was begun, by `time.monotonic`: all that it brought came later."""
        return self._opened_at

    @property
    def stuck(self) -> bool:
        """Whether it should have tried to connect by now, and has not: a bug, which a new process does not have yet."""
        return not self.connected and time.monotonic() - self._got_on_at > STUCK_AFTER

    async def connection_after(self, seen: int) -> int:
        """Wait until connected by a later connection than the one seen last, and return its number.

        Whoever has something to say on each connection starts with 0 and comes back with what was returned.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self.connected and self._connections > seen)
            return self._connections

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        timeout: float,  # noqa: ASYNC109  the wait has its own error, and stops the clock for a place in the window
        retain: bool = False,
        properties: Mapping[str, str] | None = None,
        response_topic: str = "",
        correlation: bytes = b"",
    ) -> None:
        """Publish with QoS 1, and return when the server has acknowledged.

        Args:
            topic: a topic without wildcards.
            payload: as it is sent.
            timeout: seconds to wait at the most, for a place in the server's receive window as well.
            retain: whether the server keeps it for later subscribers.
            properties: user properties; MQTT 3.1.1 has none, and leaves them out.
            response_topic: where an answer is wanted; empty for none (MQTT 5 only).
            correlation: what the answer is to carry back; empty for nothing (MQTT 5 only).

        Raises:
            NotConnectedError: there is no connection, or it broke; the server may or may not have got the message.
            PublishRefusedError: the server said no (MQTT 5 only).
            NoSubscribersError: nobody has subscribed, and it is not retained (MQTT 5 only; not every server tells).
            PublishTimeoutError: no answer in time; the message may still have arrived.
        """
        connection = self._connection
        if connection is None:
            raise NotConnectedError("there is no connection with the MQTT server")
        try:
            async with asyncio.timeout(timeout):
                code = await connection.publish(
                    topic, payload, retain=retain, extra=_publish_properties(properties, response_topic, correlation)
                )
        except TimeoutError:
            raise PublishTimeoutError(f"the MQTT server did not acknowledge within {timeout:g} s") from None
        if code >= _FAILURE:
            raise PublishRefusedError(code)
        # What the server has kept finds its subscribers later.
        if code == _NO_MATCHING_SUBSCRIBERS and not retain:
            raise NoSubscribersError("nobody has subscribed to this topic")

    async def unsubscribe(self, topic_filter: str, *, timeout: float) -> None:  # noqa: ASYNC109  as publish has it
        """Have nothing come any more for a subscription that the server has kept from an earlier life.

        Args:
            topic_filter: as it was subscribed to, in ASCII.
            timeout: seconds to wait at the most.

        Raises:
            NotConnectedError: there is no connection, or it broke.
            PublishTimeoutError: no answer in time.
        """
        connection = self._connection
        if connection is None:
            raise NotConnectedError("there is no connection with the MQTT server")
        try:
            async with asyncio.timeout(timeout):
                await connection.unsubscribe(topic_filter)
        except TimeoutError:
            raise PublishTimeoutError(f"the MQTT server did not acknowledge within {timeout:g} s") from None

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what arrives, in order, across reconnects, for ever. Each is to be acknowledged when done with."""
        while True:
            yield await self._inbox.get()

    async def _run(self) -> NoReturn:
        pause = _FIRST_PAUSE
        told: tuple[str, float] = ("", 0.0)
        now = asyncio.get_running_loop().time
        while True:
            started = now()
            try:
                await self._stay_connected()
            except _ConnectionFailedError as failure:
                self._metrics.connection_failures.labels(failure.reason).inc()
                if failure.reason != told[0] or now() - told[1] > _REPEAT_WARNING_AFTER:
                    self._log.warning("mqtt_connection_failed", reason=failure.reason, detail=str(failure))
                    told = (failure.reason, now())
            else:
                told = ("", 0.0)
                if now() - started > _PROVEN_AFTER:
                    pause = _FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter needs no secrecy
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _stay_connected(self) -> None:
        """Connect and return when the connection is lost."""
        self._opened_at = self._got_on_at = time.monotonic()
        connection = _Connection(
            self._config,
            self._client_id,
            self._will,
            self._metrics,
            deliver=self._deliver,
            session_expiry=self._session_expiry,
        )
        try:
            refused = await connection.open(self._subscriptions, self._optional_subscriptions, self._connect_timeout)
            if refused:
                self._log.warning("subscription_refused", topics=refused)
            self._metrics.connected.set(1)
            self._metrics.connects.inc()
            self._log.info("mqtt_connected", client_id=self._client_id, window=connection.window_size)
            await self._set_connection(connection)
            why = await connection.lost
            self._metrics.disconnects.inc()
            self._log.warning("mqtt_disconnected", detail=why)
        finally:
            # Not by way of _set_connection: nobody waits for less connection, and this must hold while being cancelled.
            self._connection = None
            self._got_on_at = time.monotonic()
            self._metrics.connected.set(0)
            await connection.close()

    async def _set_connection(self, connection: "_Connection") -> None:
        async with self._changed:
            self._connection = connection
            self._connections += 1
            self._changed.notify_all()

    def _deliver(self, message: Message) -> None:
        self._metrics.last_message_received.set_to_current_time()
        # What the server keeps is limited by the server, and is never thrown away.
        if self._inbox.qsize() >= _QUEUE_LIMIT and not message.unacknowledged:
            self._metrics.messages_dropped.inc()
            return
        self._inbox.put_nowait(message)


class _Connection:
    """One network connection: a gmqtt client, its window, and what is in flight on it.

    Attributes:
        lost: done when the connection has ended, with a sentence that says why.
        window_size: how many messages the server takes unacknowledged.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        will: Will,
        metrics: MqttMetrics,
        *,
        deliver: Callable[[Message], None],
        session_expiry: int,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._deliver = deliver
        self._identifiers = _Identifiers()
        self._in_flight: dict[int, asyncio.Future[int]] = {}
        self._window = asyncio.Semaphore(0)
        self.window_size = 0
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self._granted: asyncio.Future[Sequence[int]] = loop.create_future()
        self._client = gmqtt.Client(
            # gmqtt counts characters where the packet has bytes, so it gets bytes.
            client_id.encode(),
            # In MQTT 5 that is whether the session starts clean; how long it is kept comes below.
            clean_session=session_expiry == 0,
            will_message=gmqtt.Message(will.topic, will.payload, qos=_AT_LEAST_ONCE, retain=True),
            persistent_storage=self._identifiers,
            logger=logging.getLogger("gmqtt"),
            receive_maximum=_RECEIVE_MAXIMUM,
            maximum_packet_size=_LARGEST_PACKET,
            session_expiry_interval=session_expiry,
        )
        self._client.set_config({"reconnect_retries": _NEVER_BY_ITSELF})
        if config.username is not None:
            password = config.password.get_secret_value() if config.password is not None else None
            self._client.set_auth_credentials(config.username, password)
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.on_unsubscribe = self._on_unsubscribe
        self._client.on_disconnect = self._on_disconnect
        self._handler = self._client._package_handler  # noqa: SLF001  see the top of this file
        self._handler._handle_puback_packet = self._on_puback  # noqa: SLF001
        self._handler._handle_qos_1_publish_packet = self._on_qos_1_message  # noqa: SLF001
        self._client._create_connection = self._create_connection  # noqa: SLF001

    async def open(
        self, subscriptions: Sequence[str], optional_subscriptions: Sequence[str], limit: float
    ) -> list[str]:
        """Connect and subscribe within a limit of seconds.

        Returns:
            the optional subscriptions that were refused.

        Raises:
            _ConnectionFailedError: no session came of it.
        """
        try:
            async with asyncio.timeout(limit):
                await self._connect()
                self._bound_silence()
                refused = await self._subscribe([*subscriptions, *optional_subscriptions])
        except TimeoutError:
            raise self._no_answer("timed_out", f"no session within {limit:g} s") from None
        needed = [topic for topic in refused if topic not in optional_subscriptions]
        if needed:
            raise _ConnectionFailedError("subscription_refused", f"the server refused {', '.join(needed)}")
        self.window_size = self._receive_maximum()
        for _ in range(self.window_size):
            self._window.release()
        return refused

    async def publish(self, topic: str, payload: bytes, *, retain: bool, extra: Mapping[str, object]) -> int:
        """Publish with QoS 1 and return the reason code of the server's acknowledgement.

        Raises:
            NotConnectedError: the connection broke before the answer.
        """
        await self._take_a_place()
        self._client.publish(topic, payload, qos=_AT_LEAST_ONCE, retain=retain, **extra)
        return await self._answer(self._identifiers.last)

    async def unsubscribe(self, topic_filter: str) -> None:
        """Unsubscribe, and return when the server has said so.

        Raises:
            NotConnectedError: the connection broke before the answer.
        """
        # It needs an identifier, of which gmqtt has as many as the window has places.
        await self._take_a_place()
        protocol = self._client._connection._protocol  # noqa: SLF001  gmqtt keeps the identifier to itself
        await self._answer(protocol.send_unsubscribe_packet([topic_filter.encode()]))

    async def close(self) -> None:
        """Disconnect cleanly, or by force if that takes long. Never raises."""
        self._end("closed by this side")
        connection = self._client._connection  # noqa: SLF001  there is no public way to the transport
        if connection is None:
            return
        try:
            async with asyncio.timeout(_DISCONNECT_TIMEOUT):
                await self._client.disconnect()
        except OSError:  # TimeoutError is one: what was to be sent cannot be sent
            connection._transport.abort()  # noqa: SLF001

    async def _take_a_place(self) -> None:
        await self._window.acquire()
        if self.lost.done() or not self._client.is_connected:
            # The next one in the queue for a place finds out in the same way.
            self._window.release()
            raise NotConnectedError("the connection with the MQTT server broke")

    async def _answer(self, identifier: int) -> int:
        """Wait for the reason code of what was just sent."""
        # Abandoned by a caller who is tired of waiting, it stays here: its place in the window is taken all the same.
        answer = self._in_flight[identifier] = asyncio.get_running_loop().create_future()
        self._metrics.publishes_in_flight.set(len(self._in_flight))
        code: int = await answer
        return code

    async def _connect(self) -> None:
        try:
            context = _ssl_context(self._config.tls) if self._config.tls is not None else False
        except OSError as error:  # SSLError is one; whoever renews a certificate may be half-way
            raise _ConnectionFailedError("tls", f"the certificate files cannot be used: {error}") from error
        connecting = asyncio.create_task(
            self._client.connect(
                self._config.host,
                self._config.port,
                ssl=context,
                keepalive=self._config.keepalive,
                version=_VERSIONS[self._config.version],
            ),
            name="mqtt-connect",
        )
        try:
            # gmqtt waits for ever for the answer of a server that just closes the connection.
            await asyncio.wait({connecting, self.lost}, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                # A refusal may have come just before the end.
                self._handler.propagate_error()
                raise self._no_answer("closed", "the server closed the connection without an answer")
            connecting.result()
        except ssl.SSLError as error:
            raise _ConnectionFailedError("tls", str(error)) from error
        except (OSError, UnicodeError) as error:  # the latter for what cannot be a host's name
            raise _ConnectionFailedError("unreachable", str(error)) from error
        except gmqtt.MQTTConnectError as error:
            raise _ConnectionFailedError("refused", str(error)) from error
        finally:
            connecting.cancel()

    async def _create_connection(
        self, host: str, port: int, *, ssl: ssl.SSLContext | bool, clean_session: bool, keepalive: int
    ) -> MQTTConnection:
        def make_protocol() -> MQTTProtocol:
            protocol = _Protocol(
                connection_state=self._client._connection_state,  # noqa: SLF001
                id_generator=self._handler.id_generator,
            )
            # Until there is an MQTTConnection, which replaces it.
            protocol.set_connection(self)
            return protocol

        transport, protocol = await asyncio.get_running_loop().create_connection(make_protocol, host, port, ssl=ssl)
        return MQTTConnection(transport, protocol, clean_session, keepalive, self._handler)

    def put_package(self, _package: object) -> None:
        """Called by gmqtt: the network connection has ended as soon as it was there."""
        self._end("the connection broke")

    def _no_answer(self, reason: str, detail: str) -> _ConnectionFailedError:
        """What servers keep silent about is guessed from the configuration."""
        if self._config.version == "5":
            detail += "; does it know MQTT 5? (mqtt.version)"
        if self._config.tls is not None and self._config.tls.cert_file is None:
            detail += "; does it want a certificate of ours? (mqtt.tls.cert_file)"
        return _ConnectionFailedError(reason, detail)

    async def _subscribe(self, subscriptions: Sequence[str]) -> list[str]:
        """Subscribe; what the server refused."""
        if not subscriptions:
            return []
        self._client.subscribe([gmqtt.Subscription(topic, qos=_AT_LEAST_ONCE) for topic in subscriptions])
        await asyncio.wait((self._granted, self.lost), return_when=asyncio.FIRST_COMPLETED)
        if not self._granted.done():
            raise _ConnectionFailedError("closed", "the server closed the connection instead of a subscription")
        return [topic for topic, code in zip(subscriptions, self._granted.result(), strict=False) if code >= _FAILURE]

    def _receive_maximum(self) -> int:
        """How many unacknowledged messages the server takes; gmqtt itself fails with one less."""
        values = self._handler._connack_properties.get("receive_maximum")  # noqa: SLF001
        maximum: int = values[0] if values else _DEFAULT_WINDOW
        return max(1, maximum - 1)

    def _bound_silence(self) -> None:
        """Let the kernel give the connection up when the server's host is gone without a word.

        gmqtt's heartbeat closes after two keepalives without an answer, but closing waits for ever to send what is
        queued. The same limit on unacknowledged bytes (tcp(7), TCP_USER_TIMEOUT, in milliseconds) ends that wait.
        """
        if self.lost.done():
            # The server has thrown us out already, and there is no socket any more.
            return
        transport = self._client._connection._transport  # noqa: SLF001
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000 * self._config.keepalive)

    def _end(self, why: str) -> None:
        """Mark the connection as lost, and tell everyone who waits on it."""
        if self.lost.done():
            return
        self.lost.set_result(why)
        for answer in self._in_flight.values():
            if not answer.done():
                answer.set_exception(NotConnectedError("the connection broke before the MQTT server's answer"))
        self._in_flight.clear()
        self._metrics.publishes_in_flight.set(0)
        # Wakes the first one that waits for a place, who wakes the next.
        self._window.release()

    def _on_disconnect(self, _client: object, packet: object, _exc: object = None) -> None:
        # MQTT 5, section 3.14.2.1: the server may say why; an empty packet is gmqtt's word for a closed connection.
        code = packet[0] if isinstance(packet, bytes) and packet else None
        self._end("the connection broke" if code is None else f"the server disconnected us with code 0x{code:02x}")

    def _on_subscribe(self, _client: object, _identifier: int, granted: Sequence[int], _properties: object) -> None:
        if not self._granted.done():
            self._granted.set_result(granted)

    def _on_puback(self, _command: int, packet: bytes) -> None:
        # MQTT 5, section 3.4.2: packet identifier, then a reason code unless it is 0.
        identifier, codes = int.from_bytes(packet[:2], "big"), packet[2:]
        self._answered(identifier, codes[0] if codes else 0)

    def _on_unsubscribe(self, _client: object, identifier: int, _codes: object) -> None:
        self._answered(identifier, 0)

    def _answered(self, identifier: int, code: int) -> None:
        self._handler.id_generator.free_id(identifier)
        answer = self._in_flight.pop(identifier, None)
        if answer is None:
            return
        self._metrics.publishes_in_flight.set(len(self._in_flight))
        self._window.release()
        if not answer.done():
            answer.set_result(code)

    def _on_message(
        self, _client: object, topic: str | bytes, payload: bytes, _qos: int, properties: Mapping[str, Any]
    ) -> None:
        self._deliver(_message(topic, payload, properties, None))

    def _on_qos_1_message(
        self, identifier: int, payload: bytes, topic: str | bytes, properties: Mapping[str, Any]
    ) -> None:
        def acknowledge() -> None:
            # On another connection the identifier would be another message's.
            if not self.lost.done() and self._client.is_connected:
                self._handler._send_puback(identifier)  # noqa: SLF001

        self._deliver(_message(topic, payload, properties, acknowledge))


class _Protocol(MQTTProtocol):  # type: ignore[misc]  # gmqtt has no types
    """Sends in one piece what is said in one turn of the event loop.

    In a storm of keys a system call for each packet costs more than all else that is done with it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  gmqtt's
        super().__init__(*args, **kwargs)
        self._unsent: list[bytes] = []

    def write_data(self, data: bytes) -> None:
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(data)

    def send_disconnect(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  gmqtt's
        # The connection is closed in the same turn.
        packet = super().send_disconnect(*args, **kwargs)
        self._flush()
        return packet

    def _flush(self) -> None:
        if self._unsent:
            data, self._unsent = b"".join(self._unsent), []
            super().write_data(data)


class _Identifiers(PersistentStorage):  # type: ignore[misc]  # gmqtt has no types
    """Learns the packet identifier of what was just sent, and keeps nothing to be replayed.

    gmqtt tells its storage, and nobody else, under which identifier a message went out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last = 0

    def push_message(self, mid: int, raw_package: bytes) -> None:  # noqa: ARG002  gmqtt's signature
        self.last = mid


def _publish_properties(
    properties: Mapping[str, str] | None, response_topic: str, correlation: bytes
) -> dict[str, object]:
    """In gmqtt's words."""
    extra: dict[str, object] = {}
    if properties:
        extra["user_property"] = list(properties.items())
    if response_topic:
        extra["response_topic"] = response_topic
    if correlation:
        extra["correlation_data"] = correlation
    return extra


def _message(
    topic: str | bytes, payload: bytes, properties: Mapping[str, Any], acknowledge: Callable[[], None] | None
) -> Message:
    return Message(
        topic=topic if isinstance(topic, str) else topic.decode(errors="replace"),
        payload=payload,
        retained=bool(properties.get("retain")),
        properties=dict(properties.get("user_property", ())),
        response_topic=str((properties.get("response_topic") or [""])[0]),
        correlation=bytes((properties.get("correlation_data") or [b""])[0]),
        _acknowledge=acknowledge,
    )


def _ssl_context(config: TlsConfig) -> ssl.SSLContext:
    """Made anew for each connection: renewed certificates are taken up without a restart."""
    context = ssl.create_default_context(cafile=config.ca_file)
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.cert_file is not None:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(config.cert_file, config.key_file, password="")
    return context
