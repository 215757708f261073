"""Receipts: they report to a broker what became of the keys that it published.

In a storm, a message for each key from each gateway would be most of what a broker has to read: receipts with the same
result for the same broker share one message.

Nothing here waits for a receipt, and none is sent twice: a broker that has got none sends its key again, which is
installed or refused once more, with a receipt.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Final, NoReturn

import structlog

from wgkex_ops.bus.messages import CORRELATION_BYTES, Receipt, ReceiptAddress, receipt_payload, receipt_topic_of
from wgkex_ops.bus.session import Session
from wgkex_ops.errors import BusError
from wgkex_ops.metrics.worker import ReceiptMetrics

_log = structlog.get_logger(__name__)

# As many as keys may wait. Older ones are worth less: their brokers send the keys again.
QUEUE_LIMIT: Final = 20_000
# A broker reads such a message in some milliseconds, and if it is lost, sends so many keys again.
_KEYS_PER_MESSAGE: Final = 256
# Messages on their way, each with all that has come together meanwhile: thousands of keys a second over a link of
# hundreds of milliseconds.
_AT_ONCE: Final = 20
# After 5 s a broker sends its key again.
_PUBLISH_TIMEOUT: Final = 5.0
# The same failure is logged again after this long.
_REPEAT_WARNING_AFTER: Final = 60.0


class ReceiptSender:
    """Sends receipts, many at once. `run` is its only task.

    Args:
        session: the bus.
        worker: this worker's name.
        metrics: what became of the receipts.
    """

    def __init__(self, session: Session, worker: str, metrics: ReceiptMetrics) -> None:
        self._session = session
        self._worker = worker
        self._metrics = metrics
        # Correlation data by topic and reason, which are served in rotation.
        self._queued: dict[tuple[str, str], deque[bytes]] = {}
        self._length = 0
        self._in_flight = 0
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._logged: tuple[str, float] = ("", 0.0)

    def send(self, to: Sequence[ReceiptAddress], reason: str) -> None:
        """Have receipts sent; if there are too many, the oldest with the most frequent result are thrown away.

        Args:
            to: where they are wanted.
            reason: why the key was given up, a slug or the kernel's name of an error; empty if it is installed.
        """
        for address in to:
            if self._length >= QUEUE_LIMIT:
                self._throw_one_away()
            self._queued.setdefault((address.topic, reason), deque()).append(address.correlation)
            self._length += 1
            self._idle.clear()
            self._woken.set()

    async def run(self) -> NoReturn:
        """Send for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._places.acquire()
                while not self._length:
                    self._woken.clear()
                    await self._woken.wait()
                self._in_flight += 1
                group.create_task(self._send(*self._take()), name="receipt")

    def _throw_one_away(self) -> None:
        longest = max(self._queued, key=lambda one: len(self._queued[one]))
        self._queued[longest].popleft()
        if not self._queued[longest]:
            del self._queued[longest]
        self._length -= 1
        self._metrics.failures.inc()

    def _take(self) -> tuple[str, str, list[bytes]]:
        """Take the next topic and reason, and the correlation data that can go there in one message."""
        topic, reason = next(iter(self._queued))
        waiting = self._queued.pop((topic, reason))
        taken = [waiting.popleft()]
        while waiting and len(taken) < _KEYS_PER_MESSAGE and len(taken[-1]) == len(waiting[0]) == CORRELATION_BYTES:
            taken.append(waiting.popleft())
        self._length -= len(taken)
        if waiting:
            self._queued[topic, reason] = waiting
        return topic, reason, taken

    async def flush(self, within: float) -> None:
        """Wait until all are sent, but no longer than some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._idle.wait()

    async def _send(self, response_topic: str, reason: str, correlations: Sequence[bytes]) -> None:
        topic = receipt_topic_of(self._worker, response_topic)
        payload = receipt_payload(Receipt(self._worker, reason))
        try:
            await self._session.publish(topic, payload, timeout=_PUBLISH_TIMEOUT, correlation=b"".join(correlations))
        except BusError as error:
            self._metrics.failures.inc(len(correlations))
            self._log_failure(error)
        else:
            self._metrics.sent.labels("failed" if reason else "installed").inc(len(correlations))
        finally:
            self._places.release()
            self._in_flight -= 1
            if not self._length and not self._in_flight:
                self._idle.set()

    def _log_failure(self, error: BusError) -> None:
        """Log a failure, but not for each of a thousand receipts."""
        now = asyncio.get_running_loop().time()
        if error.reason != self._logged[0] or now - self._logged[1] > _REPEAT_WARNING_AFTER:
            _log.warning("receipt_failed", reason=error.reason, detail=str(error))
            self._logged = (error.reason, now)
