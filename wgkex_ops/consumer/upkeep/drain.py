"""Takes this gateway out of service: brokers send no new node here, and peers of those that they sent are released."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

import structlog
from prometheus_client import Counter

from wgkex_ops.consumer.dataplane.scans import SerializedDataplane
from wgkex_ops.consumer.upkeep.drain_file import DrainFileError, DrainOrder, read_order
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.errors import DataplaneError
from wgkex_ops.logs import log_each
from wgkex_ops.metrics.drain import DrainMetrics
from wgkex_ops.model.changes import Change
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import RELEASED, Snapshot, is_active

_log = structlog.get_logger(__name__)

# Seconds. Two after the command, no broker sends a new node here.
_CHECK_EVERY: Final = 0.5
# Seconds between two searches for peers to release: a snapshot of 20,000 peers is not to be read for each of them, and
# in a minute few of those that were found go idle.
_SEARCH_EVERY: Final = 60.0
# Seconds. A worker that was held up for an hour (a host that was paused, a kernel that hangs) owes an hour's releases:
# all of these nodes would ask at the same moment. So no more go at once than in this time.
_LONGEST_BURST: Final = 5.0
_MINUTE: Final = 60.0


class Drain:
    """Follows the order's file, and releases peers at the pace that it names.

    A peer is released if its node has a live session and last asked by version 2: it asks again within minutes, and a
    broker sends it elsewhere. A node of version 1 chooses its gateway itself, and may come back here.

    Args:
        folder: where the file is.
        dataplane: where peers are removed.
        read: reads a snapshot, or raises DataplaneError.
        journal: knows which nodes asked by version 2, and forgets what is released.
        domains: the configured domains.
        protected: keys (32 bytes) whose peers are never removed.
        lists: the operators' key lists, for the names of keys.
        metrics: whether this gateway drains.
        removed: counts removed peers, by domain and reason.
        clock: seconds since the epoch.
        monotonic: seconds by a clock that is never set back.

    Attributes:
        order: what is in force; None while this gateway takes new nodes.
        on_change: called when the gateway begins or ceases to drain.
    """

    def __init__(
        self,
        folder: Path,
        dataplane: SerializedDataplane,
        read: Callable[[], Awaitable[Snapshot]],
        journal: Journal,
        domains: Sequence[Domain],
        *,
        protected: Container[bytes],
        lists: Callable[[], KeyLists],
        metrics: DrainMetrics,
        removed: Counter,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._dataplane = dataplane
        self._read = read
        self._journal = journal
        self._domains: Mapping[str, Domain] = {domain.name: domain for domain in domains}
        self._protected = protected
        self._lists = lists
        self._metrics = metrics
        self._removed = removed
        self._clock = clock
        self._monotonic = monotonic
        self.order: DrainOrder | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._unreadable = ""
        # What is next, as of the last search; keys (32 bytes) of peers that the kernel has refused to remove.
        self._candidates: deque[Change] = deque()
        self._refused: set[bytes] = set()
        # When that search was, and up to when the pace is kept, by the monotonic clock.
        self._searched_at = -_SEARCH_EVERY
        self._paced_at = 0.0

    async def run(self) -> NoReturn:
        """Follow the file for ever."""
        while True:
            await self.follow()
            await self.release()
            await asyncio.sleep(_CHECK_EVERY)

    async def follow(self) -> None:
        """Read the file. One that says nothing usable is an order all the same: somebody wants no nodes here."""
        try:
            order = await asyncio.to_thread(read_order, self._folder)
            problem = ""
        except DrainFileError as error:
            problem = str(error)
            order = self.order or DrainOrder(self._clock())
        except OSError as error:
            problem = f"{self._folder}: {error.strerror}"
            order = self.order
        if problem != self._unreadable:
            self._unreadable = problem
            if problem:
                _log.error("drain_file_unreadable", detail=problem, draining=order is not None)
        if order != self.order:
            self._obey(order)

    def _obey(self, order: DrainOrder | None) -> None:
        begins_or_ends = (order is None) != (self.order is None)
        self.order = order
        self._metrics.draining.set(order is not None)
        self._candidates.clear()
        self._refused.clear()
        self._searched_at = -_SEARCH_EVERY
        self._paced_at = self._monotonic()
        if order is None:
            _log.info("drain_ended", detail="brokers send new nodes here again")
        else:
            _log.info("draining", release_per_minute=order.release_per_minute)
        if begins_or_ends:
            self.on_change()

    async def release(self) -> None:
        """Remove as many peers as the pace allows by now."""
        if self.order is None or not self.order.release_per_minute:
            return
        now, pause = self._monotonic(), _MINUTE / self.order.release_per_minute
        owed = int((now - self._paced_at) / pause)
        if not owed:
            return
        if now - self._searched_at >= _SEARCH_EVERY:
            self._searched_at = now
            await self._search()
        removals = self._next(due := min(owed, max(1, int(_LONGEST_BURST / pause))))
        # Neither what was not there to be released nor what is too much at once is made up for later.
        self._paced_at = self._paced_at + due * pause if removals and due == owed else now
        await self._remove(removals)

    def _next(self, count: int) -> list[Change]:
        """Take up to so many candidates that are still to go: other things have happened since the search."""
        found: list[Change] = []
        while self._candidates and len(found) < count:
            change = self._candidates.popleft()
            if self._may_go(change.domain.name, change.key):
                found.append(change)
        return found

    async def _search(self) -> None:
        # Without a new snapshot, nobody knows which sessions of the last one are still live.
        self._candidates.clear()
        try:
            snapshot = await self._read()
        except DataplaneError as error:
            _log.error("snapshot_failed", error=str(error))
            return
        # Thousands of peers take a while.
        found = await asyncio.to_thread(self._releasable, snapshot)
        # At a slow pace, those that the kernel keeps would be all that is ever tried.
        self._candidates.extend(sorted(found, key=lambda change: change.key in self._refused))
        _log.info("release_candidates", count=len(self._candidates))

    def _releasable(self, snapshot: Snapshot) -> list[Change]:
        return [
            Change.remove(domain, PublicKey(peer.public_key))
            for name, domain in self._domains.items()
            for peer in snapshot.domains[name].peers
            if self._may_go(name, peer.public_key)
            and is_active(peer, snapshot.taken_at)
            and peer.has_derived_address
            and peer.link_local in snapshot.domains[name].routes
        ]

    def _may_go(self, domain: str, key: bytes) -> bool:
        """Whether a broker has sent a key's (32 bytes) node here, to this domain, and it is not protected."""
        row = self._journal.rows.get(key)
        return row is not None and (row.domain, row.version_2) == (domain, True) and key not in self._protected

    async def _remove(self, removals: Sequence[Change]) -> None:
        outcomes = await self._dataplane.apply(removals) if removals else ()
        removed = [change for change, outcome in zip(removals, outcomes, strict=True) if outcome is None]
        # Before anything else: a scan would bring these back.
        await self._journal.forget(change.key for change in removed)
        for change in removed:
            self._removed.labels(change.domain.name, RELEASED).inc()
        lists = self._lists()
        log_each(
            __name__,
            "peer_removed",
            ({**lists.describe(change.domain.name, PublicKey(change.key)), "reason": RELEASED} for change in removed),
        )
        failures = {
            change.key: str(outcome) for change, outcome in zip(removals, outcomes, strict=True) if outcome is not None
        }
        if failures:
            self._refused.update(failures)
            _log.error("peers_not_removed", count=len(failures), error=next(iter(failures.values())))
