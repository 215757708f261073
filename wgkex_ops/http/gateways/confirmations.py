"""Keys that were handed over, until the workers have told what became of them: pure, fed with their receipts."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog

from wgkex_ops.bus.messages import CORRELATION_BYTES, Origin, Receipt, ReceiptAddress
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.public.submission import Submission
from wgkex_ops.metrics.broker import ReceiptMetrics
from wgkex_ops.model.names import ALL_WORKERS

_log = structlog.get_logger(__name__)

# A key has about 1 KB here. More at once than the nodes of a large gateway send while they come back.
LIMIT: Final = 20_000
# Seconds. A node that has no tunnel asks again long before.
KEPT_FOR: Final = 120.0
# Seconds of silence before a worker is sent a key again, and again after that. The last of them ends within KEPT_FOR.
PAUSES: Final = (5.0, 10.0, 20.0, 40.0)

_NEVER: Final = float("inf")


@dataclass(slots=True, eq=False)
class Handover:
    """A key on its way to the workers.

    Attributes:
        submission: the key and its domain.
        origin: what is published with it.
        correlation: what its receipts are known by.
        begun_at: when its submission had been found valid, by the loop's clock.
        acknowledged: whether the MQTT server has it. Only then it is sent again.
        expected: the workers whose receipts are waited for.
        answers: what they said: why the key was given up, or an empty text if it is installed.
        to_all: whether it has to be sent to all workers again.
        owed: the workers that it has to be sent to again at once.
        repeats: how often silence has led to another sending.
        due_at: when it does next, by the loop's clock.
    """

    submission: Submission
    origin: Origin
    correlation: bytes
    begun_at: float
    acknowledged: bool = False
    expected: set[str] = field(default_factory=set)
    answers: dict[str, str] = field(default_factory=dict)
    to_all: bool = False
    owed: set[str] = field(default_factory=set)
    repeats: int = 0
    due_at: float = _NEVER
    _news: asyncio.Future[None] | None = None

    async def answer_of(self, worker: str) -> str:
        """Wait for a worker's receipt, and return why it gave the key up; an empty text if it is installed."""
        while (reason := self.answers.get(worker)) is None:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        return reason

    def tell(self) -> None:
        """Wake whoever waits for an answer."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class Outstanding:
    """All keys whose receipts are waited for: at most LIMIT of them, none for longer than KEPT_FOR.

    It is used on the event loop only, whose clock it goes by.

    Args:
        gateways: who is online, and who sends receipts.
        topic: where receipts arrive; empty where none can (MQTT 3.1.1).
        metrics: the instruments that are kept.
        label: a worker's name as a label.
    """

    def __init__(self, gateways: Gateways, *, topic: str, metrics: ReceiptMetrics, label: Callable[[str], str]) -> None:
        self._gateways = gateways
        self._topic = topic
        self._metrics = metrics
        self._label = label
        # In the order of their beginnings.
        self._held: dict[bytes, Handover] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def awaiting(self) -> int:
        """Accepted keys that wait for the receipt of at least one worker."""
        return sum(handover.acknowledged and bool(handover.expected) for handover in self._held.values())

    def begin(self, submission: Submission, request_id: str, accepted_at: float) -> Handover:
        """Hold a key from before it is published: a receipt may come sooner than the MQTT server's acknowledgement.

        Args:
            submission: the key and its domain.
            request_id: of the submission.
            accepted_at: seconds since the epoch.
        """
        if len(self._held) >= LIMIT:
            self._give_up([next(iter(self._held.values()))])
        correlation = secrets.token_bytes(CORRELATION_BYTES)
        reply = ReceiptAddress(self._topic, correlation) if self._topic else None
        handover = Handover(submission, Origin(request_id, accepted_at, reply), correlation, _now())
        self._held[correlation] = handover
        return handover

    def acknowledge(self, handover: Handover) -> None:
        """The MQTT server has the key: from now on it is sent again where it needs to be."""
        handover.acknowledged = True
        handover.expected.update(self._confirming(handover))
        handover.due_at = _now() + PAUSES[0]
        self._settle(handover)

    def drop(self, handover: Handover) -> None:
        """Hold a key no longer: its node was told to come back."""
        self._held.pop(handover.correlation, None)

    def find(self, correlation: bytes) -> Handover | None:
        """The key that a receipt is for; None if it is no longer, or never was, waited for."""
        return self._held.get(correlation)

    def take(self, handover: Handover, receipt: Receipt) -> None:
        """Take in what a worker says.

        What is installed stays so. A worker that gave the key up may still install it, since others send keys, too.
        """
        before = handover.answers.get(receipt.worker)
        if before == "":
            return
        handover.answers[receipt.worker] = receipt.reason
        handover.expected.add(receipt.worker)
        origin = handover.origin
        if not receipt.reason:
            self._metrics.install_duration.labels(self._label(receipt.worker)).observe(
                _now() - handover.begun_at, {"request_id": origin.request_id}
            )
        elif before is None:
            self._metrics.install_failures.labels(self._label(receipt.worker)).inc()
            _log.warning(
                "key_not_installed",
                worker=receipt.worker,
                reason=receipt.reason,
                domain=handover.submission.domain.name,
                request_id=origin.request_id,
            )
        handover.tell()
        self._settle(handover)

    def expire(self) -> None:
        """Give up the keys that have been held for KEPT_FOR."""
        limit = _now() - KEPT_FOR
        expired = []
        for handover in self._held.values():
            if handover.begun_at > limit:
                break
            expired.append(handover)
        self._give_up(expired)

    def reconnected(self) -> None:
        """Send all keys to all workers again: the server may have died between its acknowledgement and the delivery."""
        for handover in self._held.values():
            handover.to_all = handover.acknowledged

    def came(self, workers: Iterable[str]) -> None:
        """Send workers that have just connected what they have not answered; the server may have nothing for them.

        It goes to workers that send no receipts, too, once.
        """
        workers = tuple(workers)
        for handover in self._held.values() if workers else ():
            if not handover.acknowledged:
                continue
            confirming = self._confirming(handover)
            for worker in workers:
                if worker not in handover.answers and self._serves(worker, handover):
                    handover.owed.add(worker)
                    if worker in confirming:
                        handover.expected.add(worker)

    def due(self, since: float) -> list[tuple[Handover, str]]:
        """Find what is to be sent again now, and to whom: a worker, or all.

        Each is to be given to `sent`, to `refused`, or to neither of them: then it is due again at once.

        Args:
            since: whoever was not heard of since then, by the clock of the gateways, might not listen; such workers are
                sent nothing.
        """
        now = _now()
        found: list[tuple[Handover, str]] = []
        for handover in self._held.values():
            if handover.to_all:
                found.append((handover, ALL_WORKERS))
                continue
            if handover.due_at <= now:
                silent = {
                    worker
                    for worker in handover.expected - handover.answers.keys()
                    if self._serves(worker, handover, since)
                }
                handover.owed |= silent
                # A worker that is away is sent it when it comes.
                handover.repeats += bool(silent)
                handover.due_at = now + PAUSES[handover.repeats] if handover.repeats < len(PAUSES) else _NEVER
            if handover.owed:
                handover.owed = {worker for worker in handover.owed if self._serves(worker, handover, since)}
                found.extend((handover, worker) for worker in sorted(handover.owed))
        return found

    def wants(self, handover: Handover, target: str) -> bool:
        """Whether something that was due still is: receipts arrive all the time."""
        return handover.correlation in self._held and target not in handover.answers

    def sent(self, handover: Handover, target: str) -> None:
        """A key was sent again."""
        self._metrics.republished.labels(target if target == ALL_WORKERS else self._label(target)).inc()
        self.refused(handover, target)
        if target == ALL_WORKERS:
            handover.repeats = 0
            handover.due_at = _now() + PAUSES[0]

    def refused(self, handover: Handover, target: str) -> None:
        """The MQTT server refused a key that was to be sent again, and would do so each time."""
        handover.owed.discard(target)
        if target == ALL_WORKERS:
            handover.to_all = False

    def _settle(self, handover: Handover) -> None:
        """Hold a key no longer when all have answered; where nobody will, it is held to the end."""
        if handover.acknowledged and handover.expected and handover.expected <= handover.answers.keys():
            self.drop(handover)

    def _give_up(self, handovers: Iterable[Handover]) -> None:
        silent: Counter[str] = Counter()
        for handover in handovers:
            self.drop(handover)
            silent.update(handover.expected - handover.answers.keys())
        for worker, count in silent.items():
            self._metrics.unconfirmed.labels(self._label(worker)).inc(count)
            _log.warning("keys_unconfirmed", worker=worker, count=count)

    def _confirming(self, handover: Handover) -> frozenset[str]:
        return self._gateways.confirming(handover.submission.domain.name) if self._topic else frozenset()

    def _serves(self, worker: str, handover: Handover, since: float = 0.0) -> bool:
        return self._gateways.serves(worker, handover.submission.domain.name, since)


def _now() -> float:
    return asyncio.get_running_loop().time()
