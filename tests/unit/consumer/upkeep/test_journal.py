"""The journal keeps its promises, and no trouble with its file becomes anybody else's."""

import asyncio
import fcntl
import json
import math
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.helpers import CITY, DOMAINS, ROOT, WELT, key, samples
from wgkex_ops.consumer.upkeep import journal as module
from wgkex_ops.consumer.upkeep.journal import FILE, FORGOTTEN_AFTER, Journal
from wgkex_ops.metrics.journal import JournalMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.peers import DomainState, Peer, Snapshot

NOW: Final = 1_800_000_000.0
NAMES: Final = tuple(DOMAINS)


@dataclass
class Time:
    """A clock that is set by hand."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Book:
    """A journal, and what there is to see of it; it may be closed and opened, as by one process after the other."""

    folder: Path
    clock: Time = field(default_factory=Time)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    patience: float = 60.0
    retry_after: float = 0.0
    events: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.metrics = JournalMetrics(self.registry)

    @property
    def path(self) -> Path:
        return self.folder / FILE

    @property
    def set_aside(self) -> list[Path]:
        """Files that were set aside, without what SQLite had beside them."""
        return [path for path in self.folder.glob(f"{FILE}.damaged-*") if not path.name.endswith(("-wal", "-shm"))]

    def open(self) -> Journal:
        return Journal(self.folder, self.metrics, self.clock, patience=self.patience, retry_after=self.retry_after)

    def metric(self, name: str) -> float:
        return samples(self.registry)[f"wgkex_worker_journal_{name}"]

    def logged(self, event: str) -> list[Any]:
        return [entry for entry in self.events if entry["event"] == event]


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "state")
    with structlog.testing.capture_logs() as book.events:
        yield book


async def peers(journal: Journal, limit: float = math.inf) -> dict[str, set[PublicKey]] | None:
    found = await journal.peers(limit)
    return None if found is None else {name: set(found.get(name, ())) for name in NAMES}


async def pending(journal: Journal) -> dict[str, list[PublicKey]] | None:
    found = await journal.pending()
    return None if found is None else {name: found.get(name, []) for name in NAMES}


def only(domain: Domain, *numbers: int) -> dict[str, set[PublicKey]]:
    return {name: {key(number) for number in numbers} if name == domain.name else set() for name in NAMES}


def waiting(domain: Domain, *numbers: int) -> dict[str, list[PublicKey]]:
    return {name: [key(number) for number in numbers] if name == domain.name else [] for name in NAMES}


def snapshot(taken_at: float, handshakes: Mapping[Domain, Mapping[int, float]]) -> Snapshot:
    """Complete peers of ours, and when their handshakes were."""
    return Snapshot(
        taken_at,
        {
            domain.name: DomainState(
                peers=tuple(peer(number, handshake) for number, handshake in handshakes.get(domain, {}).items()),
                routes=frozenset(link_local(key(number).raw) for number in handshakes.get(domain, {})),
            )
            for domain in (WELT, CITY)
        },
    )


def peer(number: int, handshake: float) -> Peer:
    raw = key(number).raw
    return Peer(raw, handshake, receive_bytes=0, transmit_bytes=0, link_local=link_local(raw))


# --- what it remembers


async def test_installed_and_kept_keys_are_there_after_a_restart(book: Book) -> None:
    async with book.open() as journal:
        assert await journal.keep([(WELT, key(1)), (CITY, key(2)), (WELT, key(3))])
        await journal.settle([(WELT, key(1)), (WELT, key(4))], [(CITY, key(2))])
        assert book.metric("entries") == 3
    async with book.open() as journal:
        assert await peers(journal) == only(WELT, 1, 4)
        assert await pending(journal) == waiting(WELT, 3)
        assert (book.metric("up"), book.metric("entries"), book.metric("failures_total")) == (1, 3, 0)
    assert book.metric("write_duration_seconds_count") > 0
    assert book.events == []


def test_what_is_kept_is_there_after_a_crash(tmp_path: Path) -> None:
    """Killed right after the answer: what the disk has is all that is left."""
    script = """
import asyncio, os, signal, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from tests.helpers import CITY, WELT, key
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.metrics.journal import JournalMetrics

