"""No trouble with the journal's file becomes anybody else's: what is in memory counts until the file works again."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import CITY, ROOT, WELT, key
from tests.unit.consumer.upkeep.book import NOW, Book, home, homes
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.consumer.upkeep.journal_file import FILE, JournalFile, JournalUnavailableError, Row, read_journal


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "state")
    with structlog.testing.capture_logs() as book.events:
        yield book


async def fill(book: Book, count: int = 2000) -> None:
    async with book.open() as journal:
        await journal.install([(WELT, key(number)) for number in range(count)])


async def in_file(book: Book) -> dict[bytes, str]:
    async with Book(book.folder).open() as journal:
        return homes(journal)


# --- older files


VERSION_1: Final = """
CREATE TABLE peers (key BLOB NOT NULL, domain TEXT NOT NULL, installed_at REAL NOT NULL, handshake REAL NOT NULL,
    PRIMARY KEY (key, domain)) WITHOUT ROWID;
CREATE TABLE pending (key BLOB NOT NULL, domain TEXT NOT NULL, since REAL NOT NULL, PRIMARY KEY (key, domain))
    WITHOUT ROWID;
PRAGMA user_version = 1;
"""


async def test_an_older_file_is_read_and_its_waiting_keys_are_left_to_their_brokers(book: Book) -> None:
    book.folder.mkdir()
    connection = sqlite3.connect(book.path)
    with connection:
        connection.executescript(VERSION_1)
        rows = [
            (key(1).raw, WELT.name, NOW - 20, NOW - 5),
            (key(2).raw, WELT.name, NOW - 10, 0.0),
            # An older one of the same key.
            (key(2).raw, CITY.name, NOW - 20, NOW - 15),
        ]
        connection.executemany("INSERT INTO peers VALUES (?, ?, ?, ?)", rows)
        connection.execute("INSERT INTO pending VALUES (?, ?, ?)", (key(3).raw, WELT.name, NOW))
    connection.close()
    for _ in range(2):
        async with book.open() as journal:
            assert homes(journal) == home(WELT, 1, 2)
            assert journal.rows[key(1).raw].handshake == NOW - 5
    assert (book.metric("failures_total"), book.events) == (0, [])
    connection = sqlite3.connect(book.path)
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("peers",)]
    connection.close()


VERSION_2: Final = """
CREATE TABLE peers (
    key BLOB NOT NULL PRIMARY KEY CHECK (typeof(key) = 'blob' AND length(key) = 32),
    domain TEXT NOT NULL CHECK (typeof(domain) = 'text'),
    installed_at REAL NOT NULL CHECK (typeof(installed_at) = 'real'),
    handshake REAL NOT NULL CHECK (typeof(handshake) = 'real')
) WITHOUT ROWID;
PRAGMA user_version = 2;
"""


async def test_a_file_that_does_not_know_the_version_of_requests_is_read(book: Book) -> None:
    book.folder.mkdir()
    connection = sqlite3.connect(book.path)
    with connection:
        connection.executescript(VERSION_2)
        connection.execute("INSERT INTO peers VALUES (?, ?, ?, ?)", (key(1).raw, WELT.name, NOW - 20, NOW - 5))
    connection.close()
    async with book.open() as journal:
        assert journal.rows[key(1).raw] == Row(key(1).raw, WELT.name, NOW - 20, NOW - 5)
        await journal.install([(WELT, key(2)), (WELT, key(3))], (), [key(3).raw])
    async with book.open() as journal:
        assert {row.key: row.version_2 for row in journal.rows.values()} == {
            key(1).raw: False,
            key(2).raw: False,
            key(3).raw: True,
        }
    assert (book.metric("failures_total"), book.events) == (0, [])


# --- files that are damaged


def other_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()


def foreign_tables(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (name)")
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


DAMAGES: Final[Mapping[str, Callable[[Path], object]]] = {
    "truncated": lambda path: os.truncate(path, 5000),
    "truncated in the header": lambda path: os.truncate(path, 50),
    "wrong magic": lambda path: path.write_bytes(b"SQLite format 4\0" + path.read_bytes()[16:]),
    "random bytes": lambda path: path.write_bytes(os.urandom(8192)),
    "text": lambda path: path.write_text("not a database\n" * 1000),
    "overwritten": overwritten,
    "another version": other_version,
    "a database of another program": foreign_tables,
    "values of other kinds": values_of_other_kinds,
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(book: Book, damage: str) -> None:
    await fill(book)
    DAMAGES[damage](book.path)
    async with book.open() as journal:
        assert homes(journal) == {}
        await journal.install([(WELT, key(1))])
        assert (book.metric("up"), book.metric("entries")) == (1, 1)
    (event,) = book.logged("journal_set_aside")
    assert event["kept_as"] == str(book.damaged)
    assert book.damaged.stat().st_size > 0
    assert not book.logged("journal_unavailable")
    assert await in_file(book) == home(WELT, 1)


async def test_an_empty_file_is_a_new_one(book: Book) -> None:
    book.folder.mkdir()
    book.path.touch()
    await fill(book, 1)
    assert await in_file(book) == home(WELT, 0)
    assert book.events == []


@settings(max_examples=40, deadline=None)
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
            await journal.install([(WELT, key(1)), (WELT, key(501))])
            assert home(WELT, 1, 501).items() <= homes(journal).items()

    with tempfile.TemporaryDirectory() as folder, structlog.testing.capture_logs():
        asyncio.run(run(Book(Path(folder))))


# --- files that cannot be used


async def works_without_a_file(book: Book, journal: Journal) -> None:
    await journal.install([(WELT, key(1)), (WELT, key(2))])
    await journal.forget([key(2).raw])
    assert home(WELT, 1).items() <= homes(journal).items()
    assert book.metric("up") == 0


async def test_a_folder_that_cannot_be_made_is_logged_once_and_tried_again(book: Book) -> None:
    book.folder = book.folder / "deeper"
    async with book.open() as journal:
        await works_without_a_file(book, journal)
        assert len(book.logged("journal_unavailable")) == 1
        book.folder.parent.mkdir()
        await journal.install([(CITY, key(3))])
        assert (book.metric("up"), len(book.logged("journal_works_again"))) == (1, 1)
    assert await in_file(book) == home(WELT, 1) | home(CITY, 3)


async def test_between_attempts_it_leaves_the_disk_alone(book: Book) -> None:
    book.folder = book.folder / "deeper"
    book.retry_after = 3600.0
    async with book.open() as journal:
        book.folder.parent.mkdir()
        await works_without_a_file(book, journal)
        assert book.metric("failures_total") == 3
    assert not book.folder.exists()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user without rights: root would be let in anywhere, so it gives up its rights meanwhile."""
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
async def test_a_folder_that_is_read_only(book: Book, unprivileged: Path, before: bool) -> None:
    book.folder = unprivileged / "state"
    book.folder.mkdir()
    if before:
        await fill(book, 10)
        book.path.chmod(0o400)
    book.folder.chmod(0o500)
    async with book.open() as journal:
        await works_without_a_file(book, journal)
        book.folder.chmod(0o700)
        if before:
            book.path.chmod(0o600)
        await journal.install([(CITY, key(100))])
        # What is in the file was not known before, and is now.
        expected = home(WELT, *range(10 if before else 0)) | home(WELT, 1) | home(CITY, 100)
        assert homes(journal) == expected
    assert await in_file(book) == expected
    assert len(book.logged("journal_unavailable")) == 1
    assert not book.damaged.exists()


