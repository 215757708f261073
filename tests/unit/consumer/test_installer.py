"""From offered keys to installed peers, with the dataplane in memory and a clock that needs no waiting."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.fakes import Nobody, run_in_virtual_time
from tests.helpers import CITY, DOMAINS, WELT, as_openmetrics, key, running, samples, settle, until
from wgkex_ops.bus.messages import Origin, ReceiptAddress
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane
from wgkex_ops.consumer.installer import ATTEMPTS, BATCH_LIMIT, CAPACITY, GATHERING, Installer, KeepNothing
from wgkex_ops.metrics.worker import ConsumerMetrics
from wgkex_ops.model.changes import Change, Operation, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

NOW: Final = 1_800_000_000.0


class WatchedDataplane(MemoryDataplane):
    """The dataplane in memory; remembers when it was given what, and can be held up."""

    def __init__(self) -> None:
        super().__init__(tuple(DOMAINS.values()), Nobody())
        self.batches: list[tuple[float, list[Change]]] = []
        self.may_work = asyncio.Event()
        self.may_work.set()

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        self.batches.append((asyncio.get_running_loop().time(), list(changes)))
        await self.may_work.wait()
        return await super().apply(changes)

    async def installed(self, domain: Domain = WELT) -> list[bytes]:
        return [peer.public_key for peer in (await self.snapshot()).domains[domain.name].peers]


class Store:
    """Keeps what has to wait, or says that it cannot; tells what it was asked, and can be held up."""

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        self.asked: list[list[PublicKey]] = []
        self.settled: list[tuple[list[PublicKey], list[PublicKey]]] = []
        self.slowness = 0.0
        self.may_work = asyncio.Event()
        self.may_work.set()

    async def keep(self, waiting: Sequence[tuple[Domain, PublicKey]]) -> bool:
        self.asked.append(_keys(waiting))
        await asyncio.sleep(self.slowness)
        await self.may_work.wait()
        return self.keeps

    async def settle(
        self, installed: Sequence[tuple[Domain, PublicKey]], given_up: Sequence[tuple[Domain, PublicKey]]
    ) -> None:
        self.settled.append((_keys(installed), _keys(given_up)))
        await asyncio.sleep(self.slowness)
        await self.may_work.wait()


def _keys(of: Iterable[tuple[Domain, PublicKey]]) -> list[PublicKey]:
    return [key for _, key in of]


@dataclass
class Bench:
    """An installer that runs, and what there is to see of it."""

    store: Store
    dataplane: WatchedDataplane = field(default_factory=WatchedDataplane)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    done: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[list[bytes], str]] = field(default_factory=list)
    # How many batches had been begun when each of them was given.
    begun: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        metrics = ConsumerMetrics(self.registry, DOMAINS, CAPACITY)
        self.installer = Installer(self.dataplane, metrics, lambda: NOW, store=self.store, answer=self.answer)

    def answer(self, replies: Sequence[ReceiptAddress], reason: str) -> None:
        self.answers.append(([reply.correlation for reply in replies], reason))
        self.begun.append(len(self.dataplane.batches))

    async def offer(
        self,
        number: int,
        domain: Domain = WELT,
        request_id: str = "",
        accepted_at: float | None = None,
        *,
        name: str = "",
        receipt_to: bytes = b"",
        kept_by_the_bus: bool = True,
    ) -> None:
        name = name or f"{domain.name} {number}"
        origin = Origin(
            request_id, accepted_at, ReceiptAddress("wgkex/receipts/b1", receipt_to) if receipt_to else None
        )
        await self.installer.room()
        self.installer.offer(
            domain, key(number), origin, (lambda: self.done.update([name])) if kept_by_the_bus else None
        )

    def count(self, name: str, domain: Domain = WELT) -> float:
        return samples(self.registry)[f'wgkex_worker_{name}_total{{domain="{domain.name}"}}']

    @property
    def waiting(self) -> float:
        return samples(self.registry)["wgkex_worker_queue_length"]


def bench(body: Callable[[Bench], Awaitable[None]], *, start: bool = True, keeps: bool = False) -> None:
    """Run the body of a test with an installer, which runs, too, unless the body starts it.

    Args:
        body: of the test.
        start: whether the installer runs from the beginning.
        keeps: whether the store keeps what has to wait.
    """

    async def run() -> None:
        made = Bench(Store(keeps=keeps))
        if not start:
            await body(made)
            return
        async with running(made.installer.run()):
            await body(made)

    with structlog.testing.capture_logs():
        run_in_virtual_time(run())


def raw(*numbers: int) -> list[bytes]:
    return [key(number).raw for number in numbers]


async def next_batch() -> None:
    """Wait as long as an installer does that has just begun a batch."""
    await asyncio.sleep(GATHERING)
    await settle()


def test_offered_key_is_installed_at_once_and_then_done() -> None:
    async def body(bench: Bench) -> None:
        await bench.offer(1)
        assert bench.done == {}
        await settle()
        assert await bench.dataplane.installed() == raw(1)
        assert bench.dataplane.batches == [(0.0, [Change.install(WELT, key(1))])]
        assert bench.done == {"ffmuc_welt 1": 1}
        assert (bench.count("peers_installed"), bench.waiting) == (1, 0)

    bench(body)


def test_keys_are_installed_in_the_order_of_their_arrival_over_all_domains() -> None:
    async def body(bench: Bench) -> None:
        for number in (3, 1, 2):
            await bench.offer(number)
            await bench.offer(number, CITY)
        async with running(bench.installer.run()):
            await settle()
        assert [(change.domain, change.key) for change in bench.dataplane.batches[0][1]] == [
            (domain, key(number)) for number in (3, 1, 2) for domain in (WELT, CITY)
        ]

    bench(body, start=False)


def test_same_key_of_one_domain_is_merged_and_each_message_is_done_once() -> None:
    async def body(bench: Bench) -> None:
        await bench.offer(1)
        await bench.offer(2)
        await bench.offer(1)
        await bench.offer(1)
        await bench.offer(1, CITY)
        assert (bench.waiting, bench.count("messages_deduplicated")) == (3, 2)
        assert bench.count("messages_deduplicated", CITY) == 0
        async with running(bench.installer.run()):
            await settle()
        assert [change.key for change in bench.dataplane.batches[0][1]] == [key(1), key(2), key(1)]
        assert bench.done == {"ffmuc_welt 1": 3, "ffmuc_welt 2": 1, "ffmuc_muc_cty 1": 1}
        assert bench.count("peers_installed") == 2

    bench(body, start=False)


def test_key_that_comes_while_it_is_being_installed_is_merged() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.may_work.clear()
        await bench.offer(1)
        await settle()
        await bench.offer(1)
        await settle()
        assert bench.done == {"ffmuc_welt 1": 1}
        bench.dataplane.may_work.set()
        await settle()
        assert bench.done == {"ffmuc_welt 1": 2}
        assert len(bench.dataplane.batches) == 1
        # Once it is installed, the next one is refreshed.
        await bench.offer(1)
        await next_batch()
        assert len(bench.dataplane.batches) == 2
        assert bench.count("peers_installed") == 2

    bench(body)


def test_large_crowd_is_worked_off_in_batches() -> None:
    async def body(bench: Bench) -> None:
        for number in range(2 * BATCH_LIMIT + 1):
            await bench.offer(number)
        async with running(bench.installer.run()):
            await settle()
            assert [len(changes) for _, changes in bench.dataplane.batches] == [BATCH_LIMIT, BATCH_LIMIT]
            await next_batch()
        assert [len(changes) for _, changes in bench.dataplane.batches] == [BATCH_LIMIT, BATCH_LIMIT, 1]
        assert await bench.dataplane.installed() == raw(*range(2 * BATCH_LIMIT + 1))

    bench(body, start=False)


def test_what_arrives_during_a_batch_is_the_next_batch() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.may_work.clear()
        await bench.offer(0)
        await settle()
        for number in range(1, 5):
            await bench.offer(number)
        await asyncio.sleep(GATHERING)
        bench.dataplane.may_work.set()
        await settle()
        assert [len(changes) for _, changes in bench.dataplane.batches] == [1, 4]

    bench(body)


def test_keys_that_come_one_after_the_other_share_batches_and_a_lonely_one_does_not_wait() -> None:
    async def body(bench: Bench) -> None:
        for number in range(10):
            await bench.offer(number)
            await asyncio.sleep(GATHERING * 0.3)
        await asyncio.sleep(1)
        assert [len(changes) for _, changes in bench.dataplane.batches] == [1, 3, 3, 3]
        began = [moment for moment, _ in bench.dataplane.batches]
        assert all(later - earlier >= GATHERING * 0.999 for earlier, later in pairwise(began))
        await bench.offer(10)
        offered_at = asyncio.get_running_loop().time()
        await settle()
        assert bench.dataplane.batches[-1] == (offered_at, [Change.install(WELT, key(10))])
        assert bench.installer.busy_for() == 0

    bench(body)


def test_lonely_key_does_not_wait_after_a_slow_batch() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.may_work.clear()
        await bench.offer(1)
        await asyncio.sleep(GATHERING * 1.2)
        bench.dataplane.may_work.set()
        await settle()
        await bench.offer(2)
        offered_at = asyncio.get_running_loop().time()
        await settle()
        assert [moment for moment, _ in bench.dataplane.batches] == [0, offered_at]

    bench(body)


def test_next_batch_is_begun_before_the_last_one_is_concluded() -> None:
    async def body(bench: Bench) -> None:
        # One that has nothing to wait for.
        metrics = ConsumerMetrics(CollectorRegistry(), DOMAINS, CAPACITY)
        bench.installer = Installer(bench.dataplane, metrics, answer=bench.answer)
        for number in range(2 * BATCH_LIMIT):
            await bench.offer(number, receipt_to=b"x" if number % BATCH_LIMIT == 0 else b"")
        async with running(bench.installer.run()):
            await settle()
        assert bench.begun == [2, 2]

    bench(body, start=False)


def test_refused_key_is_tried_again_with_growing_pauses_and_then_given_up() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.refuse(key(1), Operation.ROUTE_ADD, "EBUSY")
        with structlog.testing.capture_logs() as events:
            await bench.offer(1, request_id="r1")
            await bench.offer(1, request_id="r2")
            await until(lambda: bench.count("peer_install_failures") > 0, every=0.1)
        moments = [moment for moment, _ in bench.dataplane.batches]
        pauses = [later - earlier for earlier, later in pairwise(moments)]
        assert len(moments) == ATTEMPTS == 5
        for pause, planned in zip(pauses, (0.5, 1.0, 2.0, 4.0), strict=True):
            assert 0.8 * planned <= pause <= 1.2 * planned
        assert bench.done == {"ffmuc_welt 1": 2}
        assert (bench.count("peers_installed"), bench.count("peer_install_failures"), bench.waiting) == (0, 1, 0)
        assert [event["event"] for event in events] == ["peer_postponed"] * 4 + ["peer_given_up"]
        assert [event.get("attempt") for event in events] == [1, 2, 3, 4, None]
        assert events[-1] == {
            "event": "peer_given_up",
            "log_level": "error",
            "error": "route_add: EBUSY",
            "attempts": 5,
            "domain": WELT.name,
            "public_key": str(key(1)),
            "request_ids": ["r1", "r2"],
        }
        # Nothing of it is left: it may come again.
        await bench.offer(1)
        await next_batch()
        assert len(bench.dataplane.batches) == ATTEMPTS + 1

    bench(body)


def test_key_that_waits_for_another_attempt_takes_later_messages_in() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.refuse(key(1), Operation.PEER_ADD, "EBUSY")
        await bench.offer(1)
        await settle()
        await bench.offer(1)
        await settle()
        assert len(bench.dataplane.batches) == 1
        assert (bench.waiting, bench.count("messages_deduplicated")) == (1, 1)

    bench(body)


def test_one_bad_key_does_not_stop_the_others() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.refuse(key(1), Operation.PEER_ADD, "EINVAL")
        for number in range(3):
            await bench.offer(number)
        await settle()
        assert await bench.dataplane.installed() == raw(0, 2)
        await bench.offer(3)
        await next_batch()
        assert await bench.dataplane.installed() == raw(0, 2, 3)
        # The bad one waits for another attempt, and not at the expense of the others' places in the server's window.
        assert bench.done == {f"ffmuc_welt {number}": 1 for number in range(4)}

    bench(body, keeps=True)


def test_missing_interface_is_waited_for_and_its_coming_ends_the_wait() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        bench.dataplane.remove_interfaces(CITY)
        await bench.offer(1)
        await bench.offer(2)
        await bench.offer(1, CITY)
        await settle()
        assert bench.waiting == 3
        await asyncio.sleep(2)
        bench.dataplane.create_interfaces(WELT)
        bench.installer.retry_now([WELT])
        await settle()
        assert sorted(await bench.dataplane.installed()) == raw(1, 2)
        # The other one is still waited for.
        assert (bench.waiting, len(bench.dataplane.batches)) == (1, 2)
        assert bench.dataplane.batches[1][0] == 2.0
        bench.dataplane.create_interfaces(CITY)
        await asyncio.sleep(10)
        assert await bench.dataplane.installed(CITY) == raw(1)

    bench(body)


def test_missing_interface_is_looked_for_every_five_seconds_until_patience_ends() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        await bench.offer(1)
        await until(lambda: bench.count("peer_install_failures") > 0, every=0.5)
        assert 60 <= asyncio.get_running_loop().time() <= 67
        assert 10 <= len(bench.dataplane.batches) <= 17
        assert (bench.count("peer_install_failures"), bench.waiting) == (1, 0)

    bench(body)


def test_waiting_for_an_interface_uses_up_no_attempts() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        await bench.offer(1)
        await asyncio.sleep(50)
        bench.dataplane.create_interfaces(WELT)
        bench.dataplane.refuse(key(1), Operation.PEER_ADD, "EBUSY")
        bench.dataplane.batches.clear()
        bench.installer.retry_now([WELT])
        await until(lambda: bench.count("peer_install_failures") > 0, every=0.5)
        assert len(bench.dataplane.batches) == ATTEMPTS

    bench(body)


def test_retry_of_a_domain_without_waiting_keys_does_nothing() -> None:
    async def body(bench: Bench) -> None:
        bench.installer.retry_now([WELT, CITY])
        await settle()
        assert bench.dataplane.batches == []

    bench(body)


def test_offer_waits_while_there_is_no_room() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.may_work.clear()
        for number in range(CAPACITY):
            await bench.offer(number)
        late = [asyncio.create_task(bench.offer(number)) for number in range(CAPACITY, CAPACITY + BATCH_LIMIT + 1)]
        await settle()
        assert not any(task.done() for task in late)
        assert bench.waiting == CAPACITY
        # Nobody gets in who has given up waiting.
        late[0].cancel()
        bench.dataplane.may_work.set()
        await asyncio.wait(late)
        while bench.waiting:
            await settle()
        assert len(await bench.dataplane.installed()) == CAPACITY + BATCH_LIMIT
        assert sum(bench.done.values()) == CAPACITY + BATCH_LIMIT
        assert bench.done[f"ffmuc_welt {CAPACITY}"] == 0

    bench(body)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([WELT, CITY]),
            st.integers(0, 5),
            st.sampled_from([0.0, 0.0, 0.3, 3.0, 20.0]),
            st.booleans(),
        ),
        max_size=30,
    ),
    st.sets(st.integers(0, 5)),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.1, 7.0]),
)
@settings(max_examples=60, deadline=None)
def test_every_message_is_merged_installed_or_failed_and_done_and_answered_once(
    offers: list[tuple[Domain, int, float, bool]],
    refused: set[int],
    interface_missing: bool,
    keeps: bool,
    slowness: float,
) -> None:
    async def body(bench: Bench) -> None:
        for number in refused:
            bench.dataplane.refuse(key(number), Operation.FDB_ADD, "EBUSY")
        if interface_missing:
            bench.dataplane.remove_interfaces(CITY)
        received: Counter[str] = Counter()
        awaited: list[bytes] = []

        def assert_equation() -> None:
            outcomes = ("messages_deduplicated", "peers_installed", "peer_install_failures")
            settled = sum(bench.count(name, domain) for name in outcomes for domain in (WELT, CITY))
            assert received.total() == settled + bench.waiting

        bench.store.slowness = slowness
        for index, (domain, number, pause, kept_by_the_bus) in enumerate(offers):
            received[f"{index}"] += 1
            awaited.append(b"%d" % index)
            await bench.offer(number, domain, name=f"{index}", receipt_to=awaited[-1], kept_by_the_bus=kept_by_the_bus)
            assert_equation()
            await asyncio.sleep(pause)
            assert_equation()
        await asyncio.sleep(300)
        assert bench.waiting == 0
        assert_equation()
        assert bench.done == {f"{index}": 1 for index, offer in enumerate(offers) if offer[3]}
        assert sorted(reply for replies, _ in bench.answers for reply in replies) == sorted(awaited)

    bench(body, keeps=keeps)


# --- what the bus keeps, and what the store


def test_the_latest_message_of_a_key_stays_with_the_bus_until_it_is_installed() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.may_work.clear()
        await bench.offer(1, name="before a reconnect")
        await bench.offer(1, name="once more")
        await settle()
        assert bench.done == {"before a reconnect": 1}
        # The bus does not keep this one, so it cannot stand for the others.
        await bench.offer(1, name="of QoS 0", kept_by_the_bus=False)
        assert bench.done == {"before a reconnect": 1}
        bench.dataplane.may_work.set()
        await settle()
        assert bench.done == {"before a reconnect": 1, "once more": 1}

    bench(body)


def test_what_has_to_wait_stays_with_the_bus_while_the_store_is_out_of_order() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        bench.dataplane.refuse(key(2), Operation.PEER_ADD, "EBUSY")
        await bench.offer(1)
        await bench.offer(2, CITY)
        await asyncio.sleep(20)
        assert bench.done == {"ffmuc_muc_cty 2": 1}
        assert bench.store.settled == [([], [key(2)])]
        assert len(bench.store.asked) > 3
        # Each time it is asked again; when it is mended, the key is safe there.
        bench.store.keeps = True
        await asyncio.sleep(7)
        assert bench.done == {"ffmuc_muc_cty 2": 1, "ffmuc_welt 1": 1}
        bench.store.asked.clear()
        await asyncio.sleep(20)
        assert bench.store.asked == []
        assert bench.waiting == 1

    bench(body)


def test_what_the_store_has_kept_is_done_at_once_and_settled_at_the_end() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        await bench.offer(1)
        await bench.offer(2)
        await bench.offer(3, CITY)
        await settle()
        assert bench.store.asked == [[key(1), key(2)]]
        assert bench.store.settled == [([key(3)], [])]
        await bench.offer(1, name="again")
        assert bench.done == {"ffmuc_welt 1": 1, "ffmuc_welt 2": 1, "ffmuc_muc_cty 3": 1, "again": 1}
        bench.dataplane.create_interfaces(WELT)
        bench.installer.retry_now([WELT])
        await next_batch()
        ((installed, given_up),) = bench.store.settled[1:]
        assert (set(installed), given_up) == ({key(1), key(2)}, [])
        assert len(bench.store.asked) == 1

    bench(body, keeps=True)


def test_the_store_knows_before_the_bus_and_the_broker_are_told() -> None:
    async def body(bench: Bench) -> None:
        bench.store.may_work.clear()
        await bench.offer(1, receipt_to=b"r1")
        await settle()
        assert await bench.dataplane.installed() == raw(1)
        assert bench.store.settled == [([key(1)], [])]
        assert (bench.waiting, bench.done, bench.answers) == (1, {}, [])
        # What comes meanwhile is the same key, and installed.
        await bench.offer(1, receipt_to=b"r2", name="meanwhile")
        assert (bench.waiting, bench.count("messages_deduplicated")) == (1, 1)
        bench.store.may_work.set()
        await settle()
        assert (bench.waiting, bench.done) == (0, {"ffmuc_welt 1": 1, "meanwhile": 1})
        assert bench.answers == [([b"r1", b"r2"], "")]
        assert len(bench.dataplane.batches) == 1

    bench(body)


def test_a_key_is_not_done_before_the_store_has_kept_it() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        bench.store.may_work.clear()
        await bench.offer(1)
        await settle()
        assert (bench.store.asked, bench.done) == ([[key(1)]], {})
        bench.store.may_work.set()
        await settle()
        assert bench.done == {"ffmuc_welt 1": 1}

    bench(body, keeps=True)


def test_keys_of_an_earlier_life_are_taken_up_and_need_not_be_kept_again() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        await bench.offer(3)
        bench.installer.resume([(WELT, key(1)), (WELT, key(2)), (WELT, key(3))])
        assert (bench.waiting, bench.count("messages_received"), bench.count("messages_deduplicated")) == (3, 3, 1)
        await settle()
        assert bench.store.asked == [[key(3)]]
        bench.dataplane.create_interfaces(WELT)
        bench.installer.retry_now([WELT])
        await next_batch()
        assert sorted(await bench.dataplane.installed()) == raw(1, 2, 3)

    bench(body, keeps=True)


def test_without_a_store_what_has_to_wait_stays_with_the_bus() -> None:
    async def run() -> None:
        store = KeepNothing()
        assert not await store.keep([(WELT, key(1))])
        await store.settle([(WELT, key(1))], [])

    run_in_virtual_time(run())


# --- receipts


def test_each_message_of_an_installed_key_is_answered() -> None:
    async def body(bench: Bench) -> None:
        await bench.offer(1, receipt_to=b"r1")
        await bench.offer(1, receipt_to=b"r2")
        # The same message, after a reconnect.
        await bench.offer(1, receipt_to=b"r1")
        await bench.offer(1)
        await bench.offer(2)
        assert bench.answers == []
        async with running(bench.installer.run()):
            await settle()
        assert bench.answers == [([b"r1", b"r2"], "")]

    bench(body, start=False)


def test_a_key_that_waits_is_answered_only_at_its_end() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.refuse(key(1), Operation.ROUTE_ADD, "EBUSY")
        bench.dataplane.remove_interfaces(CITY)
        await bench.offer(1, receipt_to=b"r1")
        await bench.offer(1, CITY, receipt_to=b"r2")
        await settle()
        assert bench.answers == []
        await until(lambda: bench.waiting == 1, every=0.1)
        assert bench.answers == [([b"r1"], "EBUSY")]
        await until(lambda: bench.waiting == 0, every=0.1)
        assert bench.answers == [([b"r1"], "EBUSY"), ([b"r2"], "ENODEV")]

    bench(body, keeps=True)


def test_a_key_that_is_offered_again_and_again_does_not_fill_the_memory() -> None:
    async def body(bench: Bench) -> None:
        for number in range(1000):
            await bench.offer(1, receipt_to=b"r%d" % number)
        async with running(bench.installer.run()):
            await settle()
        assert bench.answers == [([b"r%d" % number for number in range(64)], "")]

    bench(body, start=False)


def test_crash_of_the_dataplane_ends_the_installer() -> None:
    class Broken(WatchedDataplane):
        async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
            raise ZeroDivisionError

    async def run() -> None:
        installer = Installer(Broken(), ConsumerMetrics(CollectorRegistry(), DOMAINS, CAPACITY))
        installer.offer(WELT, PublicKey(b"x" * 32), Origin(), lambda: None)
        with pytest.raises(ZeroDivisionError):
            await installer.run()

    run_in_virtual_time(run())


def test_keys_of_a_missing_interface_leave_room_for_the_others() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        for number in range(CAPACITY // 2 + 10):
            await bench.offer(number)
        await until(lambda: bench.count("peer_install_failures") >= 10, every=0.1)
        assert bench.waiting == CAPACITY // 2
        await bench.offer(1, CITY)
        await settle()
        assert bench.count("peers_installed", CITY) == 1

    bench(body)


def test_drain_waits_until_each_key_was_tried_but_not_longer_than_told() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.may_work.clear()
        await bench.offer(1)
        start = asyncio.get_running_loop().time()
        await bench.installer.drain(2.0)
        assert asyncio.get_running_loop().time() - start == pytest.approx(2.0)
        bench.dataplane.may_work.set()
        await bench.installer.drain(2.0)
        assert bench.count("peers_installed") == 1

    bench(body)


@pytest.mark.parametrize(
    ("age", "observed"),
    [(2.0, 2.0), (-3.0, 0.0), (1e9, 86_400.0)],
    ids=("on time", "a broker's clock ahead", "a broker without a clock"),
)
def test_propagation_is_from_the_brokers_acceptance_to_the_installation(age: float, observed: float) -> None:
    async def body(bench: Bench) -> None:
        await bench.offer(1, request_id="4711", accepted_at=NOW - age)
        # Merged with the first one, which has waited for longer.
        await bench.offer(1, request_id="4712", accepted_at=NOW - 1)
        # Of a broker that does not tell.
        await bench.offer(2)
        await settle()
        assert bench.count("peers_installed") == 2
        seen = samples(bench.registry)
        assert seen["wgkex_worker_key_propagation_seconds_count"] == 1
        assert seen["wgkex_worker_key_propagation_seconds_sum"] == pytest.approx(observed)
        exposition = as_openmetrics(bench.registry)
        (exemplar,) = re.findall(r"_propagation_seconds_bucket.* # (\{.*\})", exposition)
        assert exemplar == '{request_id="4711"}'

    bench(body)


def test_exemplar_of_a_batch_is_the_slowest_key_that_has_an_id() -> None:
    async def body(bench: Bench) -> None:
        for number, (age, request_id) in enumerate([(2.0, "quick"), (2.2, "slow"), (2.4, ""), (2.1, "middle")]):
            await bench.offer(number, request_id=request_id, accepted_at=NOW - age)
        async with running(bench.installer.run()):
            await settle()
        exposition = as_openmetrics(bench.registry)
        assert re.findall(r"_propagation_seconds_bucket.* # (\{.*\})", exposition) == ['{request_id="slow"}']

    bench(body, start=False)