async def main():
    async with Journal(Path(sys.argv[1]), JournalMetrics(CollectorRegistry())) as journal:
        await journal.settle([(WELT, key(1))], [])
        assert await journal.keep([(CITY, key(2))])
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -9

    async def look() -> None:
        async with Book(tmp_path).open() as journal:
            assert await peers(journal) == only(WELT, 1)
            assert await pending(journal) == waiting(CITY, 2)

    asyncio.run(look())


async def test_a_key_has_one_home(book: Book) -> None:
    async with book.open() as journal:
        await journal.keep([(WELT, key(1)), (WELT, key(2))])
        await journal.settle([(WELT, key(1)), (CITY, key(1))], [])
        assert await peers(journal) == only(CITY, 1)
        assert await pending(journal) == waiting(WELT, 2)
        await journal.settle([(CITY, key(2))], [])
        assert await pending(journal) == waiting(WELT)
        await journal.settle([(WELT, key(2))], [])
        assert await peers(journal) == {WELT.name: {key(2)}, CITY.name: {key(1)}}


async def test_what_was_given_up_is_no_reason_to_forget_an_installed_peer(book: Book) -> None:
    async with book.open() as journal:
        await journal.settle([(WELT, key(1))], [])
        await journal.keep([(WELT, key(1))])
        await journal.settle([], [(WELT, key(1)), (WELT, key(2))])
        assert (await peers(journal), await pending(journal)) == (only(WELT, 1), waiting(WELT))


async def test_forgets_what_was_removed_on_purpose(book: Book) -> None:
    async with book.open() as journal:
        await journal.settle([(WELT, key(1)), (WELT, key(2))], [])
        await journal.forget([(WELT, key(1)), (CITY, key(2)), (WELT, key(3))])
        assert await peers(journal) == only(WELT, 2)


async def test_the_newest_of_installation_and_handshake_counts(book: Book) -> None:
    async with book.open() as journal:
        await journal.settle([(WELT, key(1)), (WELT, key(2))], [])
        book.clock.now += 1000
        await journal.settle([(WELT, key(3))], [])
        await journal.handshakes(snapshot(book.clock.now, {WELT: {1: NOW + 900, 2: 0.0, 3: 0.0}}))
        assert await peers(journal, 500) == only(WELT, 1, 3)
        assert await peers(journal, 50) == only(WELT, 3)
        assert await peers(journal, 1001) == only(WELT, 1, 2, 3)
        # A peer that is installed again keeps its handshake, and the kernel's zero is no news.
        await journal.settle([(WELT, key(1))], [])
        book.clock.now += 1000
        await journal.handshakes(snapshot(book.clock.now, {WELT: {1: 0.0}}))
        assert await peers(journal, 1100) == only(WELT, 1, 3)


async def test_only_handshakes_that_are_much_newer_are_written(book: Book) -> None:
    async with book.open() as journal:
        await journal.handshakes(snapshot(NOW, {WELT: {1: NOW - 200}}))
        book.clock.now += 1000
        for handshake, limit in ((NOW - 141, 1150), (NOW - 140, 1150)):
            assert await peers(journal, limit) == only(WELT)
            await journal.handshakes(snapshot(book.clock.now, {WELT: {1: handshake}}))
        assert await peers(journal, 1150) == only(WELT, 1)


async def test_peers_of_ours_that_it_does_not_know_are_taken_over(book: Book) -> None:
    seen = snapshot(NOW, {WELT: {1: NOW - 100, 2: 0.0}, CITY: {3: NOW - 5}})
    half = DomainState(peers=(peer(4, NOW),))
    other = Peer(key(5).raw, NOW, 0, 0, link_local=b"\xfe\x80" + bytes(14))
    static = DomainState(peers=(other,), routes=frozenset({other.link_local}))
    async with book.open() as journal:
        await journal.handshakes(seen)
        # Those without a route of ours are somebody else's, and so is one that has an address of its own.
        await journal.handshakes(Snapshot(NOW, {WELT.name: half, CITY.name: static}))
        assert await peers(journal) == {WELT.name: {key(1), key(2)}, CITY.name: {key(3)}}
        assert await peers(journal, 50) == {WELT.name: {key(2)}, CITY.name: {key(3)}}


async def test_a_snapshot_does_not_bring_back_what_has_moved_since(book: Book) -> None:
    async with book.open() as journal:
        await journal.settle([(WELT, key(1))], [])
        old = snapshot(NOW + 10, {WELT: {1: 0.0}})
        book.clock.now += 20
        await journal.settle([(CITY, key(1))], [])
        await journal.handshakes(old)
        assert await peers(journal) == only(CITY, 1)
        # But the kernel knows better of what it was told while the journal could not be written.
        await journal.handshakes(snapshot(NOW + 30, {WELT: {1: NOW + 29}}))
        assert await peers(journal) == only(WELT, 1)