async def test_no_other_user_can_read_it(book: Book) -> None:
    await fill(book, 1)
    assert book.folder.stat().st_mode & 0o777 == 0o700
    assert book.path.stat().st_mode & 0o777 == 0o600


FULL_DISK: Final = """
import asyncio, json, resource, sys
from pathlib import Path
import structlog
from tests.helpers import WELT, key
from tests.unit.consumer.upkeep.book import Book, homes

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main(folder):
    book = Book(Path(folder))
    batches = [[(WELT, key(batch * 100 + number)) for number in range(100)] for batch in range(5)]
    seen = []
    async with book.open() as journal:
        await journal.install(batches[0])
        seen.append(book.metric("up"))
        limit(8192)
        for batch in batches[1:4]:
            await journal.install(batch)
        seen.append(book.metric("up"))
        limit(resource.RLIM_INFINITY)
        await journal.install(batches[4])
        seen.append(book.metric("up"))
    async with Book(Path(folder)).open() as journal:
        seen.append(len(homes(journal)))
    return seen

with structlog.testing.capture_logs() as events:
    seen = asyncio.run(main(sys.argv[1]))
print(json.dumps([seen, [event["event"] for event in events]]))
"""


def test_a_full_disk_is_logged_once_and_gets_its_keys_when_there_is_room_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen, events = json.loads(done.stdout)
    assert seen == [1, 0, 1, 500]
    assert events == ["journal_unavailable", "journal_works_again"]


