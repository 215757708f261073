"""Real servers for each test: everything is started afresh, on loopback, and ended with the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.certificates import Certificates, make_certificates
from tests.integration.servers import Bench, Mosquitto
from tests.integration.supervised import Supervised, under
from tests.manager import Manager


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Starts servers and programs; their logs are shown when a test fails."""
    with Bench(tmp_path) as bench:
        yield bench


@pytest.fixture
async def mosquitto(bench: Bench) -> Mosquitto:
    """An MQTT server that lets everybody in."""
    return await bench.mosquitto()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority with certificates for a server and a client, and an authority that nobody knows."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    """Programs under a service manager that notes what they report."""
    folder = tmp_path / "supervised"
    folder.mkdir()
    with under(Manager(), folder) as supervised:
        yield supervised
