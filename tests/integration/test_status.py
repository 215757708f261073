"""`wgkex-ops status`: the fleet, from a broker and from the MQTT server."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import CITY, WELT
from tests.integration.commands import Outcome, wgkex_ops
from tests.integration.gateways import Gateway, gateways_known
from tests.integration.inprocess import (
    RunningBroker,
    client,
    new_key,
    running_broker,
    running_worker,
    settings,
)
from tests.integration.loopback import eventually_answered
from tests.integration.servers import Mosquitto
from wgkex_ops.bus.messages import Endpoint, connected_peers_topic, data_payload, worker_data_topic, worker_status_topic
from wgkex_ops.config import parse


async def status(config: Path, *arguments: str) -> Outcome:
    return await wgkex_ops("status", "--config", str(config), *arguments)


@dataclass
class Fleet:
    """A broker, a gateway of ours that drains, an old one, and one that has gone."""

    broker: RunningBroker
    config: Path

    async def status(self, *arguments: str) -> tuple[int, str, str]:
        return await status(self.config, *arguments)

    async def found(self, *arguments: str) -> dict[str, Any]:
        code, output, errors = await self.status("--json", *arguments)
        assert errors == ""
        found = json.loads(output)
        assert code == found["severity"]
        assert isinstance(found, dict)
        return found


@pytest.fixture
async def fleet(mosquitto: Mosquitto, tmp_path: Path) -> AsyncIterator[Fleet]:
    document = settings(mosquitto.port, "gw01", operator={"username": "wgkex-operator"})
    drained = json.loads(json.dumps(document))
    (Path(document["worker"]["state_dir"]) / "drain.json").write_text('{"since": 1.0}')
    config = tmp_path / "wgkex.yaml"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running_worker(parse(json.dumps(drained), "test")))
        second = settings(mosquitto.port, "gw02")
        await stack.enter_async_context(running_worker(parse(json.dumps(second), "test")))
        bus = await stack.enter_async_context(client(mosquitto.port))
        old, gone = Gateway(bus, "old", receipts=False), Gateway(bus, "gone", receipts=True)
        for played in (old, gone):
            await played.announce()
            endpoint = Endpoint(f"{played.name}.example.net", 40012, str(new_key()), "fe80::2")
            await bus.publish(worker_data_topic(played.name, CITY.name), data_payload(endpoint), retain=True)
            await bus.publish(connected_peers_topic(CITY.name, played.name), b"7", retain=True)
        await bus.publish(worker_status_topic("gone"), b"0", retain=True)
        broker = await stack.enter_async_context(running_broker(parse(json.dumps(document), "test")))
        await gateways_known(broker, "gw01", "gw02", "old")
        document["broker"]["metrics_listen"] = {"host": broker.pages.host, "port": broker.pages.port}
        config.write_text(json.dumps(document))
        yield Fleet(broker, config)


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on who tells it, and when."""
    gateways = [{**gateway, "last_heard": None} for gateway in found["gateways"]]
    return {**found, "source": "", "at": 0, "gateways": gateways}


async def test_broker_and_mqtt_server_tell_the_same(fleet: Fleet) -> None:
    mine = version("wgkex-ops")
    by_broker = await fleet.found()
    gateways = {gateway.pop("name"): gateway for gateway in by_broker["gateways"]}
    assert {name: (one["state"], one["confirming"], one["version"]) for name, one in gateways.items()} == {
        "gw01": ("draining", True, mine),
        "gw02": ("online", True, mine),
        "old": ("online", False, ""),
        "gone": ("offline", True, ""),
    }
    assert (gateways["old"]["peers"], gateways["gw01"]["target"]) == (7, 0)
    assert all(abs(one["last_heard"] - by_broker["at"]) < 60 for one in gateways.values())
    assert by_broker["source"] == "gw01"
    assert by_broker["brokers"] == [{"name": "gw01", "online": True, "version": mine}]
    # gw01 drains; the one that has gone still had its peers a moment ago.
    assert [(one["name"], one["gateways"]) for one in by_broker["domains"]] == [(WELT.name, 2), (CITY.name, 2)]
    assert by_broker["severity"] == 1
    assert [one["text"] for one in by_broker["problems"]] == ["gone is offline: 'systemctl status wgkex-worker' there"]

    by_mqtt = await fleet.found("--mqtt")
    assert by_mqtt["source"].startswith("MQTT server 127.0.0.1:")
    by_broker = await fleet.found()
    # Since when one is offline, is not known there: its peers count at a broker only, which has known it online.
    for found in (by_mqtt, by_broker):
        found["domains"] = [{**domain, "peers": 0} for domain in found["domains"]]
        found["gateways"] = [{**gateway, "target": 0} for gateway in found["gateways"]]
    peers = [{one["name"]: one.pop("peers") for one in found["gateways"]} for found in (by_mqtt, by_broker)]
    assert peers == [{"gw01": 0, "gw02": 0, "old": 7, "gone": gone} for gone in (0, 7)]
    assert compared(by_mqtt) == compared(by_broker)


async def test_what_people_and_monitoring_see(fleet: Fleet) -> None:
    for arguments in ((), ("--mqtt",), ("--broker-url", f"http://{fleet.broker.pages}")):
        code, output, errors = await fleet.status(*arguments)
        assert (code, errors) == (1, "")
        assert max(map(len, output.splitlines())) <= 80
        assert "\x1b" not in output
        peers = "3 of 4 gateways online, 7 peers" if "--mqtt" in arguments else "3 of 4 gateways online, 14 peers"
        for text in ("gw01", "draining", "WARNING: gone is offline", WELT.name, peers):
            assert text in output
    line = "WGKEX WARNING - gone is offline: 'systemctl status wgkex-worker' there"
    assert await fleet.status("--nagios") == (1, f"{line} | gateways_online=3 gateways=4 peers=14\n", "")
    assert await fleet.status("--watch") == (2, "", "--watch is for a terminal\n")


async def test_no_broker_and_no_configuration(fleet: Fleet, mosquitto: Mosquitto, tmp_path: Path) -> None:
    code, output, errors = await fleet.status("--broker-url", "http://127.0.0.1:1")
    assert (code, output) == (2, "")
    assert errors.startswith("127.0.0.1:1 does not answer: ")
    assert "systemctl status wgkex-broker" in errors
    code, output, errors = await fleet.status("--broker-url", "http://127.0.0.1:1", "--nagios")
    assert (code, errors) == (3, "")
    assert output.startswith("WGKEX UNKNOWN - 127.0.0.1:1 does not answer: ")
    code, output, errors = await fleet.status("--broker-url", f"http://127.0.0.1:{mosquitto.port}", "--nagios")
    assert (code, errors) == (3, "")
    code, output, errors = await status(tmp_path / "missing.yaml", "--nagios")
    assert (code, errors) == (3, "")
    assert output.startswith("WGKEX UNKNOWN - ")
    code, _, errors = await status(tmp_path / "missing.yaml")
    assert code == 2
    assert "missing.yaml" in errors


async def test_a_domain_without_a_gateway_is_critical(fleet: Fleet, mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port) as bus:
        for name in ("gw02", "old"):
            await bus.publish(worker_status_topic(name), b"0", retain=True)

    async def critical() -> bool:
        return bool((await fleet.found())["severity"] == 2)

    await eventually_answered(critical, "two domains without a gateway")
    code, output, _ = await fleet.status("--nagios")
    assert code == 2
    assert output.startswith(f"WGKEX CRITICAL - {WELT.name} has no gateway: its nodes get no tunnel; ")
