"""What is missing is put back: with the dataplane in memory and a journal on the disk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from prometheus_client import CollectorRegistry

from tests.fakes import Nobody
from tests.helpers import CITY, DOMAINS, WELT, key, running, samples, settle, until
from wgkex_ops.bus.messages import Origin
from wgkex_ops.consumer.dataplane.base import LinkEvent
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane
from wgkex_ops.consumer.dataplane.turns import Turns
from wgkex_ops.consumer.installer import CAPACITY, Installer
from wgkex_ops.consumer.upkeep.journal import FILE, Journal
from wgkex_ops.consumer.upkeep.reconciler import Sweeper
from wgkex_ops.consumer.upkeep.requests import Offers
from wgkex_ops.errors import DataplaneError
from wgkex_ops.metrics.journal import JournalMetrics, RepairMetrics
from wgkex_ops.metrics.worker import ConsumerMetrics
from wgkex_ops.model.changes import Change, Operation, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.peers import Snapshot

NOW: Final = 1_800_000_000.0
STALE_SECONDS: Final = 10_800
LOST: Final = LinkEvent("", present=False, up=False)


class WatchedDataplane(MemoryDataplane):
    """Remembers what it was told to do; can be held up, and be unreadable."""

    def __init__(self) -> None:
        self.now = NOW
        super().__init__(tuple(DOMAINS.values()), Nobody(), lambda: self.now)
        self.batches: list[list[Change]] = []
        self.may_work = asyncio.Event()
        self.may_work.set()
        self.readable = True
        self.routed_elsewhere = frozenset[bytes]()

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        self.batches.append(list(changes))
        await self.may_work.wait()
        return await super().apply(changes)

    async def snapshot(self) -> Snapshot:
        if not self.readable:
            raise DataplaneError(Operation.DUMP, "EINTR")
        return replace(await super().snapshot(), routed_elsewhere=self.routed_elsewhere)

    async def complete(self, domain: Domain) -> set[bytes]:
        """Keys of the peers that lack nothing."""
        state = (await self.snapshot()).domains[domain.name]
        return {peer.public_key for peer in state.peers if peer.link_local in state.routes & state.fdb_entries}


@dataclass
class Bench:
    """A gateway that remembers, and what there is to see of it."""

    folder: Path
    dataplane: WatchedDataplane
    journal: Journal
    sweeper: Sweeper
    offers: Offers
    turns: Turns
    registry: CollectorRegistry
    events: list[Any]
    time: list[float]

    async def install(self, domain: Domain, *numbers: int) -> None:
        """As the installer does."""
        await self.turns.apply(changes(domain, *numbers))
        await self.journal.settle([(domain, key(number)) for number in numbers], [])
        self.dataplane.batches.clear()

    async def remember(self, domain: Domain, *numbers: int) -> None:
        """As an earlier process did, before the reboot."""
        await self.journal.settle([(domain, key(number)) for number in numbers], [])

    async def look(self, times: int = 1, *hurried: LinkEvent) -> None:
        """Look at everything; of the interfaces' changes the first time knows."""
        for event in hurried:
            self.sweeper.notice(event)
        for _ in range(times):
            await self.sweeper.look(everywhere=True)

    @property
    def repaired(self) -> dict[str, float]:
        """What was put back, by what it was."""
        prefixes = ("wgkex_worker_peers_restored_total{", "wgkex_worker_drift_repairs_total{")
        return {
            name.partition("{")[2].rstrip("}").replace("domain=", "").replace(",missing=", " ").replace('"', ""): value
            for name, value in samples(self.registry).items()
            if name.startswith(prefixes) and value
        }

    def logged(self, event: str) -> list[Any]:
        return [entry for entry in self.events if entry["event"] == event]


@contextlib.asynccontextmanager
async def gateway(folder: Path, interval: float = 60.0) -> AsyncIterator[Bench]:
    registry = CollectorRegistry()
    dataplane = WatchedDataplane()
    time = [NOW]
    journal = Journal(folder, JournalMetrics(registry), lambda: time[0], patience=60.0, retry_after=0.0)
    turns = Turns(dataplane)
    sweeper = Sweeper(
        turns,
        journal,
        offers := Offers(lambda: time[0]),
        tuple(DOMAINS.values()),
        RepairMetrics(registry, DOMAINS),
        restore_limit=STALE_SECONDS,
        interval=interval,
    )
    with structlog.testing.capture_logs() as events:
        async with journal:
            yield Bench(folder, dataplane, journal, sweeper, offers, turns, registry, events, time)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """One that has started on an empty gateway, and has no memories."""
    async with gateway(tmp_path) as bench:
        await bench.sweeper.restore(60)
        yield bench


