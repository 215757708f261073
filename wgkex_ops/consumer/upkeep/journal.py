"""What a worker remembers over a reboot: which peers it has installed, and which keys still wait.

The kernel forgets its peers, and the MQTT server what it has been told is taken care of: from then on this file is the
only place where such a key is.
"""

import asyncio
import contextlib
import fcntl
import math
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import structlog

from wgkex_ops.metrics.journal import JournalMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import Snapshot

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")

FILE: Final = "journal.sqlite3"
VERSION: Final = 1

# Keys without a handshake for so long (seconds) are forgotten.
FORGOTTEN_AFTER: Final = 7 * 86_400.0
_EXPIRE_EVERY: Final = 600.0
# A handshake is noted when it is so much newer (seconds) than the noted one: WireGuard has a new one every two minutes.
_HANDSHAKE_STEP: Final = 60.0

# Seconds. A disk that hangs must not hold up the keys.
_PATIENCE: Final = 5.0
_CLOSE_PATIENCE: Final = 1.0
_RETRY_AFTER: Final = 10.0
# Whatever damages files more often than that (seconds) is not mended by new ones, and each of them is kept.
_SET_ASIDE_EVERY: Final = 3600.0
# Seconds to wait for somebody who looks at the file with another program.
_BUSY_TIMEOUT: Final = 1.0

