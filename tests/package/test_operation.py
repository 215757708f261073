"""The commands of the documents about operation, typed on a host that has broker, worker and their monitoring.

Many of them look for what a sound host does not have, so a `grep` without a result, and its status, is nothing wrong.
What is wrong at night is a command, an option, a file or a unit that does not exist.
"""

import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.documents import Block, blocks, shell_blocks, typed_by
from tests.package.debian import Package
from tests.package.deployed import BROKER, OPERATOR, WORKER, configuration, copy_checkout, set_up_mosquitto
from tests.package.machine import EVENING, VOLATILE, Machine, booted, make_root
from tests.package.tutorial import sections

RUNBOOK: Final = "docs/runbook.md"
NAMES: Final = (WORKER, "gw02.example.net", BROKER, "broker.example.net", "mqtt.example.net")
PASSWORD: Final = "correct-horse"
CHECKOUT: Final = "/root/wgkex-ops"
TYPED: Final = typed_by(__file__)
# There, much that is looked for is nowhere: that is not a failure.
FOR_A_FAULT: Final = ("docs/doctor.md", "docs/migration.md", RUNBOOK)
# What the documents name as one of several ways.
ELSEWHERE: Final = r"(?!certbot|ifdown|ifup|OLD-WORKER)"
NOT_THERE: Final = re.compile(
    rf"bash: line \d+: {ELSEWHERE}.*: (?:command not found|No such file or directory)"
    r"|^(?:cat|ls|grep|df|chown|rm|less|sed): .*: No such file or directory"
    rf"|[Uu]nit (?:file )?{ELSEWHERE}\S+ (?:could not be found|does not exist|not found|not loaded)"
    r"|(?:unrecognized|unknown|invalid|illegal) (?:option|argument|command|verb|operation)|^[Uu]sage:",
    re.MULTILINE,
)


def variables() -> str:
    """What the runbook lets people paste first, with access rules, and without an editor that waits for somebody."""
    first, *_ = shell_blocks(RUNBOOK, "How to use this")
    assert "MQTT=" in first
    return f'{first}MQTT="$MQTT -u {OPERATOR} -P {PASSWORD}"\nexport EDITOR=true SYSTEMD_PAGER=\ncd {CHECKOUT}\n'


def installed_packages() -> list[str]:
    """What the runbook lets people install."""
    [line] = [block.text for block in blocks(RUNBOOK) if block.text.startswith("apt-get install ")]
    return line.split()[2:]


@pytest.fixture(scope="module")
def host(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("host")
    root = make_root((*EVENING, *installed_packages(), "jsonnet", "systemd-timesyncd"), variant="-")
    with booted(root, folder, *VOLATILE, f"--hostname={WORKER}") as machine:
        etc = machine.root / "etc"
        (etc / "hosts").write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *NAMES)))
        (etc / "apt" / "sources.list").write_text("")
        copy_checkout(machine.root / CHECKOUT[1:])
        machine.install(package.path)
        set_up_mosquitto(machine, CHECKOUT, PASSWORD)

        (etc / "wgkex").mkdir()
        operator = {"username": OPERATOR, "password": PASSWORD}
        lists = "/etc/wgkex/keys.yaml"
        config = configuration(
            PASSWORD, ["ffmuc_welt", "ffmuc_closed"], "mqtt.example.net", operator=operator, key_lists=lists
        )
        (etc / "wgkex.yaml").write_text(config)
        (etc / "wgkex" / "keys.yaml").write_text("denied: []\n")
        machine.output("chown", "-R", "root:wgkex", "/etc/wgkex.yaml", "/etc/wgkex")
        machine.output("systemctl", "enable", "--now", "wgkex-broker", "wgkex-worker", "systemd-networkd")
        prometheus, alertmanager, _ = sections()[7].blocks
        for block in (prometheus, alertmanager):
            machine.types(block.text, CHECKOUT)
        yield machine


@pytest.mark.parametrize(
    ("document", "block"),
    [(document, block) for document, typed in TYPED.items() for block in typed if not block.language],
    ids=lambda value: value.heading if isinstance(value, Block) else value,
)
def test_what_is_typed_is_there(host: Machine, document: str, block: Block) -> None:
    done = host.run("bash", "-c", f"{variables()}{block.text}")
    assert not NOT_THERE.search(done.stderr), f"{block.text}{done.stderr}"
    if document not in FOR_A_FAULT:
        assert done.returncode == 0, f"{block.text}{done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    "error",
    [
        "bash: line 10: tcpdumpp: command not found",
        "Failed to restart wgkex-workers.service: Unit wgkex-workers.service not found.",
        "cat: /var/lib/wgkex/drains.json: No such file or directory",
        "journalctl: unrecognized option '--sinc'",
    ],
)
def test_what_is_not_there_is_found(error: str) -> None:
    assert NOT_THERE.search(error)
