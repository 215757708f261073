"""What the gauges of the gateways show."""

import asyncio
import time

import pytest

from tests.fakes import in_virtual_time
from tests.helpers import CITY, DOMAINS, WELT
from tests.unit.http.gateways.fleet import LISTED, Fleet
from wgkex_ops.bus.messages import BrokerStatus, ConnectedPeers
from wgkex_ops.http.gateways.gauges import GatewayGauges
from wgkex_ops.http.gateways.silence import SILENT_AFTER, SILENT_KEYS
from wgkex_ops.metrics.broker import GatewayMetrics, NodeMetrics


@in_virtual_time
async def test_listed_gateways_have_their_own_series_and_all_others_share_one() -> None:
    fleet = Fleet("gw01")
    for worker, peers in (("gw01", 30), ("stranger", 8), ("another", 2)):
        fleet.come(worker)
        fleet.gateways.update(ConnectedPeers(worker, WELT.name, peers), time.monotonic())
    fleet.go("another")
    for broker in ("b1", "b2"):
        fleet.gateways.update(BrokerStatus(broker, online=True), 0.0)
    fleet.accept()
    registry = fleet.registry
    gauges = GatewayGauges(
        fleet.gateways,
        fleet.keys,
        fleet.silences,
        domains=tuple(DOMAINS),
        gateway_metrics=GatewayMetrics(registry, ["gw01", "gw02", "old"], DOMAINS),
        receipt_metrics=fleet.metrics,
        node_metrics=NodeMetrics(registry, ["gw01", "gw02", "old"], DOMAINS),
    )
    await gauges.refresh()

    def shown(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"wgkex_broker_{name}", labels)

    assert shown("brokers_online") == 2
    assert shown("keys_awaiting_receipts") == 1
    assert [shown("worker_online", worker=worker) for worker in ("gw01", "gw02", "unknown")] == [1, 0, 1]
    assert [shown("worker_peers", worker=worker, domain=WELT.name) for worker in ("gw01", "unknown")] == [30, 10]
    assert shown("worker_peers", worker="gw01", domain=CITY.name) == 0
    targets = [shown("worker_target_peers", worker=worker) or 0 for worker in ("gw01", "gw02", "old", "unknown")]
    assert sum(targets) == pytest.approx(40)
    assert shown("worker_last_seen_timestamp_seconds", worker="gw01") == pytest.approx(time.time(), abs=5)
    assert shown("worker_last_seen_timestamp_seconds", worker="gw02") == 0
    assert shown("worker_online", worker="stranger") is None
    assert shown("keys_returned_total", worker="unknown") == 0


@in_virtual_time
async def test_gateway_that_confirms_nothing_is_0_until_its_first_receipt() -> None:
    fleet = Fleet("gw01", "gw02")
    registry = fleet.registry
    gauges = GatewayGauges(
        fleet.gateways,
        fleet.keys,
        fleet.silences,
        domains=tuple(DOMAINS),
        gateway_metrics=GatewayMetrics(registry, LISTED, DOMAINS),
        receipt_metrics=fleet.metrics,
        node_metrics=NodeMetrics(registry, LISTED, DOMAINS),
    )

    async def shown() -> dict[str, float | None]:
        await gauges.refresh()
        name = "wgkex_broker_worker_confirming"
        return {worker: registry.get_sample_value(name, {"worker": worker}) for worker in (*LISTED, "unknown")}

    healthy = dict.fromkeys((*LISTED, "unknown"), 1.0)
    assert await shown() == healthy
    keys = [fleet.accept(number) for number in range(SILENT_KEYS)]
    for key in keys:
        fleet.confirm(key, "gw02")
    await asyncio.sleep(SILENT_AFTER)
    fleet.silences.check()
    assert await shown() == healthy | {"gw01": 0.0}
    fleet.confirm(keys[0], "gw01")
    assert await shown() == healthy
