"""From requested keys to installed peers: merge, batch, judge, install, try again, give up.

The bus keeps a key's message until the key is installed, given up, or postponed for the first time. From then on
brokers send it again, as they do with all keys that a gateway has not confirmed.
"""

import asyncio
import contextlib
import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import count, islice
from typing import Final, NamedTuple, NoReturn, Protocol

import msgspec
import structlog

from wgkex_ops.bus.messages import Origin, ReceiptAddress
from wgkex_ops.consumer.admission import Admission
from wgkex_ops.consumer.dataplane.base import Dataplane
from wgkex_ops.errors import DataplaneError, InterfaceMissingError
from wgkex_ops.logs import log_each
from wgkex_ops.metrics.worker import ConsumerMetrics
from wgkex_ops.model.changes import Change, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey

_log = structlog.get_logger(__name__)

# Ten times what a gateway's reboot brings back at once, at about a kilobyte each.
CAPACITY: Final = 20_000
# What one call of the dataplane gets: enough to make the cost of a call negligible, and little enough for a key that
# arrives now not to wait long for the one before it.
BATCH_LIMIT: Final = 500

# The pause before another attempt doubles from 0.5 s: a key is given up about 8 s after it came. Its node needs the
# peer within 10 s, and requests it again within a minute.
ATTEMPTS: Final = 5
_FIRST_PAUSE: Final = 0.5
# A missing interface is waited for as long as it takes its nodes to request their keys again. When it comes, the pause
# ends.
_INTERFACE_TIMEOUT: Final = 60.0
_INTERFACE_PAUSE: Final = 5.0
# One domain without an interface must leave room for the others.
_LATER_LIMIT: Final = CAPACITY // 2

# A key that is requested again and again would fill its log line, and the memory.
_REQUEST_IDS_KEPT: Final = 8
_RECEIPTS_KEPT: Final = 64


class Installed(Protocol):
    """Notes what was installed, before the bus and the brokers hear of it. Raises nothing, and does not take long."""

    async def install(
        self,
        installed: Sequence[tuple[Domain, PublicKey]],
        gone: Collection[bytes],
        by_version_2: Collection[bytes] = (),
    ) -> None:
        """Note peers that were installed, and keys (32 bytes) whose peers were removed for them.

        Args:
            installed: in this order.
            gone: those keys.
            by_version_2: the installed keys (32 bytes) whose nodes asked by version 2.
        """


class SendReceipts(Protocol):
    """Sends receipts for a key to brokers. It does not wait, and raises nothing."""

    def __call__(self, to: Sequence[ReceiptAddress], reason: str) -> None:
        """Send one to each address.

        Args:
            to: where receipts are wanted.
            reason: why the key was given up, a slug or the kernel's name of an error; empty if it is installed.
        """


class _Waiting(msgspec.Struct):
    """A key on its way into the kernel.

    Attributes:
        identity: the name of its domain, and its 32 bytes.
        since: when it was requested, by the loop's clock.
        accepted_at: when the first broker accepted it, by that broker's clock; None if that is not known.
        request_ids: of the first submissions of it.
        receipts_to: where receipts are wanted.
        done: to be called when the bus need not keep the key any longer; None if the bus does not keep it.
        postponed: whether an attempt has failed: then brokers keep it in place of the bus.
        attempts: how many failed, those without an interface left out.
        version_2: whether its node asked by version 2, the last time.
    """

    identity: tuple[str, bytes]
    key: PublicKey
    change: Change
    since: float
    accepted_at: float | None
    request_ids: tuple[str, ...] = ()
    receipts_to: tuple[ReceiptAddress, ...] = ()
    done: Callable[[], None] | None = None
    postponed: bool = False
    attempts: int = 0
    version_2: bool = False

    def join(self, origin: Origin, done: Callable[[], None] | None) -> None:
        """Take in one more message with this key."""
        if origin.request_id and len(self.request_ids) < _REQUEST_IDS_KEPT:
            self.request_ids += (origin.request_id,)
        self.version_2 = origin.api_version == 2  # noqa: PLR2004  the version itself
        address = origin.receipt_to
        if address is not None and len(self.receipts_to) < _RECEIPTS_KEPT and address not in self.receipts_to:
            self.receipts_to += (address,)
        if done is not None:
            # One message is enough for the bus to keep, and it is the latest: that one came on the connection that
            # lasts. An earlier one may be the same, from before a reconnect, and can no longer be acknowledged.
            self.release()
            self.done = done
            if self.postponed:
                self.release()

    def release(self) -> None:
        """The bus need not keep the key any longer."""
        done, self.done = self.done, None
        if done is not None:
            done()


