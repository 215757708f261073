"""Who goes and who stays: with the dataplane in memory, a journal on the disk, and clocks that the tests set."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from prometheus_client import CollectorRegistry

from tests.fakes import Nobody, run_in_virtual_time
from tests.helpers import CITY, DOMAINS, WELT, key, running, samples, settle, until
from wgkex_ops.bus.messages import Origin
from wgkex_ops.config import CleanupConfig
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane
from wgkex_ops.consumer.dataplane.turns import Turns
from wgkex_ops.consumer.installer import Installer
from wgkex_ops.consumer.upkeep.cleanup import Cleanup
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.consumer.upkeep.requests import Offers
from wgkex_ops.errors import DataplaneError
from wgkex_ops.metrics.cleanup import CleanupMetrics
from wgkex_ops.metrics.journal import JournalMetrics
from wgkex_ops.metrics.worker import ConsumerMetrics
from wgkex_ops.model.changes import Change, Operation, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.peers import Snapshot

NOW: Final = 1_800_000_000.0
MINUTE: Final = 60.0
HOUR: Final = 3600.0
STALE: Final = 3 * HOUR
NEVER: Final = 10 * MINUTE


class Times:
    """The two clocks of a host; both go on, and one of them can be set."""

    def __init__(self) -> None:
        self.wall = NOW
        self.since_boot = 1000.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.since_boot += seconds


class WatchedDataplane(MemoryDataplane):
    """Remembers what it was told to do; can be held up, be unreadable, and refuse to remove."""

    def __init__(self, times: Times) -> None:
        super().__init__(tuple(DOMAINS.values()), Nobody(), lambda: times.wall)
        self.batches: list[list[Change]] = []
        self.may_work = asyncio.Event()
        self.may_work.set()
        self.readable = True
        self.stubborn: set[bytes] = set()
        self.routed_elsewhere = frozenset[bytes]()

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        self.batches.append(list(changes))
        await self.may_work.wait()
        willing = [change for change in changes if change.key is None or change.key.raw not in self.stubborn]
        outcomes = dict(zip(willing, await super().apply(willing), strict=True))
        error = DataplaneError(Operation.PEER_REMOVE, "ENOBUFS", "no buffer space")
        return [outcomes.get(change, error) for change in changes]

    async def snapshot(self) -> Snapshot:
        if not self.readable:
            raise DataplaneError(Operation.DUMP, "EINTR")
        return replace(await super().snapshot(), routed_elsewhere=self.routed_elsewhere)


class WatchedOffers(Offers):
    """Knows how often the cleanup was through with its judgement."""

    judged = 0

    def forget(self, older_than: float, peers: Mapping[str, frozenset[bytes]]) -> None:
        self.judged += 1
        super().forget(older_than, peers)


@dataclass
class Bench:
    """A gateway with peers."""

    dataplane: WatchedDataplane
    journal: Journal
    offers: WatchedOffers
    turns: Turns
    cleanup: Cleanup
    times: Times
    registry: CollectorRegistry
    events: list[Any]

    async def ask(self, domain: Domain, *numbers: int) -> None:
        """Nodes ask for their keys, which are installed."""
        for number in numbers:
            self.offered(domain, key(number))
        await self.turns.apply([Change.install(domain, key(number)) for number in numbers])
        await self.journal.settle([(domain, key(number)) for number in numbers], [])
        self.dataplane.batches.clear()

    def offered(self, domain: Domain, asked: PublicKey) -> None:
        """As the worker does."""
        self.offers.note(domain.name, asked.raw)
        self.turns.touch(link_local(asked.raw))

    async def connect(self, domain: Domain, *numbers: int) -> None:
        """Nodes ask for their keys, and have a handshake at once."""
        await self.ask(domain, *numbers)
        self.shake(domain, *numbers)

    def shake(self, domain: Domain, *numbers: int) -> None:
        for number in numbers:
            assert self.dataplane.shake_hands(domain, key(number))

    async def peers(self, domain: Domain = WELT) -> set[int]:
        """Numbers of the peers that are there with all their parts; nobody is there in part."""
        state = (await self.dataplane.snapshot()).domains[domain.name]
        assert {peer.link_local for peer in state.peers} == state.routes == state.fdb_entries
        return {int.from_bytes(peer.public_key[3:], "big") for peer in state.peers}

    async def known(self) -> set[int]:
        """Numbers of the peers that the journal would put back after a reboot."""
        found = await self.journal.peers(1e9) or {}
        return {int.from_bytes(one.raw[3:], "big") for one in found[WELT.name]}

    @property
    def counted(self) -> dict[str, float]:
        """What was counted, by what it was."""
        prefix = "wgkex_worker_"
        return {
            name.removeprefix(prefix).replace("_total", ""): value
            for name, value in samples(self.registry).items()
            if value and "created" not in name and ("removed" in name or "adopted" in name or "cleanup" in name)
        }

    def logged(self, event: str) -> list[Any]:
        return [entry for entry in self.events if entry["event"] == event]


@contextlib.asynccontextmanager
async def gateway(
    folder: Path,
    times: Times | None = None,
    dataplane: WatchedDataplane | None = None,
    **settings: Any,  # noqa: ANN401
) -> AsyncIterator[Bench]:
    """A worker process; a second one on the same dataplane is a restart."""
    times = times or Times()
    registry = CollectorRegistry()
    dataplane = dataplane or WatchedDataplane(times)
    journal = Journal(folder, JournalMetrics(registry), lambda: times.wall, patience=60.0, retry_after=0.0)
    offers = WatchedOffers(lambda: times.since_boot)
    turns = Turns(dataplane)
    cleanup = Cleanup(
        turns,
        journal,
        offers,
        tuple(DOMAINS.values()),
        settings=CleanupConfig(**settings),
        metrics=CleanupMetrics(registry, DOMAINS),
        clock=lambda: times.wall,
        monotonic=lambda: times.since_boot,
    )
    with structlog.testing.capture_logs() as events:
        async with journal:
            yield Bench(dataplane, journal, offers, turns, cleanup, times, registry, events)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """One that has run for long, and cleaned a minute ago."""
    async with gateway(tmp_path) as bench:
        bench.times.pass_by(100 * HOUR)
        await bench.cleanup.clean()
        bench.times.pass_by(MINUTE)
        yield bench


# --- who goes


async def test_whoever_has_had_no_handshake_for_too_long_goes(bench: Bench) -> None:
    await bench.connect(WELT, 1, 2, 3)
    await bench.cleanup.clean()
    bench.times.pass_by(STALE - 1)
    bench.shake(WELT, 2)
    await bench.cleanup.clean()
    assert await bench.peers() == {1, 2, 3}
    bench.times.pass_by(1)
    await bench.cleanup.clean()
    assert await bench.peers() == {2}
    assert await bench.known() == {2}
    assert bench.counted == {
        'peers_removed{domain="ffmuc_welt",reason="stale"}': 2,
        'cleanup_runs{result="completed"}': 4,
        "cleanup_last_success_timestamp_seconds": bench.times.wall,
    }
    assert [(entry["public_key"], entry["reason"]) for entry in bench.logged("peer_removed")] == [
        (str(key(1)), "stale"),
        (str(key(3)), "stale"),
    ]


async def test_whoever_never_had_a_handshake_goes_some_time_after_the_last_question(bench: Bench) -> None:
    await bench.ask(WELT, 1, 2)
    bench.times.pass_by(NEVER - 1)
    await bench.ask(WELT, 2)
    await bench.cleanup.clean()
    assert await bench.peers() == {1, 2}
    bench.times.pass_by(1)
    await bench.cleanup.clean()
    assert await bench.peers() == {2}
    bench.times.pass_by(NEVER - 1)
    await bench.cleanup.clean()
    assert await bench.peers() == set()
    assert bench.counted['peers_removed{domain="ffmuc_welt",reason="never_connected"}'] == 2


async def test_an_old_peer_whose_node_has_just_asked_again_has_time_for_a_handshake(bench: Bench) -> None:
    await bench.connect(WELT, 1, 2)
    await bench.cleanup.clean()
    bench.times.pass_by(2 * STALE)
    await bench.ask(WELT, 1)
    bench.times.pass_by(NEVER - 1)
    await bench.cleanup.clean()
    assert await bench.peers() == {1}
    bench.times.pass_by(1)
    await bench.cleanup.clean()
    assert await bench.peers() == set()


async def test_a_peer_is_removed_in_the_domain_where_it_has_gone(bench: Bench) -> None:
    await bench.connect(WELT, 1)
    await bench.connect(CITY, 2)
    bench.times.pass_by(STALE)
    bench.shake(CITY, 2)
    await bench.cleanup.clean()
    assert (await bench.peers(WELT), await bench.peers(CITY)) == (set(), {2})


async def test_protected_peers_stay(tmp_path: Path) -> None:
    async with gateway(tmp_path, protected_keys=(key(1), key(2))) as bench:
        await bench.connect(WELT, 1, 3)
        await bench.ask(WELT, 2, 4)
        bench.times.pass_by(100 * STALE)
        for _ in range(2):
            await bench.cleanup.clean()
            bench.times.pass_by(10 * MINUTE)
        assert await bench.peers() == {1, 2}


async def test_what_a_node_leaves_behind_that_moves_to_another_domain_goes_when_it_is_old(bench: Bench) -> None:
    """Its route has moved along, and stays."""
    await bench.connect(WELT, 1)
    await bench.connect(CITY, 1)
    bench.times.pass_by(STALE)
    bench.shake(CITY, 1)
    await bench.cleanup.clean()
    snapshot = await bench.dataplane.snapshot()
    assert snapshot.domains[WELT.name].peers == ()
    assert await bench.peers(CITY) == {1}
    assert bench.counted['peers_removed{domain="ffmuc_welt",reason="stale"}'] == 1


async def test_what_a_node_leaves_behind_that_moves_to_another_workers_domain_goes_as_well(bench: Bench) -> None:
    await bench.connect(WELT, 1)
    bench.dataplane.lose(WELT, key(1), "route")
    bench.times.pass_by(STALE)
    await bench.cleanup.clean()
    # Nobody knows whose it is, without a route that says so.
    assert len((await bench.dataplane.snapshot()).domains[WELT.name].peers) == 1
    bench.dataplane.routed_elsewhere = frozenset({link_local(key(1).raw)})
    bench.times.pass_by(STALE)
    await bench.cleanup.clean()
    assert (await bench.dataplane.snapshot()).domains[WELT.name].peers == ()


async def test_a_node_that_moves_and_never_connects_here_leaves_no_half_behind(bench: Bench) -> None:
    """It has moved to another gateway: all of them get its key, and one its handshake."""
    await bench.connect(WELT, 1)
    await bench.cleanup.clean()
    await bench.ask(CITY, 1)
    bench.times.pass_by(2 * NEVER)
    await bench.cleanup.clean()
    # Whose the old peer is, only this route can tell.
    assert await bench.peers(CITY) == {1}
    bench.times.pass_by(STALE)
    await bench.cleanup.clean()
    assert (await bench.dataplane.snapshot()).domains[WELT.name].peers == ()
    assert await bench.peers(CITY) == {1}
    await bench.cleanup.clean()
    assert await bench.peers(CITY) == set()
    assert {name: value for name, value in bench.counted.items() if "removed" in name} == {
        'peers_removed{domain="ffmuc_welt",reason="stale"}': 1,
        'peers_removed{domain="ffmuc_muc_cty",reason="never_connected"}': 1,
    }


async def test_a_node_that_moves_to_and_fro_is_removed_where_it_was_for_a_while(bench: Bench) -> None:
    await bench.connect(WELT, 1)
    await bench.cleanup.clean()
    await bench.ask(CITY, 1)
    await bench.connect(WELT, 1)
    bench.times.pass_by(NEVER)
    bench.shake(WELT, 1)
    await bench.cleanup.clean()
    assert (await bench.dataplane.snapshot()).domains[CITY.name].peers == ()
    assert await bench.peers(WELT) == {1}


async def test_a_peer_that_has_no_route_of_ours_is_not_ours(bench: Bench) -> None:
    await bench.connect(WELT, 1, 2)
    bench.dataplane.lose(WELT, key(1), "route")
    bench.times.pass_by(2 * STALE)
    await bench.cleanup.clean()
    state = (await bench.dataplane.snapshot()).domains[WELT.name]
    assert [peer.public_key for peer in state.peers] == [key(1).raw]
    assert state.fdb_entries == {key(1).link_local.packed}


async def test_a_peer_of_others_is_theirs_though_its_key_was_asked_for_in_another_domain(bench: Bench) -> None:
    bench.dataplane.add_static(CITY, key(1))
    await bench.connect(WELT, 1, 2)
    # Their route stands beside ours, with another metric.
    bench.dataplane.reroute(CITY, key(1).link_local.packed, 4)
    before = (await bench.dataplane.snapshot()).domains[CITY.name]
    bench.times.pass_by(2 * STALE)
    bench.shake(WELT, 2)
    for _ in range(2):
        await bench.cleanup.clean()
        bench.times.pass_by(10 * MINUTE)
    assert (await bench.dataplane.snapshot()).domains[CITY.name] == before


async def test_a_peer_whose_address_derives_from_another_key_is_not_ours(bench: Bench) -> None:
    """Though a route of ours leads there."""
    await bench.connect(WELT, 1, 2)
    bench.dataplane.lose(WELT, key(2), "peer")
    bench.dataplane.readdress(WELT, key(1), key(2).link_local.packed)
    bench.times.pass_by(2 * STALE)
    await bench.cleanup.clean()
    state = (await bench.dataplane.snapshot()).domains[WELT.name]
    assert [peer.public_key for peer in state.peers] == [key(1).raw]


async def test_peers_of_others_count_for_nothing_when_half_of_ours_would_go_at_once(bench: Bench) -> None:
    await bench.connect(WELT, 1, 2, 3)
    # The address of another key, which a route of ours leads to.
    bench.dataplane.readdress(WELT, key(4), key(3).link_local.packed)
    bench.dataplane.lose(WELT, key(3), "peer")
    bench.shake(WELT, 4)
    await bench.cleanup.clean()
    bench.times.pass_by(STALE)
    bench.shake(WELT, 4)
    await bench.cleanup.clean()
    assert bench.counted["cleanup_held_peers"] == 2


# --- clocks


async def test_a_jump_of_the_clock_wipes_nothing_and_is_told(bench: Bench) -> None:
    await bench.connect(WELT, *range(10))
    await bench.ask(WELT, 10)
    await bench.cleanup.clean()
    bench.times.pass_by(10 * MINUTE)
    bench.shake(WELT, *range(9))
    await bench.cleanup.clean()
    last_success = bench.times.wall
    bench.times.pass_by(10 * MINUTE)
    bench.times.wall += 24 * HOUR
    await bench.cleanup.clean()
    assert await bench.peers() == set(range(10))
    assert bench.counted == {
        # Of the monotonic clock nobody has doubts.
        'peers_removed{domain="ffmuc_welt",reason="never_connected"}': 1,
        'cleanup_runs{result="completed"}': 3,
        'cleanup_runs{result="held"}': 1,
        "cleanup_held_peers": 10,
        "cleanup_last_success_timestamp_seconds": last_success,
    }
    assert [entry["count"] for entry in bench.logged("cleanup_held")] == [10]
    # Who is there has a handshake by the new clock before the next run, which agrees on the others.
    bench.times.pass_by(10 * MINUTE)
    bench.shake(WELT, *range(8))
    await bench.cleanup.clean()
    assert await bench.peers() == set(range(8))
    assert bench.counted["cleanup_last_success_timestamp_seconds"] == bench.times.wall
    assert "cleanup_held_peers" not in bench.counted


@pytest.mark.parametrize("back_after", [0, MINUTE, 11 * MINUTE], ids=["in time", "soon", "never"])
async def test_a_jump_after_an_outage_wipes_nothing_either(bench: Bench, back_after: float) -> None:
    """At the last run hardly anybody was active, as the gateway had no uplink for some minutes."""
    await bench.connect(WELT, *range(10))
    await bench.cleanup.clean()
    bench.times.pass_by(6 * MINUTE)
    bench.shake(WELT, *range(10))
    bench.times.pass_by(4 * MINUTE)
    if back_after == 0:
        bench.shake(WELT, 0, 1)
    await bench.cleanup.clean()
    bench.times.pass_by(MINUTE)
    if back_after <= MINUTE:
        bench.shake(WELT, *range(10))
    bench.times.wall += STALE
    bench.times.pass_by(9 * MINUTE)
    await bench.cleanup.clean()
    assert await bench.peers() == set(range(10))
    assert len(bench.logged("cleanup_held")) == 1
    bench.times.pass_by(10 * MINUTE)
    if back_after <= MINUTE:
        bench.shake(WELT, *range(10))
    await bench.cleanup.clean()
    assert await bench.peers() == (set(range(10)) if back_after <= MINUTE else set())


async def test_a_jump_costs_nobody_who_was_not_there_at_the_last_run(bench: Bench) -> None:
    """Nor who had no handshake then, or no route."""
    await bench.connect(WELT, 1, 2, 3)
    await bench.ask(WELT, 4)
    bench.dataplane.lose(WELT, key(3), "route")
    await bench.cleanup.clean()
    await bench.ask(WELT, 3)
    await bench.connect(WELT, 5)
    bench.times.pass_by(NEVER)
    bench.shake(WELT, *range(1, 6))
    bench.times.wall += STALE
    bench.times.pass_by(MINUTE)
    # Otherwise the run would be held.
    bench.shake(WELT, 1, 2)
    await bench.cleanup.clean()
    assert await bench.peers() == {1, 2, 3, 4, 5}
    # The next run, if they are really gone.
    bench.times.pass_by(10 * MINUTE)
    bench.shake(WELT, 3)
    await bench.cleanup.clean()
    assert await bench.peers() == {1, 2, 3}


async def test_a_clock_that_is_set_a_little_forward_is_no_reason_to_doubt(bench: Bench) -> None:
    await bench.connect(WELT, 1, 2, 3)
    await bench.cleanup.clean()
    bench.times.pass_by(STALE - 10 * MINUTE)
    await bench.cleanup.clean()
    bench.times.wall += MINUTE
    bench.times.pass_by(9 * MINUTE)
    await bench.cleanup.clean()
    assert await bench.peers() == set()
    assert not bench.logged("cleanup_held")


async def test_while_the_clock_jumps_and_jumps_nobody_goes(bench: Bench) -> None:
    await bench.connect(WELT, *range(10))
    await bench.cleanup.clean()
    for _ in range(3):
        bench.times.pass_by(10 * MINUTE)
        bench.shake(WELT, *range(10))
        await bench.cleanup.clean()
        bench.times.wall += 24 * HOUR
        await bench.cleanup.clean()
    assert await bench.peers() == set(range(10))
    assert bench.counted['cleanup_runs{result="held"}'] == 3


async def test_two_jumps_in_a_row_wipe_nothing(bench: Bench) -> None:
    """The run between them sees nobody active, and has seen new handshakes all the same."""
    await bench.connect(WELT, *range(10))
    bench.times.pass_by(HOUR)
    bench.shake(WELT, *range(10))
    await bench.cleanup.clean()
    for _ in range(2):
        bench.times.pass_by(10 * MINUTE)
        bench.shake(WELT, *range(10))
        bench.times.wall += 4 * HOUR
        await bench.cleanup.clean()
    assert await bench.peers() == set(range(10))
    assert bench.counted['cleanup_runs{result="held"}'] == 2


async def test_the_next_run_agrees_only_when_there_was_time_for_a_handshake(bench: Bench) -> None:
    """However often the cleanup runs."""
    await bench.connect(WELT, *range(10))
    bench.times.pass_by(HOUR)
    bench.shake(WELT, *range(10))
    await bench.cleanup.clean()
    bench.times.wall += 24 * HOUR
    for _ in range(30):
        bench.times.pass_by(10)
        await bench.cleanup.clean()
        assert await bench.peers() == set(range(10))
    bench.shake(WELT, 1, 2)
    bench.times.pass_by(10)
    await bench.cleanup.clean()
    assert await bench.peers() == {1, 2}


async def test_a_jump_after_which_only_some_live_peers_look_old_removes_none_of_them(bench: Bench) -> None:
    await bench.connect(WELT, *range(10))
    bench.times.pass_by(HOUR)
    bench.shake(WELT, *range(4))
    bench.times.pass_by(MINUTE)
    bench.shake(WELT, *range(4, 10))
    await bench.cleanup.clean()
    bench.times.pass_by(9 * MINUTE)
    bench.times.wall += STALE - 10 * MINUTE + 1
    bench.shake(WELT, *range(4, 10))
    await bench.cleanup.clean()
    assert await bench.peers() == set(range(10))
    assert 'cleanup_runs{result="held"}' not in bench.counted
    bench.times.pass_by(10 * MINUTE)
    bench.shake(WELT, *range(1, 10))
    await bench.cleanup.clean()
    assert await bench.peers() == set(range(1, 10))


async def test_live_peers_that_somebody_has_made_anew_do_not_go_before_their_next_handshake(bench: Bench) -> None:
    """To WireGuard they are new."""
    await bench.connect(WELT, *range(10))
    bench.times.pass_by(HOUR)
    bench.shake(WELT, *range(10))
    await bench.cleanup.clean()
    for number in range(10):
        bench.dataplane.lose(WELT, key(number), "peer")
        bench.dataplane.readdress(WELT, key(number), key(number).link_local.packed)
    bench.times.pass_by(MINUTE)
    await bench.cleanup.clean()
    assert await bench.peers() == set(range(10))
    assert bench.counted['cleanup_runs{result="held"}'] == 1


async def test_half_of_them_may_go_at_once(bench: Bench) -> None:
    await bench.connect(WELT, *range(10))
    await bench.cleanup.clean()
    bench.times.pass_by(STALE)
    bench.shake(WELT, *range(5))
    await bench.cleanup.clean()
    assert await bench.peers() == set(range(5))


async def test_those_who_were_idle_at_the_last_run_may_go_all_at_once(bench: Bench) -> None:
    """After hours without an uplink they are really gone: the runs have seen them grow old."""
    await bench.connect(WELT, *range(10))
    for _ in range(18):
        await bench.cleanup.clean()
        bench.times.pass_by(10 * MINUTE)
    assert await bench.peers() == set(range(10))
    await bench.cleanup.clean()
    assert await bench.peers() == set()
    assert 'cleanup_runs{result="held"}' not in bench.counted


async def test_a_few_old_peers_at_the_start_are_no_sign_of_a_wrong_clock(tmp_path: Path) -> None:
    """They go with the next run."""
    async with gateway(tmp_path) as bench:
        await bench.connect(WELT, 1, 2, 3)
        bench.times.pass_by(2 * STALE)
        bench.shake(WELT, 1)
        await bench.cleanup.clean()
        assert await bench.peers() == {1, 2, 3}
        assert bench.logged("cleanup_held") == []
        bench.times.pass_by(10 * MINUTE)
        bench.shake(WELT, 1)
        await bench.cleanup.clean()
        assert await bench.peers() == {1}


async def test_after_a_start_the_first_run_takes_all_that_ever_had_a_handshake_for_active(tmp_path: Path) -> None:
    async with gateway(tmp_path) as bench:
        await bench.connect(WELT, *range(10))
        times, dataplane = bench.times, bench.dataplane
    times.wall += 24 * HOUR
    async with gateway(tmp_path, times, dataplane) as again:
        times.pass_by(NEVER)
        await again.cleanup.clean()
        assert await again.peers() == set(range(10))
        times.pass_by(10 * MINUTE)
        again.shake(WELT, 1, 2)
        await again.cleanup.clean()
        assert await again.peers() == {1, 2}


async def test_a_handshake_in_the_future_counts_from_when_it_was_first_seen(bench: Bench) -> None:
    bench.times.wall += 1000 * HOUR
    await bench.connect(WELT, 1, 2)
    bench.times.wall -= 1000 * HOUR
    await bench.cleanup.clean()
    bench.times.pass_by(STALE - 1)
    await bench.cleanup.clean()
    assert await bench.peers() == {1, 2}
    bench.times.wall += 500 * HOUR
    bench.shake(WELT, 2)
    bench.times.wall -= 500 * HOUR
    await bench.cleanup.clean()
    bench.times.pass_by(1)
    await bench.cleanup.clean()
    assert await bench.peers() == {2}


async def test_a_clock_that_is_a_little_behind_is_no_future(bench: Bench) -> None:
    await bench.connect(WELT, 1, 2)
    bench.times.wall -= 59
    await bench.cleanup.clean()
    bench.times.pass_by(59 + STALE - 1)
    await bench.cleanup.clean()
    assert await bench.peers() == {1, 2}
    bench.times.pass_by(1)
    await bench.cleanup.clean()
    assert await bench.peers() == set()


# --- restarts


async def test_after_a_restart_the_time_of_the_last_question_is_that_of_the_start(tmp_path: Path) -> None:
    async with gateway(tmp_path) as bench:
        await bench.turns.apply([Change.install(WELT, key(1))])
        bench.times.pass_by(100 * HOUR)
        times, dataplane = bench.times, bench.dataplane
    async with gateway(tmp_path, times, dataplane) as again:
        times.pass_by(NEVER - 1)
        await again.cleanup.clean()
        assert await again.peers() == {1}
        times.pass_by(1)
        await again.cleanup.clean()
        assert await again.peers() == set()


async def test_unless_the_journal_knows_better(tmp_path: Path) -> None:
    async with gateway(tmp_path) as bench:
        await bench.ask(WELT, 1)
        bench.times.pass_by(5 * MINUTE)
        await bench.ask(WELT, 2)
        times, dataplane = bench.times, bench.dataplane
    async with gateway(tmp_path, times, dataplane) as again:
        times.pass_by(5 * MINUTE - 1)
        await again.cleanup.clean()
        assert await again.peers() == {1, 2}
        times.pass_by(1)
        await again.cleanup.clean()
        assert await again.peers() == {2}


# --- what the older wgkex has left behind


async def test_peers_of_the_older_wgkex_are_taken_over_and_then_ours(tmp_path: Path) -> None:
    async with gateway(tmp_path, adopt=True, protected_keys=(key(3),)) as bench:
        for number in (1, 2, 3):
            bench.dataplane.add_static(WELT, key(number))
        bench.dataplane.shake_hands(WELT, key(1))
        # A route that leads elsewhere, or was made by a routing daemon, or leads to another address: somebody else's.
        bench.dataplane.add_static(WELT, key(4), protocol=186)
        bench.dataplane.add_static(WELT, key(5), key(6).link_local.packed)
        bench.dataplane.readdress(WELT, key(7), key(7).link_local.packed)
        bench.dataplane.reroute(CITY, key(7).link_local.packed, 4)
        await bench.cleanup.clean()
        state = (await bench.dataplane.snapshot()).domains[WELT.name]
        assert state.routes == {key(number).link_local.packed for number in (1, 2)}
        assert bench.counted['peers_adopted{domain="ffmuc_welt"}'] == 2
        assert bench.logged("peers_adopted") == [{"event": "peers_adopted", "log_level": "info", WELT.name: 2}]
        # Their time begins now.
        bench.times.pass_by(NEVER - 1)
        await bench.cleanup.clean()
        bench.times.pass_by(1)
        bench.shake(WELT, 1)
        await bench.cleanup.clean()
        state = (await bench.dataplane.snapshot()).domains[WELT.name]
        assert state.routes == {key(1).link_local.packed}
        assert {peer.public_key for peer in state.peers} == {key(number).raw for number in (1, 3, 4, 5, 7)}
        assert bench.counted['peers_adopted{domain="ffmuc_welt"}'] == 2


async def test_a_peer_that_cannot_be_taken_over_is_told(tmp_path: Path) -> None:
    async with gateway(tmp_path, adopt=True) as bench:
        bench.dataplane.add_static(WELT, key(1))
        bench.dataplane.refuse(key(1), Operation.ROUTE_ADD, "ENOBUFS")
        await bench.cleanup.clean()
        assert bench.counted == {'cleanup_runs{result="failed"}': 1}
        assert [entry["count"] for entry in bench.logged("peers_not_adopted")] == [1]


async def test_without_being_asked_to_nothing_of_theirs_is_touched(bench: Bench) -> None:
    bench.dataplane.add_static(WELT, key(1))
    before = await bench.dataplane.snapshot()
    bench.times.pass_by(100 * STALE)
    await bench.cleanup.clean()
    assert (await bench.dataplane.snapshot()).domains == before.domains


# --- while nodes ask


async def test_a_peer_that_is_asked_for_while_the_cleanup_runs_stays(bench: Bench) -> None:
    await bench.ask(WELT, 1, 2)
    bench.times.pass_by(NEVER)
    installer = Installer(
        bench.turns, ConsumerMetrics(bench.registry, DOMAINS, 10), store=bench.journal, offered=bench.offered
    )
    bench.dataplane.may_work.clear()
    asked = bench.turns.apply([Change.install(CITY, key(3))])
    async with running(asked) as other, running(bench.cleanup.clean()) as cleaning:
        # The cleanup knows whom to remove, and waits for its turn.
        await until(lambda: bench.offers.judged == 2, every=0.001)
        await settle()
        installer.offer(WELT, key(1), Origin(), None)
        bench.dataplane.may_work.set()
        await asyncio.gather(other, cleaning)
    async with running(installer.run()):
        await installer.drain(10)
    assert await bench.peers() == {1}
    assert Change.remove(WELT, key(1)) not in [change for batch in bench.dataplane.batches for change in batch]
    assert await bench.known() == {1}


async def test_what_is_asked_for_right_after_its_removal_is_not_forgotten(bench: Bench) -> None:
    """It waits for the end of the removal; the journal hears of both in that order."""
    await bench.ask(WELT, 1)
    bench.times.pass_by(NEVER)
    installer = Installer(
        bench.turns, ConsumerMetrics(bench.registry, DOMAINS, 10), store=bench.journal, offered=bench.offered
    )
    bench.dataplane.may_work.clear()
    async with running(bench.cleanup.clean()) as cleaning, running(installer.run()):
        await until(lambda: bool(bench.dataplane.batches), every=0.001)
        installer.offer(WELT, key(1), Origin(), None)
        bench.dataplane.may_work.set()
        await cleaning
        await installer.drain(10)
    assert await bench.peers() == {1}
    assert await bench.known() == {1}
    assert bench.counted['peers_removed{domain="ffmuc_welt",reason="never_connected"}'] == 1


async def test_keys_that_nodes_ask_for_have_their_turn(bench: Bench) -> None:
    await bench.ask(WELT, *range(600))
    bench.times.pass_by(NEVER)
    await bench.cleanup.clean()
    assert [len(batch) for batch in bench.dataplane.batches] == [250, 250, 100]
    assert await bench.peers() == set()


# --- trouble


async def test_a_kernel_that_cannot_be_read_is_a_failure(bench: Bench) -> None:
    await bench.ask(WELT, 1)
    bench.times.pass_by(NEVER)
    bench.dataplane.readable = False
    await bench.cleanup.clean()
    assert bench.counted['cleanup_runs{result="failed"}'] == 1
    assert bench.counted["cleanup_last_success_timestamp_seconds"] < bench.times.wall - NEVER
    bench.dataplane.readable = True
    await bench.cleanup.clean()
    assert await bench.peers() == set()


async def test_a_peer_that_the_kernel_does_not_remove_is_told_and_tried_again(bench: Bench) -> None:
    await bench.ask(WELT, 1, 2, 3)
    bench.times.pass_by(NEVER)
    bench.dataplane.stubborn = {key(2).raw}
    await bench.cleanup.clean()
    assert await bench.peers() == {2}
    assert await bench.known() == {2}
    assert bench.counted['cleanup_runs{result="failed"}'] == 1
    assert [(entry["count"], entry["error"]) for entry in bench.logged("peers_not_removed")] == [
        (1, str(DataplaneError(Operation.PEER_REMOVE, "ENOBUFS", "no buffer space")))
    ]
    bench.dataplane.stubborn = set()
    await bench.cleanup.clean()
    assert await bench.peers() == set()
    assert bench.counted['peers_removed{domain="ffmuc_welt",reason="never_connected"}'] == 3


async def test_missing_interfaces_are_no_trouble(bench: Bench) -> None:
    await bench.ask(WELT, 1)
    bench.times.pass_by(NEVER)
    bench.dataplane.remove_interfaces(WELT)
    await bench.cleanup.clean()
    assert 'cleanup_runs{result="failed"}' not in bench.counted


async def test_nothing_to_do_is_done_in_silence(bench: Bench) -> None:
    await bench.connect(WELT, 1)
    await bench.cleanup.clean()
    assert bench.dataplane.batches == []
    assert bench.events == []


def test_it_cleans_again_and_again_not_in_step_with_other_gateways(tmp_path: Path) -> None:
    async def body() -> None:
        now = asyncio.get_running_loop().time
        starts = [now()]
        enough = asyncio.Event()

        class Dataplane(WatchedDataplane):
            async def snapshot(self) -> Snapshot:
                starts.append(now())
                if len(starts) > 6:
                    enough.set()
                return await super().snapshot()

        times = Times()
        async with gateway(tmp_path, times, Dataplane(times), interval=100) as bench, running(bench.cleanup.run()):
            await enough.wait()
        pauses = [later - earlier for earlier, later in pairwise(starts)]
        assert all(90 <= pause <= 110 for pause in pauses), pauses
        assert len(set(pauses)) > 1

    # The work is done in threads, which need real time.
    run_in_virtual_time(body(), grace=0.2)


# --- what is remembered of questions


def test_offers_are_kept_for_peers_and_for_a_while() -> None:
    now = [0.0]
    offers = Offers(lambda: now[0])
    for raw in (b"peer", b"old", b"new"):
        offers.note(WELT.name, raw)
    now[0] = 600.0
    offers.note(WELT.name, b"new")
    offers.note(CITY.name, b"old")
    offers.forget(600.0, {WELT.name: frozenset((b"peer",))})
    ages = {raw: offers.age(WELT.name, raw) for raw in (b"peer", b"old", b"new", b"other")}
    assert ages == {b"peer": 600.0, b"old": None, b"new": 0.0, b"other": None}
    assert offers.age(CITY.name, b"old") == 0.0
    assert offers.since_start == 600.0
