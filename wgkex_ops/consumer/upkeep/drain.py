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
# Seconds between two searches for peers to release: a snapshot of 20,000 peers is not to be read for each of them.
_SEARCH_EVERY: Final = 60.0
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
        # What is next, as of the last search; when that was, and up to when the pace is kept, by the monotonic clock.
        self._candidates: deque[Change] = deque()
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
        due = int((now - self._paced_at) / pause)
        if not due:
            return
        if not self._candidates and now - self._searched_at >= _SEARCH_EVERY:
            self._searched_at = now
            await self._search()
        removals = [self._candidates.popleft() for _ in range(min(due, len(self._candidates)))]
        # What was not there to be released is not made up for later.
        self._paced_at = self._paced_at + due * pause if removals else now
        await self._remove(removals)

    async def _search(self) -> None:
        try:
            snapshot = await self._read()
        except DataplaneError as error:
            _log.error("snapshot_failed", error=str(error))
            return
        # Thousands of peers take a while.
        self._candidates.extend(await asyncio.to_thread(self._releasable, snapshot))
        _log.info("release_candidates", count=len(self._candidates))

    def _releasable(self, snapshot: Snapshot) -> list[Change]:
        rows = self._journal.rows
        return [
            Change.remove(domain, PublicKey(peer.public_key))
            for name, domain in self._domains.items()
            for peer in snapshot.domains[name].peers
            if (row := rows.get(peer.public_key)) is not None
            and (row.domain, row.version_2) == (name, True)
            and is_active(peer, snapshot.taken_at)
            and peer.has_derived_address
            and peer.link_local in snapshot.domains[name].routes
            and peer.public_key not in self._protected
        ]

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
        if failures := [str(outcome) for outcome in outcomes if outcome is not None]:
            _log.error("peers_not_removed", count=len(failures), error=failures[0])