@pytest.fixture
def always_expiring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EXPIRE_EVERY", 0.0)


async def test_what_is_old_is_forgotten(book: Book, always_expiring: None) -> None:
    nothing = snapshot(NOW, {})
    async with book.open() as journal:
        await journal.settle([(WELT, key(1)), (WELT, key(2))], [])
        await journal.keep([(WELT, key(3))])
        book.clock.now += FORGOTTEN_AFTER
        await journal.handshakes(snapshot(book.clock.now, {WELT: {1: book.clock.now}}))
        assert await peers(journal) == only(WELT, 1, 2)
        book.clock.now += 1
        await journal.handshakes(nothing)
        assert (await peers(journal), await pending(journal)) == (only(WELT, 1), waiting(WELT))
        assert book.metric("entries") == 1


async def test_a_clock_that_was_in_the_future_keeps_nothing_for_ever(book: Book, always_expiring: None) -> None:
    async with book.open() as journal:
        book.clock.now = NOW + 1e9
        await journal.settle([(WELT, key(1))], [])
        await journal.keep([(WELT, key(2))])
        await journal.handshakes(snapshot(book.clock.now, {WELT: {3: book.clock.now}}))
        book.clock.now = NOW
        # As if it were now: who knows.
        assert await peers(journal, 10) == only(WELT, 1, 3)
        # A peer whose handshake is in the future has told nothing new.
        await journal.handshakes(snapshot(NOW, {WELT: {1: NOW + 1e9}}))
        assert await peers(journal, 10) == only(WELT, 1, 3)
        book.clock.now += FORGOTTEN_AFTER + 1
        await journal.handshakes(snapshot(book.clock.now, {}))
        assert (await peers(journal), await pending(journal)) == (only(WELT), waiting(WELT))


async def test_a_handshake_of_the_future_is_no_news(book: Book) -> None:
    async with book.open() as journal:
        await journal.settle([(WELT, key(1))], [])
        book.clock.now += 1000
        await journal.handshakes(snapshot(book.clock.now, {WELT: {1: NOW + 1e9}}))
        assert await peers(journal, 500) == only(WELT)


@pytest.mark.parametrize("ahead", [5 * 3600, 1e9])
async def test_a_clock_that_is_ahead_after_the_boot_loses_nothing(book: Book, ahead: float) -> None:
    """Whatever happens before it is asked."""
    async with book.open() as journal:
        await journal.settle([(WELT, key(1))], [])
        book.clock.now += 20_000
        await journal.settle([(WELT, key(2)), (WELT, key(3))], [])
    book.clock.now += ahead
    async with book.open() as journal:
        assert await peers(journal, 10_800) == only(WELT, 2, 3)
        await journal.settle([(WELT, key(4))], [])
        await journal.handshakes(snapshot(book.clock.now, {WELT: {2: book.clock.now}}))
        assert await peers(journal, 10_800) == only(WELT, 2, 3, 4)
        # Set right, it makes the old ones look younger, and they are put back as well: better than too few.
        book.clock.now -= ahead
        assert await peers(journal, 10_800) == only(WELT, 1, 2, 3, 4)


async def test_how_long_no_process_was_there_is_found_out_when_the_file_can_be_read(book: Book) -> None:
    async with book.open() as journal:
        await journal.settle([(WELT, key(1))], [])
        book.clock.now += 1000
        await journal.settle([(WELT, key(2))], [])
    async with book.open() as other, book.open() as journal:
        assert await peers(journal, 500) is None
        book.clock.now += 86_400
        await other.__aexit__(None, None, None)
        assert await peers(journal, 500) == only(WELT, 2)
        await journal.settle([(WELT, key(3))], [])
        book.clock.now += 500
        assert await peers(journal, 500) == only(WELT, 3)


async def test_a_clock_that_is_set_only_after_the_boot_loses_nothing(book: Book) -> None:
    async with book.open() as journal:
        await journal.settle([(WELT, key(1))], [])
    book.clock.now = 1000.0
    async with book.open() as journal:
        assert await peers(journal, 10_800) == only(WELT, 1)
        await journal.handshakes(snapshot(1000.0, {}))
        book.clock.now = NOW + 300
        assert await peers(journal, 10_800) == only(WELT, 1)


