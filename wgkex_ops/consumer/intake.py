"""From messages on the bus to requests for the installer. All is checked again, as anybody may write to the bus."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import structlog

from wgkex_ops.bus.messages import Origin, key_subscription, parse_key, parse_origin
from wgkex_ops.bus.session import Message
from wgkex_ops.consumer.installer import Installer, SendReceipts
from wgkex_ops.errors import InvalidMessageError
from wgkex_ops.metrics.worker import ConsumerMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.names import ALL_WORKERS, UNKNOWN

_log = structlog.get_logger(__name__)

# A backlog is one occasion to give a subscription up, not a thousand.
_UNSUBSCRIBE_AGAIN_AFTER = 60.0
_UNKNOWN_DOMAIN = "unknown_domain"


class Intake:
    """Takes keys and questions from the bus.

    Args:
        worker: this worker's name; keys for all workers and for this one are ours.
        domains: the configured domains by name.
        ready: set when the admission can judge keys; until then the bus keeps them.
        installer: gets the valid ones.
        take_question: takes a message with a question of an operator; raises InvalidMessageError.
        send_receipts: reports to brokers why a key is rejected.
        unsubscribe: gives up a subscription that the server has kept from before the configuration changed.
        metrics: what became of the keys.
    """

    def __init__(
        self,
        *,
        worker: str,
        domains: Mapping[str, Domain],
        ready: asyncio.Event,
        installer: Installer,
        take_question: Callable[[Message], None],
        send_receipts: SendReceipts,
        unsubscribe: Callable[[str], Awaitable[None]],
        metrics: ConsumerMetrics,
    ) -> None:
        self._targets = frozenset((ALL_WORKERS, worker))
        self._domains = domains
        self._ready = ready
        self._installer = installer
        self._take_question = take_question
        self._send_receipts = send_receipts
        self._unsubscribe = unsubscribe
        self._metrics = metrics
        # When subscriptions of domains that are no longer configured were given up. The server keeps no others.
        self._unsubscribed_at: dict[str, float] = {}

    async def run(self, messages: AsyncIterator[Message]) -> None:
        """Take all keys, in order of arrival. When the installer has no room, the bus has to wait."""
        if not self._ready.is_set():
            _log.error("no_key_is_taken", detail="not before the dataplane can be read: which peers are static?")
        await self._ready.wait()
        async for message in messages:
            await self._installer.room()
            origin = parse_origin(message.properties, message.response_topic, message.correlation)
            try:
                self._take(message, origin)
            except InvalidMessageError as error:
                self._metrics.rejections.labels(error.reason).inc()
                _log.warning("message_rejected", reason=error.reason, topic=message.topic[:200], detail=str(error))
                message.acknowledge()
                if origin.receipt_to is not None:
                    self._send_receipts([origin.receipt_to], error.reason)
                if error.reason == _UNKNOWN_DOMAIN:
                    await self._give_up(key_subscription(message.topic.split("/")[1]))

    async def take_questions(self, messages: AsyncIterator[Message]) -> None:
        """Take the questions of operators at once: most are asked when no key gets through."""
        async for message in messages:
            try:
                self._take_question(message)
            except InvalidMessageError as error:
                _log.warning("question_rejected", reason=error.reason, detail=str(error))
            message.acknowledge()

    async def _give_up(self, topic_filter: str) -> None:
        """Unsubscribe; once for a whole backlog, as the keys of other domains wait meanwhile."""
        now = asyncio.get_running_loop().time()
        if now - self._unsubscribed_at.get(topic_filter, -_UNSUBSCRIBE_AGAIN_AFTER) >= _UNSUBSCRIBE_AGAIN_AFTER:
            self._unsubscribed_at[topic_filter] = now
            await self._unsubscribe(topic_filter)

    def _take(self, message: Message, origin: Origin) -> None:
        levels = message.topic.split("/")
        if levels[-1] not in self._targets and len(levels) == 3:  # noqa: PLR2004  wireguard/{domain}/{worker}
            # For another worker, which will count it.
            message.acknowledge()
            return
        domain = self._domains.get(levels[1]) if len(levels) > 1 else None
        self._metrics.received.labels(domain.name if domain else UNKNOWN).inc()
        if message.retained:
            # Mosquitto's access rules cannot forbid it, and it would be installed again at each connection, for ever.
            raise InvalidMessageError("retained_key", "brokers have no keys retained")
        requested = parse_key(message.topic, message.payload)
        if domain is None:
            raise InvalidMessageError(_UNKNOWN_DOMAIN, "the topic names no configured domain")
        done = message.acknowledge if message.unacknowledged else None
        self._installer.request(domain, requested.key, origin, done)
