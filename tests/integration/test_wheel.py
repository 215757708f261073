"""What is in the wheel, and works without a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import ROOT
from tests.integration.loopback import TIMEOUT

_PROGRAM: Final = "import sys, wgkex_ops.__main__ as it; print(it.__file__, file=sys.stderr); it.main()"


def build(target: str, source: Path, folder: Path) -> Path:
    """Build a distribution, and return its file."""
    command = (sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder))
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=TIMEOUT)
    (made,) = folder.iterdir()
    return made


@pytest.mark.parametrize("source", ["checkout", "sdist"])
def test_the_wheel_prints_the_example_of_the_configuration(tmp_path: Path, source: str) -> None:
    tree = ROOT
    if source == "sdist":
        archive = build("sdist", ROOT, tmp_path / "sdist")
        (tmp_path / "source").mkdir()
        subprocess.run(("tar", "xf", str(archive), "-C", str(tmp_path / "source")), check=True)
        (tree,) = (tmp_path / "source").iterdir()
    installed = tmp_path / "installed"
    with zipfile.ZipFile(build("wheel", tree, tmp_path / "wheel")) as wheel:
        wheel.extractall(installed)
    done = subprocess.run(
        # It comes before the checkout that this environment has installed.
        (sys.executable, "-c", _PROGRAM, "example-config"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert done.stderr == f"{installed}/wgkex_ops/__main__.py\n"
    assert done.stdout == (ROOT / "wgkex.yaml.example").read_text()
