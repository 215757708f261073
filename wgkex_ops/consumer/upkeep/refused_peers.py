"""Removes the peers of keys that the operators' lists refuse."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import structlog

from wgkex_ops.consumer.dataplane.scans import Scan
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.consumer.upkeep.journal_file import Row
from wgkex_ops.logs import log_each
from wgkex_ops.metrics.cleanup import CleanupMetrics
from wgkex_ops.model.changes import Change
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.names import DENIED_KEY, NOT_ALLOWED_KEY
from wgkex_ops.model.peers import DENIED, NOT_ALLOWED, Snapshot

_log = structlog.get_logger(__name__)

# Keys that nodes request have their turn after so many.
_BATCH_LIMIT: Final = 250
# Of removals, by that of refusals.
_REASONS: Final = MappingProxyType({DENIED_KEY: DENIED, NOT_ALLOWED_KEY: NOT_ALLOWED})


class RefusedPeers:
    """Compares the journal with the lists.

    Args:
        domains: the configured domains.
        journal: has all peers of ours; forgets those that are refused.
        lists: the key lists in force.
        metrics: counts removals.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        journal: Journal,
        lists: Callable[[], KeyLists],
        metrics: CleanupMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._domains = {domain.name: domain for domain in domains}
        self._journal = journal
        self._lists = lists
        self._metrics = metrics
        self._clock = clock

    async def remove(self, scan: Scan) -> None:
        """Remove them from the kernel, and from the journal, so that they do not come back.

        Args:
            scan: what is there; the journal has been compared with it.
        """
        lists = self._lists()
        # Thousands of peers take a while, and the journal goes on meanwhile.
        refused, theirs = await asyncio.to_thread(self._plan, scan.snapshot, dict(self._journal.rows), lists)
        changes = list(refused)
        for start in range(0, len(changes), _BATCH_LIMIT):
            batch = changes[start : start + _BATCH_LIMIT]
            ours = [change for change in batch if change not in theirs]
            outcomes = await scan.apply(ours)
            failures = [str(outcome) for outcome in outcomes.values() if outcome is not None]
            kept = scan.touched.union(change.address for change, outcome in outcomes.items() if outcome is not None)
            await self._journal.forget(change.key for change in batch if change.address not in kept)
            self._report(
                {change: refused[change] for change in outcomes if change.address not in kept}, failures, lists
            )

    def _plan(
        self, snapshot: Snapshot, rows: Mapping[bytes, Row], lists: KeyLists
    ) -> tuple[dict[Change, str], set[Change]]:
        """The removals with their reasons, and those among them that only the journal needs."""
        now = self._clock()
        refused = {
            Change.remove(self._domains[row.domain], PublicKey(key)): _REASONS[reason]
            for key, row in rows.items()
            if row.domain in self._domains and (reason := lists.refusal(row.domain, key, now))
        }
        return refused, _peers_of_others(snapshot, refused) if refused else set()

    def _report(self, removed: Mapping[Change, str], failures: Sequence[str], lists: KeyLists) -> None:
        for change, reason in removed.items():
            self._metrics.removed.labels(change.domain.name, reason).inc()
        log_each(
            __name__,
            "peer_removed",
            (
                {**lists.describe(change.domain.name, PublicKey(change.key)), "reason": reason}
                for change, reason in removed.items()
            ),
        )
        if removed:
            _log.info("peers_removed", **Counter(removed.values()))
        if failures:
            _log.error("peers_not_removed", count=len(failures), error=failures[0])


def _peers_of_others(snapshot: Snapshot, removals: Iterable[Change]) -> set[Change]:
    """Those of some removals whose peer another program has changed: it has other addresses, or another route."""
    addresses = {
        domain: {peer.public_key: peer.link_local for peer in state.peers} for domain, state in snapshot.domains.items()
    }

    def is_of_others(change: Change) -> bool:
        state = snapshot.domains[change.domain.name]
        readdressed = addresses[change.domain.name].get(change.key, change.address) != change.address
        rerouted = change.address in state.foreign_routes and change.address not in state.routes
        return rerouted or (readdressed and change.key not in state.unaddressed)

    return set(filter(is_of_others, removals))
