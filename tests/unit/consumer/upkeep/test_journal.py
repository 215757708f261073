"""The journal keeps one row for each key, over restarts and crashes, and what the kernel knows better is entered."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.helpers import CITY, ROOT, WELT, key
from tests.unit.consumer.upkeep.book import NOW, Book, home, homes, snapshot
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import link_local
from wgkex_ops.model.peers import Snapshot


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "state")
    with structlog.testing.capture_logs() as book.events:
        yield book


async def test_installed_keys_are_there_after_a_restart(book: Book) -> None:
    async with book.open() as journal:
        await journal.install([(WELT, key(1)), (CITY, key(2))])
        assert homes(journal) == home(WELT, 1) | home(CITY, 2)
    async with book.open() as journal:
        assert homes(journal) == home(WELT, 1) | home(CITY, 2)
        row = journal.rows[key(1).raw]
        assert (row.key, row.installed_at, row.handshake) == (key(1).raw, NOW, 0.0)
    assert (book.metric("up"), book.metric("failures_total"), book.metric("entries")) == (1, 0, 2)
    assert book.events == []


def test_what_was_installed_is_there_after_a_crash(tmp_path: Path) -> None:
    """Killed as soon as `install` has returned: what the disk has is all that is left."""
    script = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.helpers import WELT, key
from tests.unit.consumer.upkeep.book import Book

async def main():
    async with Book(Path(sys.argv[1])).open() as journal:
        await journal.install([(WELT, key(1))])
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -9

    async def read() -> None:
        async with Book(tmp_path).open() as journal:
            assert homes(journal) == home(WELT, 1)

    asyncio.run(read())


async def test_a_key_has_one_row(book: Book) -> None:
    async with book.open() as journal:
        await journal.install([(WELT, key(1))])
        await journal.observe(snapshot(NOW, {WELT: {1: NOW}}), ())
        await journal.install([(CITY, key(1))])
        assert homes(journal) == home(CITY, 1)
        # The handshake was one of another peer.
        assert journal.rows[key(1).raw].handshake == 0.0
        # Of one that was installed in both domains, the last one counts.
        await journal.install([(CITY, key(2)), (WELT, key(2))])
        assert homes(journal) == home(CITY, 1) | home(WELT, 2)
    async with book.open() as journal:
        assert homes(journal) == home(CITY, 1) | home(WELT, 2)


async def test_installing_again_keeps_the_handshake(book: Book) -> None:
    async with book.open() as journal:
        await journal.install([(WELT, key(1))])
        await journal.observe(snapshot(NOW, {WELT: {1: NOW - 60}}), ())
        book.now += 1000
        await journal.install([(WELT, key(1))])
        row = journal.rows[key(1).raw]
        assert (row.installed_at, row.handshake) == (NOW + 1000, NOW - 60)


async def test_forgets_what_was_removed_and_what_was_displaced(book: Book) -> None:
    async with book.open() as journal:
        await journal.install([(WELT, key(1)), (WELT, key(2)), (WELT, key(3))])
        await journal.forget([key(1).raw])
        await journal.install([(WELT, key(4))], [key(2).raw])
        # A key that has moved is displaced by itself.
        await journal.install([(CITY, key(3))], [key(3).raw])
        assert homes(journal) == home(WELT, 4) | home(CITY, 3)
    async with book.open() as journal:
        assert homes(journal) == home(WELT, 4) | home(CITY, 3)


async def test_enters_what_the_kernel_knows_better(book: Book) -> None:
    async with book.open() as journal:
        await journal.install([(WELT, key(1)), (WELT, key(2))])
        # One that is not known, and one that is ours in another domain: the kernel never lags behind.
        await journal.observe(snapshot(NOW, {WELT: {1: 0.0, 3: NOW - 5}, CITY: {2: 0.0}}), ())
        assert homes(journal) == home(WELT, 1, 3) | home(CITY, 2)
        assert journal.rows[key(3).raw].handshake == NOW - 5
    async with book.open() as journal:
        assert homes(journal) == home(WELT, 1, 3) | home(CITY, 2)


async def test_says_nothing_of_what_was_changed_since(book: Book) -> None:
    async with book.open() as journal:
        await journal.install([(CITY, key(1))])
        await journal.observe(snapshot(NOW, {WELT: {1: NOW, 2: NOW}}), {link_local(key(1).raw)})
        assert homes(journal) == home(CITY, 1) | home(WELT, 2)


async def test_what_is_not_ours_is_not_entered(book: Book) -> None:
    ours = snapshot(NOW, {WELT: {1: NOW}}).domains[WELT.name]
    (peer,) = ours.peers
    async with book.open() as journal:
        for theirs in (
            replace(ours, routes=frozenset()),
            # Its route leads to another address than the derived one.
            replace(ours, peers=(structs.replace(peer, public_key=key(2).raw),)),
        ):
            await journal.observe(Snapshot(NOW, {WELT.name: theirs}), ())
        assert homes(journal) == {}


async def test_only_handshakes_that_differ_much_are_written(book: Book) -> None:
    async with book.open() as journal:
        await journal.install([(WELT, key(1))])
        for handshake, noted in [
            (NOW, NOW),
            (NOW + 59, NOW),
            (NOW + 60, NOW + 60),
            # A clock that was set back.
            (NOW - 10_000, NOW - 10_000),
            # One that was restored, and has none yet.
            (0.0, NOW - 10_000),
        ]:
            await journal.observe(snapshot(NOW, {WELT: {1: handshake}}), ())
            assert journal.rows[key(1).raw].handshake == noted


_homes = st.tuples(st.sampled_from([WELT, CITY]), st.integers(0, 5).map(key))
_course = st.lists(
    st.one_of(
        st.tuples(st.just("install"), st.lists(_homes, max_size=4)),
        st.tuples(st.just("forget"), st.lists(st.integers(0, 5), max_size=3)),
        st.tuples(st.just("observe"), st.dictionaries(st.integers(0, 5), st.sampled_from([WELT, CITY]), max_size=5)),
        st.tuples(st.just("reopen")),
    ),
    max_size=20,
)


@settings(max_examples=30, deadline=None)
@given(_course)
def test_agrees_with_a_dictionary_whatever_happens(course: Sequence[tuple[Any, ...]]) -> None:
    async def run(folder: Path) -> None:
        book, model = Book(folder), dict[bytes, str]()
        async with AsyncExitStack() as stack:
            journal = await stack.enter_async_context(book.open())
            for name, *arguments in course:
                if name == "install":
                    await journal.install(arguments[0])
                    model |= {one.raw: domain.name for domain, one in arguments[0]}
                elif name == "forget":
                    await journal.forget(key(number).raw for number in arguments[0])
                    for number in arguments[0]:
                        model.pop(key(number).raw, None)
                elif name == "observe":
                    seen: dict[Domain, dict[int, float]] = {WELT: {}, CITY: {}}
                    for number, domain in arguments[0].items():
                        seen[domain][number] = NOW
                    await journal.observe(snapshot(NOW, seen), ())
                    model |= {key(number).raw: domain.name for number, domain in arguments[0].items()}
                else:
                    await stack.aclose()
                    journal = await stack.enter_async_context(book.open())
                assert homes(journal) == model
                assert book.metric("entries") == len(model)
        assert book.metric("failures_total") == 0

    with tempfile.TemporaryDirectory() as folder, structlog.testing.capture_logs():
        asyncio.run(run(Path(folder) / "state"))


async def test_it_is_used_only_while_it_is_open(book: Book) -> None:
    with pytest.raises(RuntimeError):
        await book.open().install([(WELT, key(1))])
    assert not book.folder.exists()
