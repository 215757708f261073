"""A Mosquitto with the shipped files, and the users that they are for."""

import re
import signal
import subprocess
from typing import Any, Final

from tests.helpers import ROOT
from tests.integration.loopback import LOOPBACK, TIMEOUT, accepts, eventually, free_port, run
from tests.integration.servers import Bench, Process

FOLDER: Final = ROOT / "deploy" / "mosquitto"
BROKER: Final = "broker01.example.net"
ANOTHER_BROKER: Final = "broker02.example.net"
WORKER: Final = "gw01"
ANOTHER_WORKER: Final = "gw02"
OPERATOR: Final = "wgkex-operator"
PROBE: Final = "wgkex-probe"
USERS: Final = (BROKER, ANOTHER_BROKER, WORKER, ANOTHER_WORKER, OPERATOR, PROBE)
SHARED_BROKER: Final = "wgkex-broker"
SHARED_WORKER: Final = "wgkex-worker"


def access_rules(*, shared: bool = False) -> str:
    """The shipped rules, changed as their comments tell: with a second broker, perhaps with the shared users."""
    text = (FOLDER / "wgkex.acl").read_text()
    [section] = re.findall(rf"^user {re.escape(BROKER)}\n.*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    if shared:
        text = re.sub(r"^#(?=user |topic )", "", text, flags=re.MULTILINE)
    return f"{text}\n{section.replace(BROKER, ANOTHER_BROKER)}\n"


class Server:
    """The server; only ports, paths, and what it logs are other ones. Each user's password is its name.

    Args:
        bench: starts it.
        shared: whether there are also users that several hosts share, as during a migration.
    """

    def __init__(self, bench: Bench, *, shared: bool = False) -> None:
        self.port = free_port()
        self._bench = bench
        data = bench.folder / "data"
        data.mkdir()
        rules = bench.folder / "wgkex.acl"
        rules.write_text(access_rules(shared=shared))
        passwords = bench.folder / "wgkex.passwd"
        passwords.touch()
        for user in (*USERS, SHARED_BROKER, SHARED_WORKER):
            run("mosquitto_passwd", "-b", str(passwords), user, user)
        text = (FOLDER / "mosquitto.conf").read_text()
        for pattern, value in {
            "listener 1883": f"listener {self.port} {LOOPBACK}",
            "use_username_as_clientid true": f"use_username_as_clientid {'false' if shared else 'true'}",
            "/etc/mosquitto/wgkex.passwd": str(passwords),
            "/etc/mosquitto/wgkex.acl": str(rules),
            "/var/lib/mosquitto/": f"{data}/",
        }.items():
            text, found = re.subn(rf"^([^#\n]*){re.escape(pattern)}$", rf"\g<1>{value}", text, flags=re.MULTILINE)
            assert found == 1, pattern
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

    def connects_of(self, client_id: str) -> int:
        """How often a client has connected."""
        return len(re.findall(rf"New client connected .* as {re.escape(client_id)} ", self.log))

    def command(self, program: str, user: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = (program, "-h", LOOPBACK, "-p", str(self.port), "-u", user, "-P", user, "-V", "5", *options)
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
