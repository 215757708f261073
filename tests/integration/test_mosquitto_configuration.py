"""The shipped configuration in a real Mosquitto, with a real broker and worker."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT, WELT
from tests.integration.inprocess import client, new_key, settings, submit
from tests.integration.loopback import LOOPBACK, eventually_answered, run
from tests.integration.servers import Bench
from tests.integration.shipped import BROKER, FOLDER, SHARED_BROKER, SHARED_WORKER, WORKER, Server


@pytest.fixture
async def server(bench: Bench) -> Server:
    server = Server(bench)
    await server.start()
    return server


@pytest.mark.parametrize("shared", [False, True], ids=("own users", "shared users"))
async def test_a_key_gets_through_with_the_rights_of_broker_and_worker(bench: Bench, shared: bool) -> None:
    server = Server(bench, shared=shared)
    await server.start()

    def document(name: str, user: str) -> Mapping[str, Any]:
        return settings(server.port, name, mqtt=server.as_user(user), broker={"name": name, "confirm_timeout": 5})

    worker = bench.wgkex("worker", document(WORKER, SHARED_WORKER if shared else WORKER))
    broker = bench.wgkex("broker", document(BROKER, SHARED_BROKER if shared else BROKER))
    await worker.logs("worker_announced")
    await broker.logs("mqtt_connected")
    listen = (await broker.logs("broker_started"))["listen"]

    async def endpoint() -> str:
        key = new_key()
        answer = await submit(listen, 2, WELT.name, key)
        if answer.status == 200:
            await worker.logs("peer_installed", public_key=str(key))
        return str(answer.json.get("Endpoint", {}).get("Address", ""))

    # Version 2 also needs all that the worker publishes.
    async def through() -> bool:
        return await endpoint() == "gw01.example.net"

    await eventually_answered(through, "a gateway that the broker knows")
    for program in (worker, broker):
        assert await program.stop() == 0
        assert {line["level"] for line in program.events} <= {"info", "warning"}
        assert not program.logged("receipt_failed")
    assert "Denied PUBLISH" not in server.log


async def test_a_client_without_the_right_password_is_refused(server: Server) -> None:
    logins: tuple[dict[str, Any], ...] = ({}, {"username": BROKER, "password": "wrong"})
    for login in logins:
        async with client(server.port, connected=False, **login) as session:
            await session.failed("refused")


@pytest.mark.parametrize("qos", ["0", "1"])
async def test_keys_wait_for_a_worker_that_is_away_even_while_the_server_restarts(server: Server, qos: str) -> None:
    session = ("-i", WORKER, "-c", "-x", "3600", "-q", "1", "-t", "wireguard/ffmuc_welt/+")
    assert server.command("mosquitto_sub", WORKER, *session, "-E").returncode == 0
    keys = [str(new_key()) for _ in range(1500)]  # more than Mosquitto keeps by default
    lines = "".join(f"{key}\n" for key in keys)
    publish = ("mosquitto_pub", "-h", LOOPBACK, "-p", str(server.port), "-u", BROKER, "-P", BROKER)
    run(*publish, "-q", qos, "-t", "wireguard/ffmuc_welt/all", "-l", stdin=lines)
    await server.restart()
    done = server.command("mosquitto_sub", WORKER, *session, "-C", str(len(keys)))
    assert done.returncode == 0
    assert done.stdout.splitlines() == keys


def test_the_rules_are_those_of_the_documented_topics() -> None:
    documented = re.findall(
        r"^\| (?:\*new:\* )?`(w[a-z/{}_ \"-]+)` \| ", (ROOT / "docs" / "protocol.md").read_text(), re.MULTILINE
    )
    patterns = {re.sub(r"\{[^}]*\}", "+", topic) for topic in documented}
    assert patterns
    text = (
        (FOLDER / "wgkex.acl")
        .read_text()
        .replace(BROKER, "+")
        .replace("%u", "+")
        .replace("wireguard/+/all", "wireguard/+/+")
    )
    for kind in ("topic", "#topic"):
        rules = set(re.findall(rf"^(?:{kind}|pattern) (?:read|write|readwrite) (\S+)$", text, re.MULTILINE))
        assert patterns <= rules
        # Workers of earlier revisions.
        assert {rule for rule in rules if not rule.endswith("#")} - patterns <= {"wgkex/receipts/+"}


def test_an_acl_file_and_no_limit_for_what_waits_do_not_go_together() -> None:
    text = Path(FOLDER / "mosquitto.conf").read_text()
    [limit] = re.findall(r"^max_queued_messages (\d+)$", text, re.MULTILINE)
    assert int(limit) >= 100_000
