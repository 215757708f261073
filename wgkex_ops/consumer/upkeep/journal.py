"""Which peers this gateway should have: what the reconciler restores after a reboot, which empties the kernel."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, TypeVar

import structlog
from msgspec import structs

from wgkex_ops.consumer.upkeep.journal_file import JournalFile, JournalUnavailableError, Row
from wgkex_ops.metrics.journal import JournalMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import Snapshot

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")

# A handshake is noted when it differs by so much (seconds): WireGuard makes a new one every two minutes.
_HANDSHAKE_STEP: Final = 60.0

# Seconds. A disk that hangs must not hold up the keys.
_TIMEOUT: Final = 5.0
_CLOSE_TIMEOUT: Final = 1.0
_RETRY_AFTER: Final = 10.0


class Journal:
    """The desired peers, one row for each key, in memory and in a file.

    Trouble with the file is logged, counted and retried, and never raised: meanwhile the rows in memory count, and once
    the file can be used again, it gets all of them.

    Args:
        folder: where the file is; made if only it is missing.
        metrics: how the journal is.
        clock: seconds since the epoch.
        timeout: seconds that an operation on the file may take.
        retry_after: seconds between attempts to open a file that could not be used.
    """

    def __init__(
        self,
        folder: Path,
        metrics: JournalMetrics,
        clock: Callable[[], float] = time.time,
        *,
        timeout: float = _TIMEOUT,
        retry_after: float = _RETRY_AFTER,
    ) -> None:
        self._folder = folder
        self._file = JournalFile(folder)
        self._metrics = metrics
        self._clock = clock
        self._timeout = timeout
        self._retry_after = retry_after
        self._thread: ThreadPoolExecutor | None = None
        self._rows: dict[bytes, Row] = {}
        # Whether the file was read; whether it has all rows; the operation that hangs; when to try again.
        self._loaded = False
        self._complete = False
        self._overdue: asyncio.Future[Any] | None = None
        self._retry_at = 0.0
        self._logged = ""
        metrics.entries.set_function(lambda: len(self._rows))

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        closing = asyncio.get_running_loop().run_in_executor(thread, self._file.close)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await closing
        thread.shutdown(wait=False, cancel_futures=True)

    @property
    def rows(self) -> Mapping[bytes, Row]:
        """All peers that this gateway should have, by their keys (32 bytes)."""
        return MappingProxyType(self._rows)

    async def install(
        self,
        installed: Sequence[tuple[Domain, PublicKey]],
        gone: Collection[bytes] = (),
        by_version_2: Collection[bytes] = (),
    ) -> None:
        """Note peers that were installed, and return when they survive a power cut, or cannot be written.

        Args:
            installed: in this order: of a key that was installed in two domains, the last one counts.
            gone: keys (32 bytes) of peers that were removed for them.
            by_version_2: those of the installed keys (32 bytes) whose nodes asked by version 2.
        """
        now = self._clock()
        rows = []
        for domain, key in installed:
            known = self._rows.get(key.raw)
            handshake = known.handshake if known is not None and known.domain == domain.name else 0.0
            rows.append(Row(key.raw, domain.name, now, handshake, key.raw in by_version_2))
        await self._write(rows, gone)

    async def forget(self, keys: Iterable[bytes]) -> None:
        """Forget peers, by their keys (32 bytes), that were removed for good."""
        await self._write((), list(keys))

    async def observe(self, snapshot: Snapshot, touched: Collection[bytes]) -> None:
        """Enter what the kernel knows better: peers of ours that are not known here, or elsewhere, and handshakes.

        Args:
            snapshot: what is there.
            touched: addresses (16 bytes) that were changed since its beginning, and are while this works.
        """
        # Thousands of peers take a while.
        news = await asyncio.to_thread(_news, snapshot, self._rows)
        await self._write([row for address, row in news if address not in touched], ())

    async def _write(self, rows: Sequence[Row], gone: Collection[bytes]) -> None:
        for key in gone:
            self._rows.pop(key, None)
        for row in rows:
            self._rows[row.key] = row
        if not self._complete:
            await self._open()
        elif rows or gone:
            self._complete = await self._do(partial(self._timed_save, rows, gone)) is not None

    async def _open(self) -> None:
        """Open the file, take in what it has, if that is news, and give it all rows."""
        if time.monotonic() < self._retry_at:
            self._metrics.failures.inc()
            return
        found = await self._do(self._file.open)
        if found is not None:
            in_file = {row.key: row for row in found}
            if not self._loaded:
                self._loaded = True
                self._rows = in_file | self._rows
            save = partial(self._timed_save, list(self._rows.values()), (), replace=True)
            self._complete = in_file == self._rows or await self._do(save) is not None
        self._retry_at = 0.0 if self._complete else time.monotonic() + self._retry_after

    def _timed_save(self, rows: Sequence[Row], gone: Collection[bytes], *, replace: bool = False) -> bool:
        started = time.monotonic()
        self._file.save(rows, gone, replace=replace)
        self._metrics.write_duration.observe(time.monotonic() - started)
        return True

    async def _do(self, work: Callable[[], _T]) -> _T | None:
        """Do something with the file, in its thread; None if that fails or takes too long."""
        if self._thread is None:
            raise RuntimeError("the journal is not open")
        if self._overdue is not None and not self._overdue.done():
            self._failed("an operation hangs")
            return None
        self._overdue = None
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            async with asyncio.timeout(self._timeout):
                result = await asyncio.shield(running)
        except TimeoutError:
            self._overdue = running
            running.add_done_callback(_take_error)
            self._failed("an operation hangs")
            return None
        except JournalUnavailableError as error:
            self._failed(str(error))
            return None
        self._metrics.up.set(1)
        if self._logged:
            self._logged = ""
            _log.info("journal_works_again", folder=str(self._folder))
        return result

    def _failed(self, detail: str) -> None:
        self._metrics.up.set(0)
        self._metrics.failures.inc()
        if detail != self._logged:
            self._logged = detail
            _log.error("journal_unavailable", folder=str(self._folder), detail=detail)


def _take_error(overdue: asyncio.Future[Any]) -> None:
    # No caller waits for it any more.
    if not overdue.cancelled():
        overdue.exception()


def _news(snapshot: Snapshot, rows: Mapping[bytes, Row]) -> list[tuple[bytes, Row]]:
    """The rows that a snapshot changes, with the peer's address. A peer is ours where a route of ours leads to it."""
    news: list[tuple[bytes, Row]] = []
    for domain, state in snapshot.domains.items():
        for peer in state.peers:
            if peer.link_local not in state.routes:
                continue
            row = rows.get(peer.public_key)
            if row is not None and row.domain == domain:
                # One that was restored has none yet: what is known of its session stays.
                if peer.handshake and abs(peer.handshake - row.handshake) >= _HANDSHAKE_STEP:
                    news.append((peer.link_local, structs.replace(row, handshake=peer.handshake)))
            elif peer.has_derived_address:
                news.append((peer.link_local, Row(peer.public_key, domain, snapshot.taken_at, peer.handshake)))
    return news
