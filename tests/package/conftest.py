"""Each test has packages that are built as users get them, and machines of its own to install them on. Needs root."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.package.debian import Package, build
from tests.package.machine import PACKAGES, Machine, booted, make_root


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, Path]:
    """The package, and the root of a Debian without it: made at the same time, as each takes a minute."""
    if os.geteuid() != 0:
        pytest.exit("these tests make and boot Debian machines: run them as root", returncode=1)
    with ThreadPoolExecutor() as executor:
        root = executor.submit(make_root, PACKAGES)
        package = build(tmp_path_factory.mktemp("package"))
        return package, root.result()


@pytest.fixture(scope="session")
def package(made: tuple[Package, Path]) -> Package:
    return made[0]


@pytest.fixture
def machine(made: tuple[Package, Path], tmp_path: Path) -> Iterator[Machine]:
    """A machine without our package."""
    with booted(made[1], tmp_path) as machine:
        yield machine


@pytest.fixture(scope="module")
def installed(made: tuple[Package, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine on which our package has just been installed, for tests that change nothing."""
    with booted(made[1], tmp_path_factory.mktemp("installed")) as machine:
        machine.install(made[0].path)
        yield machine
