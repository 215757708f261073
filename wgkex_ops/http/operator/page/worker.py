"""The worker's page: domains with their interfaces and peers, and what became of the keys."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from wgkex_ops.errors import DataplaneError
from wgkex_ops.http.operator.page.common import MqttView, Recent, about, notices_of_lists
from wgkex_ops.http.operator.page.history import History, read_one
from wgkex_ops.http.operator.page.parts import Notice, Page, Table, Tile, Tone
from wgkex_ops.http.operator.page.rendering import ago, bar, legend, lines, name, quiet, state
from wgkex_ops.metrics.cleanup import CleanupMetrics
from wgkex_ops.metrics.journal import JournalMetrics
from wgkex_ops.metrics.worker import ConsumerMetrics, SessionMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import (
    ACTIVE_SECONDS,
    STATES,
    Incomplete,
    Snapshot,
    find_incomplete,
    handshake_age,
    peer_state,
)
from wgkex_ops.model.words import count, duration, share, things

# The page is to show that the dataplane hangs, not to hang as well.
_READ_WITHIN: Final = 5.0
# Seconds. The mesh of one active peer sends something each second; some scans without show that it is broken.
_SILENT_AFTER: Final = 300.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """A snapshot, how many peers each domain has by state, and which of them are incomplete."""

    snapshot: Snapshot
    peers: Mapping[str, Counter[str]]
    incomplete: Mapping[str, Incomplete]

    @classmethod
    def of(cls, snapshot: Snapshot, stale_after: float) -> Self:
        """Count what is in a snapshot. Tens of thousands of peers take a while."""
        peers = {
            domain: Counter(peer_state(handshake_age(peer, snapshot.taken_at), stale_after) for peer in state.peers)
            for domain, state in snapshot.domains.items()
        }
        return cls(snapshot, peers, find_incomplete(snapshot))


@dataclass(kw_only=True, eq=False)
class WorkerView:
    """Makes the page.

    Attributes:
        stale_after: the age of a handshake, in seconds, at which the cleanup removes a peer.
        installs_nothing: whether the dataplane is only for trying out.
        max_peers: that a domain may have.
        read: reads a snapshot, or raises DataplaneError.
        draining_since: when an operator took this gateway out of service, in seconds since the epoch; None if none did.
        vxlan_silent: finds the domains that had active peers, and no VXLAN traffic, for some seconds.
        lists_problem: why the file of the key lists cannot be read; empty if it can.
        problems: why this process is not ready, a sentence each.
        read_within: seconds that a reading may take.
        clock: of the history; seconds, never set back.
        history: of the counters; its task is for the owner to run.
    """

    name: str
    domains: Sequence[Domain]
    stale_after: float
    installs_nothing: bool
    max_peers: int
    read: Callable[[], Awaitable[Snapshot]]
    keys: ConsumerMetrics
    sessions: SessionMetrics
    draining_since: Callable[[], float | None]
    vxlan_silent: Callable[[float], Sequence[str]]
    cleanup: CleanupMetrics
    journal: JournalMetrics
    mqtt: MqttView
    lists_problem: Callable[[], str]
    problems: Callable[[], Sequence[str]]
    read_within: float = _READ_WITHIN
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        keys = self.keys
        arrived = (keys.received, keys.deduplicated, keys.rejections)
        counters = (*arrived, keys.installed, keys.install_failures, keys.evicted)
        further = (self.sessions.started, self.cleanup.removed, *self.mqtt.counters)
        self.history = History([*counters, *further], self.clock)

    async def page(self) -> Page:
        """Make the page of this moment, from a reading of its own or one that others wait for as well."""
        reading, unread = await self._read()
        now, recent = time.time(), Recent.of(self.history)
        waiting, capacity = read_one(self.keys.queue_length), read_one(self.keys.queue_capacity)
        return Page(
            component="worker",
            name=self.name,
            now=now,
            problems=self.problems(),
            notices=[
                *self._notices(reading, unread, recent),
                *notices_of_lists(self.lists_problem()),
                *self.mqtt.notices(recent),
            ],
            tiles=[
                _tile_of_peers(reading, unread),
                recent.tile("Keys installed", self.keys.installed),
                Tile("Keys waiting", count(waiting), f"of {count(capacity)} that may wait"),
                self.mqtt.tile(),
            ],
            tables=[self._domains_table(reading, unread), self._keys_table(recent)],
            facts={
                "MQTT": self.mqtt.facts(recent, now),
                "This worker": {
                    **about(self.history, now),
                    "Dataplane": "memory" if self.installs_nothing else "kernel",
                    "Journal": "works" if self._journal_works else state(Tone.WARN, "cannot be written"),
                },
            },
        )

    async def _read(self) -> tuple[_Reading, str]:
        """What the dataplane has now; or nothing, and why it could not be read."""
        snapshot, unread = Snapshot(0.0), ""
        try:
            async with asyncio.timeout(self.read_within):
                snapshot = await self.read()
        except DataplaneError as error:
            unread = str(error)
        except TimeoutError:
            unread = f"no result within {self.read_within:g} s"
        return await asyncio.to_thread(_Reading.of, snapshot, self.stale_after), unread

    @property
    def _journal_works(self) -> bool:
        return bool(read_one(self.journal.up))

    def _notices(self, reading: _Reading, unread: str, recent: Recent) -> Iterator[Notice]:
        latest = recent.latest
        if unread:
            yield Notice(Tone.BAD, f"The peers cannot be read: {unread}")
        if self.installs_nothing:
            yield Notice(Tone.WARN, "For trying out only: peers are kept in memory, nothing is installed")
        if (since := self.draining_since()) is not None:
            yield Notice(
                Tone.WARN,
                f"Draining since {duration(max(0.0, time.time() - since))}: brokers send no new nodes here; "
                "wgkex-ops undrain ends it",
            )
        if not self._journal_works:
            yield Notice(Tone.WARN, "The journal cannot be written: a reboot of this gateway would lose its peers")
        yield from Notice.about(
            Tone.WARN,
            "Domains with incomplete peers, whose nodes may have no mesh here until the parts are put back",
            [domain for domain, incomplete in reading.incomplete.items() if _missing(incomplete)],
        )
        yield from Notice.about(
            Tone.BAD,
            f"Active peers, and nothing received or nothing sent over VXLAN for {duration(_SILENT_AFTER)}: nodes have a"
            " tunnel and no mesh",
            self.vxlan_silent(_SILENT_AFTER),
        )
        full = [domain for domain, states in reading.peers.items() if states.total() >= self.max_peers]
        yield from Notice.about(
            Tone.WARN, "Domains that are full: new peers take the room of those that never connected", full
        )
        if failed := latest.total(self.keys.install_failures):
            yield Notice(Tone.BAD, f"{things(failed, 'key')} could not be installed {latest.words}")
        if rejected := latest.total(self.keys.rejections):
            yield Notice(Tone.WARN, f"{things(rejected, 'key')} from MQTT rejected {latest.words}; reasons are below")

    def _domains_table(self, reading: _Reading, unread: str) -> Table:
        active, stale = duration(ACTIVE_SECONDS), duration(self.stale_after)
        return Table(
            "Domains",
            f"A peer is active within {active} of its last handshake, idle within {stale}, and then stale",
            {
                "Domain": "",
                "Interfaces": "wide",
                "Peers": "wide",
                "Newest handshake": "",
                "Routes": "",
                "Incomplete peers": "wide",
            },
            [] if unread else [_row(domain, reading) for domain in self.domains],
            state(Tone.BAD, "The peers cannot be read") + f": {unread}" if unread else "",
        )

    def _keys_table(self, recent: Recent) -> Table:
        keys = self.keys
        return Table(
            "Keys",
            "Keys that arrived on MQTT, and their outcome. Nodes ask again, so the same key may come often.",
            {"Outcome": "", **recent.columns()},
            [
                recent.row("Received", keys.received),
                recent.row("Installed, new or refreshed", keys.installed),
                recent.row("Connected: sessions that began", self.sessions.started),
                recent.row("Merged with one that waited", keys.deduplicated),
                *recent.rows_by_reason("Rejected", keys.rejections, Tone.WARN),
                recent.row("Given up: no tunnel", keys.install_failures, Tone.BAD),
                recent.row("Removed: the node has gone, or its key is denied", self.cleanup.removed),
                recent.row("Removed: a full domain needed the room", keys.evicted, Tone.WARN),
            ],
            cards=False,
        )


def _tile_of_peers(reading: _Reading, unread: str) -> Tile:
    if unread:
        return Tile("Active peers", "unknown", "they cannot be read", Tone.BAD)
    active = count(sum(states["active"] for states in reading.peers.values()))
    total = count(sum(states.total() for states in reading.peers.values()))
    return Tile("Active peers", f"{active} of {total}", f"handshake in the last {duration(ACTIVE_SECONDS)}")


def _row(domain: Domain, reading: _Reading) -> list[str]:
    domain_state, now = reading.snapshot.domains[domain.name], reading.snapshot.taken_at
    states = {name: reading.peers[domain.name][name] for name in STATES}
    total = sum(states.values())
    newest = max((peer.handshake for peer in domain_state.peers), default=0.0)
    missing = _missing(reading.incomplete[domain.name])
    return [
        name(domain.name),
        lines(
            _interface(domain.wg, domain_state.wg_present, domain_state.wg_up),
            _interface(domain.vx, domain_state.vx_present, domain_state.vx_up),
        ),
        count(total)
        + (f", {share(states['active'], total)} active" if total else "")
        + legend(states)
        + bar(states, total),
        ago(newest, now) if newest else quiet("none yet"),
        count(len(domain_state.routes)),
        lines(*(state(Tone.WARN, text) for text in missing)) if missing else quiet("none"),
    ]


def _interface(interface: str, present: bool, up: bool) -> str:
    if up:
        return name(interface) + " " + state(Tone.GOOD, "up")
    return name(interface) + " " + state(Tone.BAD, "down" if present else "missing")


def _missing(incomplete: Incomplete) -> list[str]:
    """How many peers of a domain lack which part."""
    parts = (("peer", incomplete.peer), ("route", incomplete.route), ("FDB entry", incomplete.fdb))
    return [f"{count(len(addresses))} without {part}" for part, addresses in parts if addresses]