@pytest.fixture
async def booting(tmp_path: Path) -> AsyncIterator[Bench]:
    """One that is about to start."""
    async with gateway(tmp_path) as bench:
        yield bench


def changes(domain: Domain, *numbers: int) -> list[Change]:
    return [Change.install(domain, key(number)) for number in numbers]


def raw(*numbers: int) -> set[bytes]:
    return {key(number).raw for number in numbers}


# --- at the start


async def test_peers_of_the_journal_are_put_back(booting: Bench) -> None:
    await booting.remember(WELT, *range(1200))
    await booting.remember(CITY, 2000)
    await booting.sweeper.restore(60)
    assert await booting.dataplane.complete(WELT) == raw(*range(1200))
    assert await booting.dataplane.complete(CITY) == raw(2000)
    assert booting.repaired == {WELT.name: 1200, CITY.name: 1}
    # In turns, so that keys that nodes ask for have theirs.
    assert [len(batch) for batch in booting.dataplane.batches] == [500, 500, 200, 1]
    assert [(event["domain"], event["restored"]) for event in booting.logged("peers_put_back")] == [
        (WELT.name, 1200),
        (CITY.name, 1),
    ]
    # And it is done with it: what an operator removes now stays removed.
    await booting.dataplane.apply([Change.remove(WELT, key(1))])
    await booting.look(3)
    assert await booting.dataplane.complete(WELT) == raw(*range(1200)) - raw(1)


async def test_the_old_ones_stay_away(booting: Bench) -> None:
    await booting.remember(WELT, 1)
    booting.time[0] = NOW + STALE_SECONDS
    await booting.remember(WELT, 2)
    await booting.sweeper.restore(60)
    assert await booting.dataplane.complete(WELT) == raw(2)


async def test_what_is_there_is_left_alone(booting: Bench) -> None:
    await booting.dataplane.apply(changes(WELT, 1))
    await booting.remember(WELT, 1, 2)
    booting.dataplane.batches.clear()
    await booting.sweeper.restore(60)
    assert booting.dataplane.batches == [changes(WELT, 2)]


async def test_who_has_taken_an_address_meanwhile_keeps_it(booting: Bench) -> None:
    """A peer of somebody else's, with a route or without one, in this domain or in another one, or one of several."""
    await booting.remember(WELT, 1, 2, 3, 4, 5)
    booting.dataplane.add_static(CITY, key(1))
    booting.dataplane.add_static(WELT, key(77), key(2).link_local.packed)
    booting.dataplane.readdress(WELT, key(78), key(3).link_local.packed)
    booting.dataplane.readdress(WELT, key(79), key(5).link_local.packed, bytes(16))
    await booting.sweeper.restore(60)
    assert booting.dataplane.batches == [changes(WELT, 4)]


async def test_the_gateways_own_key_is_no_peer(booting: Bench) -> None:
    own = PublicKey((await booting.dataplane.snapshot()).domains[WELT.name].public_key)
    await booting.journal.settle([(WELT, own), (WELT, key(1))], [])
    await booting.sweeper.restore(60)
    assert booting.dataplane.batches == [changes(WELT, 1)]


async def test_halves_that_an_earlier_process_has_left_are_mended_at_once(booting: Bench) -> None:
    await booting.dataplane.apply(changes(WELT, 1))
    booting.dataplane.lose(WELT, key(1), "fdb")
    await booting.sweeper.restore(60)
    assert await booting.dataplane.complete(WELT) == raw(1)
    assert booting.repaired == {f"{WELT.name} fdb": 1}


async def test_peers_of_a_missing_interface_come_when_it_comes(booting: Bench) -> None:
    booting.dataplane.remove_interfaces(CITY)
    await booting.remember(WELT, 1)
    await booting.remember(CITY, 2)
    await booting.sweeper.restore(60)
    assert booting.repaired == {WELT.name: 1}
    booting.dataplane.create_interfaces(CITY)
    # By the event, or without it.
    await booting.look()
    assert await booting.dataplane.complete(CITY) == raw(2)
    assert booting.repaired == {WELT.name: 1, CITY.name: 1}


