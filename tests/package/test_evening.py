"""docs/evening.md, typed as it is written on three Debian machines, until an alert arrives."""

import os
import shutil
import subprocess
import sys
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


def installed_disk(package: Package, folder: Path) -> Path:
    """Type the second section on a machine, and return its disk, from which all three boot."""
    root = folder / "root"
    checked("cp", "--archive", "--reflink=auto", str(make_root(EVENING)), str(root))
    # Without internet, apt finds what the document installs in the root, and asks nobody.
    (root / "etc" / "apt" / "sources.list").write_text("")
    checked("systemctl", f"--root={root}", "disable", *SERVICES)
    shutil.copy(package.path, root / "root")
    [block] = sections()[2].blocks
    with booted(root, folder, "--link-journal=no") as machine:
        machine.output("bash", "-ec", block.text)
        machine.output("rm", f"/root/{package.path.name}")
    disk = folder / "disk"
    size = int(checked("du", "-sm", str(root)).split()[0]) + 200
    checked("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(disk), f"{size}M")
    shutil.rmtree(root)
    return disk


@pytest.mark.timeout(LIMIT)
def test_whoever_follows_the_document_gets_a_mesh_and_an_alert(package: Package, tmp_path: Path) -> None:
    disk = installed_disk(package, tmp_path)
    settings = ("-p", "no:cacheprovider", "-o", f"timeout={LIMIT}", "-o", "log_cli=true", "-o", "log_cli_level=INFO")
    done = subprocess.run(
        ("scripts/in-kernel", sys.executable, "-m", "pytest", *settings, "tests/package/evening.py"),
        cwd=ROOT,
        env={**os.environ, "DISK": str(disk)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
