"""What is committed is what the code makes."""

from pathlib import Path
from typing import Final

import pytest

from alerts.files import files
from alerts.settings import Settings
from tests.helpers import ROOT

FILES: Final = files(Settings())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_shipped_file_is_generated(path: Path) -> None:
    assert path.read_text() == FILES[path]


def test_there_is_no_manifest_that_is_not_generated() -> None:
    folder = ROOT / "deploy" / "kubernetes"

    assert set(folder.iterdir()) == {path for path in FILES if path.parent == folder}
