"""One snapshot for all readers that ask at the same time."""

import asyncio

from wgkex_ops.consumer.dataplane.base import Dataplane
from wgkex_ops.model.peers import Snapshot


class SharedSnapshots:
    """Reads snapshots. A reader that comes while one is being read gets the same one.

    Args:
        dataplane: what is read.
    """

    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane
        self._reading: asyncio.Task[Snapshot] | None = None

    async def read(self) -> Snapshot:
        """Read a snapshot.

        Raises:
            DataplaneError: it could not be read.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(self._dataplane.snapshot(), name="snapshot")
            self._reading.add_done_callback(self._forget)
        # A reader that is cancelled must not cancel it for the others.
        return await asyncio.shield(self._reading)

    def _forget(self, reading: asyncio.Task[Snapshot]) -> None:
        self._reading = None
        if not reading.cancelled():
            # All readers may have been cancelled: then nothing else retrieves the error.
            reading.exception()
