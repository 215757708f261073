"""What the tests of the session share."""

from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.certificates import Certificates
from tests.integration.servers import Mosquitto

VERSIONS: Final = pytest.mark.parametrize("version", ["5", "3.1.1"])


def kick(server: Mosquitto, client_id: str = "tester") -> None:
    """Break a client's connection: the server closes the older one of two with the same name."""
    server.publish("kicks", "out", "-i", client_id)


def only_failure(logs: Sequence[MutableMapping[str, Any]]) -> MutableMapping[str, Any]:
    """The one line about attempts to connect that failed."""
    [line] = [line for line in logs if line["event"] == "mqtt_connection_failed"]
    return line


def tls_settings(certificates: Certificates, *further: str, server: Path | None = None) -> tuple[str, ...]:
    """Lines of a Mosquitto's configuration for a listener with TLS; its certificate may be another one."""
    pem = server or certificates.server
    return (f"cafile {certificates.authority}", f"certfile {pem}", f"keyfile {pem}", *further)
