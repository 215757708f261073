"""`wgkex-ops register` against a broker, and what people and scripts see of it."""

import json
from pathlib import Path
from typing import Any

from tests.helpers import WELT
from tests.integration.commands import Outcome, wgkex_ops
from tests.integration.gateways import gateways_known
from tests.integration.inprocess import RunningBroker, configuration, new_key, running_broker, running_worker, settings
from tests.integration.keys import installed
from tests.integration.loopback import free_port
from tests.integration.servers import Bench, Mosquitto
from wgkex_ops.model.keys import PublicKey


async def register(*arguments: str) -> Outcome:
    return await wgkex_ops("register", *arguments)


def first_requests(broker: RunningBroker) -> float:
    return broker.metric("wgkex_broker_key_first_requests_total", domain=WELT.name)


async def test_a_key_is_registered_as_a_router_does(mosquitto: Mosquitto, tmp_path: Path) -> None:
    config = configuration(mosquitto.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        await gateways_known(broker, "gw01")
        state = await worker.state(WELT)
        key = new_key()
        url = f"http://{broker.nodes}/"

        status, output, errors = await register(WELT.name, str(key), "--url", url)
        assert (status, errors) == (0, "")
        endpoint = dict(line.split("  ", 1) for line in output.splitlines())
        assert {name: value.strip() for name, value in endpoint.items()} == {
            "Endpoint": f"gw01.example.net:{state.listen_port}",
            "Public key": str(PublicKey(state.public_key)),
            "Allowed IPs": f"{state.link_address}/128",
        }
        found = json_of(await register(WELT.name, str(key), "--url", url, "--json"))
        assert found["endpoint"]["allowed_ips"] == f"{state.link_address}/128"
        await installed(worker, WELT, key)
        # It is a node like any other.
        assert first_requests(broker) == 1

        other = new_key()
        status, output, _ = await register(WELT.name, str(other), "--url", url, "--api-version", "1")
        assert (status, output) == (0, f"The key is on its way to all gateways of {WELT.name}.\n")
        await installed(worker, WELT, other)
        found = json_of(await register(WELT.name, str(other), "--url", url, "--api-version", "1", "--json"))
        assert found == {"accepted": True, "endpoint": None}

        # By the configuration, the broker is on this host.
        file = tmp_path / "wgkex.yaml"
        listen = {"host": broker.nodes.host, "port": broker.nodes.port}
        file.write_text(json.dumps(settings(mosquitto.port, broker_listen=listen)))
        assert (await register(WELT.name, str(key), "--config", str(file)))[0] == 0

        status, output, _ = await register("ffmuc_unknown", str(key), "--url", url)
        assert status == 1
        assert "HTTP status 400, unknown_domain: the domain is not served here" in output


async def test_a_location_is_named_as_a_router_does(bench: Bench, mosquitto: Mosquitto) -> None:
    workers = {"workers": {"gw01": {"location": "north"}, "gw02": {"location": "south"}}}
    bench.wgkex("worker", settings(mosquitto.port, "gw02", **workers))
    config = configuration(mosquitto.port, **workers)
    async with running_worker(config), running_broker(config) as broker:
        await gateways_known(broker, "gw01", "gw02")

        async def gateway(*options: str) -> str:
            arguments = (WELT.name, str(new_key()), "--url", f"http://{broker.nodes}", "--json", *options)
            address: str = json_of(await register(*arguments))["endpoint"]["address"]
            return address.removesuffix(".example.net")

        # Both have no peers at first, and one each afterwards.
        assert await gateway("--location", "South") == "gw02"
        assert await gateway("--location", "south") == "gw01"
        assert await gateway("--location", "south") == "gw02"
        for result, count in (("met", 2), ("unmet", 1)):
            assert broker.metric("wgkex_broker_location_preferences_total", result=result) == count
        assert await gateway("--location", "nowhere") == "gw01"


def json_of(result: tuple[int, str, str]) -> Any:  # noqa: ANN401  JSON can be anything
    return json.loads(result[1])


async def test_what_goes_wrong_is_shown() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    status, output, _ = await register(WELT.name, str(new_key()), "--url", url)
    assert (status, output) == (1, f"no response of the broker at {url}: Connection refused\n")
    status, output, _ = await register(WELT.name, str(new_key()), "--url", url, "--json")
    assert json.loads(output) == {
        "accepted": False,
        "error": f"no response of the broker at {url}: Connection refused",
    }
    status, _, errors = await register(WELT.name, "short", "--url", url)
    assert status == 2
    assert "argument KEY: the public key is not the canonical base64 of 32 bytes" in errors
    status, _, errors = await register(WELT.name, str(new_key()), "--location", "the north")
    assert status == 2
    assert "argument --location: should be at most 64 letters, digits, '.', '_' and '-'" in errors
    status, _, errors = await register(WELT.name, str(new_key()), "--config", "/nowhere/wgkex.yaml")
    assert status == 2
    assert errors.startswith("/nowhere/wgkex.yaml: does not exist")
