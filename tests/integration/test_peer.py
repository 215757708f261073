"""`wgkex-ops peer --fleet`: why a router has no tunnel, by all gateways and brokers, over a real MQTT server."""

import html
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from tests.helpers import WELT
from tests.integration.commands import Outcome, wgkex_ops
from tests.integration.gateways import Gateway, gateways_known
from tests.integration.inprocess import (
    RunningBroker,
    RunningWorker,
    client,
    new_key,
    running_broker,
    running_worker,
    settings,
)
from tests.integration.loopback import eventually_answered
from tests.integration.servers import Mosquitto
from wgkex_ops.config import parse
from wgkex_ops.model.keys import PublicKey

GATEWAYS: Final = ("gw01", "gw02")


async def peer(config: Path, *arguments: str) -> Outcome:
    return await wgkex_ops("peer", "--config", str(config), *arguments)


@dataclass
class Fleet:
    """Two gateways, a broker, and an operator."""

    broker: RunningBroker
    workers: dict[str, RunningWorker]
    operator: Path
    lists: Path

    async def ask(self, query: object) -> dict[str, Any]:
        """What is found of one key."""
        status, output, errors = await peer(self.operator, str(query), "--fleet", "--json")
        assert errors == ""
        (found,) = json.loads(output)
        assert status == (0 if found["verdict"]["outcome"] == "tunnel" else 1)
        assert isinstance(found, dict)
        return found

    async def connect(self, key: PublicKey) -> str:
        """Submit a key as a router does, and return the gateway that is named."""
        answer = await self.broker.submit(2, WELT.name, key)
        assert answer.status == 200
        return str(answer.json["Endpoint"]["Address"]).removesuffix(".example.net")


@pytest.fixture
async def fleet(mosquitto: Mosquitto, tmp_path: Path) -> AsyncIterator[Fleet]:
    operator, lists = tmp_path / "operator.yaml", tmp_path / "keys.yaml"
    lists.write_text("denied: []\n")
    extra = {"operator": {"username": "wgkex-operator"}, "key_lists": str(lists)}
    documents = {name: settings(mosquitto.port, name, **extra) for name in GATEWAYS}
    operator.write_text(json.dumps(documents["gw01"]))
    async with AsyncExitStack() as stack:
        workers = {
            name: await stack.enter_async_context(running_worker(parse(json.dumps(document), "test")))
            for name, document in documents.items()
        }
        broker = await stack.enter_async_context(running_broker(parse(json.dumps(documents["gw01"]), "test")))
        await gateways_known(broker, *GATEWAYS)
        yield Fleet(broker, workers, operator, lists)


async def test_a_router_that_asked_and_never_had_a_handshake_and_then_had_one(fleet: Fleet) -> None:
    key = new_key()
    named = await fleet.connect(key)
    found = await fleet.ask(key)
    assert found["key"] == str(key)
    assert found["address"] == str(key.link_local)
    assert found["silent"] == []
    assert found["problems"] == {}
    assert found["gateways"].keys() == set(GATEWAYS)
    for gateway in found["gateways"].values():
        assert gateway["verdict"]["text"].startswith("installed, never a handshake: the router's packets do not arrive")
        (installed,) = gateway["peers"]
        assert (installed["route"], installed["fdb"], installed["handshake"]) == ("ours", True, None)
        assert installed["allowed_ips"] == f"{key.link_local}/128"
        assert gateway["journal"]["domain"] == WELT.name
        assert gateway["journal"]["version_2"] is True
    ((request,),) = found["brokers"].values()
    assert request["receipts"] == dict.fromkeys(GATEWAYS, "")
    assert (request["named"], request["api_version"], request["domain"]) == (named, 2, WELT.name)
    assert request["request_id"]
    assert found["verdict"]["outcome"] == "waiting"
    assert f"by version 2, sent to {named}, and no handshake " in found["verdict"]["text"]
    assert "check UDP 4000" in found["verdict"]["text"]

    assert fleet.workers[named].dataplane.shake_hands(WELT, key)
    for query in (key, key.link_local, f"{key.link_local}/128"):
        found = await fleet.ask(query)
        assert found["verdict"]["outcome"] == "tunnel"
        assert found["verdict"]["text"].startswith(f"{named}: has a tunnel in {WELT.name}: last handshake ")


