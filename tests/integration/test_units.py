"""The systemd units, as systemd reads them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import ROOT

FOLDER: Final = ROOT / "deploy" / "systemd"
# How much each is exposed. systemd counts in tenths, and calls 2.0 "OK"; a namespace needs CAP_SYS_ADMIN, whose 0.3 the
# filters of system calls and namespaces do not take off again.
EXPOSURE: Final = {"wgkex-broker.service": 20, "wgkex-worker.service": 20, "wgkex-probe.service": 22}
UNITS: Final = pytest.mark.parametrize("unit", EXPOSURE)
INSTALLED: Final = "/opt/wgkex-ops/current/bin/wgkex-ops"


def analyze(unit: str, folder: Path, *arguments: str) -> str:
    """Run systemd-analyze on a unit that starts the program of this virtual environment."""
    program = Path(sys.executable).with_name("wgkex-ops")
    assert program.exists()
    copy = folder / unit
    copy.write_text((FOLDER / unit).read_text().replace(INSTALLED, str(program)))
    return run_analyze(*arguments, str(copy))


def run_analyze(*arguments: str) -> str:
    analyze = shutil.which("systemd-analyze")
    assert analyze is not None, "systemd is not installed"
    done = subprocess.run((analyze, *arguments), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stderr


@UNITS
def test_systemd_accepts_the_unit(unit: str, tmp_path: Path) -> None:
    assert analyze(unit, tmp_path, "verify", "--recursive-errors=no") == ""


def test_systemd_accepts_what_the_document_about_interfaces_has(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "interfaces.md").read_text()
    program = Path(sys.executable).with_name("wgkex-ops")
    units = re.findall(r"^```ini\n# /etc/systemd/system/(\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    shutil.copy("/lib/systemd/system/systemd-networkd.service", tmp_path)
    for name, unit in units:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(unit.replace("/usr/local/bin/wgkex-ops", str(program)))
    names = {"systemd-networkd.service", "wgkex-interfaces.service"}
    assert {name.split("/")[0].removesuffix(".d") for name, _ in units} == names
    assert run_analyze("verify", "--recursive-errors=no", *(str(tmp_path / name) for name in sorted(names))) == ""


@UNITS
def test_systemd_finds_little_exposed(unit: str, tmp_path: Path) -> None:
    analyze(unit, tmp_path, "security", "--offline=yes", f"--threshold={EXPOSURE[unit]}")
