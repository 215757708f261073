"""From requested keys to installed peers: order, batches, attempts, and room."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
import structlog

from tests.fakes import run_in_virtual_time
from tests.helpers import CITY, WELT, key, running, settle, until
from tests.unit.consumer.bench import Bench, WatchedDataplane, bench, raw
from wgkex_ops.consumer.installer import ATTEMPTS, BATCH_LIMIT, CAPACITY
from wgkex_ops.model.changes import Change, Operation, Outcome


def test_requested_key_is_installed_at_once_and_then_done() -> None:
    async def body(bench: Bench) -> None:
        await bench.request(1)
        assert bench.done == {}
        await settle()
        assert await bench.dataplane.installed() == raw(1)
        assert bench.dataplane.calls == [(0.0, [Change.install(WELT, key(1))])]
        assert bench.done == {"ffmuc_welt 1": 1}
        assert (bench.count("peers_installed"), bench.waiting) == (1, 0)

    bench(body)


def test_keys_are_installed_in_the_order_of_their_arrival_over_all_domains() -> None:
    async def body(bench: Bench) -> None:
        for number in (3, 1, 2):
            await bench.request(number)
            await bench.request(10 + number, CITY)
        async with running(bench.installer.run()):
            await settle()
        assert [(change.domain, change.key) for change in bench.dataplane.calls[0][1]] == [
            one for number in (3, 1, 2) for one in ((WELT, key(number).raw), (CITY, key(10 + number).raw))
        ]

    bench(body, start=False)


def test_same_key_of_one_domain_is_merged_and_each_message_is_acknowledged_once() -> None:
    async def body(bench: Bench) -> None:
        await bench.request(1)
        await bench.request(2)
        await bench.request(1)
        await bench.request(1)
        await bench.request(1, CITY)
        assert (bench.waiting, bench.count("messages_deduplicated")) == (3, 2)
        assert bench.count("messages_deduplicated", CITY) == 0
        async with running(bench.installer.run()):
            await settle()
        assert [change.key for change in bench.dataplane.calls[0][1]] == raw(1, 2)
        # The one of another domain has a batch of its own, and displaces the first one.
        assert bench.dataplane.calls[1][1] == [Change.remove(WELT, key(1)), Change.install(CITY, key(1))]
        assert bench.done == {"ffmuc_welt 1": 3, "ffmuc_welt 2": 1, "ffmuc_muc_cty 1": 1}
        assert bench.count("peers_installed") == 2

    bench(body, start=False)


def test_key_that_comes_while_it_is_being_installed_is_merged() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.may_apply.clear()
        await bench.request(1)
        await settle()
        await bench.request(1)
        await settle()
        assert bench.done == {"ffmuc_welt 1": 1}
        bench.dataplane.may_apply.set()
        await settle()
        assert bench.done == {"ffmuc_welt 1": 2}
        assert len(bench.dataplane.calls) == 1
        # Once it is installed, the next one is refreshed.
        await bench.request(1)
        await settle()
        assert len(bench.dataplane.calls) == 2
        assert bench.count("peers_installed") == 2

    bench(body)


def test_large_crowd_is_worked_off_in_batches() -> None:
    async def body(bench: Bench) -> None:
        for number in range(2 * BATCH_LIMIT + 1):
            await bench.request(number)
        async with running(bench.installer.run()):
            await settle()
        assert [len(changes) for _, changes in bench.dataplane.calls] == [BATCH_LIMIT, BATCH_LIMIT, 1]
        assert await bench.dataplane.installed() == raw(*range(2 * BATCH_LIMIT + 1))

    bench(body, start=False)


def test_what_arrives_during_a_batch_is_the_next_batch() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.may_apply.clear()
        await bench.request(0)
        await settle()
        for number in range(1, 5):
            await bench.request(number)
        await settle()
        bench.dataplane.may_apply.set()
        await settle()
        assert [len(changes) for _, changes in bench.dataplane.calls] == [1, 4]

    bench(body)


def test_lone_keys_do_not_wait() -> None:
    async def body(bench: Bench) -> None:
        for number in range(10):
            await bench.request(number)
            requested_at = asyncio.get_running_loop().time()
            await settle()
            assert bench.dataplane.calls[-1] == (requested_at, [Change.install(WELT, key(number))])
            assert bench.installer.busy_for() == 0
            await asyncio.sleep(0.001)
        assert len(bench.dataplane.calls) == 10

    bench(body)


def test_refused_key_is_tried_again_with_growing_pauses_and_then_given_up() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.refuse(key(1), Operation.ROUTE_ADD, "EBUSY")
        with structlog.testing.capture_logs() as events:
            await bench.request(1, request_id="r1")
            await bench.request(1, request_id="r2")
            await until(lambda: bench.count("peer_install_failures") > 0, every=0.1)
        moments = [moment for moment, _ in bench.dataplane.calls]
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
        await bench.request(1)
        await settle()
        assert len(bench.dataplane.calls) == ATTEMPTS + 1

    bench(body)


def test_key_that_waits_for_another_attempt_takes_later_messages_in() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.refuse(key(1), Operation.PEER_ADD, "EBUSY")
        await bench.request(1)
        await settle()
        await bench.request(1)
        await settle()
        assert len(bench.dataplane.calls) == 1
        assert (bench.waiting, bench.count("messages_deduplicated")) == (1, 1)

    bench(body)


def test_one_bad_key_does_not_stop_the_others() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.refuse(key(1), Operation.PEER_ADD, "EINVAL")
        for number in range(3):
            await bench.request(number)
        await settle()
        assert await bench.dataplane.installed() == raw(0, 2)
        await bench.request(3)
        await settle()
        assert await bench.dataplane.installed() == raw(0, 2, 3)
        # The bad one waits for another attempt, and not at the expense of the others' places in the server's window.
        assert bench.done == {f"ffmuc_welt {number}": 1 for number in range(4)}

    bench(body)


def test_missing_interface_is_waited_for_and_its_coming_ends_the_wait() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        bench.dataplane.remove_interfaces(CITY)
        await bench.request(1)
        await bench.request(2)
        await bench.request(3, CITY)
        await settle()
        assert bench.waiting == 3
        await asyncio.sleep(2)
        bench.dataplane.create_interfaces(WELT)
        bench.installer.retry_now([WELT])
        await settle()
        assert sorted(await bench.dataplane.installed()) == raw(1, 2)
        # The other one is still waited for.
        assert (bench.waiting, len(bench.dataplane.calls)) == (1, 2)
        assert bench.dataplane.calls[1][0] == 2.0
        bench.dataplane.create_interfaces(CITY)
        await asyncio.sleep(10)
        assert await bench.dataplane.installed(CITY) == raw(3)

    bench(body)


def test_missing_interface_is_tried_every_five_seconds_until_the_timeout() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        await bench.request(1)
        await until(lambda: bench.count("peer_install_failures") > 0, every=0.5)
        assert 60 <= asyncio.get_running_loop().time() <= 67
        assert 10 <= len(bench.dataplane.calls) <= 17
        assert (bench.count("peer_install_failures"), bench.waiting) == (1, 0)

    bench(body)


def test_waiting_for_an_interface_uses_up_no_attempts() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        await bench.request(1)
        await asyncio.sleep(50)
        bench.dataplane.create_interfaces(WELT)
        bench.dataplane.refuse(key(1), Operation.PEER_ADD, "EBUSY")
        bench.dataplane.batches.clear()
        bench.dataplane.batch_times.clear()
        bench.installer.retry_now([WELT])
        await until(lambda: bench.count("peer_install_failures") > 0, every=0.5)
        assert len(bench.dataplane.calls) == ATTEMPTS

    bench(body)


def test_retry_of_a_domain_without_waiting_keys_does_nothing() -> None:
    async def body(bench: Bench) -> None:
        bench.installer.retry_now([WELT, CITY])
        await settle()
        assert bench.dataplane.calls == []

    bench(body)


def test_request_waits_while_there_is_no_room() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.may_apply.clear()
        for number in range(CAPACITY):
            await bench.request(number)
        late = [asyncio.create_task(bench.request(number)) for number in range(CAPACITY, CAPACITY + BATCH_LIMIT + 1)]
        await settle()
        assert not any(task.done() for task in late)
        assert bench.waiting == CAPACITY
        # Nobody gets in who has given up waiting.
        late[0].cancel()
        bench.dataplane.may_apply.set()
        await asyncio.wait(late)
        while bench.waiting:
            await settle()
        assert len(await bench.dataplane.installed()) == CAPACITY + BATCH_LIMIT
        assert sum(bench.done.values()) == CAPACITY + BATCH_LIMIT
        assert bench.done[f"ffmuc_welt {CAPACITY}"] == 0

    bench(body)


def test_crash_of_the_dataplane_ends_the_installer() -> None:
    class Broken(WatchedDataplane):
        async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
            raise ZeroDivisionError

    async def run() -> None:
        bench = Bench(Broken())
        await bench.request(1)
        with pytest.raises(ZeroDivisionError):
            await bench.installer.run()

    run_in_virtual_time(run())


def test_keys_of_a_missing_interface_leave_room_for_the_others() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        for number in range(CAPACITY // 2 + 10):
            await bench.request(number)
        await until(lambda: bench.count("peer_install_failures") >= 10, every=0.1)
        assert bench.waiting == CAPACITY // 2
        await bench.request(1, CITY)
        await settle()
        assert bench.count("peers_installed", CITY) == 1

    bench(body)


def test_drain_waits_until_each_key_was_tried_but_not_longer_than_allowed() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.may_apply.clear()
        await bench.request(1)
        start = asyncio.get_running_loop().time()
        await bench.installer.finish(2.0)
        assert asyncio.get_running_loop().time() - start == pytest.approx(2.0)
        bench.dataplane.may_apply.set()
        await bench.installer.finish(2.0)
        assert bench.count("peers_installed") == 1

    bench(body)
