"""From offered keys to installed peers: merge, batch, install, try again, give up."""

import asyncio
import contextlib
import heapq
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Final, NoReturn

import structlog

from wgkex_ops.dataplane import Action, Change, Dataplane, Outcome
from wgkex_ops.domains import Domain
from wgkex_ops.errors import DataplaneError, InterfaceMissingError
from wgkex_ops.keys import PublicKey
from wgkex_ops.metrics.worker import ConsumerMetrics
from wgkex_ops.topics import Origin

_log = structlog.get_logger(__name__)

# Ten times what a gateway's reboot brings back at once, at about a kilobyte each.
CAPACITY: Final = 20_000
# What one call of the dataplane gets: enough to make the cost of a call negligible, and little enough for a key that
# arrives now not to wait long for the one before it.
BATCH_LIMIT: Final = 500

# The pause before another attempt doubles from 0.5 s: a key is given up about 8 s after it came. Its node needs the
# peer within 10 s, and asks again within a minute.
ATTEMPTS: Final = 5
_FIRST_PAUSE: Final = 0.5
# A missing interface is waited for as long as it takes its nodes to ask again. Its coming ends the pause.
_INTERFACE_PATIENCE: Final = 60.0
_INTERFACE_PAUSE: Final = 5.0
# One domain without an interface must leave room for the others.
_LATER_LIMIT: Final = CAPACITY // 2

# A key that is offered again and again would fill its log line.
_REQUEST_IDS_KEPT: Final = 8


@dataclass(slots=True)
class _Waiting:
    """A key on its way into the kernel.

    Attributes:
        accepted_at: when the first broker accepted it, by that broker's clock; None if it did not tell.
        request_ids: of the first submissions that offered it.
        done: to be called once this worker takes care of it alone; None when it was.
        attempts: how many failed, those without an interface left out.
        since: when it was offered, by the loop's clock.
    """

    change: Change
    since: float
    accepted_at: float | None
    request_ids: list[str] = field(default_factory=list)
    done: Callable[[], None] | None = None
    attempts: int = 0


class Installer:
    """The one consumer of offered keys. `run` is its only task; nothing but it changes the dataplane.

    Args:
        dataplane: where peers are installed.
        metrics: what became of the keys.
        clock: seconds since the epoch.
    """

    def __init__(self, dataplane: Dataplane, metrics: ConsumerMetrics, clock: Callable[[], float] = time.time) -> None:
        self._dataplane = dataplane
        self._metrics = metrics
        self._clock = clock
        # All that wait, by domain and key; those among them that are to be tried now, in order; those that are to be
        # tried later, by time.
        self._waiting: dict[tuple[str, bytes], _Waiting] = {}
        self._ready: dict[tuple[str, bytes], None] = {}
        self._later: list[tuple[float, int, tuple[str, bytes]]] = []
        self._order = count()
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def room(self) -> None:
        """Wait until there is room for one more key."""
        while len(self._waiting) >= CAPACITY:
            await self._room.wait()

    def offer(self, domain: Domain, key: PublicKey, origin: Origin, done: Callable[[], None]) -> None:
        """Take a key. Whoever offers has waited for room.

        Args:
            domain: where it belongs.
            key: what is to be installed.
            origin: where it comes from.
            done: called once, when the bus need not keep the key any longer: it is installed, given up, merged with
                one that waits, or has to wait itself. Until then it holds a place among the messages that the server
                may send, which all domains share.
        """
        identity = (domain.name, key.raw)
        waiting = self._waiting.get(identity)
        if waiting is None:
            now = asyncio.get_running_loop().time()
            waiting = self._waiting[identity] = _Waiting(
                Change(Action.INSTALL, domain, key), since=now, accepted_at=origin.accepted_at, done=done
            )
            self._ready[identity] = None
            self._idle.clear()
            self._woken.set()
            if len(self._waiting) >= CAPACITY:
                self._room.clear()
        else:
            self._metrics.deduplicated.labels(domain.name).inc()
            done()
        if origin.request_id and len(waiting.request_ids) < _REQUEST_IDS_KEPT:
            waiting.request_ids.append(origin.request_id)
        self._metrics.queue_length.set(len(self._waiting))

    def retry_now(self, domains: Iterable[Domain]) -> None:
        """Try the waiting keys of some domains at once: their interfaces are there again."""
        names = {domain.name for domain in domains}
        for _, _, identity in self._later:
            if identity[0] in names:
                self._ready[identity] = None
        self._later = [item for item in self._later if item[2][0] not in names]
        heapq.heapify(self._later)
        self._woken.set()

    async def drain(self, within: float) -> None:
        """Wait until every key was tried at least once, but no longer than some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._idle.wait()

    async def run(self) -> NoReturn:
        """Install for ever."""
        while True:
            await self._wait_for_work()
            batch = [self._waiting[identity] for identity in islice(self._ready, BATCH_LIMIT)]
            for waiting in batch:
                del self._ready[_identity(waiting)]
            outcomes = await self._dataplane.apply([waiting.change for waiting in batch])
            for waiting, outcome in zip(batch, outcomes, strict=True):
                self._conclude(waiting, outcome)
            self._metrics.queue_length.set(len(self._waiting))
            if len(self._waiting) < CAPACITY:
                self._room.set()

    async def _wait_for_work(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            while self._later and self._later[0][0] <= now():
                self._ready[heapq.heappop(self._later)[2]] = None
            if self._ready:
                return
            self._idle.set()
            self._woken.clear()
            pause = self._later[0][0] - now() if self._later else None
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def _conclude(self, waiting: _Waiting, outcome: Outcome) -> None:
        domain = waiting.change.domain
        context: dict[str, object] = {"domain": domain.name, "public_key": str(waiting.change.key)}
        if waiting.request_ids:
            context["request_ids"] = waiting.request_ids
        if outcome is None:
            self._metrics.installed.labels(domain.name).inc()
            if waiting.accepted_at is not None:
                self._metrics.observe_propagation(self._clock() - waiting.accepted_at, waiting.request_ids)
            _log.info("peer_installed", **context)
            self._finish(waiting)
        elif self._postpone(waiting, outcome):
            _release(waiting)
            _log.warning("peer_postponed", error=str(outcome), attempt=waiting.attempts, **context)
        else:
            self._metrics.install_failures.labels(domain.name).inc()
            _log.error("peer_given_up", error=str(outcome), attempts=waiting.attempts, **context)
            self._finish(waiting)

    def _finish(self, waiting: _Waiting) -> None:
        del self._waiting[_identity(waiting)]
        _release(waiting)

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
        heapq.heappush(self._later, (due, next(self._order), _identity(waiting)))
        return True


def _release(waiting: _Waiting) -> None:
    done, waiting.done = waiting.done, None
    if done is not None:
        done()


def _identity(waiting: _Waiting) -> tuple[str, bytes]:
    return waiting.change.domain.name, waiting.change.key.raw
