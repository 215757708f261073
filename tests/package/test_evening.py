"""docs/evening.md, typed as it is written on three Debian machines, until an alert arrives."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import ROOT
from tests.package.debian import Package
from tests.package.machine import EVENING, booted, checked, make_root
from tests.package.tutorial import sections

# A guest without KVM needs ten minutes.
LIMIT: Final = 3000
# apt starts them when it installs them: then they would run on gateways, too.
SERVICES: Final = ("mosquitto", "nginx", "prometheus", "prometheus-alertmanager")


@pytest.fixture
def disk(package: Package, tmp_path: Path) -> Iterator[Path]:
    """The disk from which all three boot: the second section has been typed on a machine that has it."""
    root = tmp_path / "root"
    checked("cp", "--archive", "--reflink=auto", str(make_root(EVENING)), str(root))
    # Without internet, apt finds what the document installs in the root, and asks nobody.
    (root / "etc" / "apt" / "sources.list").write_text("")
    checked("systemctl", f"--root={root}", "disable", *SERVICES)
    shutil.copy(package.path, root / "root")
    [block] = sections()[2].blocks
    with booted(root, tmp_path, "--link-journal=no") as machine:
        machine.output("bash", "-ec", block.text)
        machine.output("rm", f"/root/{package.path.name}")
    disk = tmp_path / "disk"
    size = int(checked("du", "-sm", str(root)).split()[0]) + 200
    checked("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(disk), f"{size}M")
    shutil.rmtree(root)
    yield disk
    disk.unlink()


@pytest.mark.timeout(LIMIT)
def test_whoever_follows_the_document_gets_a_mesh_data_and_an_alert(disk: Path) -> None:
    settings = ("-p", "no:cacheprovider", "-o", f"timeout={LIMIT}", "-o", "log_cli=true", "-o", "log_cli_level=INFO")
    command = ("scripts/in-kernel", sys.executable, "-m", "pytest", *settings, "tests/package/evening.py")
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "DISK": str(disk)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate()
        finally:
            # Else a guest would go on after the end of this test.
            process.terminate()
    assert process.returncode == 0, output
