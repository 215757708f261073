"""Serializes those who work on one dataplane: the installer, the reconciler and the cleanup."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from wgkex_ops.consumer.dataplane.base import Dataplane, LinkEvent
from wgkex_ops.model.changes import Change, Outcome
from wgkex_ops.model.peers import Snapshot


class SerializedDataplane:
    """One batch of changes at a time, and one scan at a time.

    Between a scan's snapshot and the changes that are planned from it, keys are installed. The scan then leaves their
    addresses alone: what a node requests wins over an older snapshot.

    Args:
        dataplane: what is changed.
    """

    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane
        self._changing = asyncio.Lock()
        # The reconciler must not restore what the cleanup removes.
        self._scanning = asyncio.Lock()
        self._scan: Scan | None = None

    async def __aenter__(self) -> Self:
        await self._dataplane.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._dataplane.__aexit__(kind, error, traceback)

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Carry out what nodes request; see `Dataplane.apply`."""
        async with self._changing:
            try:
                return await self._dataplane.apply(changes)
            finally:
                if self._scan is not None:
                    self._scan.touched.update(change.address for change in changes)

    async def snapshot(self) -> Snapshot:
        """See `Dataplane.snapshot`."""
        return await self._dataplane.snapshot()

    def events(self) -> AsyncIterator[LinkEvent]:
        """See `Dataplane.events`."""
        return self._dataplane.events()

    @asynccontextmanager
    async def scanning(self) -> AsyncIterator["Scan"]:
        """Read a snapshot to plan changes from.

        Raises:
            DataplaneError: it could not be read.
        """
        async with self._scanning:
            scan = self._scan = Scan(self._dataplane, self._changing)
            try:
                scan.snapshot = await self._dataplane.snapshot()
                yield scan
            finally:
                self._scan = None


@dataclass(eq=False)
class Scan:
    """A snapshot, and the changes that follow from it.

    Attributes:
        snapshot: what the dataplane had.
        touched: addresses (16 bytes) that the installer has changed since the snapshot was begun.
    """

    _dataplane: Dataplane
    _changing: asyncio.Lock
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(taken_at=0.0))
    touched: set[bytes] = field(default_factory=set)

    async def apply(self, changes: Sequence[Change]) -> dict[Change, Outcome]:
        """Carry out changes that were planned from the snapshot, but of no address that was touched since.

        Returns:
            the outcomes of those that were carried out.
        """
        async with self._changing:
            untouched = [change for change in changes if change.address not in self.touched]
            if not untouched:
                return {}
            return dict(zip(untouched, await self._dataplane.apply(untouched), strict=True))