async def test_a_kernel_that_hangs_does_not_hold_up_the_start(booting: Bench) -> None:
    await booting.remember(WELT, *range(600))
    booting.dataplane.may_work.clear()
    await booting.sweeper.restore(0.1)
    assert [event["log_level"] for event in booting.logged("restore_unfinished")] == ["error"]
    assert booting.repaired == {}
    booting.dataplane.may_work.set()
    await booting.look()
    assert booting.repaired == {WELT.name: 600}


async def test_a_kernel_that_cannot_be_read_is_asked_again(booting: Bench) -> None:
    await booting.remember(WELT, 1)
    booting.dataplane.readable = False
    await booting.sweeper.restore(60)
    assert len(booting.logged("snapshot_failed")) == 1
    booting.dataplane.readable = True
    await booting.sweeper.look(everywhere=False)
    assert await booting.dataplane.complete(WELT) == raw(1)


async def test_a_peer_that_the_kernel_refuses_is_tried_again(booting: Bench) -> None:
    await booting.remember(WELT, 1, 2, 3)
    booting.dataplane.refuse(key(2), Operation.PEER_ADD, "EBUSY")
    await booting.sweeper.restore(60)
    assert await booting.dataplane.complete(WELT) == raw(1, 3)
    (event,) = booting.logged("peers_not_put_back")
    assert (event["domain"], event["count"], event["error"]) == (WELT.name, 1, "peer_add: EBUSY")
    booting.dataplane.batches.clear()
    await booting.look()
    assert booting.dataplane.batches == [changes(WELT, 2)]


async def test_without_a_journal_nothing_is_forgotten_for_good(booting: Bench) -> None:
    """The file cannot be read at the start; its peers come when it can."""
    await booting.remember(WELT, 1)
    folder = booting.folder.rename(booting.folder.with_name("away"))
    booting.folder.touch()
    await booting.sweeper.restore(60)
    assert booting.repaired == {}
    booting.folder.unlink()
    folder.rename(booting.folder)
    await booting.look()
    assert booting.repaired == {WELT.name: 1}


# --- while it runs


async def test_nothing_to_do_is_done_in_silence(bench: Bench) -> None:
    await bench.install(WELT, 1, 2)
    await bench.look(3)
    assert bench.dataplane.batches == []
    assert bench.events == []


@pytest.mark.parametrize("part", ["peer", "route", "fdb"])
async def test_a_missing_part_is_put_back_when_it_was_seen_twice(bench: Bench, part: Any) -> None:  # noqa: ANN401
    await bench.install(WELT, 1, 2)
    bench.dataplane.lose(WELT, key(1), part)
    await bench.look()
    assert bench.dataplane.batches == []
    await bench.look()
    assert bench.dataplane.batches == [changes(WELT, 1)]
    assert await bench.dataplane.complete(WELT) == raw(1, 2)
    assert bench.repaired == {f"{WELT.name} {part}": 1}
    assert [event[part] for event in bench.logged("peers_put_back")] == [1]
    await bench.look(2)
    assert bench.repaired == {f"{WELT.name} {part}": 1}


async def test_a_half_that_was_an_installation_in_progress_is_none(bench: Bench) -> None:
    await bench.install(WELT, 1, 2)
    bench.dataplane.lose(WELT, key(1), "route")
    await bench.look()
    await bench.install(WELT, 1)
    bench.dataplane.lose(WELT, key(2), "route")
    await bench.look()
    assert bench.dataplane.batches == []


async def test_two_missing_parts_are_counted_both(bench: Bench) -> None:
    await bench.install(WELT, 1)
    bench.dataplane.lose(WELT, key(1), "route", "fdb")
    await bench.look(2)
    assert bench.dataplane.batches == [changes(WELT, 1)]
    assert bench.repaired == {f"{WELT.name} route": 1, f"{WELT.name} fdb": 1}


