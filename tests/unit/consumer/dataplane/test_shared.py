"""One snapshot for all readers that ask at the same time."""

import asyncio
import gc
from collections.abc import Callable

import pytest

from tests.fakes import FaultyDataplane
from tests.helpers import DOMAINS, settle
from wgkex_ops.consumer.dataplane.shared import SharedSnapshots
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.changes import Operation
from wgkex_ops.model.peers import Snapshot


def slow() -> FaultyDataplane:
    """A dataplane that no snapshot can be read of until `may_read` is set."""
    dataplane = FaultyDataplane()
    dataplane.may_read.clear()
    return dataplane


async def start(count: int, read: Callable[[], object]) -> list[asyncio.Task[Snapshot]]:
    async def reading() -> Snapshot:
        snapshot = read()
        assert asyncio.iscoroutine(snapshot)
        found = await snapshot
        assert isinstance(found, Snapshot)
        return found

    tasks = [asyncio.create_task(reading()) for _ in range(count)]
    await settle()
    return tasks


async def test_readers_at_the_same_time_share_one_reading() -> None:
    dataplane = slow()
    readers = await start(5, SharedSnapshots(dataplane).read)
    dataplane.may_read.set()
    snapshots = await asyncio.gather(*readers)
    assert dataplane.snapshots == 1
    assert all(snapshot is snapshots[0] for snapshot in snapshots)


async def test_later_reader_gets_a_new_reading() -> None:
    dataplane = slow()
    shared = SharedSnapshots(dataplane)
    dataplane.may_read.set()
    first = await shared.read()
    await settle()
    assert await shared.read() is not first
    assert dataplane.snapshots == 2


@pytest.mark.parametrize("cancelled", [0, 1, 2], ids=("first", "second", "last"))
async def test_cancelled_reader_does_not_end_the_reading_of_the_others(cancelled: int) -> None:
    dataplane = slow()
    readers = await start(3, SharedSnapshots(dataplane).read)
    readers[cancelled].cancel()
    await settle()
    assert readers[cancelled].cancelled()
    dataplane.may_read.set()
    others = await asyncio.gather(*(reader for reader in readers if not reader.cancelled()))
    assert [snapshot.domains.keys() for snapshot in others] == [DOMAINS.keys()] * 2
    assert dataplane.snapshots == 1


async def test_error_reaches_all_readers_and_the_next_reading_may_succeed() -> None:
    dataplane = slow()
    shared = SharedSnapshots(dataplane)
    readers = await start(3, shared.read)
    dataplane.snapshot_error = DataplaneError(Operation.DUMP, "ENOBUFS")
    dataplane.may_read.set()
    outcomes = await asyncio.gather(*readers, return_exceptions=True)
    assert outcomes == [dataplane.snapshot_error] * 3
    dataplane.snapshot_error = None
    assert (await shared.read()).domains.keys() == DOMAINS.keys()


async def test_error_without_a_reader_is_not_logged_by_asyncio() -> None:
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context))
    dataplane = slow()
    readers = await start(1, SharedSnapshots(dataplane).read)
    readers[0].cancel()
    await settle()
    dataplane.snapshot_error = DataplaneError(Operation.DUMP, "ENOBUFS")
    dataplane.may_read.set()
    await settle()
    del readers
    gc.collect()
    assert logged == []
