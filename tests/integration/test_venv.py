"""scripts/venv, which makes .venv: what it prints when pip fails."""

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers import ROOT
from tests.integration.loopback import LOOPBACK, TIMEOUT, free_port


def venv(folder: Path, index: str) -> tuple[int, str, str]:
    """Exit status, output and errors, with an index that has no packages."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index, "PIP_RETRIES": "1", "TMPDIR": str(folder)}
    done = subprocess.run(
        ["scripts/venv", sys.executable, str(folder / "made"), "wgkex-ops-is-in-no-index"],
        cwd=ROOT,
        env={name: value for name, value in environment.items() if "proxy" not in name.lower()},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_without_a_network_one_sentence_says_so_and_what_to_do(tmp_path: Path) -> None:
    status, output, errors = venv(tmp_path, f"https://{LOOPBACK}:{free_port()}/simple")
    assert (status, output) == (1, f"Installing into {tmp_path}/made (once, about half a minute) …\n")
    (sentence,) = errors.splitlines()
    assert sentence.startswith("No network: pip cannot reach its package index. Connect this computer")
    # Not lost, if it is something else after all.
    kept = Path(sentence.rpartition(" ")[2].removesuffix("."))
    assert "after connection broken by" in kept.read_text()


def test_of_any_other_failure_pip_s_own_output_is_shown(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    status, _, errors = venv(tmp_path, f"file://{tmp_path}/index")
    assert status == 1
    assert "ERROR: No matching distribution found for" in errors
    assert "No network" not in errors
    # Nothing stays in the folder of temporary files.
    assert {path.name for path in tmp_path.iterdir()} == {"index", "made"}
