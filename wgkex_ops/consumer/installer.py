"""From offered keys to installed peers: merge, batch, install, try again, give up.

A key is safe at each moment: the bus keeps its message until the key is installed or given up, or until it has to wait
and is durably kept here. Then those who want to know are told.
"""

import asyncio
import contextlib
import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice
from typing import Final, NoReturn, Protocol

import msgspec
import structlog

from wgkex_ops.bus.messages import Origin, ReceiptAddress
from wgkex_ops.consumer.dataplane.base import Dataplane
from wgkex_ops.errors import DataplaneError, InterfaceMissingError
from wgkex_ops.logs import tell_each
from wgkex_ops.metrics.worker import ConsumerMetrics
from wgkex_ops.model.changes import Change, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

_log = structlog.get_logger(__name__)

# Ten times what a gateway's reboot brings back at once, at about a kilobyte each.
CAPACITY: Final = 20_000
# What one call of the dataplane gets: enough to make the cost of a call negligible, and little enough for a key that
# arrives now not to wait long for the one before it.
BATCH_LIMIT: Final = 500
# Seconds between two batches: a key that comes alone goes at once, and in a storm there are some dozens to share the
# cost of a call, of a transaction of the store, and of telling it.
GATHERING: Final = 0.05

# The pause before another attempt doubles from 0.5 s: a key is given up about 8 s after it came. Its node needs the
# peer within 10 s, and asks again within a minute.
ATTEMPTS: Final = 5
_FIRST_PAUSE: Final = 0.5
# A missing interface is waited for as long as it takes its nodes to ask again. Its coming ends the pause.
_INTERFACE_PATIENCE: Final = 60.0
_INTERFACE_PAUSE: Final = 5.0
# One domain without an interface must leave room for the others.
_LATER_LIMIT: Final = CAPACITY // 2

# A key that is offered again and again would fill its log line, and the memory.
_REQUEST_IDS_KEPT: Final = 8
_REPLIES_KEPT: Final = 64


class PendingStore(Protocol):
    """Keeps what has to wait, so that it outlives this process.

    Trouble is its own matter: it reports it, and raises nothing. The installer waits for it meanwhile, so it must not
    take long over a disk that hangs.
    """

    async def keep(self, waiting: Sequence[tuple[Domain, PublicKey]]) -> bool:
        """Keep keys that have to wait; the same key may come again.

        Returns:
            whether they are durably stored, all of them: then the bus need not keep them any longer.
        """

    async def settle(
        self, installed: Sequence[tuple[Domain, PublicKey]], given_up: Sequence[tuple[Domain, PublicKey]]
    ) -> None:
        """Take note of what has become of keys, before the bus is told."""


class KeepNothing:
    """The store of those who have none: what has to wait stays with the bus."""

    async def keep(self, waiting: Sequence[tuple[Domain, PublicKey]]) -> bool:  # noqa: ARG002  the protocol's signature
        """Keep nothing."""
        return False

    async def settle(
        self, installed: Sequence[tuple[Domain, PublicKey]], given_up: Sequence[tuple[Domain, PublicKey]]
    ) -> None:
        """Take note of nothing."""


class Answer(Protocol):
    """Tells brokers what became of a key. It does not wait, and raises nothing."""

    def __call__(self, replies: Sequence[ReceiptAddress], reason: str) -> None:
        """Answer all of them.

        Args:
            replies: where receipts are wanted.
            reason: why the key was given up, a slug or the kernel's name of an error; empty if it is installed.
        """


def answer_nobody(replies: Sequence[ReceiptAddress], reason: str) -> None:
    """Leave brokers without receipts."""


def tell_nobody(domain: Domain, key: PublicKey) -> None:
    """Leave everybody without news of what is asked for."""


class _Waiting(msgspec.Struct):
    """A key on its way into the kernel.

    Attributes:
        identity: the name of its domain, and its 32 bytes.
        accepted_at: when the first broker accepted it, by that broker's clock; None if it did not tell.
        request_ids: of the first submissions that offered it.
        replies: where receipts are wanted.
        done: to be called when the bus need not keep the key any longer; None if the bus does not keep it.
        kept: whether the store has it.
        attempts: how many failed, those without an interface left out.
        since: when it was offered, by the loop's clock.
    """

    identity: tuple[str, bytes]
    key: PublicKey
    change: Change
    since: float
    accepted_at: float | None
    request_ids: tuple[str, ...] = ()
    replies: tuple[ReceiptAddress, ...] = ()
    done: Callable[[], None] | None = None
    kept: bool = False
    attempts: int = 0

    def join(self, origin: Origin, done: Callable[[], None] | None) -> None:
        """Take in one more message with this key."""
        if origin.request_id and len(self.request_ids) < _REQUEST_IDS_KEPT:
            self.request_ids += (origin.request_id,)
        if (
            origin.receipt_to is not None
            and len(self.replies) < _REPLIES_KEPT
            and origin.receipt_to not in self.replies
        ):
            self.replies += (origin.receipt_to,)
        if done is not None:
            # One message is enough for the bus to keep, and it is the latest: that one came on the connection that
            # lasts. An earlier one may be the same, from before a reconnect, and can no longer be acknowledged.
            self.release()
            self.done = done
            if self.kept:
                self.release()

    def release(self) -> None:
        """Tell the bus that it need not keep the key any longer."""
        done, self.done = self.done, None
        if done is not None:
            done()