# The integrity check at the opening compares each row with the conditions.
_SCHEMA: Final = f"""
CREATE TABLE peers (
    key BLOB NOT NULL CHECK (typeof(key) = 'blob' AND length(key) = 32),
    domain TEXT NOT NULL CHECK (typeof(domain) = 'text'),
    installed_at REAL NOT NULL CHECK (typeof(installed_at) = 'real'),
    handshake REAL NOT NULL CHECK (typeof(handshake) = 'real'),
    PRIMARY KEY (key, domain)
) WITHOUT ROWID;
CREATE TABLE pending (
    key BLOB NOT NULL CHECK (typeof(key) = 'blob' AND length(key) = 32),
    domain TEXT NOT NULL CHECK (typeof(domain) = 'text'),
    since REAL NOT NULL CHECK (typeof(since) = 'real'),
    PRIMARY KEY (key, domain)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""

# To count the rows means to read all of them, which takes longer than to write one. So they are counted once, and the
# count goes along with each change, within its transaction.
_COUNTING: Final = """
CREATE TEMP TABLE entries AS SELECT (SELECT count(*) FROM peers) + (SELECT count(*) FROM pending) AS number;
CREATE TEMP TRIGGER peer_came AFTER INSERT ON main.peers BEGIN UPDATE entries SET number = number + 1; END;
CREATE TEMP TRIGGER peer_went AFTER DELETE ON main.peers BEGIN UPDATE entries SET number = number - 1; END;
CREATE TEMP TRIGGER pending_came AFTER INSERT ON main.pending BEGIN UPDATE entries SET number = number + 1; END;
CREATE TEMP TRIGGER pending_went AFTER DELETE ON main.pending BEGIN UPDATE entries SET number = number - 1; END;
"""

Identity = tuple[Domain, PublicKey]


class Journal:
    """A file in the worker's state directory. Whatever happens to it is told, and raised to nobody.

    A key has one home: installed in one domain, it is forgotten in all others. All times are seconds since the epoch by
    this host's clock. One that lies in the future counts as now, and becomes one when the clock has had time to be set.

    Args:
        folder: where the file is; made if only it is missing.
        metrics: how the journal is.
        clock: seconds since the epoch.
        patience: seconds that an operation is waited for.
        retry_after: seconds between attempts to open a file that could not be used.
    """

    def __init__(
        self,
        folder: Path,
        metrics: JournalMetrics,
        clock: Callable[[], float] = time.time,
        *,
        patience: float = _PATIENCE,
        retry_after: float = _RETRY_AFTER,
    ) -> None:
        self._file = _File(folder, metrics, clock, retry_after)
        self._folder = folder
        self._metrics = metrics
        self._clock = clock
        self._patience = patience
        self._thread: ThreadPoolExecutor | None = None
        self._overdue: asyncio.Future[Any] | None = None
        self._told = ""
        self._expire_at = math.inf

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._expire_at = time.monotonic() + _EXPIRE_EVERY
        await self._do(_count, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        closing = asyncio.get_running_loop().run_in_executor(thread, self._file.close)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_PATIENCE):
                await closing
        thread.shutdown(wait=False, cancel_futures=True)

    # What the installer needs

    async def keep(self, waiting: Sequence[Identity]) -> bool:
        """Take over keys that have to wait.

        Returns:
            whether they are on the disk: they survive a power cut.
        """
        now = self._clock()
        rows = [(key.raw, domain.name, now) for domain, key in waiting]

        def work(connection: sqlite3.Connection) -> bool:
            connection.executemany(
                "INSERT INTO pending (key, domain, since) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET since = excluded.since",
                rows,
            )
            return True

        return await self._do(work, otherwise=False)

    async def settle(self, installed: Sequence[Identity], given_up: Sequence[Identity]) -> None:
        """Take note of what has become of keys, kept ones and others: peers, in this order, or nothing."""
        now = self._clock()

        def work(connection: sqlite3.Connection) -> None:
            # Of a key that was installed in two domains, the last one counts.
            homes = {key.raw: domain.name for domain, key in installed}
            _install(connection, [(key, domain, now, 0.0) for key, domain in homes.items()])
            connection.executemany(
                "DELETE FROM pending WHERE key = ? AND domain = ?", [(key.raw, domain.name) for domain, key in given_up]
            )

        await self._do(work, None)

    # What the sweeper needs

    async def handshakes(self, snapshot: Snapshot) -> None:
        """Take note of the handshakes of our peers, and of peers of ours that are not known yet.

        Such were installed while the journal could not be written, or before there was one. What has become of a key
        since the snapshot wins.
        """
        expire = time.monotonic() >= self._expire_at
        if expire:
            self._expire_at = time.monotonic() + _EXPIRE_EVERY
        now = self._clock()

        def work(connection: sqlite3.Connection) -> None:
            _note_handshakes(connection, snapshot)
            if expire:
                _expire(connection, now)

        await self._do(work, None)

    # What the cleanup needs

    async def forget(self, identities: Iterable[Identity]) -> None:
        """Forget peers that were removed on purpose."""
        rows = [(key.raw, domain.name) for domain, key in identities]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM peers WHERE key = ? AND domain = ?", rows)

        await self._do(work, None)

    async def never_connected(self) -> dict[tuple[str, bytes], float]:
        """Tell for how many seconds each peer has been installed that never had a handshake.

        Returns:
            them by the name of the domain and the key (32 bytes); nothing if the journal cannot be read.
        """
        now = self._clock()

        def work(connection: sqlite3.Connection) -> dict[tuple[str, bytes], float]:
            rows = connection.execute("SELECT domain, key, installed_at FROM peers WHERE handshake = 0")
            return {(domain, key): max(0.0, now - installed_at) for domain, key, installed_at in rows}

        return await self._do(work, {})

    # What all of them need at the start

    async def peers(self, limit: float) -> dict[str, list[PublicKey]] | None:
        """Tell which peers were installed, or had a handshake, less than so many seconds ago.

        The time in which no process was there is left out. So it does not matter how long that was, nor that the clock
        may be ahead, as it is on some hosts until the network is there.

        Returns:
            their keys by the names of domains, be they configured or not; None if the journal cannot be read.
        """
        now = self._clock()

        def work(connection: sqlite3.Connection) -> dict[str, list[PublicKey]]:
            after = now - (self._file.away or 0.0) - limit
            return _by_domain(
                connection.execute("SELECT domain, key FROM peers WHERE max(installed_at, handshake) > ?", [after])
            )

        return await self._do(work, None)

    async def pending(self) -> dict[str, list[PublicKey]] | None:
        """Tell which keys were kept, and neither installed nor given up.

        Returns:
            them by the names of domains, be they configured or not, the oldest first; None if the journal cannot be
            read.
        """

        def work(connection: sqlite3.Connection) -> dict[str, list[PublicKey]]:
            return _by_domain(connection.execute("SELECT domain, key FROM pending ORDER BY since"))

        return await self._do(work, None)

    async def _do(self, work: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        """Work in the thread, in a transaction; give another answer if that fails."""
        if self._thread is None:
            raise RuntimeError("the journal is not open")
        if self._overdue is not None and not self._overdue.done():
            self._failed("an operation hangs")
            return otherwise
        self._overdue = None
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._file.run, work)
        try:
            async with asyncio.timeout(self._patience):
                result = await asyncio.shield(running)
        except TimeoutError:
            self._overdue = running
            running.add_done_callback(_take_error)
            self._failed("an operation hangs")
            return otherwise
        except _UnavailableError as error:
            self._failed(str(error))
            return otherwise
        self._metrics.up.set(1)
        if self._told:
            self._told = ""
            _log.info("journal_works_again", folder=str(self._folder))
        return result

    def _failed(self, detail: str) -> None:
        self._metrics.up.set(0)
        self._metrics.failures.inc()
        if detail != self._told:
            self._told = detail
            _log.error("journal_unavailable", folder=str(self._folder), detail=detail)


def _take_error(overdue: asyncio.Future[Any]) -> None:
    # Nobody waits for it any more.
    if not overdue.cancelled():
        overdue.exception()


def _by_domain(rows: Iterable[tuple[str, bytes]]) -> dict[str, list[PublicKey]]:
    found: dict[str, list[PublicKey]] = {}
    for domain, key in rows:
        found.setdefault(domain, []).append(PublicKey(key))
    return found


def _count(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT number FROM entries").fetchone()
    return int(count)


def _install(connection: sqlite3.Connection, rows: Sequence[tuple[bytes, str, float, float]]) -> None:
    """Put rows of different keys in: key, domain, when it was installed, its last handshake."""
    homes = [(key, domain) for key, domain, _, _ in rows]
    connection.executemany("DELETE FROM peers WHERE key = ? AND domain <> ?", homes)
    # Mostly nothing waits, and to look once takes less than to look for each key.
    if connection.execute("SELECT 1 FROM pending LIMIT 1").fetchone():
        connection.executemany("DELETE FROM pending WHERE key = ?", [(key,) for key, _ in homes])
    connection.executemany(
        "INSERT INTO peers (key, domain, installed_at, handshake) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET installed_at = excluded.installed_at",
        rows,
    )


def _note_handshakes(connection: sqlite3.Connection, snapshot: Snapshot) -> None:
    noted: dict[tuple[bytes, str], float] = {}
    newest: dict[bytes, float] = {}
    for key, domain, installed_at, handshake in connection.execute("SELECT * FROM peers"):
        noted[key, domain] = handshake
        newest[key] = installed_at
    for domain, state in snapshot.domains.items():
        for peer in state.peers:
            if peer.link_local not in state.routes:
                continue
            # One from the future tells nothing.
            told = peer.handshake if peer.handshake <= snapshot.taken_at + _HANDSHAKE_STEP else 0.0
            known = noted.get((peer.public_key, domain))
            if known is not None:
                if told >= known + _HANDSHAKE_STEP:
                    connection.execute(
                        "UPDATE peers SET handshake = ? WHERE key = ? AND domain = ?", (told, peer.public_key, domain)
                    )
            elif newest.get(peer.public_key, -math.inf) < snapshot.taken_at and peer.has_derived_address:
                _install(connection, [(peer.public_key, domain, told or snapshot.taken_at, told)])


def _expire(connection: sqlite3.Connection, now: float) -> None:
    connection.execute(
        "UPDATE peers SET installed_at = min(installed_at, ?1), handshake = min(handshake, ?1)"
        " WHERE installed_at > ?1 OR handshake > ?1",
        (now,),
    )
    connection.execute("UPDATE pending SET since = ?1 WHERE since > ?1", (now,))
    connection.execute("DELETE FROM peers WHERE max(installed_at, handshake) < ?", (now - FORGOTTEN_AFTER,))
    connection.execute("DELETE FROM pending WHERE since < ?", (now - FORGOTTEN_AFTER,))


class _UnavailableError(Exception):
    """The journal cannot be used now; the message says why."""


class _DamagedError(Exception):
    """The file is none that this version can use; the message says why."""


class _File:
    """All blocking work, for one thread.

    Args:
        folder: where the file is.
        metrics: how long transactions took, and how many keys there are.
        clock: seconds since the epoch.
        retry_after: seconds between attempts after a failure.

    Attributes:
        away: for how many seconds nothing was noted when the file was opened first; None before that.
    """

    def __init__(self, folder: Path, metrics: JournalMetrics, clock: Callable[[], float], retry_after: float) -> None:
        self.away: float | None = None
        self._clock = clock
        self._folder = folder
        self._path = folder / FILE
        self._metrics = metrics
        self._retry_after = retry_after
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._failure = ""
        self._not_before = -math.inf
        self._last_set_aside = -math.inf

    def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Work in a transaction, with another file if the one that is there is damaged.

        Raises:
            _UnavailableError: it failed; nothing of it was done.
        """
        if time.monotonic() < self._not_before:
            raise _UnavailableError(self._failure)
        try:
            try:
                return self._attempt(work)
            except _DamagedError as damage:
                self._set_aside(str(damage))
                return self._attempt(work)
        except (_UnavailableError, _DamagedError, OSError) as error:
            self.close()
            self._failure = str(error)
            self._not_before = time.monotonic() + self._retry_after
            raise _UnavailableError(self._failure) from error

    def close(self) -> None:
        self._disconnect()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _attempt(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            if self._connection is None or self._opened != _identity(self._path):
                # Somebody may have removed the file: what is written to it would be gone with it.
                self._open()
            assert self._connection is not None  # noqa: S101  for the type checker
            started = time.monotonic()
            with _transaction(self._connection):
                result = work(self._connection)
            self._metrics.write_duration.observe(time.monotonic() - started)
            self._metrics.entries.set(_count(self._connection))
        except sqlite3.DatabaseError as error:
            self._disconnect()
            if _means_damage(error):
                raise _DamagedError(str(error)) from error
            raise _UnavailableError(str(error)) from error
        except UnicodeDecodeError as error:
            # SQLite's own words quote the damaged schema.
            self._disconnect()
            raise _DamagedError("it has a text that is none") from error
        return result

    def _open(self) -> None:
        self.close()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # It ends with the process, however that ends. The folder is locked since the file may be set aside.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _UnavailableError("another worker has the same state_dir") from None
        if self._path.exists() and not stat.S_ISREG(self._path.stat().st_mode):
            raise _DamagedError("it is not a file")
        # SQLite would let everybody read it.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._opened = _identity(self._path)
        self._connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT, isolation_level=None)
        self._prepare(self._connection)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        # With NORMAL, a power cut may take the last transactions along, and the MQTT server has been told that they are
        # taken care of. So the disk is waited for; once a batch, that is cheap.
        connection.execute("PRAGMA synchronous = FULL")
        # The quick one does not see that keys are out of order, and then some are not found: 20,000 take 10 ms.
        (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise _DamagedError(verdict)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not version and not tables:
            with _transaction(connection):
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
        elif version != VERSION:
            raise _DamagedError(f"it is of version {version}, and this program knows version {VERSION}")
        else:
            # Nothing checks whether a text is one, but the reading of it.
            connection.execute("SELECT domain FROM peers UNION SELECT domain FROM pending").fetchall()
        if self.away is None:
            (latest,) = connection.execute("SELECT max(max(installed_at, handshake)) FROM peers").fetchone()
            self.away = 0.0 if latest is None else max(0.0, self._clock() - latest)
        # In memory: on the disk, a temporary file would be in the way of a full one.
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.executescript(_COUNTING)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _set_aside(self, damage: str) -> None:
        """Rename the file, for somebody to look at.

        Raises:
            _UnavailableError: that was done already a short while ago.
            OSError: it cannot be renamed.
        """
        self._disconnect()
        if time.monotonic() < self._last_set_aside + _SET_ASIDE_EVERY:
            raise _UnavailableError(f"it is damaged again: {damage}")
        self._last_set_aside = time.monotonic()
        self._metrics.failures.inc()
        target = self._path.with_name(f"{FILE}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        self._path.rename(target)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").rename(f"{target}{suffix}")
        _log.error("journal_set_aside", detail=damage, kept_as=str(target))


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors have rolled it back already.
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


# Of SQLite's result codes, those that say that the content is wrong; the others are about the disk, the rights, and
# others who use the file. https://www.sqlite.org/rescode.html
_DAMAGE: Final = frozenset(
    {
        sqlite3.SQLITE_ERROR,  # no such table
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_NOTADB,
    }
)


def _means_damage(error: sqlite3.DatabaseError) -> bool:
    # Python's own errors, which have no code, are about text that is none.
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _DAMAGE