async def test_what_hangs_on_a_changed_interface_is_mended_at_once(bench: Bench) -> None:
    await bench.install(WELT, 1)
    await bench.install(CITY, 2)
    for domain, number in ((WELT, 1), (CITY, 2)):
        bench.dataplane.lose(domain, key(number), "route")
    bench.sweeper.notice(LinkEvent(WELT.wg, present=True, up=True))
    await bench.sweeper.look(everywhere=False)
    assert bench.repaired == {f"{WELT.name} route": 1}


async def test_an_interface_made_anew_gets_its_peers(bench: Bench) -> None:
    await bench.install(WELT, *range(10))
    await bench.install(CITY, 100)
    await bench.dataplane.apply([Change.remove(CITY, key(100))])
    bench.dataplane.remove_interfaces(WELT)
    bench.dataplane.create_interfaces(WELT)
    # A node was faster.
    await bench.turns.apply(changes(WELT, 3))
    for interface, present in ((WELT.wg, False), (WELT.vx, False), (WELT.wg, True), (WELT.vx, True)):
        bench.sweeper.notice(LinkEvent(interface, present=present, up=present))
    await bench.sweeper.look(everywhere=False)
    assert await bench.dataplane.complete(WELT) == raw(*range(10))
    assert bench.repaired == {WELT.name: 9}


async def test_an_interface_made_anew_in_silence_gets_its_peers(bench: Bench) -> None:
    """Events were lost, and a node was faster."""
    await bench.install(WELT, 1, 2, 3)
    bench.dataplane.remove_interfaces(WELT)
    bench.dataplane.create_interfaces(WELT)
    await bench.turns.apply(changes(WELT, 2))
    await bench.look()
    assert bench.repaired == {WELT.name: 2}
    assert await bench.dataplane.complete(WELT) == raw(1, 2, 3)
    # And that is it: what somebody removes now stays removed.
    await bench.dataplane.apply([Change.remove(WELT, key(1))])
    await bench.look(3)
    assert await bench.dataplane.complete(WELT) == raw(2, 3)


async def test_an_interface_that_was_set_up_anew_gets_its_peers(bench: Bench) -> None:
    """What has lost everything twice in a row, or at once if events were lost."""
    for hurry, looks in (((), 2), ((LOST,), 1)):
        await bench.install(WELT, 1, 2)
        for number in (1, 2):
            bench.dataplane.lose(WELT, key(number), "peer", "route", "fdb")
        before = bench.repaired.get(WELT.name, 0)
        if looks > 1:
            await bench.look()
            assert bench.repaired.get(WELT.name, 0) == before
        await bench.look(1, *hurry)
        assert bench.repaired[WELT.name] == before + 2


async def test_an_interface_made_anew_while_its_peers_are_put_back_gets_them_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.install(WELT, *range(1200))
    apply = bench.dataplane.apply

    async def apply_and_make_anew(changes: Sequence[Change]) -> list[Outcome]:
        outcomes = await apply(changes)
        if len(bench.dataplane.batches) == 2:
            make_anew()
        return outcomes

    def make_anew() -> None:
        bench.dataplane.remove_interfaces(WELT)
        bench.dataplane.create_interfaces(WELT)
        for present in (False, True):
            bench.sweeper.notice(LinkEvent(WELT.wg, present=present, up=present))

    monkeypatch.setattr(bench.dataplane, "apply", apply_and_make_anew)
    make_anew()
    await bench.sweeper.look(everywhere=False)
    assert await bench.dataplane.complete(WELT) == raw(*range(1000, 1200))
    await bench.sweeper.look(everywhere=False)
    assert await bench.dataplane.complete(WELT) == raw(*range(1200))


async def test_interfaces_that_are_missing_are_left_alone(bench: Bench) -> None:
    await bench.install(WELT, 1)
    bench.dataplane.remove_interfaces(WELT)
    await bench.look(3, LinkEvent(WELT.wg, present=False, up=False))
    assert bench.dataplane.batches == []


async def test_a_route_to_nobody_known_is_told_once_and_left_alone(bench: Bench) -> None:
    await bench.install(WELT, 1, 2)
    bench.dataplane.lose(WELT, key(1), "peer")
    await bench.journal.forget([(WELT, key(1))])
    await bench.look(4)
    assert bench.dataplane.batches == []
    (event,) = bench.logged("unknown_routes")
    assert (event["domain"], event["count"], event["example"]) == (WELT.name, 1, str(key(1).link_local))


