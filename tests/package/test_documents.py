"""The blocks of the documents, typed on a Debian machine by the letter, in the checkout of somebody else than root."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import KEY, ROOT
from tests.package.machine import Machine, checked

CHECKOUT: Final = "/home/alice/wgkex-ops"
BROKER: Final = "broker01.example.net"
WORKER: Final = "gw01.example.net"
PASSWORD: Final = "correct horse"


def blocks(document: str, heading: str) -> list[str]:
    """The blocks of a section that are for a shell."""
    section = (ROOT / document).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, f"{document} has no section {heading} with blocks"
    return found


def typed(machine: Machine, block: str, answers: str = "") -> str:
    """Type a block as root, in the checkout; what fails ends it."""
    return machine.output("bash", "-ec", f"cd {CHECKOUT}\n{block}", typed=answers)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip's index has for us: a machine of the tests has no network."""
    folder = tmp_path_factory.mktemp("wheels")
    download = (sys.executable, "-m", "pip", "download", "--quiet", f"--dest={folder}")
    constraint = f"--constraint={ROOT / 'constraints.txt'}"
    checked(*download, constraint, f"{ROOT}[embedded]", timeout=1200)
    checked(*download, "pip>=25.1", "hatchling", "editables", timeout=600)
    return folder


@pytest.fixture
def checkout(machine: Machine, wheels: Path, tmp_path: Path) -> Machine:
    """A machine with a checkout that belongs to alice, and an index of packages."""
    machine.output("useradd", "--create-home", "alice")
    home = machine.root / "home" / "alice"
    checked("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(tmp_path / "checkout"))
    shutil.copytree(tmp_path / "checkout", home / "wgkex-ops")
    shutil.copytree(wheels, home / "wheels")
    (machine.root / "etc" / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /home/alice/wheels\n")
    machine.output("chown", "-R", "alice:alice", "/home/alice")
    return machine


def test_what_the_deployment_has_people_type(checkout: Machine) -> None:
    install, once, start = blocks("deploy/README.md", "systemd")[:3]
    [mosquitto, *_] = blocks("deploy/README.md", "Mosquitto")
    *settings, make_user, restart = mosquitto.splitlines()
    typed(checkout, "\n".join(settings))
    for user in (BROKER, WORKER):
        # It asks, and asks again.
        typed(checkout, make_user.replace(WORKER, user), f"{PASSWORD}\n{PASSWORD}\n")
    typed(checkout, restart)

    typed(checkout, install)
    typed(checkout, once)
    config = checkout.root / "etc" / "wgkex.yaml"
    assert (config.stat().st_mode & 0o777) == 0o640
    config.write_text(
        json.dumps(
            {
                "domains": ["ffmuc_welt"],
                "domain_prefixes": ["ffmuc_"],
                "mqtt": {"broker_url": "127.0.0.1"},
                "broker": {"name": BROKER, "username": BROKER, "password": PASSWORD},
                # A machine without a kernel of its own has no WireGuard.
                "worker": {"name": WORKER, "username": WORKER, "password": PASSWORD, "dataplane": "memory"},
            }
        )
    )
    assert "The configuration is fine." in typed(checkout, start)
    typed(checkout, start.replace("broker", "worker"))
    assert WORKER in checkout.output("wgkex-ops", "register", "ffmuc_welt", KEY, "--url", "http://127.0.0.1:5000")
    assert "peer_installed" in checkout.journal()
    # The same again, as for an upgrade.
    typed(checkout, install)
    typed(checkout, once)
    typed(checkout, start)
    assert checkout.state("wgkex-broker") == "active"


def test_the_first_command_of_the_readme_without_any_rights(checkout: Machine) -> None:
    readme = (ROOT / "README.md").read_text()
    [command] = re.findall(r"^(make run) +#", readme, re.MULTILINE)
    done = checkout.run(
        "runuser", "-u", "alice", "--", "bash", "-c", f"cd {CHECKOUT} && timeout --signal=INT 60 {command}"
    )
    assert "Ctrl-C ends it." in done.stdout, done.stdout + done.stderr
    assert "20 routers" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    # The other one has its own tests: the ones that you are looking at.
    assert re.search(r"^make test +#", readme, re.MULTILINE)
