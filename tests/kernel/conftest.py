"""Every test here finds an empty network namespace on a kernel that can do it all: scripts/kernel-tests sees to it."""

from collections.abc import Callable, Iterator

import pytest

from tests.fakes import Recorder
from tests.kernel.lab import Namespace, namespaces


@pytest.fixture(scope="session", autouse=True)
def own_namespace() -> None:
    # A new namespace has nothing that is up but what scripts/kernel-tests put up; a machine in use has more.
    if any("UP" in link["flags"] for name, link in Namespace().links().items() if name != "lo"):
        pytest.exit("these tests change network interfaces: run them with scripts/kernel-tests", returncode=1)


@pytest.fixture
def here(own_namespace: None) -> Iterator[Namespace]:
    """The namespace of this process, cleared at the end."""
    namespace = Namespace()
    before = namespace.links().keys()
    yield namespace
    namespace.remove_links(*namespace.links().keys() - before)


@pytest.fixture
def add_namespace(own_namespace: None) -> Iterator[Callable[[str], Namespace]]:
    with namespaces() as add:
        yield add


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