async def test_the_oldest_of_the_waiting_keys_comes_first(book: Book) -> None:
    async with book.open() as journal:
        for number in (3, 1, 2):
            book.clock.now += 1
            await journal.keep([(WELT, key(number))])
        assert await pending(journal) == waiting(WELT, 3, 1, 2)


async def test_nothing_to_do_is_no_problem(book: Book) -> None:
    async with book.open() as journal:
        assert await journal.keep([])
        await journal.settle([], [])
        await journal.forget([])
        assert await peers(journal) == only(WELT)


# --- against a model


domains = st.sampled_from((WELT, CITY))
identities = st.lists(st.tuples(domains, st.integers(0, 5).map(key)), max_size=4)
operations = st.one_of(
    st.tuples(st.just("keep"), identities),
    st.tuples(st.just("settle"), identities, identities),
    st.tuples(st.just("forget"), identities),
    st.tuples(st.just("handshakes"), st.lists(st.tuples(domains, st.integers(0, 5), st.booleans()), max_size=4)),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("crash")),
    st.tuples(st.just("wait"), st.integers(1, 1000)),
)


@dataclass
class Model:
    """The journal as dictionaries."""

    peers: dict[tuple[str, bytes], list[float]] = field(default_factory=dict)
    pending: dict[tuple[str, bytes], float] = field(default_factory=dict)

    def install(self, name: str, raw: bytes, at: float, handshake: float) -> None:
        for other in NAMES:
            self.pending.pop((other, raw), None)
            if other != name:
                self.peers.pop((other, raw), None)
        self.peers.setdefault((name, raw), [at, handshake])[0] = at

    def keep(self, now: float, identities: Sequence[tuple[Domain, PublicKey]]) -> None:
        self.pending |= {(domain.name, one.raw): now for domain, one in identities}

    def settle(
        self, now: float, installed: Sequence[tuple[Domain, PublicKey]], given_up: Sequence[tuple[Domain, PublicKey]]
    ) -> None:
        for domain, one in installed:
            self.install(domain.name, one.raw, now, 0.0)
        for domain, one in given_up:
            self.pending.pop((domain.name, one.raw), None)

    def forget(self, now: float, identities: Sequence[tuple[Domain, PublicKey]]) -> None:
        for domain, one in identities:
            self.peers.pop((domain.name, one.raw), None)

    def note(self, now: float, seen: Snapshot) -> None:
        before = {identity: list(times) for identity, times in self.peers.items()}
        for name, state in seen.domains.items():
            for one in state.peers:
                raw = one.public_key
                if (name, raw) in before:
                    if one.handshake >= before[name, raw][1] + 60 and (name, raw) in self.peers:
                        self.peers[name, raw][1] = one.handshake
                elif all(before[other, raw][0] < seen.taken_at for other in NAMES if (other, raw) in before):
                    self.install(name, raw, one.handshake or seen.taken_at, one.handshake)


def seen_by_kernel(now: float, told: Sequence[tuple[Domain, int, bool]]) -> Snapshot:
    """Each address has one route."""
    homes = {number: (domain, now - 1 if alive else 0.0) for domain, number, alive in told}
    return snapshot(
        now,
        {
            domain: {number: handshake for number, (home, handshake) in homes.items() if home == domain}
            for domain in (WELT, CITY)
        },
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(operations, max_size=20))
def test_agrees_with_a_dictionary_whatever_happens(course: Sequence[tuple[Any, ...]]) -> None:
    async def run(folder: Path) -> None:
        book, model, away = Book(folder), Model(), 0.0
        async with AsyncExitStack() as stack:
            journal = await stack.enter_async_context(book.open())
            for name, *arguments in course:
                if name == "reopen":
                    await stack.aclose()
                    journal = await stack.enter_async_context(book.open())
                elif name == "crash":
                    # What a process that is killed leaves behind.
                    book = Book(shutil.copytree(book.folder, folder.with_name(f"{book.folder.name}x")), book.clock)
                    journal = await stack.enter_async_context(book.open())
                elif name == "wait":
                    book.clock.now += arguments[0]
                elif name == "handshakes":
                    seen = seen_by_kernel(book.clock.now, arguments[0])
                    await journal.handshakes(seen)
                    model.note(book.clock.now, seen)
                else:
                    await getattr(journal, name)(*arguments)
                    getattr(model, name)(book.clock.now, *arguments)
                if name in ("reopen", "crash"):
                    away = min((book.clock.now - max(times) for times in model.peers.values()), default=0.0)
                for limit in (1.0, 500.0, math.inf):
                    after = book.clock.now - away - limit
                    assert await peers(journal, limit) == {
                        name: {
                            PublicKey(raw) for (home, raw), t in model.peers.items() if home == name and max(t) > after
                        }
                        for name in NAMES
                    }
                found = await pending(journal)
                assert found is not None
                assert {(name, one.raw) for name, keys in found.items() for one in keys} == set(model.pending)
                assert book.metric("entries") == len(model.peers) + len(model.pending)
                assert book.metric("failures_total") == 0

    with tempfile.TemporaryDirectory() as folder, structlog.testing.capture_logs():
        asyncio.run(run(Path(folder) / "state"))