class Installer:
    """The one consumer of offered keys. `run` is its only task.

    Args:
        dataplane: where peers are installed.
        metrics: what became of the keys.
        clock: seconds since the epoch.
        store: keeps what has to wait.
        answer: tells brokers what became of each key.
        offered: is told of each key that is asked for, before anything is done with it.
    """

    def __init__(
        self,
        dataplane: Dataplane,
        metrics: ConsumerMetrics,
        clock: Callable[[], float] = time.time,
        *,
        store: PendingStore | None = None,
        answer: Answer = answer_nobody,
        offered: Callable[[Domain, PublicKey], None] = tell_nobody,
    ) -> None:
        self._dataplane = dataplane
        self._metrics = metrics
        self._clock = clock
        self._store = store or KeepNothing()
        self._answer = answer
        self._offered = offered
        # All that wait, by domain and key; those among them that are to be tried now, in order; those that are to be
        # tried later, by time.
        self._waiting: dict[tuple[str, bytes], _Waiting] = {}
        # To tell it with each change would cost more than the change.
        metrics.queue_length.set_function(lambda: len(self._waiting))
        self._ready: dict[tuple[str, bytes], None] = {}
        self._later: list[tuple[float, int, tuple[str, bytes]]] = []
        self._order = count()
        self._busy_since: float | None = None
        self._next_batch_at = 0.0
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def room(self) -> None:
        """Wait until there is room for one more key."""
        while len(self._waiting) >= CAPACITY:
            await self._room.wait()

    def offer(self, domain: Domain, key: PublicKey, origin: Origin, done: Callable[[], None] | None) -> None:
        """Take a key. Whoever offers has waited for room.

        Args:
            domain: where it belongs.
            key: what is to be installed.
            origin: where it comes from.
            done: called once, when the bus need not keep this message any longer: its key is installed, given up,
                durably kept, or held by a later message. Until then it has a place among the messages that the server
                may send, which all domains share. None if the bus does not keep it.
        """
        self._offered(domain, key)
        waiting = self._waiting.get((domain.name, key.raw))
        if waiting is None:
            waiting = self._add(domain, key, origin.accepted_at)
        else:
            self._metrics.deduplicated.labels(domain.name).inc()
        waiting.join(origin, done)

    def resume(self, waiting: Iterable[tuple[Domain, PublicKey]]) -> None:
        """Take up what the store has kept from an earlier life. Counts as received: no message will bring it."""
        for domain, key in waiting:
            self._metrics.received.labels(domain.name).inc()
            self._offered(domain, key)
            if (domain.name, key.raw) in self._waiting:
                self._metrics.deduplicated.labels(domain.name).inc()
            else:
                self._add(domain, key, None).kept = True

    def _add(self, domain: Domain, key: PublicKey, accepted_at: float | None) -> _Waiting:
        now = asyncio.get_running_loop().time()
        identity = (domain.name, key.raw)
        waiting = _Waiting(identity, key, Change.install(domain, key), since=now, accepted_at=accepted_at)
        self._waiting[identity] = waiting
        self._ready[identity] = None
        self._idle.clear()
        self._woken.set()
        if len(self._waiting) >= CAPACITY:
            self._room.clear()
        return waiting

    def retry_now(self, domains: Iterable[Domain]) -> None:
        """Try the waiting keys of some domains at once: their interfaces are there again."""
        names = {domain.name for domain in domains}
        for _, _, identity in self._later:
            if identity[0] in names:
                self._ready[identity] = None
        self._later = [item for item in self._later if item[2][0] not in names]
        heapq.heapify(self._later)
        self._woken.set()

    def busy_for(self) -> float:
        """Tell for how many seconds it has been at one batch; 0.0 while it waits for work."""
        return 0.0 if self._busy_since is None else asyncio.get_running_loop().time() - self._busy_since

    async def drain(self, within: float) -> None:
        """Wait until every key was tried at least once, but no longer than some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._idle.wait()

    async def run(self) -> NoReturn:
        """Install for ever. While the kernel works on keys, those before them are concluded."""
        while True:
            await self._wait_for_work()
            batch = self._take()
            outcomes = await self._apply(batch)
            while self._gathered() and (following := self._take()):
                # In this order: the kernel has its work before the other one begins.
                further, _ = await asyncio.gather(self._apply(following), self._conclude(batch, outcomes))
                batch, outcomes = following, further
            await self._conclude(batch, outcomes)

    async def _apply(self, batch: Sequence[_Waiting]) -> list[Outcome]:
        return await self._dataplane.apply([waiting.change for waiting in batch])

    def _take(self) -> list[_Waiting]:
        """Take the next batch of what is to be tried now; nothing if there is none."""
        now = asyncio.get_running_loop().time()
        while self._later and self._later[0][0] <= now:
            self._ready[heapq.heappop(self._later)[2]] = None
        batch = [self._waiting[identity] for identity in islice(self._ready, BATCH_LIMIT)]
        for waiting in batch:
            del self._ready[waiting.identity]
        self._busy_since = now
        if batch:
            self._next_batch_at = now + GATHERING
        return batch

    def _gathered(self) -> bool:
        """Whether enough of what is to be tried has come together, or had the time to; looked at between batches."""
        return len(self._ready) >= BATCH_LIMIT or asyncio.get_running_loop().time() >= self._next_batch_at

    async def _wait_for_work(self) -> None:
        """Wait until something is to be tried."""
        now = asyncio.get_running_loop().time
        self._busy_since = None
        while not self._ready and not (self._later and self._later[0][0] <= now()):
            self._idle.set()
            self._woken.clear()
            pause = self._later[0][0] - now() if self._later else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()
        if not self._gathered():
            await asyncio.sleep(self._next_batch_at - now())

    async def _conclude(self, batch: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
        """Tell the store, then the bus and the brokers. Until then each key waits, and takes later messages in."""
        now = self._clock()
        installed: list[_Waiting] = []
        given_up: list[tuple[_Waiting, DataplaneError]] = []
        unkept: list[_Waiting] = []
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if outcome is None:
                installed.append(waiting)
            elif not self._postpone(waiting, outcome):
                given_up.append((waiting, outcome))
            else:
                _log.warning("peer_postponed", error=str(outcome), attempt=waiting.attempts, **_context(waiting))
                if not waiting.kept:
                    unkept.append(waiting)
        if installed or given_up:
            await self._store.settle(_keys(installed), _keys(waiting for waiting, _ in given_up))
        self._succeed(installed, now)
        for waiting, error in given_up:
            self._give_up(waiting, error)
        # Where the store is out of order, it is asked again with each attempt.
        if unkept and await self._store.keep(_keys(unkept)):
            for waiting in unkept:
                waiting.kept = True
                waiting.release()

    def _succeed(self, installed: Sequence[_Waiting], now: float) -> None:
        for domain, number in Counter(waiting.identity[0] for waiting in installed).items():
            self._metrics.installed.labels(domain).inc(number)
        self._metrics.observe_propagation(
            (now - waiting.accepted_at, waiting.request_ids) for waiting in installed if waiting.accepted_at is not None
        )
        tell_each(__name__, "peer_installed", map(_context, installed))
        for waiting in installed:
            self._finish(waiting, "")

    def _give_up(self, waiting: _Waiting, error: DataplaneError) -> None:
        self._metrics.install_failures.labels(waiting.change.domain.name).inc()
        _log.error("peer_given_up", error=str(error), attempts=waiting.attempts, **_context(waiting))
        self._finish(waiting, error.error)

    def _finish(self, waiting: _Waiting, reason: str) -> None:
        del self._waiting[waiting.identity]
        if len(self._waiting) < CAPACITY:
            self._room.set()
        waiting.release()
        if waiting.replies:
            self._answer(waiting.replies, reason)

    def _postpone(self, waiting: _Waiting, error: DataplaneError) -> bool:
        """Plan another attempt; False if there were enough."""
        now = asyncio.get_running_loop().time()
        if isinstance(error, InterfaceMissingError):
            if now - waiting.since >= _INTERFACE_PATIENCE or len(self._later) >= _LATER_LIMIT:
                return False
            pause = _INTERFACE_PAUSE
        else:
            waiting.attempts += 1
            if waiting.attempts >= ATTEMPTS:
                return False
            pause = _FIRST_PAUSE * 2 ** (waiting.attempts - 1)
        due = now + pause * random.uniform(0.8, 1.2)  # noqa: S311  jitter needs no secrecy
        heapq.heappush(self._later, (due, next(self._order), waiting.identity))
        return True


def _keys(waiting: Iterable[_Waiting]) -> list[tuple[Domain, PublicKey]]:
    return [(one.change.domain, one.key) for one in waiting]


def _context(waiting: _Waiting) -> dict[str, object]:
    """What logs tell of a key."""
    context: dict[str, object] = {"domain": waiting.identity[0], "public_key": str(waiting.key)}
    if waiting.request_ids:
        context["request_ids"] = list(waiting.request_ids)
    return context
