"""The worker's page: domains with their interfaces and peers, and what became of the keys."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from wgkex_ops.errors import DataplaneError
from wgkex_ops.http.operator.page.history import History, read_one
from wgkex_ops.http.operator.page.parts import (
    CountRow,
    Fact,
    Moment,
    MqttView,
    Notice,
    Page,
    Recent,
    Tile,
    Tone,
    about,
    name_of,
    sorted_notices,
)
from wgkex_ops.http.operator.page.words import count, things
from wgkex_ops.metrics.cleanup import CleanupMetrics
from wgkex_ops.metrics.worker import ConsumerMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import STATES, DomainState, Incomplete, Snapshot, find_incomplete, handshake_age, peer_state

# Whoever looks at the page wants to see that the dataplane hangs, not to hang as well.
_READ_WITHIN: Final = 5.0

_NOTHING_INSTALLED: Final = Notice(Tone.WARN, "For trying out only: peers are kept in memory, nothing is installed")


@dataclass(frozen=True, slots=True)
class Interface:
    """One of a domain's interfaces, with its state in words."""

    name: str
    state: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class DomainRow:
    """One domain of this gateway.

    Attributes:
        peers: how many there are by state, in the order of `metrics.wireguard.STATES`.
        newest: when the latest handshake was; None while there was none.
        routes: how many are ours.
        missing: how many peers lack a part, by the part, as words.
    """

    name: str
    interfaces: tuple[Interface, ...]
    peers: tuple[tuple[str, int], ...]
    newest: Moment | None
    routes: int
    missing: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """All peers."""
        return sum(number for _, number in self.peers)

    @property
    def active(self) -> int:
        """Peers with a live session."""
        return dict(self.peers)["active"]

    @property
    def active_percent(self) -> str:
        """The part of all peers that has a live session; never rounded to all or to none of them."""
        if not self.total:
            return ""
        percent = 100 * self.active / self.total
        return f"{round(percent) if percent in (0, 100) else min(99, max(1, round(percent)))} %"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPage(Page):
    """All that the worker's page shows.

    Attributes:
        domains: as just read; empty if that failed.
        unread: why the dataplane could not be read; empty if it was.
    """

    template: ClassVar[str] = "worker.html"

    domains: tuple[DomainRow, ...]
    unread: str


