"""A network between a client and a server that can be cut: neither of them sends a DISCONNECT."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.integration.loopback import LOOPBACK

_CHUNK = 65_536


class Relay:
    """Passes on all bytes of any number of connections.

    Args:
        target: the server's port on loopback.

    Attributes:
        port: where clients connect.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Break all connections; new ones are passed on."""
        for writer in self._writers:
            writer.transport.abort()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        server_reader, server_writer = await asyncio.open_connection(LOOPBACK, self._target)
        writers = {writer, server_writer}
        self._writers |= writers
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, server_writer))
                group.create_task(_pump(server_reader, writer))
        finally:
            self._writers -= writers


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def relay(target: int) -> AsyncIterator[Relay]:
    """Run a relay before a server."""
    made = Relay(target)
    server = await asyncio.start_server(made.pass_on, LOOPBACK, 0)
    async with server:
        made.port = server.sockets[0].getsockname()[1]
        yield made
        made.cut()