async def test_a_key_whose_peer_has_another_address_now_is_not_taken_over(bench: Bench) -> None:
    await bench.install(WELT, 1)
    bench.dataplane.readdress(WELT, key(1), b"\xfe\x80" + bytes(14))
    await bench.look(3)
    assert bench.dataplane.batches == []
    assert len(bench.logged("unknown_routes")) == 1


async def test_an_address_that_is_one_of_several_of_another_peer_now_is_not_taken(bench: Bench) -> None:
    await bench.install(WELT, 1)
    bench.dataplane.lose(WELT, key(1), "peer")
    bench.dataplane.readdress(WELT, key(77), key(1).link_local.packed, bytes(16))
    await bench.look(3, LOST)
    assert bench.dataplane.batches == []
    assert len(bench.logged("unknown_routes")) == 1


async def test_a_peer_with_a_route_of_ours_and_an_address_of_its_own_is_left_alone(bench: Bench) -> None:
    await bench.install(WELT, 1)
    bench.dataplane.readdress(WELT, key(1), key(2).link_local.packed)
    await bench.turns.apply(changes(WELT, 2))
    bench.dataplane.lose(WELT, key(2), "peer", "fdb")
    bench.dataplane.batches.clear()
    await bench.look(3)
    assert bench.dataplane.batches == []


# --- nodes that move to another domain, and such that do not


async def move(bench: Bench, number: int) -> None:
    """The peer stays behind in WELT; its route goes along to CITY, as there is one to an address."""
    await bench.install(CITY, number)
    bench.dataplane.lose(WELT, key(number), "route")


async def test_a_node_that_moves_keeps_its_route(bench: Bench) -> None:
    await bench.install(WELT, 1)
    await move(bench, 1)
    await bench.look(3, LOST)
    assert bench.dataplane.batches == []


async def test_a_node_that_has_moved_is_not_put_back_where_it_was(bench: Bench) -> None:
    await bench.install(WELT, 1, 2)
    await move(bench, 1)
    for interface in (WELT.wg, CITY.wg):
        bench.sweeper.notice(LinkEvent(interface, present=False, up=False))
    bench.dataplane.remove_interfaces(WELT)
    bench.dataplane.create_interfaces(WELT)
    await bench.look()
    assert bench.dataplane.batches == [changes(WELT, 2)]


async def test_the_kernel_knows_better_where_a_node_is_than_an_old_journal(booting: Bench) -> None:
    """It could not be written when the node moved; the picture does not show what is newer than it."""
    await booting.dataplane.apply(changes(CITY, 1))
    booting.dataplane.batches.clear()
    booting.time[0] = NOW + 1
    await booting.remember(WELT, 1)
    await booting.sweeper.restore(60)
    assert booting.dataplane.batches == []


async def test_the_peer_that_stayed_behind_does_not_get_the_route_while_the_new_domain_is_down(bench: Bench) -> None:
    await bench.install(WELT, 1)
    await move(bench, 1)
    bench.dataplane.remove_interfaces(CITY)
    await bench.look(3)
    assert bench.dataplane.batches == []


async def test_the_peer_that_stayed_behind_gets_the_route_when_the_new_domain_is_none_any_more(bench: Bench) -> None:
    """Without a route nobody would know whose it is, and it would never go."""
    await bench.install(WELT, 1)
    gone = Domain("ffmuc_gone", "wg-gone", "vx-gone")
    bench.time[0] -= 1
    await bench.journal.settle([(gone, key(1))], [])
    bench.dataplane.lose(WELT, key(1), "route")
    await bench.look(2)
    assert bench.dataplane.batches == [changes(WELT, 1)]
    await bench.look()
    assert await bench.journal.peers(60) == {WELT.name: [key(1)]}


async def test_a_route_over_an_interface_of_no_domain_is_not_taken(bench: Bench) -> None:
    """Its domain was taken out of the configuration, or another worker has it; its node may be alive."""
    await bench.install(WELT, 1)
    gone = Domain("ffmuc_gone", "wg-gone", "vx-gone")
    await bench.journal.settle([(gone, key(1)), (WELT, key(2)), (WELT, key(3))], [])
    bench.dataplane.lose(WELT, key(1), "route")
    bench.dataplane.routed_elsewhere = frozenset(link_local(raw) for raw in raw(1, 2))
    await bench.look(3, LOST)
    bench.dataplane.remove_interfaces(WELT)
    bench.dataplane.create_interfaces(WELT)
    await bench.look()
    assert bench.dataplane.batches == [changes(WELT, 3)] * 2
    assert bench.logged("unclaimed_peers") == []