class _Result(NamedTuple):
    """What became of a batch.

    Attributes:
        outcomes: of the keys that could be tried.
        refused: those that may not be installed, and why.
        gone: keys (32 bytes) whose peers were displaced.
    """

    outcomes: list[tuple[_Waiting, Outcome]]
    refused: list[tuple[_Waiting, str]]
    gone: list[bytes]


class Installer:
    """The one consumer of requested keys. `run` is its only task.

    Args:
        dataplane: where peers are installed.
        admission: which keys may not be installed.
        journal: notes what was installed.
        metrics: what became of the keys.
        lists: the operators' key lists, for the names of keys.
        send_receipts: reports to brokers what became of each key.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        dataplane: Dataplane,
        admission: Admission,
        journal: Installed,
        metrics: ConsumerMetrics,
        *,
        lists: Callable[[], KeyLists],
        send_receipts: SendReceipts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._dataplane = dataplane
        self._admission = admission
        self._journal = journal
        self._metrics = metrics
        self._lists = lists
        self._send_receipts = send_receipts
        self._clock = clock
        # All that wait, by domain and key; those among them that are to be tried now, in order; those that are to be
        # tried later, by time.
        self._waiting: dict[tuple[str, bytes], _Waiting] = {}
        # To set it with each change would cost more than the change.
        metrics.queue_length.set_function(lambda: len(self._waiting))
        self._ready: dict[tuple[str, bytes], None] = {}
        self._later: list[tuple[float, int, tuple[str, bytes]]] = []
        self._order = count()
        self._busy_since: float | None = None
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def room(self) -> None:
        """Wait until there is room for one more key."""
        while len(self._waiting) >= CAPACITY:
            await self._room.wait()

    def request(self, domain: Domain, key: PublicKey, origin: Origin, done: Callable[[], None] | None) -> None:
        """Take a key, after `room`.

        Args:
            domain: where it belongs.
            key: what is to be installed.
            origin: where it comes from.
            done: called once, when the bus need not keep this message any longer: its key is installed, given up,
                postponed, or held by a later message. Until then it has a place among the messages that the server
                may send, which all domains share. None if the bus does not keep it.
        """
        waiting = self._waiting.get((domain.name, key.raw))
        if waiting is None:
            waiting = self._add(domain, key, origin.accepted_at)
        else:
            self._metrics.deduplicated.labels(domain.name).inc()
        waiting.join(origin, done)

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
        """For how many seconds it has been at one batch; 0.0 while it waits for work."""
        return 0.0 if self._busy_since is None else asyncio.get_running_loop().time() - self._busy_since

    async def finish(self, within: float) -> None:
        """Wait until every key was tried at least once, but no longer than some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._idle.wait()

    async def run(self) -> NoReturn:
        """Install for ever. What comes while the kernel works on keys, and those before are concluded, is next."""
        while True:
            await self._wait_for_work()
            result = await self._install(self._take())
            while following := self._take():
                # In this order: the kernel has its work before the other one begins.
                result, _ = await asyncio.gather(self._install(following), self._conclude(result))
            await self._conclude(result)

    def _take(self) -> list[_Waiting]:
        """Take the next batch of what is to be tried now, each address once; nothing if there is none."""
        now = asyncio.get_running_loop().time()
        while self._later and self._later[0][0] <= now:
            self._ready[heapq.heappop(self._later)[2]] = None
        # Of two that want the same address, the later one is judged when the earlier one is there.
        batch: dict[bytes, _Waiting] = {}
        for identity in islice(self._ready, BATCH_LIMIT):
            waiting = self._waiting[identity]
            batch.setdefault(waiting.change.address, waiting)
        for waiting in batch.values():
            del self._ready[waiting.identity]
        self._busy_since = now
        return list(batch.values())

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

    async def _install(self, batch: Sequence[_Waiting]) -> _Result:
        """Have the kernel install all that may be installed."""
        changes = {waiting.change: waiting for waiting in batch}
        try:
            verdict = await self._admission.judge(list(changes))
        except DataplaneError as error:
            return _Result([(waiting, error) for waiting in batch], [], [])
        not_evicted = await self._evict(verdict.evicted)
        admitted = [one for one in changes if one.address not in verdict.refused and one.address not in not_evicted]
        displaced = [change for change in verdict.displaced if change.address not in not_evicted]
        # In this order: a peer that has the address goes before another one gets it.
        outcomes = (await self._dataplane.apply([*displaced, *admitted]))[len(displaced) :]
        result = _Result(
            [
                *((changes[change], outcome) for change, outcome in zip(admitted, outcomes, strict=True)),
                *((one, not_evicted[address]) for one in batch if (address := one.change.address) in not_evicted),
            ],
            [(waiting, reason) for waiting in batch if (reason := verdict.refused.get(waiting.change.address))],
            [change.key for change in displaced],
        )
        for waiting, outcome in result.outcomes:
            if outcome is None:
                self._admission.note(waiting.change)
        return result

    async def _evict(self, evicted: Mapping[bytes, Change]) -> dict[bytes, DataplaneError]:
        """Remove peers, by the addresses of those that get the room; why the kernel did not make room for some."""
        if not evicted:
            return {}
        outcomes = dict(zip(evicted, await self._dataplane.apply(list(evicted.values())), strict=True))
        removed = [evicted[address] for address, outcome in outcomes.items() if outcome is None]
        self._report_evicted(removed)
        # Before others are installed, or a scan meanwhile would bring these back.
        await self._journal.install((), [change.key for change in removed])
        return {address: outcome for address, outcome in outcomes.items() if outcome is not None}

    def _report_evicted(self, removed: Sequence[Change]) -> None:
        for change in removed:
            self._admission.forget(change)
            self._metrics.evicted.labels(change.domain.name).inc()
        if removed:
            lists = self._lists()
            log_each(
                __name__,
                "peer_evicted",
                (lists.describe(change.domain.name, PublicKey(change.key)) for change in removed),
            )

    async def _conclude(self, result: _Result) -> None:
        """Inform the journal, then the bus and the brokers. Until then each key waits, and takes later messages in."""
        now = self._clock()
        installed = [waiting for waiting, outcome in result.outcomes if outcome is None]
        if installed or result.gone:
            by_version_2 = {one.key.raw for one in installed if one.version_2}
            await self._journal.install([(one.change.domain, one.key) for one in installed], result.gone, by_version_2)
        self._succeed(installed, now)
        for waiting, reason in result.refused:
            self._refuse(waiting, reason)
        for waiting, outcome in result.outcomes:
            if outcome is not None:
                self._fail(waiting, outcome)

    def _succeed(self, installed: Sequence[_Waiting], now: float) -> None:
        for domain, number in Counter(waiting.identity[0] for waiting in installed).items():
            self._metrics.installed.labels(domain).inc(number)
        self._metrics.observe_propagation(
            (now - waiting.accepted_at, waiting.request_ids) for waiting in installed if waiting.accepted_at is not None
        )
        log_each(__name__, "peer_installed", map(self._context, installed))
        for waiting in installed:
            self._finish(waiting, "")

    def _refuse(self, waiting: _Waiting, reason: str) -> None:
        self._metrics.rejections.labels(reason).inc()
        _log.warning("key_refused", reason=reason, **self._context(waiting))
        self._finish(waiting, reason)

    def _fail(self, waiting: _Waiting, error: DataplaneError) -> None:
        """Plan another attempt, or give the key up."""
        if self._postpone(waiting, error):
            _log.warning("peer_postponed", error=str(error), attempt=waiting.attempts, **self._context(waiting))
            waiting.postponed = True
            waiting.release()
        else:
            self._metrics.install_failures.labels(waiting.change.domain.name).inc()
            _log.error("peer_given_up", error=str(error), attempts=waiting.attempts, **self._context(waiting))
            self._finish(waiting, error.error)

    def _finish(self, waiting: _Waiting, reason: str) -> None:
        del self._waiting[waiting.identity]
        if len(self._waiting) < CAPACITY:
            self._room.set()
        waiting.release()
        if waiting.receipts_to:
            self._send_receipts(waiting.receipts_to, reason)

    def _postpone(self, waiting: _Waiting, error: DataplaneError) -> bool:
        """Plan another attempt; False if there were enough."""
        now = asyncio.get_running_loop().time()
        if isinstance(error, InterfaceMissingError):
            if now - waiting.since >= _INTERFACE_TIMEOUT or len(self._later) >= _LATER_LIMIT:
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

    def _context(self, waiting: _Waiting) -> dict[str, object]:
        """What is logged of a key."""
        context: dict[str, object] = {**self._lists().describe(waiting.identity[0], waiting.key)}
        if waiting.request_ids:
            context["request_ids"] = list(waiting.request_ids)
        return context
