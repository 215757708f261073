"""What the bus, the journal and the brokers hear of a key, and when."""

import asyncio
import re
from collections import Counter

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import CITY, WELT, as_openmetrics, key, running, samples, settle, until
from tests.unit.consumer.bench import NOW, Bench, bench, raw
from wgkex_ops.consumer.installer import BATCH_LIMIT
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.changes import Operation
from wgkex_ops.model.domains import Domain


def test_next_batch_is_begun_before_the_last_one_is_concluded() -> None:
    async def body(bench: Bench) -> None:
        for number in range(2 * BATCH_LIMIT):
            await bench.request(number, receipt_to=b"x" if number % BATCH_LIMIT == 0 else b"")
        async with running(bench.installer.run()):
            await settle()
        assert bench.begun == [2, 2]

    bench(body, start=False)


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
    st.sampled_from([0.0, 0.1, 7.0]),
)
@settings(max_examples=60, deadline=None)
def test_every_message_is_merged_installed_or_failed_and_acknowledged_and_confirmed_once(
    offers: list[tuple[Domain, int, float, bool]],
    refused: set[int],
    interface_missing: bool,
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

        bench.journal.slowness = slowness
        for index, (domain, number, pause, kept_by_the_bus) in enumerate(offers):
            received[f"{index}"] += 1
            awaited.append(b"%d" % index)
            await bench.request(
                number, domain, name=f"{index}", receipt_to=awaited[-1], kept_by_the_bus=kept_by_the_bus
            )
            assert_equation()
            await asyncio.sleep(pause)
            assert_equation()
        await asyncio.sleep(300)
        assert bench.waiting == 0
        assert_equation()
        assert bench.done == {f"{index}": 1 for index, offer in enumerate(offers) if offer[3]}
        assert sorted(reply for to, _ in bench.receipts for reply in to) == sorted(awaited)

    bench(body)


def test_the_latest_message_of_a_key_stays_with_the_bus_until_it_is_installed() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.may_apply.clear()
        await bench.request(1, name="before a reconnect")
        await bench.request(1, name="once more")
        await settle()
        assert bench.done == {"before a reconnect": 1}
        # The bus does not keep this one, so it cannot stand for the others.
        await bench.request(1, name="of QoS 0", kept_by_the_bus=False)
        assert bench.done == {"before a reconnect": 1}
        bench.dataplane.may_apply.set()
        await settle()
        assert bench.done == {"before a reconnect": 1, "once more": 1}

    bench(body)


def test_each_message_of_an_installed_key_gets_a_receipt() -> None:
    async def body(bench: Bench) -> None:
        await bench.request(1, receipt_to=b"r1")
        await bench.request(1, receipt_to=b"r2")
        # The same message, after a reconnect.
        await bench.request(1, receipt_to=b"r1")
        await bench.request(1)
        await bench.request(2)
        assert bench.receipts == []
        async with running(bench.installer.run()):
            await settle()
        assert bench.receipts == [([b"r1", b"r2"], "")]

    bench(body, start=False)


def test_a_key_that_waits_gets_its_receipt_only_at_its_end() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.refuse(key(1), Operation.ROUTE_ADD, "EBUSY")
        bench.dataplane.remove_interfaces(CITY)
        await bench.request(1, receipt_to=b"r1")
        await bench.request(1, CITY, receipt_to=b"r2")
        await settle()
        assert bench.receipts == []
        await until(lambda: bench.waiting == 1, every=0.1)
        assert bench.receipts == [([b"r1"], "EBUSY")]
        await until(lambda: bench.waiting == 0, every=0.1)
        assert bench.receipts == [([b"r1"], "EBUSY"), ([b"r2"], "ENODEV")]

    bench(body)


def test_a_key_that_is_requested_again_and_again_does_not_fill_the_memory() -> None:
    async def body(bench: Bench) -> None:
        for number in range(1000):
            await bench.request(1, receipt_to=b"r%d" % number)
        async with running(bench.installer.run()):
            await settle()
        assert bench.receipts == [([b"r%d" % number for number in range(64)], "")]

    bench(body, start=False)


@pytest.mark.parametrize(
    ("age", "observed"),
    [(2.0, 2.0), (-3.0, 0.0), (1e9, 86_400.0)],
    ids=("on time", "a broker's clock ahead", "a broker without a clock"),
)
def test_propagation_is_from_the_brokers_acceptance_to_the_installation(age: float, observed: float) -> None:
    async def body(bench: Bench) -> None:
        await bench.request(1, request_id="4711", accepted_at=NOW - age)
        # Merged with the first one, which has waited for longer.
        await bench.request(1, request_id="4712", accepted_at=NOW - 1)
        # Of a broker that does not tell.
        await bench.request(2)
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
            await bench.request(number, request_id=request_id, accepted_at=NOW - age)
        async with running(bench.installer.run()):
            await settle()
        exposition = as_openmetrics(bench.registry)
        assert re.findall(r"_propagation_seconds_bucket.* # (\{.*\})", exposition) == ['{request_id="slow"}']

    bench(body, start=False)


def test_the_journal_knows_before_the_bus_and_the_brokers() -> None:
    async def body(bench: Bench) -> None:
        bench.journal.may_work.clear()
        await bench.request(1, receipt_to=b"r1")
        await settle()
        assert await bench.dataplane.installed() == raw(1)
        assert bench.journal.noted == [([key(1)], [])]
        assert (bench.waiting, bench.done, bench.receipts) == (1, {}, [])
        # What comes meanwhile is the same key, and installed.
        await bench.request(1, receipt_to=b"r2", name="meanwhile")
        assert (bench.waiting, bench.count("messages_deduplicated")) == (1, 1)
        bench.journal.may_work.set()
        await settle()
        assert (bench.waiting, bench.done) == (0, {"ffmuc_welt 1": 1, "meanwhile": 1})
        assert bench.receipts == [([b"r1", b"r2"], "")]
        assert len(bench.dataplane.calls) == 1

    bench(body)


def test_postponed_key_is_acknowledged_as_brokers_send_it_again() -> None:
    async def body(bench: Bench) -> None:
        bench.dataplane.remove_interfaces(WELT)
        await bench.request(1)
        assert bench.done == {}
        await settle()
        assert (bench.done, bench.waiting) == ({"ffmuc_welt 1": 1}, 1)
        # As is every later message of it.
        await bench.request(1, name="again")
        assert bench.done == {"ffmuc_welt 1": 1, "again": 1}
        bench.dataplane.create_interfaces(WELT)
        bench.installer.retry_now([WELT])
        await settle()
        assert bench.journal.noted == [([key(1)], [])]
        assert bench.done == {"ffmuc_welt 1": 1, "again": 1}

    bench(body)


# --- what the admission decides


def test_refused_key_gets_a_receipt_and_its_message_is_acknowledged() -> None:
    async def body(bench: Bench) -> None:
        await bench.request(1)
        await settle()
        bench.dataplane.shake_hands(WELT, key(1), NOW - 10)
        with structlog.testing.capture_logs() as events:
            await bench.request(1, CITY, receipt_to=b"r1", request_id="4711")
            await bench.request(2, CITY, receipt_to=b"r2")
            await settle()
        assert bench.receipts == [([b"r2"], ""), ([b"r1"], "live_elsewhere")]
        assert bench.done == {"ffmuc_welt 1": 1, "ffmuc_muc_cty 1": 1, "ffmuc_muc_cty 2": 1}
        assert [event for event in events if event["event"] == "key_refused"] == [
            {
                "event": "key_refused",
                "log_level": "warning",
                "reason": "live_elsewhere",
                "domain": CITY.name,
                "public_key": str(key(1)),
                "request_ids": ["4711"],
            }
        ]
        seen = samples(bench.registry)
        assert seen['wgkex_worker_message_rejections_total{reason="live_elsewhere"}'] == 1
        assert (await bench.dataplane.installed(WELT), await bench.dataplane.installed(CITY)) == (raw(1), raw(2))
        assert bench.waiting == 0

    bench(body)


def test_journal_forgets_a_key_whose_peer_was_displaced() -> None:
    async def body(bench: Bench) -> None:
        await bench.request(1)
        await settle()
        await bench.request(1, CITY)
        await settle()
        assert bench.journal.noted == [([key(1)], []), ([key(1)], raw(1))]
        assert (await bench.dataplane.installed(WELT), await bench.dataplane.installed(CITY)) == ([], raw(1))

    bench(body)


def test_keys_wait_while_a_snapshot_that_is_needed_cannot_be_read() -> None:
    async def body(bench: Bench) -> None:
        await bench.request(1)
        await settle()
        bench.dataplane.snapshot_error = DataplaneError(Operation.DUMP, "EINTR")
        await bench.request(1, CITY)
        await settle()
        assert bench.waiting == 1
        bench.dataplane.snapshot_error = None
        await asyncio.sleep(1)
        assert (await bench.dataplane.installed(WELT), await bench.dataplane.installed(CITY)) == ([], raw(1))

    bench(body)