async def test_a_node_whose_key_somebody_else_asks_for_elsewhere_gets_its_route_back(bench: Bench) -> None:
    await bench.install(WELT, 1, 2)
    for number in (1, 2):
        bench.dataplane.shake_hands(WELT, key(number))
        bench.offers.note(CITY.name, key(number).raw)
    await bench.install(CITY, 1, 2)
    bench.time[0] = bench.dataplane.now = NOW + 100
    await bench.look(2)
    assert bench.dataplane.batches == []
    # It still talks where it was. The other one has moved.
    bench.dataplane.shake_hands(WELT, key(1))
    bench.dataplane.shake_hands(CITY, key(2))
    await bench.look()
    assert bench.dataplane.batches == [changes(WELT, 1)]
    assert bench.logged("route_given_back") == [
        {
            "event": "route_given_back",
            "log_level": "warning",
            "domain": WELT.name,
            "public_key": str(key(1)),
            "from_domain": CITY.name,
        }
    ]
    await bench.look(3)
    assert bench.dataplane.batches == [changes(WELT, 1)]
    assert await bench.dataplane.complete(WELT) == raw(1)
    assert await bench.dataplane.complete(CITY) == raw(2)
    assert bench.repaired == {f"{WELT.name} route": 1}
    assert await bench.journal.peers(1e9) == {WELT.name: [key(1)], CITY.name: [key(2)]}


async def test_when_both_routes_are_gone_the_journal_tells_where_a_node_was_last(bench: Bench) -> None:
    await bench.install(WELT, 1)
    await move(bench, 1)
    bench.dataplane.lose(CITY, key(1), "route")
    await bench.look(2)
    assert bench.dataplane.batches == [changes(CITY, 1)]


async def test_a_peer_without_a_route_that_the_journal_does_not_know_is_told_once_and_left_alone(bench: Bench) -> None:
    """Somebody else may have put it there."""
    await bench.install(WELT, 1, 2)
    await bench.journal.forget([(WELT, key(1))])
    for number in (1, 2):
        bench.dataplane.lose(WELT, key(number), "route")
    await bench.look(4)
    assert bench.dataplane.batches == [changes(WELT, 2)]
    assert bench.logged("unclaimed_peers") == [
        {
            "event": "unclaimed_peers",
            "log_level": "warning",
            "domain": WELT.name,
            "count": 1,
            "example": str(key(1).link_local),
        }
    ]


async def test_a_peer_that_is_put_back_without_its_handshake_counts_as_asked_for(bench: Bench) -> None:
    """Else the cleanup would remove it as one that nobody has asked for in hours, and that never had a handshake."""
    await bench.install(WELT, 1)
    bench.dataplane.lose(WELT, key(1), "peer")
    await bench.look(2)
    assert bench.repaired == {f"{WELT.name} peer": 1}
    assert bench.offers.age(WELT.name, key(1).raw) is not None


async def test_there_is_one_look_at_a_time(bench: Bench) -> None:
    """The sweeper must not put back what the cleanup removes meanwhile."""
    await bench.install(WELT, 1)
    async with bench.turns.looking(), running(bench.look()) as looking:
        await settle()
        assert not looking.done()
        bench.dataplane.lose(WELT, key(1), "peer", "route", "fdb")
    await until(looking.done, every=0.001)
    assert bench.dataplane.batches == []


async def test_whole_peers_that_are_put_back_count_as_asked_for(bench: Bench) -> None:
    """Their nodes need time for a handshake; a part that is put back changes nothing about that."""
    await bench.install(WELT, 1, 2)
    bench.dataplane.lose(WELT, key(2), "fdb")
    await bench.look(2)
    assert bench.repaired == {f"{WELT.name} fdb": 1}
    assert bench.offers.age(WELT.name, key(2).raw) is None
    bench.dataplane.remove_interfaces(WELT)
    bench.dataplane.create_interfaces(WELT)
    await bench.look(1, LinkEvent(WELT.wg, present=False, up=False))
    assert bench.offers.age(WELT.name, key(1).raw) is not None
    assert bench.offers.age(CITY.name, key(1).raw) is None


