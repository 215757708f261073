"""The kernel refuses one key among good ones: only that one fails, and its receipt says why."""

import json

import pytest

from tests.helpers import WELT
from tests.integration.inprocess import client, configuration, new_key, running_worker
from tests.integration.loopback import eventually
from tests.integration.servers import Bench, Mosquitto
from wgkex_ops.model.changes import Operation


@pytest.mark.parametrize("error", ["ENOBUFS", "EINVAL"])
async def test_one_refused_key_fails_alone_and_its_receipt_says_why(
    bench: Bench, mosquitto: Mosquitto, error: str
) -> None:
    good, refused = [new_key() for _ in range(50)], new_key()
    topic = "wgkex/receipts/broker01"
    observer = await bench.observe(mosquitto, "wgkex/receipts/#")
    async with running_worker(configuration(mosquitto.port)) as worker, client(mosquitto.port) as broker:
        worker.dataplane.refuse(refused, Operation.PEER_ADD, error)
        for number, key in enumerate([*good[:25], refused, *good[25:]]):
            await broker.session.publish(
                f"wireguard/{WELT.name}/all",
                str(key).encode(),
                timeout=10,
                response_topic=topic,
                correlation=number.to_bytes(2, "big"),
            )
        failed = json.dumps({"worker": "gw01", "result": "failed", "reason": error}).encode()
        installed = json.dumps({"worker": "gw01", "result": "installed"}).encode()
        receipts = f"{topic}/gw01"
        await eventually(lambda: len(observer.payloads(receipts)) == 51, "a receipt for each key")
        assert sorted(observer.payloads(receipts)) == sorted([failed, *[installed] * 50])
        for key in good:
            assert await worker.has(WELT, key)
        assert not await worker.has(WELT, refused)
        assert worker.metric("wgkex_worker_peer_install_failures_total", domain=WELT.name) == 1
