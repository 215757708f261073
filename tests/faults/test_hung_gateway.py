"""Version 2 waits for the receipt of the gateway that it names, but not for long if that one hangs."""

import asyncio
import json
import signal
import time
from pathlib import Path

from tests.faults.system import Brokers, Workers, broker_place, place_settings, worker_place
from tests.helpers import WELT
from tests.integration.inprocess import new_key, submit
from tests.integration.loopback import eventually, eventually_answered
from tests.integration.servers import Bench, Mosquitto

CONFIRM_WITHIN = 0.75


async def start(bench: Bench, mosquitto: Mosquitto, tmp_path: Path) -> tuple[Brokers, list[Workers]]:
    documents = [place_settings(mosquitto.port, name, tmp_path) for name in ("gw01", "gw02")]
    broker = broker_place(bench, documents[0])
    workers = [worker_place(bench, document) for document in documents]
    for place in (*workers, broker):
        await place.start()

    async def knows_both() -> bool:
        online = (await broker.samples()).get("wgkex_broker_worker_online", {})
        return sum(online.values()) == 2

    await eventually_answered(knows_both, "a broker that knows two gateways")
    return broker, workers


async def test_receipt_of_the_named_gateway_comes_before_the_response(
    bench: Bench, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    broker, _ = await start(bench, mosquitto, tmp_path)
    for _ in range(20):
        answer = await submit(str(broker.nodes), 2, WELT.name, new_key())
        assert answer.status == 200
    named = {
        dict(labels)["worker"]: count
        for labels, count in (await broker.samples())["wgkex_broker_worker_assignments_total"].items()
        if count
    }
    assert sum(named.values()) == 20
    # No gateway was named without its receipt.
    assert await broker.total("wgkex_broker_key_confirmation_timeouts_total") == 0


async def test_gateway_that_hangs_delays_its_nodes_by_the_timeout_and_no_others(
    bench: Bench, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    broker, workers = await start(bench, mosquitto, tmp_path)
    hung, working = workers
    hung.program.process.send(signal.SIGSTOP)
    try:

        async def submit_one() -> tuple[str, float]:
            began = time.monotonic()
            answer = await submit(str(broker.nodes), 2, WELT.name, new_key())
            assert answer.status == 200
            return answer.json["Endpoint"]["Address"], time.monotonic() - began

        answers = await asyncio.gather(*(submit_one() for _ in range(20)))
        for address, seconds in answers:
            assert address in ("gw01.example.net", "gw02.example.net")
            # The rest of the time is that of a busy machine.
            assert seconds < CONFIRM_WITHIN + 5
        quick = [seconds for address, seconds in answers if address == "gw02.example.net"]
        assert quick
        assert min(quick) < CONFIRM_WITHIN
        timeouts = (await broker.samples())["wgkex_broker_key_confirmation_timeouts_total"]
        assert {dict(labels)["worker"] for labels, count in timeouts.items() if count} <= {"gw01"}
        # None waited twice.
        assert sum(timeouts.values()) <= len(answers)
    finally:
        hung.program.process.send(signal.SIGCONT)
    # Whatever it was sent meanwhile, it installs when it is back.
    wanted = {str(key) for key in (await working.installed())[WELT.wg]}

    async def has_caught_up() -> bool:
        return wanted <= set((await hung.installed())[WELT.wg])

    assert len(wanted) == 20
    await eventually_answered(has_caught_up, "a gateway that has caught up")


async def test_key_that_both_gateways_refuse_is_503_and_each_receipt_says_why(
    bench: Bench, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    broker, _ = await start(bench, mosquitto, tmp_path)
    observer = await bench.observe(mosquitto, "wgkex/receipts/#")
    # The own key of a gateway's interface in memory derives from the domain's name: both refuse it.
    own_key = await _own_key(bench, mosquitto)
    answer = await submit(str(broker.nodes), 2, WELT.name, own_key)
    assert answer.status == 503
    for worker in ("gw01", "gw02"):
        await observer.sees(
            f"wgkex/receipts/gw01/{worker}", json.dumps({"worker": worker, "result": "failed", "reason": "own_key"})
        )


async def _own_key(bench: Bench, mosquitto: Mosquitto) -> str:
    """The gateways' own key, as it is in their data."""
    observer = await bench.observe(mosquitto, "wireguard-worker/#")

    topic = f"wireguard-worker/gw01/{WELT.name}/data"
    payload, *_ = await eventually(lambda: observer.payloads(topic), "the data of a gateway")
    return str(json.loads(payload)["PublicKey"])