# --- together with the installer


async def test_what_a_node_asks_for_meanwhile_wins(bench: Bench) -> None:
    """It moves while peers are being put back: repairs are made from an old picture."""
    await bench.remember(WELT, *range(1000))
    bench.dataplane.may_work.clear()
    async with running(bench.look(1, LinkEvent(WELT.wg, present=False, up=False))) as looking:
        await until(lambda: len(bench.dataplane.batches) == 1)
        asked = asyncio.create_task(bench.turns.apply(changes(CITY, 700)))
        # It has its turn before the second half of the repairs.
        bench.dataplane.may_work.set()
        assert await asked == [None]
        await looking
    (first, asked_for, second) = bench.dataplane.batches
    assert len(first) == 500
    assert asked_for == changes(CITY, 700)
    assert len(second) == 499
    assert key(700).raw not in await bench.dataplane.complete(WELT)


async def test_keys_that_nodes_ask_for_have_their_turn(bench: Bench) -> None:
    metrics = ConsumerMetrics(CollectorRegistry(), DOMAINS, CAPACITY)
    installer = Installer(bench.turns, metrics, store=bench.journal)
    await bench.remember(WELT, *range(2000))
    bench.dataplane.may_work.clear()
    async with running(installer.run()), running(bench.look(1, LinkEvent(WELT.wg, present=False, up=False))) as looking:
        await until(lambda: len(bench.dataplane.batches) == 1)
        installer.offer(CITY, key(5000), Origin(), None)
        await settle()
        bench.dataplane.may_work.set()
        await looking
        await installer.drain(60)
    assert [len(batch) for batch in bench.dataplane.batches] == [500, 1, 500, 500, 500]
    assert await bench.dataplane.complete(CITY) == raw(5000)
    assert await bench.dataplane.complete(WELT) == raw(*range(2000))
    found = await bench.journal.peers(60) or {}
    assert found[CITY.name] == [key(5000)]


# --- the task


async def test_it_looks_again_and_again(tmp_path: Path) -> None:
    async with gateway(tmp_path, interval=0.05) as bench:
        await bench.install(WELT, 1)
        bench.dataplane.shake_hands(WELT, key(1))
        async with running(bench.sweeper.run()):
            bench.dataplane.lose(WELT, key(1), "fdb")
            await until(lambda: f"{WELT.name} fdb" in bench.repaired, every=0.01)
            bench.dataplane.readable = False
            await until(lambda: bool(bench.logged("snapshot_failed")), every=0.01)
            bench.dataplane.readable = True
            bench.dataplane.lose(WELT, key(1), "route")
            await until(lambda: f"{WELT.name} route" in bench.repaired, every=0.01)


async def test_it_looks_at_once_when_interfaces_change(tmp_path: Path) -> None:
    async with gateway(tmp_path, interval=3600.0) as bench:
        await bench.sweeper.restore(60)
        async with running(bench.sweeper.run()):
            for count in (1, 2):
                await bench.install(WELT, count)
                bench.dataplane.remove_interfaces(WELT)
                bench.dataplane.create_interfaces(WELT)
                bench.sweeper.notice(LinkEvent(WELT.wg, present=False, up=False))
                bench.sweeper.notice(LinkEvent(WELT.wg, present=True, up=True))
                bench.sweeper.notice(LinkEvent("eth0", present=True, up=True))
                expected = 1.0 if count == 1 else 3.0
                await until(lambda expected=expected: bench.repaired.get(WELT.name) == expected, every=0.01)  # type: ignore[misc]


async def test_handshakes_are_noted(bench: Bench) -> None:
    await bench.install(WELT, 1, 2)
    bench.dataplane.shake_hands(WELT, key(1))
    bench.time[0] = NOW + STALE_SECONDS
    await bench.remember(WELT, 3)
    assert await bench.journal.peers(STALE_SECONDS) == {WELT.name: [key(3)]}
    bench.time[0] = NOW + STALE_SECONDS - 1
    await bench.look()
    assert (bench.folder / FILE).exists()
    found = await bench.journal.peers(STALE_SECONDS) or {}
    assert set(found[WELT.name]) == {key(1), key(2), key(3)}