# --- files that are damaged


async def fill(book: Book, count: int = 2000) -> None:
    async with book.open() as journal:
        await journal.settle([(WELT, key(number)) for number in range(count)], [])


def other_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()


def foreign_tables(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (name)")
    connection.close()


def missing_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE peers")
    connection.close()


def overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(4096, len(content), 4096):
        content[place : place + 64] = bytes(range(64))
    path.write_bytes(content)


def values_of_other_kinds(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        connection.execute("UPDATE peers SET installed_at = 'yesterday', key = substr(key, 2)")
    connection.close()


def text_that_is_none(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b"ffmuc_welt") >= 2000
    path.write_bytes(content.replace(b"ffmuc_welt", b"ffmuc_\x80elt", 1))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").touch()


DAMAGES: Final[Mapping[str, Callable[[Path], object]]] = {
    "truncated": lambda path: os.truncate(path, 5000),
    "truncated in the header": lambda path: os.truncate(path, 50),
    "wrong magic": lambda path: path.write_bytes(b"SQLite format 4\0" + path.read_bytes()[16:]),
    "random bytes": lambda path: path.write_bytes(os.urandom(8192)),
    "text": lambda path: path.write_text("no database\n" * 1000),
    "overwritten": overwritten,
    "another version": other_version,
    "a database of somebody else": foreign_tables,
    "a missing table": missing_table,
    "values of other kinds": values_of_other_kinds,
    "a text that is none": text_that_is_none,
    "a directory": directory,
    "a FIFO": fifo,
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(book: Book, damage: str) -> None:
    await fill(book)
    DAMAGES[damage](book.path)
    async with book.open() as journal:
        assert await peers(journal) == only(WELT)
        assert await journal.keep([(WELT, key(1))])
        assert (book.metric("up"), book.metric("failures_total"), book.metric("entries")) == (1, 1, 1)
    (event,) = book.logged("journal_set_aside")
    (kept,) = book.set_aside
    assert event["kept_as"] == str(kept)
    assert re.fullmatch(rf"{FILE}\.damaged-\d{{8}}T\d{{6}}Z", kept.name)
    assert not book.logged("journal_unavailable")
    async with book.open() as journal:
        assert await pending(journal) == waiting(WELT, 1)


async def test_an_empty_file_is_a_new_one(book: Book) -> None:
    book.folder.mkdir()
    book.path.touch()
    async with book.open() as journal:
        assert await journal.keep([(WELT, key(1))])
    assert not book.events


async def test_damage_at_work_is_noticed_and_nothing_new_is_lost(book: Book) -> None:
    await fill(book)
    async with book.open() as journal:
        guest = sqlite3.connect(book.path, isolation_level=None)
        try:
            guest.execute("SELECT count(*) FROM peers").fetchone()
            overwritten(book.path)
            # Else SQLite would go on with the pages that it has in memory.
            guest.execute("PRAGMA user_version = 1")
        finally:
            guest.close()
        await journal.settle([(WELT, key(number)) for number in range(100)], [])
        assert await journal.keep([(WELT, key(3000))])
        assert book.metric("up") == 1
        assert await peers(journal) == only(WELT, *range(100))
        assert await pending(journal) == waiting(WELT, 3000)
    assert len(book.logged("journal_set_aside")) == 1
    assert not book.logged("journal_unavailable")


async def test_what_is_damaged_again_and_again_is_not_collected(book: Book) -> None:
    await fill(book, 1)
    async with book.open() as journal:
        for kept in (True, False, False):
            book.path.rename(book.folder / "away")
            book.path.mkdir()
            assert await journal.keep([(WELT, key(1))]) is kept
            assert book.metric("up") == kept
            if not kept:
                book.path.rmdir()
                (book.folder / "away").rename(book.path)
    assert len(book.set_aside) == 1
    assert len(book.logged("journal_set_aside")) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40_000), st.binary(min_size=1, max_size=200)), min_size=1, max_size=5),
    st.none() | st.integers(0, 40_000),
)
def test_any_damage_is_survived(changes: Sequence[tuple[int, bytes]], length: int | None) -> None:
    async def run(book: Book) -> None:
        await fill(book, 500)
        with book.path.open("r+b") as file:
            for place, content in changes:
                file.seek(place)
                file.write(content)
            if length is not None:
                file.truncate(length)
        async with book.open() as journal:
            assert await journal.keep([(CITY, key(1))])
            await journal.settle([(WELT, key(1)), (WELT, key(501))], [])
            await journal.handshakes(snapshot(NOW, {WELT: {1: NOW, 600: NOW}}))
            found = await peers(journal)
            assert found is not None
            assert {key(1), key(501), key(600)} <= found[WELT.name]

    with tempfile.TemporaryDirectory() as folder, structlog.testing.capture_logs():
        asyncio.run(run(Book(Path(folder))))


