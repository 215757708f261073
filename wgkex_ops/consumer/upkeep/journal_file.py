"""The journal's file: SQLite, in the worker's state directory. All of it blocks, and is for one thread."""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec import structs

_log = structlog.get_logger(__name__)

FILE: Final = "journal.sqlite3"
VERSION: Final = 3

# Seconds to wait for an operator who reads the file with another program.
_BUSY_TIMEOUT: Final = 1.0

_SCHEMA: Final = """
CREATE TABLE peers (
    key BLOB NOT NULL PRIMARY KEY CHECK (typeof(key) = 'blob' AND length(key) = 32),
    domain TEXT NOT NULL CHECK (typeof(domain) = 'text'),
    installed_at REAL NOT NULL CHECK (typeof(installed_at) = 'real'),
    handshake REAL NOT NULL CHECK (typeof(handshake) = 'real'),
    version_2 INTEGER NOT NULL DEFAULT 0 CHECK (version_2 IN (0, 1))
) WITHOUT ROWID;
"""
# Version 1 knew a key in several domains, of which the last installation counts, and keys that waited.
_FROM_VERSION_1: Final = (
    "ALTER TABLE peers RENAME TO old_peers;",
    _SCHEMA,
    "INSERT OR REPLACE INTO peers SELECT key, domain, installed_at, handshake, 0 FROM old_peers ORDER BY installed_at;",
    "DROP TABLE old_peers;",
    "DROP TABLE pending;",
)
# Version 2 did not know by which version of the interface a node asks.
_FROM_VERSION_2: Final = (
    "ALTER TABLE peers ADD COLUMN version_2 INTEGER NOT NULL DEFAULT 0 CHECK (version_2 IN (0, 1));",
)
_MIGRATIONS: Final = {1: _FROM_VERSION_1, 2: _FROM_VERSION_2}


# Results of SQLite that say nothing of the content (https://www.sqlite.org/rescode.html): the disk, the rights, and
# other programs that use the file.
_UNUSABLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)


class Row(msgspec.Struct, frozen=True, gc=False):
    """A peer as the file has it.

    Attributes:
        key: 32 bytes.
        domain: its name.
        installed_at: seconds since the epoch.
        handshake: the same, of the last handshake that was seen; 0.0 for none.
        version_2: whether the node asked by version 2, the last time: then a broker has sent it to a gateway.
    """

    key: bytes
    domain: str
    installed_at: float
    handshake: float
    version_2: bool = False


class JournalUnavailableError(Exception):
    """The file cannot be used now; the message says why."""


class _DamagedError(Exception):
    """The file is none that this version can use; the message says why."""


class JournalFile:
    """One file of rows.

    Args:
        folder: where it is; made if only the folder itself is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None

    def open(self) -> list[Row]:
        """Open the file and read all of it. One that is damaged is renamed, and a new one begun.

        Raises:
            JournalUnavailableError: that failed as well, or another worker has the folder.
        """
        self.close()
        try:
            self._lock_folder()
            try:
                return self._open()
            except _DamagedError as damage:
                self._set_aside(damage)
                return self._open()
        except (OSError, sqlite3.Error, _DamagedError) as error:
            self.close()
            raise JournalUnavailableError(str(error)) from error

    def save(self, rows: Iterable[Row], gone: Iterable[bytes] = (), *, replace: bool = False) -> None:
        """Write rows and delete keys (32 bytes), durably or not at all.

        Args:
            rows: those that are new or have changed.
            gone: the keys that are no longer wanted.
            replace: whether the rows are all that is to be there.

        Raises:
            JournalUnavailableError: it failed; the file is closed.
        """
        if self._connection is None:
            raise JournalUnavailableError("the file is not open")
        try:
            with self._connection as connection:
                if replace:
                    connection.execute("DELETE FROM peers")
                connection.executemany("DELETE FROM peers WHERE key = ?", ((key,) for key in gone))
                values = map(structs.astuple, rows)
                connection.executemany("INSERT OR REPLACE INTO peers VALUES (?, ?, ?, ?, ?)", values)
        except sqlite3.Error as error:
            self.close()
            raise JournalUnavailableError(str(error)) from error

    def close(self) -> None:
        """Close the file, and let another process have it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _lock_folder(self) -> None:
        """Keep a second worker with the same folder out. The lock ends with the process, however that ends."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalUnavailableError("another worker has the same state_dir") from None

    def _open(self) -> list[Row]:
        # SQLite would let everybody read it.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = self._connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # With NORMAL, a power cut may take the last transactions along, and receipts were sent for them. So each
            # transaction waits for the disk: once a batch, that is cheap.
            connection.execute("PRAGMA synchronous = FULL")
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise _DamagedError(verdict)
            _migrate(connection)
            return read_rows(connection)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # The latter comes from a damaged schema, which SQLite's messages quote.
            if getattr(error, "sqlite_errorcode", -1) & 0xFF in _UNUSABLE:
                raise
            raise _DamagedError(str(error)) from error

    def _set_aside(self, damage: _DamagedError) -> None:
        """Rename the file, for an operator to examine; the latest one is kept."""
        if self._connection is not None:
            self._connection.close()
        kept = self._path.with_name(f"{FILE}.damaged")
        # A write-ahead log that stays behind would be applied to the new file.
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").replace(f"{kept}{suffix}")
        _log.error("journal_set_aside", detail=str(damage), kept_as=str(kept))


@contextlib.contextmanager
def open_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file beside a worker that may use it, and leave nothing behind.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    # Without a write-ahead log, no worker runs. SQLite would begin one merely to read, and it would be our user's.
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    with contextlib.closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=_BUSY_TIMEOUT)
    ) as connection:
        yield connection


def read_journal(folder: Path) -> list[Row]:
    """Read the file beside a worker that may use it, and change nothing; no rows if there is no file.

    Raises:
        JournalUnavailableError: it cannot be read, or is of another version.
    """
    path = folder / FILE
    try:
        if not path.exists():
            return []
        with open_to_read(path) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise JournalUnavailableError(
                    f"{path} is of version {version}, of a newer wgkex-ops: this one knows version {VERSION}"
                )
            if version != VERSION:
                raise JournalUnavailableError(f"{path} is of version {version}; the worker brings it up to date")
            return read_rows(connection)
    except (OSError, sqlite3.Error) as error:
        raise JournalUnavailableError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        # A damaged schema, which SQLite's messages quote.
        raise JournalUnavailableError(f"{path} is damaged: {error}") from error


def read_rows(connection: sqlite3.Connection) -> list[Row]:
    """All peers of a file of this version."""
    rows = connection.execute("SELECT key, domain, installed_at, handshake, version_2 FROM peers")
    return [Row(key, domain, installed_at, seen, bool(by_2)) for key, domain, installed_at, seen, by_2 in rows]


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this version's layout."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if version == VERSION:
        return
    if version not in (0, *_MIGRATIONS) or (version == 0 and tables):
        raise _DamagedError(f"it is of version {version}, and this program knows version {VERSION}")
    statements = _MIGRATIONS.get(version, (_SCHEMA,))
    connection.executescript("".join(("BEGIN;", *statements, f"PRAGMA user_version = {VERSION};", "COMMIT;")))
