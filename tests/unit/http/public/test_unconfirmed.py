"""Which keys the exchange leaves to be confirmed, and whose receipts it waits for."""

import asyncio
from dataclasses import replace

import pytest

from tests.fakes import run_in_virtual_time
from tests.helpers import WELT, request, send
from tests.unit.http.public.application import (
    ENDPOINT,
    PATHS,
    VERSIONS,
    Broker,
    accepted,
    assert_error,
    failed,
    submission,
)
from wgkex_ops.bus.messages import ConnectedPeers, Origin, Receipt, WorkerData, WorkerStatus
from wgkex_ops.errors import BusError
from wgkex_ops.http.public.app import PATH_V1, PATH_V2
from wgkex_ops.http.public.submission import Submission


def add_confirming(broker: Broker, *workers: str) -> None:
    """Add workers that send receipts; by their names they are all worse than gw04."""
    for worker in workers:
        broker.gateways.update(WorkerData(worker, WELT.name, replace(ENDPOINT, receipts=True)), 0.0)
        broker.gateways.update(ConnectedPeers(worker, WELT.name, 7), 0.0)
        broker.gateways.update(WorkerStatus(worker, online=True), 0.0)


@pytest.mark.parametrize("version", VERSIONS)
async def test_accepted_key_is_kept_until_it_is_confirmed(broker: Broker, version: str) -> None:
    add_confirming(broker, "gw05")
    answer = await send(broker.listen, request("POST", PATHS[version], submission()))
    assert answer.status == 200
    [origin] = broker.bus.origins
    assert origin.request_id == answer.headers["x-request-id"]
    assert origin.receipt_to is not None
    assert origin.receipt_to.topic == "wgkex/receipts/b1"
    key = broker.unconfirmed.find(origin.receipt_to.correlation)
    assert key is not None
    assert (key.accepted_at is not None, key.awaited) == (True, {"gw05"})
    assert Submission(key.domain, key.public_key) == broker.bus.published[0]
    broker.unconfirmed.confirm(key, Receipt("gw05"))
    assert len(broker.unconfirmed) == 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("error", [BusError("x"), ZeroDivisionError("x")], ids=("bus", "crash"))
async def test_key_whose_response_is_503_is_not_kept(broker: Broker, version: str, error: Exception) -> None:
    add_confirming(broker, "gw05")
    broker.bus.error = error
    assert (await send(broker.listen, request("POST", PATHS[version], submission()))).status == 503
    assert len(broker.unconfirmed) == 0


async def test_key_without_a_gateway_is_not_kept_although_it_is_published(broker: Broker) -> None:
    broker.gateways.update(WorkerStatus("gw04", online=False), 1.0)
    assert (await send(broker.listen, request("POST", PATH_V2, submission()))).status == 503
    assert len(broker.bus.published) == 1
    assert len(broker.unconfirmed) == 0


async def test_rejected_key_is_not_kept(broker: Broker) -> None:
    assert (await send(broker.listen, request("POST", PATH_V1, b"{}"))).status == 400
    assert broker.bus.origins == []
    assert len(broker.unconfirmed) == 0


@pytest.mark.parametrize("reason", ["", "ENODEV"], ids=("installed", "failed"))
async def test_receipts_that_come_before_the_acknowledgement_count(broker: Broker, reason: str) -> None:
    broker.gateways.update(WorkerStatus("gw04", online=False), 1.0)
    add_confirming(broker, "gw05", "gw06")

    def receive(origin: Origin) -> None:
        assert origin.receipt_to is not None
        key = broker.unconfirmed.find(origin.receipt_to.correlation)
        assert key is not None
        broker.unconfirmed.confirm(key, Receipt("gw05", reason))
        broker.unconfirmed.confirm(key, Receipt("gw06", reason))

    broker.bus.while_publishing = receive
    answer = await send(broker.listen, request("POST", PATH_V2, submission()))
    if reason:
        assert_error(answer, 503, "no_worker")
        assert broker.moved() == failed("v2", "no_worker") | {
            f'wgkex_broker_keys_confirmed_nowhere_total{{domain="{WELT.name}"}}': 1.0,
            **{f'wgkex_broker_key_install_failures_total{{worker="{worker}"}}': 1.0 for worker in ("gw05", "gw06")},
        }
    else:
        assert answer.status == 200
        assert broker.moved() == accepted("v2")
    assert len(broker.unconfirmed) == 0


def test_version_2_waits_for_the_gateway_and_version_1_does_not() -> None:
    async def scenario() -> dict[str, float]:
        now = asyncio.get_running_loop().time
        seconds = {}
        async with Broker().serving() as broker:
            broker.gateways.update(WorkerStatus("gw04", online=False), 1.0)
            add_confirming(broker, "gw05")
            for version in VERSIONS:
                start = now()
                assert (await send(broker.listen, request("POST", PATHS[version], submission()))).status == 200
                seconds[version] = now() - start
            assert broker.moved() == {
                **accepted("v1"),
                **accepted("v2"),
                f'wgkex_broker_keys_published_total{{domain="{WELT.name}"}}': 2.0,
                'wgkex_broker_key_confirmation_timeouts_total{worker="gw05"}': 1.0,
            }
        return seconds

    seconds = run_in_virtual_time(scenario(), grace=0.005)
    assert seconds["v2"] == pytest.approx(0.75, abs=0.3)
    assert seconds["v1"] < 0.3
