"""Takes in what workers and brokers publish: statuses, data, numbers of peers, and receipts."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, NoReturn, Protocol

import structlog
from prometheus_client import Counter

from wgkex_ops.bus.messages import is_receipt, parse_receipt, parse_worker_event, split_correlation
from wgkex_ops.bus.questions import ASK, is_answer
from wgkex_ops.bus.session import Message
from wgkex_ops.errors import InvalidMessageError
from wgkex_ops.http.gateways.confirmations import UnconfirmedKeys
from wgkex_ops.http.gateways.registry import Gateways, UnknownOriginError
from wgkex_ops.http.gateways.silence import Silences

_log = structlog.get_logger(__name__)

# Seconds within which a server sends all that it has retained. A gateway that is not among it is not there.
_RETAINED_WITHIN: Final = 5.0
# Seconds. The nodes of a gateway that is offline for so long have another one: they try it after three minutes.
ABSENT_AFTER: Final = 600.0
_CHECK_EVERY: Final = 1.0


class Inbox(Protocol):
    """What has to be known of the session with the MQTT server."""

    @property
    def connected(self) -> bool: ...
    @property
    def opened_at(self) -> float: ...
    async def connection_after(self, seen: int) -> int: ...
    def messages(self) -> AsyncIterator[Message]: ...


class GatewayIntake:
    """Keeps gateways and unconfirmed keys up to date with the MQTT server.

    Args:
        session: with the MQTT server.
        gateways: what is known of workers and brokers.
        keys: what receipts are for.
        silences: the gateways that send none.
        broker: this broker's name.
        take_question: takes a message with a question of an operator; raises InvalidMessageError.
        take_answer: takes one with an answer to a question of this broker; raises InvalidMessageError.
        rejections: counts the messages that are dropped, by reason.
    """

    def __init__(
        self,
        session: Inbox,
        gateways: Gateways,
        keys: UnconfirmedKeys,
        silences: Silences,
        *,
        broker: str,
        take_question: Callable[[Message], None],
        take_answer: Callable[[Message], None],
        rejections: Counter,
    ) -> None:
        self._session = session
        self._gateways = gateways
        self._keys = keys
        self._silences = silences
        self._broker = broker
        self._take_question = take_question
        self._take_answer = take_answer
        self._rejections = rejections
        self._retained_over = False

    @property
    def complete(self) -> bool:
        """Whether the server has ever sent what it has retained: our own status comes last, if the server takes it.

        What is known then is kept while there is no connection, and for as long after it.
        """
        return self._retained_over or self._broker in self._gateways.brokers

    async def run(self) -> None:
        """Take in what arrives, for ever."""
        async for message in self._session.messages():
            try:
                if is_receipt(message.topic):
                    self._take_receipt(message)
                elif message.topic == ASK:
                    self._take_question(message)
                elif is_answer(message.topic):
                    self._take_answer(message)
                else:
                    self._take_event(message)
            except (InvalidMessageError, UnknownOriginError) as error:
                self._rejections.labels(error.reason).inc()
                _log.warning("message_rejected", reason=error.reason, topic=message.topic[:200])
            message.acknowledge()

    async def forget_lost(self) -> NoReturn:
        """Forget, after each connection, the gateways of which the server has sent nothing."""
        connection = 0
        while True:
            connection = await self._session.connection_after(connection)
            opened_at = self._session.opened_at
            await asyncio.sleep(_RETAINED_WITHIN)
            # One that has ended meanwhile may have brought nothing.
            if self._session.connected and self._session.opened_at == opened_at:
                self._gateways.forget_before(opened_at)
                self._retained_over = True

    async def watch_gateways(self) -> NoReturn:
        """Find, for ever, the gateways that are offline for long, and those that send no receipts."""
        while True:
            self._gateways.mark_absent(time.monotonic() - ABSENT_AFTER)
            self._silences.check()
            await asyncio.sleep(_CHECK_EVERY)

    def _take_event(self, message: Message) -> None:
        event = parse_worker_event(message.topic, message.payload, message.properties)
        # What is retained may be as old as the connection, or older: keys accepted before may not have got through.
        heard_at = self._session.opened_at if message.retained else time.monotonic()
        self._gateways.update(event, heard_at)

    def _take_receipt(self, message: Message) -> None:
        receipt = parse_receipt(message.topic, message.payload)
        # Nothing is wrong with unknown ones: a key that was sent twice is confirmed twice, and some receipts are late.
        found = [key for mark in split_correlation(message.correlation) if (key := self._keys.find(mark)) is not None]
        # Receipts of invented workers would fill the memory.
        if found and receipt.worker not in self._gateways.workers:
            raise UnknownOriginError("unknown_worker")
        for key in found:
            self._keys.confirm(key, receipt)