# --- files that cannot be used


async def fails(book: Book, journal: Journal) -> None:
    """It says no, and raises nothing."""
    assert not await journal.keep([(WELT, key(1))])
    await journal.settle([(WELT, key(1))], [(WELT, key(2))])
    await journal.handshakes(snapshot(NOW, {WELT: {1: NOW}}))
    await journal.forget([(WELT, key(1))])
    assert await peers(journal) is None
    assert await pending(journal) is None
    assert book.metric("up") == 0


async def test_a_folder_that_cannot_be_made_is_told_once_and_tried_again(book: Book) -> None:
    book.folder = book.folder / "deep"
    async with book.open() as journal:
        await fails(book, journal)
        assert book.metric("failures_total") == 7
        assert [event["log_level"] for event in book.logged("journal_unavailable")] == ["error"]
        book.folder.mkdir(parents=True)
        assert await journal.keep([(WELT, key(1))])
        assert book.metric("up") == 1
        assert len(book.logged("journal_works_again")) == 1
    assert len(book.logged("journal_unavailable")) == 1


async def test_between_attempts_it_leaves_the_disk_in_peace(book: Book) -> None:
    book.folder = book.folder / "deep"
    book.retry_after = 3600.0
    async with book.open() as journal:
        book.folder.mkdir(parents=True)
        await fails(book, journal)
    assert not book.path.exists()


async def test_a_file_in_place_of_the_folder(book: Book) -> None:
    book.folder.touch()
    async with book.open() as journal:
        await fails(book, journal)


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that everybody can read; root would be let in anywhere, so that it gives up its rights meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        user = os.geteuid()
        try:
            if user == 0:
                os.chown(folder, 65534, -1)
                os.seteuid(65534)
            yield folder
        finally:
            os.seteuid(user)


@pytest.mark.parametrize("before", [False, True], ids=("new", "known"))
async def test_a_folder_that_is_read_only(book: Book, nobody: Path, before: bool) -> None:
    book.folder = nobody / "state"
    book.folder.mkdir()
    if before:
        await fill(book, 10)
        book.path.chmod(0o400)
    book.folder.chmod(0o500)
    async with book.open() as journal:
        await fails(book, journal)
        book.folder.chmod(0o700)
        if before:
            book.path.chmod(0o600)
        assert await journal.keep([(CITY, key(1))])
        assert await peers(journal) == only(WELT, *range(10 if before else 0))
    assert len(book.logged("journal_unavailable")) == 1
    assert book.set_aside == []


async def test_nobody_else_can_read_it(book: Book) -> None:
    await fill(book, 1)
    assert book.folder.stat().st_mode & 0o777 == 0o700
    assert book.path.stat().st_mode & 0o777 == 0o600


