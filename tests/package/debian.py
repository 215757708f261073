"""Our Debian package."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import ROOT
from tests.package.machine import checked


@dataclass(frozen=True)
class Package:
    """A package file, and the version that is in it."""

    path: Path
    version: str

    def with_version(self, version: str, folder: Path) -> "Package":
        """The same package with another version."""
        tree = folder / "tree"
        checked("dpkg-deb", "--raw-extract", str(self.path), str(tree))
        control = tree / "DEBIAN" / "control"
        control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
        path = folder / "other.deb"
        checked("dpkg-deb", "-Zgzip", "-z1", "--build", str(tree), str(path))
        checked("rm", "-rf", str(tree))
        return Package(path, version)


def build(folder: Path) -> Package:
    """Build it as `make deb` does."""
    checked(str(ROOT / "scripts" / "debian-package"), str(folder), timeout=1200)
    [path] = folder.glob("*.deb")
    return Package(path, checked("dpkg-deb", "--field", str(path), "Version").strip())
