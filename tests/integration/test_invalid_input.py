"""What is wrong is refused, on HTTP and on the bus, and disturbs nothing."""

import base64
import json

from tests.helpers import TESTDATA, WELT
from tests.integration.gateways import gateways_known
from tests.integration.inprocess import configuration, new_key, running_broker, running_worker
from tests.integration.keys import expected_endpoint, installed
from tests.integration.loopback import request
from tests.integration.servers import Bench, Mosquitto


def bad_submissions() -> list[bytes]:
    rejected = json.loads((TESTDATA / "public_keys_rejected.json").read_text())
    key = str(new_key())
    documents: list[object] = [
        *({"domain": WELT.name, "public_key": entry["public_key"]} for kind in rejected.values() for entry in kind),
        *({"domain": name, "public_key": key} for name in ("", "ffmuc_unknown", "welt", "+", "#", "../all", None, 42)),
        {"domain": WELT.name},
        {"public_key": key},
        {},
        [],
        None,
        "text",
    ]
    raw = [
        b"",
        b"domain=ffmuc_welt&public_key=" + key.encode(),
        b"\xff\xfe",
        b"[" * 4000,
        json.dumps({"domain": WELT.name, "public_key": key, "padding": "x" * 4096}).encode(),
        f'{{"domain": "{WELT.name}", "public_key": "{key}", "public_key": "{new_key()}"}}'.encode(),
    ]
    return [json.dumps(document).encode() for document in documents] + raw


async def test_no_bad_submission_reaches_the_bus(bench: Bench, mosquitto: Mosquitto) -> None:
    observer = await bench.observe(mosquitto, "wireguard/#")
    async with running_broker(configuration(mosquitto.port)) as broker:
        for body in bad_submissions():
            for version in (1, 2):
                answer = await request(f"http://{broker.nodes}/api/v{version}/wg/key/exchange", body)
                assert answer.status in (400, 413), body
                assert answer.json["error"]["message"]
        sentinel = new_key()
        await broker.submit(1, WELT.name, sentinel)
        await observer.sees(f"wireguard/{WELT.name}/all", str(sentinel))
        assert len(observer.messages) == 1


async def test_nothing_bad_on_the_bus_disturbs_a_worker(mosquitto: Mosquitto) -> None:
    async with running_worker(configuration(mosquitto.port)) as worker:
        own_key = base64.b64encode((await worker.state(WELT)).public_key)
        rejected = json.loads((TESTDATA / "public_keys_rejected.json").read_text())
        texts = [entry["public_key"] for kind in rejected.values() for entry in kind]
        payloads = [text.encode() for text in texts if isinstance(text, str)]
        payloads += [own_key, b"\xff" * 44, bytes(65_536), json.dumps({"public_key": str(new_key())}).encode()]
        for payload in payloads:
            mosquitto.publish(f"wireguard/{WELT.name}/all", payload, "-q", "1")
        sentinel = new_key()
        mosquitto.publish(f"wireguard/{WELT.name}/all", str(sentinel), "-q", "1")
        await installed(worker, WELT, sentinel)
        assert [peer.public_key for peer in (await worker.state(WELT)).peers] == [sentinel.raw]
        rejections = {
            reason: worker.metric("wgkex_worker_message_rejections_total", reason=reason)
            for reason in ("invalid_public_key", "small_order_public_key", "own_key")
        }
        assert rejections["own_key"] == 1
        assert rejections["small_order_public_key"] == len(rejected["small_order"])
        assert sum(rejections.values()) == len(payloads)


async def test_nothing_bad_on_the_bus_disturbs_a_broker(mosquitto: Mosquitto) -> None:
    topics = [
        f"wireguard-worker/gw01/{WELT.name}/data",
        f"wireguard-metrics/{WELT.name}/gw01/connected_peers",
        "wireguard-worker/gw01/status",
        "wireguard-broker/gw01/status",
        "wireguard-worker//status",
        "wireguard-worker/ /status",
        "wireguard-metrics/unknown/gw01/connected_peers",
    ]
    payloads = [b"nonsense", b"\xff\xfe", b"[" * 4000, b"1e9", b"{}", b"[]", bytes(65_536), b"-1"]
    config = configuration(mosquitto.port)
    async with running_broker(config) as broker:
        for topic in topics:
            for payload in payloads:
                mosquitto.publish(topic, payload, "-q", "1", "-r")
        async with running_worker(config) as worker:
            await gateways_known(broker, "gw01")
            answer = await broker.submit(2, WELT.name, new_key())
            assert answer.json == {"Endpoint": await expected_endpoint(worker, WELT)}
        assert broker.metric("wgkex_mqtt_disconnects_total") == 0
        assert broker.metric("wgkex_broker_message_rejections_total", reason="malformed_payload") > 10
