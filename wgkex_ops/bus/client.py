"""One network connection with the MQTT server: the only file that knows gmqtt.

gmqtt encodes and decodes packets and keeps the connection alive. What else it does is avoided or replaced (as of 0.8):

- It reconnects after a fixed pause, sends again what was given up long ago, and stops for ever after a refusal that an
  operator corrects in a minute. So each connection is a gmqtt client of its own, and `session.py` makes the next one.
- Its handler of PUBACK drops the reason code: a publish that an access rule forbids looks like a success. Replaced.
- Its handler of QoS 1 messages acknowledges before the work is done, or needs a task for each message. Replaced.
- It crashes when a network connection ends before there is an MQTTConnection for it. `_create_connection` is replaced.
- It raises OverflowError for one publish more than the server's receive maximum. Here publishers wait for a free slot.
- `connect()` has no timeout, and never returns when the server closes the connection without an answer: `open` does.
- A publish on a lost connection raises nothing, and is sent never or much later: `publish` raises at once.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import gmqtt
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.mqtt.protocol import MQTTProtocol

from wgkex_ops.bus.tls import show_certificate, ssl_context
from wgkex_ops.bus.values import ConnectionFailedError, Message, Will
from wgkex_ops.config import MqttConfig
from wgkex_ops.errors import NoSubscribersError, NotConnectedError, PublishRefusedError
from wgkex_ops.metrics.mqtt import MqttMetrics

# Seconds for a clean end.
CLOSE_TIMEOUT: Final = 0.5

# How many unacknowledged messages the server may send us (MQTT 5, section 3.3.4): some batches of the worker's
# installer, and less than it has space for. The server keeps what is beyond, and sends as many again on a reconnect.
_RECEIVE_MAXIMUM: Final = 2000
# Ours have a few hundred bytes. gmqtt takes minutes to read one of the 256 MB that a server lets through otherwise.
_LARGEST_PACKET: Final = 262_144
# How many unacknowledged messages the server takes unless it sets a limit (MQTT 5, section 3.2.2.3.3).
_DEFAULT_WINDOW: Final = 65_535

_AT_MOST_ONCE: Final = 0
_AT_LEAST_ONCE: Final = 1
# Reason codes (MQTT 5, section 2.4); failures are 0x80 and above.
_NO_MATCHING_SUBSCRIBERS: Final = 0x10
_FAILURE: Final = 0x80

# gmqtt compares the number of failures with this, and takes -1 for "no limit".
_NO_RECONNECTS: Final = -2

_VERSIONS: Final = {"5": MQTTv50, "3.1.1": MQTTv311}


class Connection:
    """One network connection, what is in flight on it, and the window that limits that.

    Args:
        config: the server and how to reach it.
        client_id: unique among all clients of the server.
        will: the last will; None for none.
        session_expiry: for how many seconds the server keeps the subscriptions after the end of the connection.
        deliver: called with each message that arrives.
        metrics: of them, the publishes in flight are kept.

    Attributes:
        lost: done when the connection has ended; the result is the reason, for the log.
        window_size: how many unacknowledged messages the server takes.
        session_present: whether the server had kept a session with this client id.
    """

    def __init__(
        self,
        config: MqttConfig,
        *,
        client_id: str,
        will: Will | None,
        session_expiry: int,
        deliver: Callable[[Message], None],
        metrics: MqttMetrics,
    ) -> None:
        self._config = config
        self._deliver = deliver
        self._metrics = metrics
        # Reason codes that are awaited, by packet identifier.
        self._in_flight: dict[int, asyncio.Future[int]] = {}
        # To set it with each publish would cost more than the rest of its bookkeeping.
        metrics.publishes_in_flight.set_function(lambda: len(self._in_flight))
        self._window = asyncio.Semaphore(0)
        self.window_size = 0
        self.session_present = False
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self._granted: asyncio.Future[Sequence[int]] = loop.create_future()
        self._client = gmqtt.Client(
            # gmqtt counts characters where the packet has bytes, so it gets bytes.
            client_id.encode(),
            # In MQTT 5 this is whether the session starts clean; how long it is kept comes below.
            clean_session=session_expiry == 0,
            will_message=gmqtt.Message(will.topic, will.payload, qos=_AT_LEAST_ONCE, retain=True) if will else None,
            receive_maximum=_RECEIVE_MAXIMUM,
            maximum_packet_size=_LARGEST_PACKET,
            session_expiry_interval=session_expiry,
        )
        self._client.set_config({"reconnect_retries": _NO_RECONNECTS})
        if config.username is not None:
            password = config.password.get_secret_value() if config.password is not None else None
            self._client.set_auth_credentials(config.username, password)
        self._client.on_message = self._on_message
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_unsubscribe = self._on_unsubscribe
        self._client.on_disconnect = self._on_disconnect
        self._handler = self._client._package_handler  # noqa: SLF001  see the top of this file, here and below
        self._handler._handle_puback_packet = self._on_puback  # noqa: SLF001
        self._handler._handle_qos_1_publish_packet = self._on_qos_1_message  # noqa: SLF001
        self._client._create_connection = self._create_connection  # noqa: SLF001

    async def open(
        self,
        subscriptions: Sequence[str],
        optional_subscriptions: Sequence[str],
        within: float,
        *,
        at_most_once: Collection[str] = (),
    ) -> list[str]:
        """Connect and subscribe within some seconds; with QoS 1, or with QoS 0 to what is to come at most once.

        Returns:
            the optional subscriptions that the server refused.

        Raises:
            ConnectionFailedError: there is no connection, or no subscription.
        """
        try:
            async with asyncio.timeout(within):
                await self._connect()
                self._limit_silence()
                refused = await self._subscribe([*subscriptions, *optional_subscriptions], at_most_once)
        except TimeoutError:
            raise self._failure_without_reason("timed_out", f"not connected within {within:g} s") from None
        needed = [topic for topic in refused if topic not in optional_subscriptions]
        if needed:
            raise ConnectionFailedError("subscription_refused", f"the server refused {', '.join(needed)}")
        self.window_size = self._receive_maximum()
        for _ in range(self.window_size):
            self._window.release()
        return refused

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool,
        properties: Mapping[str, str] | None,
        response_topic: str,
        correlation: bytes,
        expires_after: int,
        deadline: float,
    ) -> None:
        """Publish with QoS 1, and return when the server has acknowledged.

        Raises:
            TimeoutError: it has not, when the event loop's clock is at the deadline.
            NotConnectedError: the connection broke before the acknowledgement.
            PublishRefusedError: the server refused the message.
            NoSubscribersError: there is no subscription to the topic, and the message is not retained.
        """
        await self._acquire_slot(deadline)
        message = gmqtt.Message(topic, payload, qos=_AT_LEAST_ONCE, retain=retain)
        if properties:
            message.properties["user_property"] = list(properties.items())
        if response_topic:
            message.properties["response_topic"] = response_topic
        if correlation:
            message.properties["correlation_data"] = correlation
        if expires_after:
            message.properties["message_expiry_interval"] = expires_after
        # gmqtt's own publish() does not return the packet identifier, and stores the message to send it again.
        identifier, _packet = self._client._connection.publish(message)  # noqa: SLF001
        code = await self._acknowledgement(identifier, deadline)
        if code >= _FAILURE:
            raise PublishRefusedError(code)
        # A retained message is there for later subscribers.
        if code == _NO_MATCHING_SUBSCRIBERS and not retain:
            raise NoSubscribersError("no client has subscribed to this topic")

    async def unsubscribe(self, topic_filter: str, deadline: float) -> None:
        """Unsubscribe, and return when the server has acknowledged.

        Raises:
            TimeoutError: it has not, when the event loop's clock is at the deadline.
            NotConnectedError: the connection broke before the acknowledgement.
        """
        # It needs a packet identifier, of which gmqtt has as many as the window has slots.
        await self._acquire_slot(deadline)
        identifier = self._client._connection.unsubscribe([topic_filter.encode()])  # noqa: SLF001
        await self._acknowledgement(identifier, deadline)

    async def close(self) -> None:
        """Disconnect cleanly, or by force after CLOSE_TIMEOUT. Never raises."""
        self._end("closed by this side")
        connection = self._client._connection  # noqa: SLF001  there is no public way to the transport
        if connection is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._client.disconnect()
        except OSError:  # TimeoutError is one: the server does not read what is still to be sent
            connection._transport.abort()  # noqa: SLF001

    @property
    def _usable(self) -> bool:
        return not self.lost.done() and bool(self._client.is_connected)

    async def _acquire_slot(self, deadline: float) -> None:
        if self._window.locked():
            async with asyncio.timeout_at(deadline):
                await self._window.acquire()
        else:
            # It does not wait, and to limit that would cost more than the slot itself.
            await self._window.acquire()
        if not self._usable:
            # Wakes the next one that waits for a slot, which fails in the same way.
            self._window.release()
            raise NotConnectedError("the connection with the MQTT server broke")

    async def _acknowledgement(self, identifier: int, deadline: float) -> int:
        """Wait for the reason code of what was just sent."""
        loop = asyncio.get_running_loop()
        # After the deadline it stays here: its slot is taken until the server acknowledges.
        acknowledged = self._in_flight[identifier] = loop.create_future()
        expiry = loop.call_at(deadline, _expire, acknowledged)
        try:
            code: int = await acknowledged
            return code
        finally:
            expiry.cancel()

    async def _connect(self) -> None:
        try:
            context = ssl_context(self._config.tls) if self._config.tls is not None else False
        except OSError as error:  # SSLError is one; a certificate may be incomplete while it is renewed
            raise ConnectionFailedError("tls", f"the certificate files cannot be used: {error}") from error
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
            await asyncio.wait({connecting, self.lost}, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                # A refusal may have come just before the end.
                self._handler.propagate_error()
                raise self._failure_without_reason("closed", "the server closed the connection without an answer")
            connecting.result()
        except ssl.SSLError as error:
            raise ConnectionFailedError("tls", str(error)) from error
        except (OSError, UnicodeError) as error:  # the latter for what cannot be a host's name
            raise ConnectionFailedError("unreachable", str(error)) from error
        except gmqtt.MQTTConnectError as error:
            raise ConnectionFailedError("refused", str(error)) from error
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
        show_certificate(transport, self._metrics)
        return MQTTConnection(transport, protocol, clean_session, keepalive, self._handler)

    def put_package(self, _package: object) -> None:
        """Called by gmqtt when the network connection ends before there is an MQTTConnection."""
        self._end("the connection broke")

    def _failure_without_reason(self, reason: str, detail: str) -> ConnectionFailedError:
        """A failure that the server does not explain; the configuration hints at its cause."""
        if self._config.version == "5":
            detail += "; does it know MQTT 5? (mqtt.version)"
        if self._config.tls is not None and self._config.tls.cert_file is None:
            detail += "; does it want a certificate of ours? (mqtt.tls.cert_file)"
        return ConnectionFailedError(reason, detail)

    async def _subscribe(self, subscriptions: Sequence[str], at_most_once: Collection[str]) -> list[str]:
        """Subscribe, and return what the server refused."""
        if not subscriptions:
            return []
        qos = {topic: _AT_MOST_ONCE if topic in at_most_once else _AT_LEAST_ONCE for topic in subscriptions}
        self._client.subscribe([gmqtt.Subscription(topic, qos=qos[topic]) for topic in subscriptions])
        await asyncio.wait((self._granted, self.lost), return_when=asyncio.FIRST_COMPLETED)
        if not self._granted.done():
            raise ConnectionFailedError("closed", "the server closed the connection instead of a subscription")
        return [topic for topic, code in zip(subscriptions, self._granted.result(), strict=False) if code >= _FAILURE]

    def _receive_maximum(self) -> int:
        """How many unacknowledged messages the server takes; gmqtt itself allows one less."""
        values = self._handler._connack_properties.get("receive_maximum")  # noqa: SLF001
        maximum: int = values[0] if values else _DEFAULT_WINDOW
        return max(1, maximum - 1)

    def _limit_silence(self) -> None:
        """Let the kernel end the connection when the server's host is gone without a FIN.

        gmqtt's heartbeat closes after two keepalives without an answer, but closing waits for ever to send what is
        queued. The same limit on unacknowledged bytes (tcp(7), TCP_USER_TIMEOUT, in milliseconds) ends that wait.
        """
        if self.lost.done():
            # The server has disconnected us already, and the socket is closed.
            return
        transport = self._client._connection._transport  # noqa: SLF001
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000 * self._config.keepalive)

    def _end(self, why: str) -> None:
        """Mark the connection as lost, and fail all that waits for it."""
        if self.lost.done():
            return
        self.lost.set_result(why)
        for acknowledged in self._in_flight.values():
            if not acknowledged.done():
                acknowledged.set_exception(NotConnectedError("the connection broke before the acknowledgement"))
        self._in_flight.clear()
        # Wakes the first one that waits for a slot, which wakes the next.
        self._window.release()

    def _on_disconnect(self, _client: object, packet: object) -> None:
        # MQTT 5, section 3.14.2.1: the server may give a reason. For a closed connection gmqtt makes an empty packet.
        code = packet[0] if isinstance(packet, bytes) and packet else None
        self._end("the connection broke" if code is None else f"the server disconnected us with code 0x{code:02x}")

    def _on_connect(self, _client: object, session_present: int, _result: int, _properties: object) -> None:
        # The other bits of the flags are reserved (MQTT 5, section 3.2.2.1).
        self.session_present = bool(session_present)

    def _on_subscribe(self, _client: object, _identifier: int, granted: Sequence[int], _properties: object) -> None:
        self._granted.set_result(granted)

    def _on_unsubscribe(self, _client: object, identifier: int, _codes: object) -> None:
        self._on_acknowledgement(identifier, 0)

    def _on_puback(self, _command: int, packet: bytes) -> None:
        # MQTT 5, section 3.4.2: packet identifier, then a reason code unless it is 0.
        identifier, codes = int.from_bytes(packet[:2], "big"), packet[2:]
        self._on_acknowledgement(identifier, codes[0] if codes else 0)

    def _on_acknowledgement(self, identifier: int, code: int) -> None:
        self._handler.id_generator.free_id(identifier)
        acknowledged = self._in_flight.pop(identifier, None)
        if acknowledged is None:
            return
        self._window.release()
        if not acknowledged.done():
            acknowledged.set_result(code)

    def _on_qos_1_message(
        self, identifier: int, payload: bytes, topic: str | bytes, properties: Mapping[str, Any]
    ) -> None:
        def acknowledge() -> None:
            # On a later connection the identifier belongs to another message.
            if self._usable:
                self._handler._send_puback(identifier)  # noqa: SLF001

        self._on_message(None, topic, payload, _AT_LEAST_ONCE, properties, acknowledge)

    def _on_message(
        self,
        _client: object,
        topic: str | bytes,
        payload: bytes,
        _qos: int,
        properties: Mapping[str, Any],
        on_acknowledge: Callable[[], None] | None = None,
    ) -> None:
        self._deliver(
            Message(
                topic=topic if isinstance(topic, str) else topic.decode(errors="replace"),
                payload=payload,
                retained=bool(properties["retain"]),
                properties=dict(properties.get("user_property", ())),
                # gmqtt has a list of values for each property.
                response_topic=properties.get("response_topic", [""])[0],
                correlation=properties.get("correlation_data", [b""])[0],
                on_acknowledge=on_acknowledge,
            )
        )


def _expire(acknowledged: asyncio.Future[int]) -> None:
    if not acknowledged.done():
        acknowledged.set_exception(TimeoutError())


class _Protocol(MQTTProtocol):  # type: ignore[misc]  # gmqtt has no types
    """Sends all packets of one iteration of the event loop at once.

    In a storm of keys, a system call for each packet costs more than all other work on it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  gmqtt's
        super().__init__(*args, **kwargs)
        self._unsent: list[bytes] = []

    def write_data(self, data: bytes) -> None:
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(data)

    def send_disconnect(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  gmqtt's
        packet = super().send_disconnect(*args, **kwargs)
        # gmqtt closes the connection in the same iteration.
        self._flush()
        return packet

    def _flush(self) -> None:
        if self._unsent:
            data, self._unsent = b"".join(self._unsent), []
            super().write_data(data)
