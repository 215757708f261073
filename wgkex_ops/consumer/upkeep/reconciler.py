"""Makes the dataplane what the journal wants, whatever the reason why it is not.

After a reboot, with an interface that was created anew, and where another program has removed a part of a peer: the
reconciler compares and repairs.
"""

import asyncio
import contextlib
import operator
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NoReturn

import structlog

from wgkex_ops.consumer.admission import Admission, Requests
from wgkex_ops.consumer.dataplane.scans import Scan, SerializedDataplane
from wgkex_ops.consumer.upkeep.connectivity import Connectivity
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.consumer.upkeep.journal_file import Row
from wgkex_ops.consumer.upkeep.refused_peers import RefusedPeers
from wgkex_ops.errors import DataplaneError
from wgkex_ops.metrics.journal import RepairMetrics
from wgkex_ops.model.changes import Action, Change
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.peers import PARTS, DomainState, Snapshot, is_active

_log = structlog.get_logger(__name__)

INTERVAL: Final = 60.0
# Interfaces come and go in groups: one scan for all of them.
_GATHERING: Final = 0.25
_FIRST_SNAPSHOT_PAUSE: Final = 5.0
# Keys that nodes request have their turn after so many.
_BATCH_LIMIT: Final = 500

# By change, the parts of a peer (of PARTS) that it brings back; none for one that removes.
Plan = dict[Change, tuple[str, ...]]


