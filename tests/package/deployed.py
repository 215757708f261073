"""What a machine has before somebody types what a test is about: a checkout, the MQTT server, a configuration."""

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.documents import shell_blocks
from tests.helpers import ROOT
from tests.package.machine import Machine, checked

BROKER: Final = "broker01.example.net"
WORKER: Final = "gw01.example.net"
OPERATOR: Final = "wgkex-operator"


def copy_checkout(folder: Path) -> None:
    """Make a folder that is a checkout of what is committed here."""
    with tempfile.TemporaryDirectory() as clone:
        checked("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), clone)
        shutil.copytree(clone, folder)


def set_up_mosquitto(machine: Machine, checkout: str, password: str) -> None:
    """Type what the deployment has for Mosquitto, with users for a broker, a worker and an operator."""
    files, _ = shell_blocks("deploy/README.md", "Mosquitto")
    *settings, make_user, restart = files.splitlines()
    machine.types("\n".join(settings), checkout)
    for user in (BROKER, WORKER, OPERATOR):
        # It asks, and asks again.
        machine.types(make_user.replace(WORKER, user), checkout, f"{password}\n{password}\n")
    machine.types(restart, checkout)


def configuration(password: str, domains: Iterable[str], server: str, **sections: object) -> str:
    """That of a host with both roles; a machine without a kernel of its own has no WireGuard.

    Args:
        password: of the users of broker and worker.
        domains: their names, with the prefix `ffmuc_`.
        server: the host of the MQTT server.
        sections: what else is in it.
    """
    shared: dict[str, Any] = {
        "domains": list(domains),
        "domain_prefixes": ["ffmuc_"],
        "mqtt": {"broker_url": server},
        "broker": {"name": BROKER, "username": BROKER, "password": password},
        "worker": {"name": WORKER, "username": WORKER, "password": password, "dataplane": "memory"},
    }
    return json.dumps(shared | sections)