async def test_two_workers_with_one_folder(book: Book) -> None:
    second = Book(book.folder)
    async with book.open() as journal:
        await journal.install([(WELT, key(7))])
        async with second.open() as other:
            await works_without_a_file(second, other)
            await journal.install([(WELT, key(8))])
        assert (book.metric("up"), book.metric("failures_total")) == (1, 0)
    (event,) = [event for event in book.events if event["event"] == "journal_unavailable"]
    assert event["detail"] == "another worker has the same state_dir"
    assert await in_file(book) == home(WELT, 7, 8)


async def test_another_program_that_reads_or_writes_meanwhile(book: Book) -> None:
    await fill(book, 1)
    async with book.open() as journal:
        guest = sqlite3.connect(book.path, isolation_level=None)
        try:
            guest.execute("BEGIN")
            assert guest.execute("SELECT count(*) FROM peers").fetchone() == (1,)
            await journal.install([(WELT, key(1))])
            assert book.metric("up") == 1
            guest.execute("COMMIT")
            guest.execute("BEGIN IMMEDIATE")
            await journal.install([(WELT, key(2))])
            assert book.metric("up") == 0
            guest.execute("COMMIT")
        finally:
            guest.close()
        await journal.install([(WELT, key(3))])
        assert book.metric("up") == 1
    assert await in_file(book) == home(WELT, 0, 1, 2, 3)
    assert not book.damaged.exists()


async def test_a_disk_that_hangs_holds_up_no_key_and_no_end(book: Book) -> None:
    await fill(book, 1)
    book.timeout = 0.05
    guest = sqlite3.connect(book.path, isolation_level=None)
    try:
        async with asyncio.timeout(120), book.open() as journal:
            # This holds up a writer for longer than the installer may wait.
            guest.execute("BEGIN IMMEDIATE")
            for number in (1, 2):
                await journal.install([(WELT, key(number))])
                assert book.metric("up") == 0
            assert [event["detail"] for event in book.logged("journal_unavailable")] == ["an operation hangs"]
    finally:
        guest.close()
    # A busy machine must be able to write within it.
    book.timeout = 2.0
    async with asyncio.timeout(120), book.open() as journal:
        guest = sqlite3.connect(book.path, isolation_level=None)
        guest.execute("BEGIN IMMEDIATE")
        await journal.install([(WELT, key(3))])
        guest.close()
        while not book.metric("up"):
            await asyncio.sleep(0.05)
            await journal.install([(WELT, key(4))])
    found = await in_file(book)
    assert home(WELT, 0, 3, 4).items() <= found.items()
    assert not list(book.folder.glob(f"{FILE}.damaged*"))


def test_another_program_reads_the_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    assert read_journal(tmp_path) == []
    row = Row(key(1).raw, WELT.name, NOW - 20, NOW - 5, version_2=True)
    file = JournalFile(tmp_path)
    file.open()
    file.save([row])
    # Beside the worker.
    assert read_journal(tmp_path) == [row]
    file.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    # Its user may be another one: what it left behind, the worker could not write to.
    assert read_journal(tmp_path) == [row]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    (tmp_path / FILE).write_bytes(b"x" * 5000)
    with pytest.raises(JournalUnavailableError, match="not a database"):
        read_journal(tmp_path)
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(JournalUnavailableError, match="of version 0"):
        read_journal(tmp_path)
    other_version(tmp_path / FILE)
    with pytest.raises(
        JournalUnavailableError, match="is of version 7, of a newer wgkex-ops: this one knows version 3"
    ):
        read_journal(tmp_path)


def test_another_program_reads_a_file_whose_schema_is_damaged(tmp_path: Path) -> None:
    file = JournalFile(tmp_path)
    file.open()
    file.close()
    path = tmp_path / FILE
    # SQLite's message quotes what it cannot read there.
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE peers", b"CREATE T\xff\xfe\xfd\xfc peers"))
    with pytest.raises(JournalUnavailableError, match="damaged"):
        read_journal(tmp_path)
