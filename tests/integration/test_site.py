"""The documentation as a site: no warning, no link or anchor that leads nowhere."""

import re
from pathlib import Path
from typing import Final

from tests.helpers import ROOT
from tests.integration.browser import browser
from tests.integration.loopback import run

PAGES: Final = ("README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))


def test_the_site_is_built_without_a_warning_and_has_every_page(tmp_path: Path) -> None:
    site = tmp_path / "site"
    # A warning is an error, and so is a page without a place in its contents.
    output = run(str(ROOT / "scripts" / "site"), str(ROOT / ".venv" / "bin" / "mkdocs"), str(site), within=300)
    assert "WARNING" not in output
    for page in PAGES:
        name = "index.html" if page == "README.md" else page.replace(".md", ".html")
        assert (site / name).is_file(), page
    with browser(tmp_path) as window:
        window.open(f"file://{site}/index.html")
        assert "make run" in window.text
        assert window.run("return [...document.images].every(image => image.naturalWidth > 0)")
        assert window.overflow == 0


def test_addresses_of_others_are_whole_and_encrypted() -> None:
    """Whether they are there, nobody can find out without the internet."""
    for page in PAGES:
        for address in re.findall(r"\]\(((?:https?|ircs?):[^)\s]*)\)", (ROOT / page).read_text()):
            assert re.fullmatch(r"(https://[a-z0-9.-]+\.[a-z]+(/\S*)?|ircs://\S+)", address), f"{page}: {address}"
