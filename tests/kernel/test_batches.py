"""Many changes at once on a real kernel, and what happens when some fail or are cancelled."""

import asyncio
import os

import pytest

from tests.fakes import Recorder
from tests.kernel.dataplane import (
    DOMAINS,
    A,
    B,
    assert_exactly,
    errors,
    install,
    new_keys,
    remove,
)
from tests.kernel.lab import Namespace, eventually
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.model.changes import Change, Operation
from wgkex_ops.model.keys import PublicKey


async def test_many_in_several_domains(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, recorder: Recorder
) -> None:
    keys = new_keys(900)
    by_domain = {domain: keys[start::3] for start, domain in enumerate(DOMAINS)}
    changes = [Change.install(DOMAINS[position % 3], key) for position, key in enumerate(keys)]

    assert await dataplane.apply(changes) == [None] * 900
    for domain in DOMAINS:
        assert_exactly(here, domain, by_domain[domain])
    assert sum(count for count, _ in recorder.of(Operation.FDB_ADD)) == 900

    assert await dataplane.apply([Change.remove(DOMAINS[position % 3], key) for position, key in enumerate(keys[:450])])
    for domain in DOMAINS:
        assert_exactly(here, domain, by_domain[domain][150:])


@pytest.mark.parametrize("bad_positions", [[0], [149], [239], [7, 8, 200], [*range(40, 60)]])
async def test_bad_keys_do_not_affect_the_good_ones(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, recorder: Recorder, bad_positions: list[int]
) -> None:
    # PublicKey.parse() lets no key of 31 bytes through; it is the one thing about a single peer that WireGuard refuses.
    keys = [PublicKey(os.urandom(31 if position in bad_positions else 32)) for position in range(240)]
    good = [key for key in keys if len(key.raw) == 32]

    domains = [(B, A, A)[position % 3] for position in range(240)]

    outcomes = await dataplane.apply([Change.install(domain, key) for domain, key in zip(domains, keys, strict=True)])
    assert [position for position, outcome in enumerate(outcomes) if outcome] == bad_positions
    assert {failed for failed in errors(outcomes) if failed} == {("peer_add", "ERANGE")}
    for one in (A, B):
        assert_exactly(
            here, one, [key for domain, key in zip(domains, keys, strict=True) if domain == one and key in good]
        )
    assert recorder.of(Operation.PEER_ADD) == [(240, ("ERANGE",) * len(bad_positions))]
    assert recorder.of(Operation.ROUTE_ADD) == [(len(good), ())]

    outcomes = await dataplane.apply([Change.remove(domain, key) for domain, key in zip(domains, keys, strict=True)])
    assert [position for position, outcome in enumerate(outcomes) if outcome] == bad_positions
    for one in (A, B):
        assert_exactly(here, one, [])


async def test_errors_that_do_not_fit_into_the_buffer_are_no_reason_to_hang(
    here: Namespace, own_keys: list[str], recorder: Recorder
) -> None:
    here.run("ip", "link", "set", A.wg, "down")
    keys = new_keys(100)
    # The kernel grants the smallest buffer that it allows. A hundred errors do not fit into it.
    async with KernelDataplane(DOMAINS, recorder, receive_buffer=1) as dataplane:
        assert set(errors(await dataplane.apply(install(A, keys)))) == {("route_add", "ENOBUFS")}
        here.run("ip", "link", "set", A.wg, "up")
        assert await dataplane.apply(install(A, keys)) == [None] * 100
    assert_exactly(here, A, keys)


async def test_being_cancelled_leaves_everything_usable(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, recorder: Recorder
) -> None:
    keys = new_keys(3000)
    applying = asyncio.create_task(dataplane.apply(install(A, keys)))
    await eventually(lambda: bool(recorder.of(Operation.PEER_ADD)))
    reading = asyncio.create_task(dataplane.snapshot())
    await asyncio.sleep(0)
    for task in (applying, reading):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    # The plans that had begun were carried out, and the others were dropped.
    state = (await dataplane.snapshot()).domains[A.name]
    assert 0 < len(state.peers) < 3000
    assert len(state.peers) == len(state.routes) == len(state.fdb_entries)
    assert await dataplane.apply(remove(A, keys)) == [None] * 3000
    assert_exactly(here, A, [])


async def test_changes_and_snapshots_at_the_same_time(own_keys: list[str], dataplane: KernelDataplane) -> None:
    changing = [asyncio.create_task(dataplane.apply(install(domain, new_keys(400)))) for domain in DOMAINS]
    while not all(task.done() for task in changing):
        for state in (await dataplane.snapshot()).domains.values():
            # No snapshot has a change of ours half done.
            assert {peer.link_local for peer in state.peers} == state.routes == state.fdb_entries
    assert [await task for task in changing] == [[None] * 400] * 3
