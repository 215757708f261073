"""The blocks of the documents, typed on a Debian machine by the letter, in the checkout of somebody else than root."""

import json
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.documents import CONSOLE, blocks, shell_blocks
from tests.helpers import KEY, ROOT
from tests.package.debian import Package
from tests.package.deployed import WORKER, configuration, copy_checkout, set_up_mosquitto
from tests.package.machine import Machine, checked

CHECKOUT: Final = "/home/alice/wgkex-ops"
PASSWORD: Final = "correct horse"
# As the documents name the file.
DEBIAN_PACKAGE: Final = "wgkex-ops_VERSION_amd64.deb"


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip's index has for us: a machine of the tests has no network."""
    folder = tmp_path_factory.mktemp("wheels")
    download = (sys.executable, "-m", "pip", "download", "--quiet", f"--dest={folder}")
    constraint = f"--constraint={ROOT / 'constraints.txt'}"
    checked(*download, constraint, f"{ROOT}[embedded]", timeout=1200)
    checked(
        *download,
        constraint,
        "pip>=25.1",
        "hatchling",
        "editables",
        "setuptools",
        "argparse-manpage",
        "shtab",
        timeout=600,
    )
    return folder


@pytest.fixture
def checkout(machine: Machine, wheels: Path) -> Machine:
    """A machine with a checkout that belongs to alice, and an index of packages."""
    machine.output("useradd", "--create-home", "alice")
    home = machine.root / "home" / "alice"
    copy_checkout(home / "wgkex-ops")
    shutil.copytree(wheels, home / "wheels")
    (machine.root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (machine.root / "etc" / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /home/alice/wheels\n")
    machine.output("chown", "-R", "alice:alice", "/home/alice")
    return machine


def config() -> str:
    return configuration(PASSWORD, ["ffmuc_welt"], "127.0.0.1")


def deploy(checkout: Machine) -> None:
    """Type the first blocks of the deployment; the services are not started yet."""
    install, once, _ = shell_blocks("deploy/README.md", "systemd")
    checkout.types(install, CHECKOUT)
    checkout.types(once, CHECKOUT)
    (checkout.root / "etc" / "wgkex.yaml").write_text(config())


def test_what_the_deployment_has_people_type(checkout: Machine, package: Package) -> None:
    install, once, start = shell_blocks("deploy/README.md", "systemd")
    _, find_keys = shell_blocks("deploy/README.md", "Mosquitto")
    set_up_mosquitto(checkout, CHECKOUT, PASSWORD)
    deploy(checkout)
    assert ((checkout.root / "etc" / "wgkex.yaml").stat().st_mode & 0o777) == 0o640
    assert "The configuration is fine." in checkout.types(start, CHECKOUT)
    checkout.types(start.replace("broker", "worker"), CHECKOUT)
    assert WORKER in checkout.output("wgkex-ops", "register", "ffmuc_welt", KEY, "--url", "http://127.0.0.1:5000")
    assert "peer_installed" in checkout.journal()
    # The same again, as for an upgrade.
    checkout.types(install, CHECKOUT)
    checkout.types(once, CHECKOUT)
    checkout.types(start, CHECKOUT)
    assert checkout.state("wgkex-broker") == "active"

    # mosquitto_sub ends with a status of its own when its time is over.
    find_topics, clear_topics = shell_blocks("deploy/README.md", "Retire a gateway")
    listed = ""
    for block in (find_keys, find_topics):
        done = checkout.run("bash", "-c", block.replace("-P …", f"-P '{PASSWORD}'"))
        assert done.stderr.strip() in ("", "Timed out"), done.stderr
        listed += done.stdout
    assert f"wireguard-worker/{WORKER}/status 1" in listed

    # From here to the package, as docs/install.md has it.
    checkout.install(package.path)
    checkout.types(shell_blocks("docs/install.md", "The Debian package")[3], CHECKOUT)
    assert checkout.output("bash", "-c", "command -v wgkex-ops").strip() == "/usr/bin/wgkex-ops"
    assert "/usr/lib/wgkex-ops/" in checkout.output("cat", f"/proc/{checkout.process('wgkex-worker')}/cmdline")

    checkout.output("systemctl", "stop", "wgkex-worker")
    clear = clear_topics.replace("gw02", WORKER).replace("-P …", f"-P '{PASSWORD}'")
    checkout.types(clear, CHECKOUT)


def test_what_the_deployment_has_made_is_gone_again(checkout: Machine) -> None:
    before = checkout.files()
    deploy(checkout)
    [start] = shell_blocks("deploy/README.md", "systemd")[2:]
    checkout.types(start, CHECKOUT)
    # There is neither a worker nor a canary to disable.
    [remove] = shell_blocks("docs/install.md", "Remove it")
    checkout.run("bash", "-c", remove)
    # A manager of users leaves the copies that it makes, and a wheel is built in the checkout.
    left = {line for line in checkout.files() - before if not line.startswith(("/etc/", "/home/alice/", "/root/"))}
    assert not left
    assert "wgkex" not in checkout.output(
        "ls", "/etc", "/etc/systemd/system", "/etc/systemd/system/multi-user.target.wants"
    )


def test_what_people_type_who_install_the_debian_package(machine: Machine, package: Package) -> None:
    # Where the package is built, the first block was typed.
    build, install, start, _ = shell_blocks("docs/install.md", "The Debian package")
    shutil.copy(package.path, machine.root / "root" / DEBIAN_PACKAGE)
    machine.types(install, "/root")
    (machine.root / "etc" / "wgkex.yaml").write_text(config())
    *commands, doctor = start.splitlines()
    machine.types("\n".join(commands), "/root")
    assert machine.state("wgkex-broker") == "active"
    # A Mosquitto without these users may still let anybody in.
    assert "configuration  /etc/wgkex.yaml: ffmuc_welt" in machine.run("bash", "-c", doctor).stdout

    # The README has the same, in short.
    short_build, *short = shell_blocks("README.md", "Install it")[0].splitlines()
    assert short_build.split()[:2] == build.split()[:2] == ["make", "deb"]
    machine.types("\n".join(short), "/root")


def test_what_people_type_who_install_it_for_themselves(checkout: Machine) -> None:
    _, install, shell_files = shell_blocks("docs/install.md", "pipx or pip")
    command = f"cd {CHECKOUT}\n{install}{shell_files}"
    checkout.output("runuser", "-u", "alice", "--", "env", "HOME=/home/alice", "bash", "-ec", command)
    assert (checkout.root / "home/alice/.local/share/man/man1/wgkex-ops.1").is_file()
    assert "wgkex-ops 0" in checkout.output("/home/alice/wgkex-venv/bin/wgkex-ops", "--version")


def test_the_first_command_of_the_readme_without_any_rights(checkout: Machine) -> None:
    try_it, test_it = shell_blocks("README.md", "wgkex-ops")[0].splitlines()
    assert try_it.split()[:2] == ["make", "run"]
    # The other one runs the tests that you are looking at.
    assert test_it.split()[:2] == ["make", "test"]
    sessions = [block.text.splitlines() for block in blocks("README.md") if block.language == CONSOLE]
    requests = "\n".join(f"{command.removeprefix('$ ')}; echo" for command, _ in sessions)
    done = checkout.run(
        *("runuser", "-u", "alice", "--", "bash", "-c"),
        f"cd {CHECKOUT}\n"
        f"(until wget -qO- http://127.0.0.1:9690/-/ready; do sleep 1; done >/dev/null 2>&1\n{requests}) >&2 &\n"
        f"timeout --signal=INT 90 {try_it}",
    )
    assert "Ctrl-C ends it." in done.stdout, done.stdout + done.stderr
    assert "20 routers" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    responses = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    documented = [json.loads(response) for _, response in sessions]
    assert responses[0] == documented[0]
    assert responses[1].keys() == documented[1].keys()
    assert responses[1]["Endpoint"].keys() == documented[1]["Endpoint"].keys()
