"""The shipped configuration in a real Mosquitto, with a real broker and worker."""

import contextlib
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.helpers import ROOT, WELT
from tests.integration.inprocess import client, new_key, settings, submit
from tests.integration.loopback import LOOPBACK, TIMEOUT, accepts, eventually, eventually_answered, free_port, run
from tests.integration.servers import Bench, Process
from wgkex_ops.errors import PublishRefusedError

FOLDER: Final = ROOT / "deploy" / "mosquitto"
# Each user's password is its name.
USERS: Final = ("wgkex-broker", "wgkex-worker", "wgkex-operator")


class Server:
    """A Mosquitto with the shipped files; only ports, paths, and what it logs are other ones."""

    def __init__(self, bench: Bench) -> None:
        self.port = free_port()
        self._bench = bench
        data = bench.folder / "data"
        data.mkdir()
        passwords = bench.folder / "wgkex.passwd"
        passwords.touch()
        for user in USERS:
            run("mosquitto_passwd", "-b", str(passwords), user, user)
        text = (FOLDER / "mosquitto.conf").read_text()
        for pattern, value in {
            "listener 1883": f"listener {self.port} {LOOPBACK}",
            "/etc/mosquitto/wgkex.passwd": str(passwords),
            "/etc/mosquitto/wgkex.acl": str(FOLDER / "wgkex.acl"),
            "/var/lib/mosquitto/": f"{data}/",
        }.items():
            assert len(re.findall(f"^[^#\n]*{re.escape(pattern)}$", text, re.MULTILINE)) == 1, pattern
            text = text.replace(pattern, value)
        self._config = bench.folder / "mosquitto.conf"
        # Started as root, it would become a user that cannot read our files.
        self._config.write_text(f"{text}user root\nlog_type all\n")
        self.process: Process | None = None

    @property
    def log(self) -> str:
        assert self.process is not None
        return self.process.output

    async def start(self) -> None:
        process = self.process = self._bench.start("mosquitto", "mosquitto", "-c", str(self._config))
        await eventually(lambda: accepts(self.port) or not process.running, "an MQTT server that listens")
        assert process.running, process.output

    async def restart(self) -> None:
        assert self.process is not None
        self.process.send(signal.SIGTERM)
        assert await self.process.ended() == 0
        await self.start()

    def as_user(self, user: str) -> dict[str, Any]:
        return {"username": user, "password": user}

    def command(self, program: str, user: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = (program, "-h", LOOPBACK, "-p", str(self.port), "-u", user, "-P", user, "-V", "5", *options)
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


@pytest.fixture
async def server(bench: Bench) -> Server:
    server = Server(bench)
    await server.start()
    return server


async def test_a_key_gets_through_with_the_rights_of_broker_and_worker(bench: Bench, server: Server) -> None:
    def document(user: str) -> Mapping[str, Any]:
        return settings(server.port, mqtt=server.as_user(user), broker={"confirm_timeout": 5})

    worker = bench.wgkex("worker", document("wgkex-worker"))
    broker = bench.wgkex("broker", document("wgkex-broker"))
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


ALLOWED: Final = {
    "wgkex-broker": ("wireguard/ffmuc_welt/all", "wireguard/ffmuc_welt/gw01", "wireguard-broker/gw01/status"),
    "wgkex-worker": (
        "wireguard-worker/gw01/ffmuc_welt/data",
        "wireguard-worker/gw01/status",
        "wireguard-metrics/ffmuc_welt/gw01/connected_peers",
        "wgkex/receipts/gw01",
    ),
    "wgkex-operator": ("wireguard/ffmuc_welt/all", "wireguard/ffmuc_welt/gw01"),
}
TOPICS: Final = (*{topic: None for topics in ALLOWED.values() for topic in topics}, "wgkex/other", "else/where")


@pytest.mark.parametrize("user", USERS)
async def test_each_user_may_publish_its_own_topics_and_no_others(server: Server, user: str) -> None:
    allowed = set()
    async with client(server.port, **server.as_user(user)) as session:
        for topic in TOPICS:
            with contextlib.suppress(PublishRefusedError):
                await session.publish(topic, retain=True)
                allowed.add(topic)
        assert session.metric("disconnects_total") == 0
    assert allowed == set(ALLOWED[user])


@pytest.mark.parametrize(
    ("user", "readable"),
    [
        ("wgkex-broker", {*ALLOWED["wgkex-worker"], "wireguard-broker/gw01/status"}),
        ("wgkex-worker", {"wireguard/ffmuc_welt/all", "wireguard/ffmuc_welt/gw01"}),
        ("wgkex-operator", set(TOPICS) - {"wgkex/other", "else/where"}),
    ],
)
async def test_each_user_may_read_what_is_meant_for_it(server: Server, user: str, readable: set[str]) -> None:
    for sender in ("wgkex-broker", "wgkex-worker"):
        async with client(server.port, **server.as_user(sender)) as session:
            for topic in ALLOWED[sender]:
                await session.publish(topic, topic.encode(), retain=True)
    async with client(server.port, client_id="reader", subscriptions=["#"], **server.as_user(user)) as reader:
        read = {(await reader.next()).topic for _ in readable}
    assert read == readable
    # What should not be readable may come last.
    await eventually(lambda: "Received DISCONNECT from reader" in server.log, "a DISCONNECT")
    assert set(re.findall(r"Sending PUBLISH to reader .*, '([^']+)', ", server.log)) == readable


async def test_a_client_without_the_right_password_is_refused(server: Server) -> None:
    logins: tuple[dict[str, Any], ...] = ({}, {"username": "wgkex-broker", "password": "wrong"})
    for login in logins:
        async with client(server.port, connected=False, **login) as session:
            await session.failed("refused")


@pytest.mark.parametrize("qos", ["0", "1"])
async def test_keys_wait_for_a_worker_that_is_away_even_while_the_server_restarts(server: Server, qos: str) -> None:
    session = ("-i", "away", "-c", "-x", "3600", "-q", "1", "-t", "wireguard/ffmuc_welt/+")
    assert server.command("mosquitto_sub", "wgkex-worker", *session, "-E").returncode == 0
    keys = [str(new_key()) for _ in range(1500)]  # more than Mosquitto keeps by default
    lines = "".join(f"{key}\n" for key in keys)
    publish = ("mosquitto_pub", "-h", LOOPBACK, "-p", str(server.port), "-u", "wgkex-broker", "-P", "wgkex-broker")
    run(*publish, "-q", qos, "-t", "wireguard/ffmuc_welt/all", "-l", stdin=lines)
    await server.restart()
    done = server.command("mosquitto_sub", "wgkex-worker", *session, "-C", str(len(keys)))
    assert done.returncode == 0
    assert done.stdout.splitlines() == keys


def test_the_rules_are_those_of_the_documented_topics() -> None:
    documented = re.findall(r"^\| `(w[a-z/{}_ \"-]+)` \| ", (ROOT / "docs" / "protocol.md").read_text(), re.MULTILINE)
    patterns = {re.sub(r"\{[^}]*\}", "+", topic) for topic in documented}
    assert patterns
    rules = re.findall(r"^topic (?:read|write|readwrite) (\S+)$", (FOLDER / "wgkex.acl").read_text(), re.MULTILINE)
    assert patterns <= set(rules)
    assert {rule for rule in rules if not rule.endswith("#")} - patterns <= {"wgkex/receipts/+"}


def test_an_acl_file_and_no_limit_for_what_waits_do_not_go_together() -> None:
    text = Path(FOLDER / "mosquitto.conf").read_text()
    [limit] = re.findall(r"^max_queued_messages (\d+)$", text, re.MULTILINE)
    assert int(limit) >= 100_000
