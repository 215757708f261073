"""Every test here finds an empty network namespace on a capable kernel: scripts/kernel-tests provides both."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.fakes import Recorder
from tests.kernel.dataplane import DOMAINS
from tests.kernel.lab import Namespace, namespaces
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane


@pytest.fixture(scope="session", autouse=True)
def own_namespace() -> None:
    # A machine in use has more interfaces that are up.
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


@pytest.fixture
def own_keys(here: Namespace) -> list[str]:
    """All domains have interfaces, which are up; the public key of each."""
    return here.add_domains(*DOMAINS)


@pytest.fixture
async def dataplane(here: Namespace, recorder: Recorder) -> AsyncIterator[KernelDataplane]:
    async with KernelDataplane(DOMAINS, recorder) as opened:
        yield opened
