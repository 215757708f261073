"""An MQTT server inside this process: the only file that imports amqtt (the extra `embedded`)."""

import contextlib
import socket
from collections.abc import AsyncIterator

from wgkex_ops.errors import WgkexError


class EmbeddedServerError(WgkexError):
    """The embedded MQTT server is not installed, or did not start."""


@contextlib.asynccontextmanager
async def mqtt_server() -> AsyncIterator[int]:
    """Run an MQTT 3.1.1 server on a free loopback port while the context lasts.

    Yields:
        its port.

    Raises:
        EmbeddedServerError: the library is not installed.
    """
    try:
        from amqtt.broker import Broker  # noqa: PLC0415  an optional extra
        from amqtt.contexts import BrokerConfig, ListenerConfig  # noqa: PLC0415
    except ImportError:
        raise EmbeddedServerError(
            "the embedded MQTT server needs an extra: pip install 'wgkex-ops[embedded]'"
        ) from None
    port = _free_port()
    server = Broker(
        BrokerConfig(
            listeners={"default": ListenerConfig(bind=f"127.0.0.1:{port}")},
            plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        )
    )
    await server.start()
    try:
        yield port
    finally:
        await server.shutdown()


def _free_port() -> int:
    """A port that is free now: amqtt does not report which one the kernel chose."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