class Reconciler:
    """Compares and repairs: at the start, when an interface has changed, and once a minute.

    Args:
        dataplane: what is compared, and repaired.
        journal: what should be there.
        admission: learns what is there.
        requests: notes peers that are restored, and so have no handshake.
        domains: the configured domains.
        refused: removes what the key lists refuse.
        connectivity: learns what is there, too.
        metrics: what was repaired.
        interval: seconds between scans, on average.
        clock: that of the admission.
    """

    def __init__(
        self,
        dataplane: SerializedDataplane,
        journal: Journal,
        admission: Admission,
        requests: Requests,
        domains: Sequence[Domain],
        *,
        refused: RefusedPeers,
        connectivity: Connectivity,
        metrics: RepairMetrics,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dataplane = dataplane
        self._journal = journal
        self._admission = admission
        self._requests = requests
        self._refused = refused
        self._connectivity = connectivity
        self._domains = domains
        self._metrics = metrics
        self._interval = interval
        self._clock = clock
        self._triggered = asyncio.Event()

    def trigger(self) -> None:
        """Scan soon: an interface has changed, or a key list."""
        self._triggered.set()

    async def restore(self, within: float) -> None:
        """Restore what a reboot has taken away, for some seconds at the most; the next scans do what is left."""
        try:
            async with asyncio.timeout(within):
                await self.reconcile()
        except TimeoutError:
            _log.error("restore_unfinished", detail=f"not within {within:g} s; the next scans go on with it")

    async def run(self) -> NoReturn:
        """Compare and repair for ever."""
        while True:
            # Gateways that have started together need not scan together.
            pause = self._interval * random.uniform(0.9, 1.1)  # noqa: S311  jitter needs no secrecy
            if not self._admission.ready.is_set():
                # No key is taken before the first snapshot.
                pause = _FIRST_SNAPSHOT_PAUSE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._triggered.wait()
                    await asyncio.sleep(_GATHERING)
            self._triggered.clear()
            await self.reconcile()

    async def reconcile(self) -> None:
        """Compare once, and repair what differs."""
        begun = self._clock()
        try:
            async with self._dataplane.scanning() as scan:
                read_at = self._clock()
                await self._journal.observe(scan.snapshot, scan.touched)
                await self._admission.learn(scan.snapshot, begun)
                await self._connectivity.observe(scan.snapshot, read_at)
                await self._refused.remove(scan)
                # Thousands of peers take a while, and the journal goes on meanwhile.
                plan = await asyncio.to_thread(plan_repairs, scan.snapshot, dict(self._journal.rows), self._domains)
                await self._repair(scan, plan)
        except DataplaneError as error:
            _log.error("snapshot_failed", error=str(error))

    async def _repair(self, scan: Scan, plan: Plan) -> None:
        changes = list(plan)
        done: Counter[tuple[str, str]] = Counter()
        failures: list[str] = []
        try:
            for start in range(0, len(changes), _BATCH_LIMIT):
                for change, outcome in (await scan.apply(changes[start : start + _BATCH_LIMIT])).items():
                    if outcome is not None:
                        failures.append(str(outcome))
                    else:
                        done.update((change.domain.name, what) for what in self._count(change, plan[change]))
        finally:
            # The start may cut it short.
            for domain in self._domains:
                counts = {what: number for (name, what), number in done.items() if name == domain.name}
                if counts:
                    _log.info("peers_repaired", domain=domain.name, **counts)
            if failures:
                _log.error("peers_not_repaired", count=len(failures), error=failures[0])

    def _count(self, change: Change, missing: tuple[str, ...]) -> Sequence[str]:
        """Count a change that was carried out, and name what it was for the log."""
        domain = change.domain.name
        if change.action is not Action.INSTALL:
            return ("removed",)
        self._admission.note(change)
        if "peer" in missing:
            # It has no handshake now, and its node needs time for one.
            self._requests.note(change.key)
        if missing == PARTS:
            self._metrics.restored.labels(domain).inc()
            return ("restored",)
        for part in missing:
            self._metrics.repairs.labels(domain, part).inc()
        return missing


def plan_repairs(snapshot: Snapshot, rows: Mapping[bytes, Row], domains: Sequence[Domain]) -> Plan:
    """Compare what is there with what the journal wants, in the domains whose interfaces are ready.

    Whatever is another program's stays: a peer with other allowed IPs, a route with another number, and the addresses
    that they have.

    Args:
        snapshot: what is there.
        rows: what should be there, by key.
        domains: the configured domains.

    Returns:
        first what leads to no peer, or was left behind, and is removed; then what is installed, those that had a
        handshake last first.
    """
    wanted: dict[str, list[Row]] = {domain.name: [] for domain in domains}
    for row in rows.values():
        if row.domain in wanted:
            wanted[row.domain].append(row)
    removals: list[Change] = []
    installs: list[tuple[float, Change, tuple[str, ...]]] = []
    for domain in domains:
        state = snapshot.domains[domain.name]
        if not state.ready:
            # Its coming is an event.
            continue
        missing = list(_missing(domain, state, wanted[domain.name], _taken(snapshot, domain, state)))
        led_to = {peer.link_local for peer in state.peers}.union(
            state.shared_addresses, (one.address for _, one, _ in missing)
        )
        removals += _left_behind(domain, state, rows, snapshot.taken_at)
        removals += [Change.clear(domain, address) for address in state.routes - led_to]
        installs += missing
    installs.sort(key=operator.itemgetter(0), reverse=True)
    return dict.fromkeys(removals, ()) | {change: missing for _, change, missing in installs}


def _left_behind(domain: Domain, state: DomainState, rows: Mapping[bytes, Row], now: float) -> Iterator[Change]:
    """Peers whose key the journal wants in another domain, without a route, as another installation has taken it."""
    for peer in state.peers:
        if peer.link_local in state.routes or peer.link_local in state.foreign_routes:
            continue
        row = rows.get(peer.public_key)
        if row is not None and row.domain != domain.name and peer.has_derived_address and not is_active(peer, now):
            yield Change.remove(domain, PublicKey(peer.public_key))


def _taken(snapshot: Snapshot, domain: Domain, state: DomainState) -> frozenset[bytes]:
    """The addresses that another program, or another domain, has: a repair would take them."""
    others = (other.routes for name, other in snapshot.domains.items() if name != domain.name)
    return snapshot.routed_by_others.union(snapshot.routed_elsewhere, state.shared_addresses, *others)


def _missing(
    domain: Domain, state: DomainState, wanted: Sequence[Row], taken: frozenset[bytes]
) -> Iterator[tuple[float, Change, tuple[str, ...]]]:
    """The peers that lack a part: when they were last heard of, their installation, and which parts they lack."""
    present = {peer.public_key: peer.link_local for peer in state.peers}
    owners = {peer.link_local: peer.public_key for peer in state.peers}
    for row in wanted:
        address = present.get(row.key, b"")
        if address and address in state.routes and address in state.fdb_entries:
            # Complete; its address was derived when it was installed.
            continue
        address = link_local(row.key)
        # A peer whose only allowed IP was deleted is still ours; one that was given others belongs to another program.
        given_others = present.get(row.key, address) != address and row.key not in state.unaddressed
        theirs = row.key == state.public_key or given_others
        if theirs or address in taken or owners.get(address, row.key) != row.key:
            continue
        there = (present.get(row.key) == address, address in state.routes, address in state.fdb_entries)
        yield (
            max(row.handshake, row.installed_at),
            Change.install(domain, PublicKey(row.key)),
            tuple(part for part, present in zip(PARTS, there, strict=True) if not present),
        )