FULL_DISK: Final = """
import asyncio, json, resource, sys
from pathlib import Path
import structlog
from prometheus_client import CollectorRegistry
from tests.helpers import WELT, key, samples
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.metrics.journal import JournalMetrics

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main(folder):
    registry = CollectorRegistry()
    up = lambda: samples(registry)["wgkex_worker_journal_up"]
    async with Journal(Path(folder), JournalMetrics(registry), retry_after=0.0) as journal:
        batches = [[(WELT, key(batch * 100 + number)) for number in range(100)] for batch in range(4)]
        first = await journal.keep(batches[0])
        limit(8192)
        kept = [await journal.keep(batch) for batch in batches]
        seen = [first, any(kept), up()]
        limit(resource.RLIM_INFINITY)
        seen += [await journal.keep(batches[-1]), up()]
        found = await journal.pending()
        full = {one.raw for one in found[WELT.name]}
        seen += [sum(one.raw in full for _, one in batches[0] + batches[-1])]
    return seen

with structlog.testing.capture_logs() as events:
    seen = asyncio.run(main(sys.argv[1]))
print(json.dumps([seen, [event["event"] for event in events]]))
"""


def test_a_full_disk_is_told_once_and_gets_its_keys_when_there_is_room_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen, events = json.loads(done.stdout)
    assert seen == [True, False, 0, True, 1, 200]
    assert events == ["journal_unavailable", "journal_works_again"]


async def test_two_workers_with_one_folder(book: Book) -> None:
    second = Book(book.folder)
    async with book.open() as journal:
        await journal.settle([(WELT, key(1))], [])
        async with second.open() as other:
            await fails(second, other)
            assert await journal.keep([(WELT, key(2))])
            assert book.metric("up") == 1
            (event,) = book.logged("journal_unavailable")
            assert event["detail"] == "another worker has the same state_dir"
    async with second.open() as other:
        assert await peers(other) == only(WELT, 1)
        assert second.metric("up") == 1


async def test_a_file_that_somebody_removes_is_made_anew(book: Book) -> None:
    async with book.open() as journal:
        await journal.settle([(WELT, key(1))], [])
        shutil.rmtree(book.folder)
        assert await journal.keep([(WELT, key(2))])
        assert book.path.exists()
        assert (await peers(journal), await pending(journal)) == (only(WELT), waiting(WELT, 2))


async def test_somebody_who_looks_or_writes_meanwhile(book: Book) -> None:
    await fill(book, 1)
    async with book.open() as journal:
        guest = sqlite3.connect(book.path, isolation_level=None)
        try:
            guest.execute("BEGIN")
            assert guest.execute("SELECT count(*) FROM peers").fetchone() == (1,)
            assert await journal.keep([(WELT, key(1))])
            guest.execute("COMMIT")
            guest.execute("BEGIN IMMEDIATE")
            assert not await journal.keep([(WELT, key(2))])
            guest.execute("COMMIT")
        finally:
            guest.close()
        assert await journal.keep([(WELT, key(2))])
    assert book.set_aside == []


async def test_a_disk_that_hangs_holds_up_nobody(book: Book) -> None:
    await fill(book, 1)
    book.patience = 0.05
    async with book.open() as journal:
        guest = sqlite3.connect(book.path, isolation_level=None)
        try:
            # This holds up a writer for longer than the installer may be.
            guest.execute("BEGIN IMMEDIATE")
            assert not await journal.keep([(WELT, key(1))])
            assert book.metric("up") == 0
            assert not await journal.keep([(WELT, key(2))])
            assert await peers(journal) is None
            assert [event["detail"] for event in book.logged("journal_unavailable")] == ["an operation hangs"]
        finally:
            guest.close()
        async with asyncio.timeout(30):
            while not await journal.keep([(WELT, key(3))]):  # noqa: ASYNC110  a condition has no event
                await asyncio.sleep(0.05)
        assert book.metric("up") == 1
        found = await pending(journal)
        assert found is not None
        assert key(3) in found[WELT.name]
        assert key(2) not in found[WELT.name]
    assert book.set_aside == []


async def test_a_hanging_disk_does_not_hold_up_the_end(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()
    monkeypatch.setattr(fcntl, "flock", lambda *_: may_go_on.wait())
    book.patience = 0.05
    try:
        async with asyncio.timeout(30), book.open() as journal:
            assert not await journal.keep([(WELT, key(1))])
    finally:
        may_go_on.set()


async def test_it_is_used_only_while_it_is_open(book: Book) -> None:
    journal = book.open()
    with pytest.raises(RuntimeError):
        await journal.keep([])
    assert not book.folder.exists()
