"""One dataplane for three who change it: the installer, which does as nodes ask, the sweeper and the cleanup."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from wgkex_ops.consumer.dataplane.base import Dataplane, LinkEvent
from wgkex_ops.model.changes import Change, Outcome
from wgkex_ops.model.peers import Snapshot


class Turns:
    """A `Dataplane` that remembers what was changed, or asked for, since somebody began to look.

    What the sweeper and the cleanup do is planned from a snapshot, which is old by the time that they do it. A node may
    have asked for its key meanwhile, or have moved to another domain: what it asked for wins. They do not go through
    the installer's queue, where each key stands for a message, is counted as one, and answered.

    Args:
        dataplane: what is changed.
    """

    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane
        self._lock = asyncio.Lock()
        # There is one look at a time: the sweeper must not put back what the cleanup removes.
        self._looking = asyncio.Lock()
        self._look: Look | None = None

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
                for change in changes:
                    self.touch(change.address)

    async def snapshot(self) -> Snapshot:
        """See `Dataplane.snapshot`."""
        return await self._dataplane.snapshot()

    def events(self) -> AsyncIterator[LinkEvent]:
        """See `Dataplane.events`."""
        return self._dataplane.events()

    def touch(self, address: bytes) -> None:
        """Keep an address (16 bytes) out of what others have planned for it until now: its key is requested."""
        if self._look is not None:
            self._look.touched.add(address)

    @asynccontextmanager
    async def looking(self) -> AsyncIterator["Look"]:
        """Read a snapshot to plan changes from; while the context lasts, what is asked for is remembered.

        Raises:
            DataplaneError: it could not be read.
        """
        async with self._looking:
            look = self._look = Look(self._dataplane, self._lock)
            try:
                look.snapshot = await self._dataplane.snapshot()
                yield look
            finally:
                self._look = None


@dataclass(eq=False)
class Look:
    """A picture of the dataplane, and what is made of it.

    Attributes:
        snapshot: the picture.
        touched: addresses (16 bytes) of keys that somebody else has changed, or that were requested, since it was begun
            to be taken.
    """

    _dataplane: Dataplane
    _lock: asyncio.Lock
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(taken_at=0.0))
    touched: set[bytes] = field(default_factory=set)

    async def mend(self, changes: Sequence[Change]) -> dict[Change, Outcome]:
        """Carry out changes that were planned from the picture, but of no address that was touched since.

        Returns:
            the outcomes of those that were carried out.
        """
        async with self._lock:
            carried_out = [change for change in changes if change.address not in self.touched]
            if not carried_out:
                return {}
            return dict(zip(carried_out, await self._dataplane.apply(carried_out), strict=True))