async def test_a_denied_key_is_found_by_its_name(fleet: Fleet) -> None:
    key = new_key()
    fleet.lists.write_text(f"denied:\n  - {{key: '{key}', name: Rathaus, remark: stolen}}\n")

    async def denied() -> bool:
        status, output, _ = await peer(fleet.operator, "rathaus", "--fleet", "--json")
        found = json.loads(output)
        return status == 1 and bool(found) and found[0]["brokers"] != {} and len(found[0]["gateways"]) == len(GATEWAYS)

    await eventually_answered(denied, "lists in force everywhere")
    found = await fleet.ask("Rathaus")
    assert (found["key"], found["name"]) == (str(key), "Rathaus")
    assert found["verdict"] == {"outcome": "refused", "text": "gw01 refuses it: denied key, by the key lists"}
    assert {gateway["verdict"]["outcome"] for gateway in found["gateways"].values()} == {"refused"}


async def test_what_nobody_knows(fleet: Fleet) -> None:
    key = new_key()
    found = await fleet.ask(key)
    assert found["verdict"]["outcome"] == "unknown"
    assert found["verdict"]["text"].startswith("nobody knows it: the router has not reached a broker within 5 minutes")
    for query, text in (("Rathaus", "name"), (str(key.link_local), "address")):
        assert await peer(fleet.operator, query, "--fleet") == (
            1,
            f"Unknown: no gateway or broker knows a key of this {text}.\n",
            "",
        )


async def test_who_does_not_answer_is_named(fleet: Fleet, mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port) as session:
        await Gateway(session, "old", receipts=True).announce()
        key = new_key()
        found = await fleet.ask(key)
        assert found["silent"] == ["old"]
        assert "nobody knows it (no answer from old)" in found["verdict"]["text"]


async def test_what_people_see_fits_their_terminal(fleet: Fleet) -> None:
    key = new_key()
    named = await fleet.connect(key)
    assert fleet.workers[named].dataplane.shake_hands(WELT, key)
    status, output, errors = await peer(fleet.operator, str(key), "--fleet")
    assert (status, errors) == (0, "")
    assert max(map(len, output.splitlines())) <= 80
    assert str(key) not in output
    assert str(key)[:10] in output
    assert "\x1b" not in output
    assert f"{named}: has a tunnel in {WELT.name}: last handshake" in output
    assert "gw01: installed" in output


async def test_without_an_operators_user_or_a_server_it_says_what_to_do(fleet: Fleet, tmp_path: Path) -> None:
    document = json.loads(fleet.operator.read_text())
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps({**document, "operator": {}}))
    status, output, errors = await peer(other, "x", "--fleet")
    assert (status, output) == (2, "")
    assert errors.startswith("operator.username is not set")
    other.write_text(json.dumps({**document, "mqtt": {**document["mqtt"], "version": "3.1.1"}}))
    status, _, errors = await peer(other, "x", "--fleet")
    assert (status, errors) == (2, "mqtt.version is 3.1.1: only MQTT 5 has questions and answers\n")
    other.write_text(json.dumps({**document, "mqtt": {"broker_url": "127.0.0.1", "broker_port": 1}}))
    status, output, errors = await peer(other, "x", "--fleet")
    assert (status, output) == (1, "")
    assert "check mqtt.broker_url and mqtt.broker_port" in errors


async def test_the_search_box_of_the_brokers_page_answers_the_same(fleet: Fleet) -> None:
    key = new_key()
    named = await fleet.connect(key)
    overview = (await fleet.broker.page("/")).text
    assert '<form method="get" action="/peer" role="search">' in overview
    page = await fleet.broker.page(f"/peer?q={quote(str(key))}")
    assert page.status == 200
    text = page.text
    # The plus sign and the slash of base64 are text.
    assert html.escape(str(key)).replace("&#x27;", "&#39;") in text
    assert f"sent to {named}, and no handshake " in text
    assert text.count("never a handshake") == len(GATEWAYS)
    assert 'http-equiv="refresh"' not in text
    assert "No gateway or broker knows a key" in (await fleet.broker.page("/peer?q=Rathaus")).text
    for query in ("", "?q=", "?q=%0a", f"?q={'x' * 300}", "?q=%00"):
        page = await fleet.broker.page(f"/peer{query}")
        assert page.status == 200
        assert "Type a key, a name or an address" in page.text
