"""A host that `wgkex-ops doctor` examines, and what is not green there."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.integration.inprocess import settings
from tests.integration.loopback import LOOPBACK, free_port
from tests.integration.shipped import WORKER
from wgkex_ops.config import parse
from wgkex_ops.doctor.examination import examine
from wgkex_ops.doctor.findings import Finding
from wgkex_ops.doctor.host import Host
from wgkex_ops.doctor.process import ROLES
from wgkex_ops.model.fleet import Severity

WITHIN: Final = 15.0
HASHED: Final = "$2b$04$abcdefghijklmnopqrstuuF6HbSiWsWt0pOIYA5v0Xv5MRCmdBKwy"


class Site:
    """A host: its configuration, and what doctor finds there.

    Args:
        folder: for its files.
        port: of the MQTT server.
        name: of worker and broker.
        changes: of the configuration.
    """

    def __init__(self, folder: Path, port: int, name: str = WORKER, /, **changes: object) -> None:
        self.root = folder / "root"
        self.root.mkdir(exist_ok=True)
        self.synchronized: bool | None = True
        self.document = settings(port, name)
        self.document["broker_listen"] = {"host": LOOPBACK, "port": free_port()}
        for role in ROLES:
            self.document[role]["metrics_listen"] = {"host": LOOPBACK, "port": free_port()}
        for section, content in changes.items():
            known = self.document.get(section, {})
            self.document[section] = {**known, **content} if isinstance(content, dict) else content
        self.file = folder / f"{name}.yaml"
        self.write()

    def write(self) -> None:
        self.file.write_text(json.dumps(self.document))
        self.file.chmod(0o600)
        self.config = parse(self.file.read_text(), "test")

    async def examine(self, role: str | None) -> list[Finding]:
        host = Host(root=self.root, synchronized=lambda: self.synchronized)
        began = time.monotonic()
        found = await examine(self.file, role, host)
        assert time.monotonic() - began < WITHIN
        return list(found.findings)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "wgkex_ops", "doctor", *arguments, "--config", str(self.file)]


def not_green(findings: Sequence[Finding]) -> dict[str, Finding]:
    """What is red or yellow, by check. The tests' workers install nothing, and doctor says so."""
    bad = [one for one in findings if one.severity != Severity.OK and "installs nothing" not in one.text]
    assert all(one.remedy for one in bad)
    assert len({one.check for one in bad}) == len(bad), bad
    return {one.check: one for one in bad}


def only(findings: Sequence[Finding], *checks: str) -> list[Finding]:
    """What is not green: exactly these checks."""
    bad = not_green(findings)
    assert set(bad) == set(checks), bad
    return [bad[check] for check in checks]


def text_of(findings: Sequence[Finding], check: str) -> str:
    return next(one.text for one in findings if one.check == check)