class WorkerView:
    """Makes the page.

    Args:
        name: of this worker.
        domains: the configured domains.
        stale_after: the age of a handshake, in seconds, at which the cleanup removes a peer.
        installs_nothing: whether the dataplane is only for trying out.
        read: reads a snapshot, or raises DataplaneError.
        keys: what became of the keys.
        cleanup: what became of old peers.
        mqtt: the session.
        problems: why this process is not ready.
        read_within: seconds that a reading may take.
        clock: of the history; seconds, never set back.
    """

    def __init__(
        self,
        *,
        name: str,
        domains: Sequence[Domain],
        stale_after: float,
        installs_nothing: bool,
        read: Callable[[], Awaitable[Snapshot]],
        keys: ConsumerMetrics,
        cleanup: CleanupMetrics,
        mqtt: MqttView,
        problems: Callable[[], Sequence[str]],
        read_within: float = _READ_WITHIN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._domains = domains
        self._stale_after = stale_after
        self._installs_nothing = installs_nothing
        self._read = read
        self._keys = keys
        self._cleanup = cleanup
        self._mqtt = mqtt
        self._problems = problems
        self._read_within = read_within
        self.history = History(
            [
                keys.received,
                keys.deduplicated,
                keys.rejections,
                keys.installed,
                keys.install_failures,
                cleanup.removed,
                *mqtt.counters,
            ],
            clock,
        )

    async def page(self) -> WorkerPage:
        """Make the page of this moment, from a reading of its own or one that others wait for as well."""
        domains, unread = await self._read_domains()
        now = time.time()
        recent = Recent.of(self.history)
        waiting, capacity = read_one(self._keys.queue_length), read_one(self._keys.queue_capacity)
        return WorkerPage(
            component="worker",
            name=self._name,
            now=now,
            problems=tuple(self._problems()),
            notices=sorted_notices(
                [
                    *([Notice(Tone.BAD, f"The peers could not be read: {unread}")] if unread else []),
                    *([_NOTHING_INSTALLED] if self._installs_nothing else []),
                    *_notices_of_domains(domains),
                    *self._notices_of_keys(recent),
                    *self._mqtt.notices(recent),
                ]
            ),
            tiles=(
                _tile_of_peers(domains, unread),
                recent.tile("Keys installed", self._keys.installed),
                Tile("Keys waiting", count(waiting), f"of {count(capacity)} that may wait"),
                self._mqtt.tile(),
            ),
            columns=recent.headings,
            keys=self._key_rows(recent),
            mqtt=tuple(self._mqtt.facts(recent, now)),
            about=about(now, self.history, [Fact("Dataplane", "memory" if self._installs_nothing else "kernel")]),
            domains=domains,
            unread=unread,
        )

    async def _read_domains(self) -> tuple[tuple[DomainRow, ...], str]:
        """The domains, or why they could not be read."""
        try:
            async with asyncio.timeout(self._read_within):
                snapshot = await self._read()
        except DataplaneError as error:
            return (), str(error)
        except TimeoutError:
            return (), f"no answer within {self._read_within:g} s"
        # Tens of thousands of peers take a while.
        return await asyncio.to_thread(_domain_rows, snapshot, self._domains, self._stale_after), ""

    def _key_rows(self, recent: Recent) -> tuple[CountRow, ...]:
        keys = self._keys
        return (
            *recent.rows("Received", Tone.PLAIN, keys.received),
            *recent.rows("Installed, new or refreshed", Tone.PLAIN, keys.installed),
            *recent.rows("Merged with one that waited", Tone.PLAIN, keys.deduplicated),
            *recent.rows_with_reasons("Rejected", Tone.WARN, keys.rejections),
            *recent.rows("Given up: no tunnel", Tone.BAD, keys.install_failures),
            *recent.rows("Removed: the node has gone", Tone.PLAIN, self._cleanup.removed),
        )

    def _notices_of_keys(self, recent: Recent) -> list[Notice]:
        failed = recent.latest.total(self._keys.install_failures)
        rejected = recent.latest.total(self._keys.rejections)
        notices = []
        if failed:
            notices.append(Notice(Tone.BAD, f"{things(failed, 'key')} could not be installed {name_of(recent.latest)}"))
        if rejected:
            was = "was" if rejected == 1 else "were"
            text = f"{things(rejected, 'key')} from MQTT {was} rejected {name_of(recent.latest)}"
            notices.append(Notice(Tone.WARN, f"{text}; the reasons are below"))
        return notices


def _domain_rows(snapshot: Snapshot, domains: Sequence[Domain], stale_after: float) -> tuple[DomainRow, ...]:
    drifts = find_incomplete(snapshot)
    return tuple(
        _domain_row(domain, snapshot.domains[domain.name], drifts[domain.name], snapshot.taken_at, stale_after)
        for domain in domains
    )


def _domain_row(domain: Domain, state: DomainState, drift: Incomplete, now: float, stale_after: float) -> DomainRow:
    states = Counter(peer_state(handshake_age(peer, now), stale_after) for peer in state.peers)
    newest = max((peer.handshake for peer in state.peers), default=0.0)
    missing = (("peer", drift.peer), ("route", drift.route), ("FDB entry", drift.fdb))
    return DomainRow(
        name=domain.name,
        interfaces=(
            _interface(domain.wg, present=state.wg_present, up=state.wg_up),
            _interface(domain.vx, present=state.vx_present, up=state.vx_up),
        ),
        peers=tuple((name, states[name]) for name in STATES),
        newest=Moment.before(now, newest) if newest else None,
        routes=len(state.routes),
        missing=tuple((part, len(addresses)) for part, addresses in missing if addresses),
    )


def _interface(name: str, *, present: bool, up: bool) -> Interface:
    if up:
        return Interface(name, "up", Tone.GOOD)
    return Interface(name, "down" if present else "missing", Tone.BAD)


def _tile_of_peers(domains: Sequence[DomainRow], unread: str) -> Tile:
    if unread:
        return Tile("Active peers", "unknown", "the peers could not be read", Tone.BAD)
    active, total = sum(row.active for row in domains), sum(row.total for row in domains)
    return Tile("Active peers", f"{count(active)} of {count(total)}", "handshake in the last 3 min")


def _notices_of_domains(rows: Sequence[DomainRow]) -> list[Notice]:
    return Notice.about(
        Tone.WARN,
        "Domains with peers that lack a part: their nodes may have no mesh here until they ask again",
        [row.name for row in rows if row.missing],
    )
