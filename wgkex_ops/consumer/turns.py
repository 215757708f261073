"""One dataplane for two who change it: the installer, which does as nodes ask, and the sweeper, which mends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from wgkex_ops.dataplane import Change, Dataplane, LinkEvent, Outcome, Snapshot


class Turns:
    """A `Dataplane` that remembers what was changed since somebody began to look.

    Repairs are made from a snapshot, which is old by the time that they are made. A node may have moved to another
    domain meanwhile: what it asked for wins. Repairs do not go through the installer's queue, where each key stands for
    a message, is counted as one, and answered.

    Args:
        dataplane: what is changed.
    """

    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane
        self._lock = asyncio.Lock()
        self._changed: set[bytes] = set()

    async def __aenter__(self) -> Self:
        await self._dataplane.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._dataplane.__aexit__(kind, error, traceback)

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Carry out what was asked for; see `Dataplane.apply`."""
        async with self._lock:
            try:
                return await self._dataplane.apply(changes)
            finally:
                self._changed.update(change.key.raw for change in changes)

    async def snapshot(self) -> Snapshot:
        """See `Dataplane.snapshot`."""
        return await self._dataplane.snapshot()

    async def look(self) -> Snapshot:
        """Read a snapshot that repairs are made from: from now on, changes are remembered.

        Raises:
            DataplaneError: it could not be read.
        """
        self._changed.clear()
        return await self._dataplane.snapshot()

    async def mend(self, changes: Sequence[Change]) -> dict[Change, Outcome]:
        """Carry out repairs, but of no key that somebody else has changed since the look.

        Returns:
            the outcomes of those that were carried out.
        """
        async with self._lock:
            carried_out = [change for change in changes if change.key.raw not in self._changed]
            if not carried_out:
                return {}
            return dict(zip(carried_out, await self._dataplane.apply(carried_out), strict=True))

    def events(self) -> AsyncIterator[LinkEvent]:
        """See `Dataplane.events`."""
        return self._dataplane.events()
