"""Listens on a host and port, and opens a connection for each client for which there is room.

asyncio's own server counts nothing before TLS is agreed on, and stops for a second, with a log line, when there are no
descriptors left. Here each connection is counted from the moment at which the kernel hands it over.
"""

import asyncio
import contextlib
import errno
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol, cast

import structlog

from wgkex_ops.config import Listen
from wgkex_ops.config.limits import ConnectionLimits
from wgkex_ops.errors import ListenError
from wgkex_ops.http.connections import OPERATORS_CONNECTIONS, Connection, Connections

_log = structlog.get_logger(__name__)

# So many clients may wait until they are accepted: those of a whole gateway that come back in the same second.
_BACKLOG: Final = 1024
# So many are accepted before those that had to go for them are closed.
_ACCEPTED_AT_ONCE: Final = 32
# Descriptors that connections of nodes leave to all else: operators, the MQTT session and files, and connections that
# were cut, which are closed some iterations of the event loop later.
_RESERVED: Final = OPERATORS_CONNECTIONS.total + 32 + 4 * _ACCEPTED_AT_ONCE
# Even a host with next to no descriptors serves somebody.
_FEWEST_CONNECTIONS: Final = 16
# Seconds until accepting is tried again when the host has no descriptors or memory left, whoever uses them.
_EXHAUSTED_PAUSE: Final = 0.25
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# Seconds for a client to agree on TLS, and to say goodbye.
_HANDSHAKE_TIMEOUT: Final = 10.0
_GOODBYE_TIMEOUT: Final = 2.0

# All addresses, of IPv4 as well.
_ALL: Final = "::"

# Why one cannot listen somewhere, and which part of the setting to change.
_LISTEN_ERRORS: Final = {
    errno.EADDRINUSE: ("another program uses this port", "port"),
    errno.EACCES: ("this user may not use this port", "port"),
    errno.EADDRNOTAVAIL: ("this host does not have this address", "host"),
}


class Client(Connection, Protocol):
    """A connection with the task that opens it."""

    opening: asyncio.Task[bool] | None


def most_connections(wanted: ConnectionLimits) -> ConnectionLimits:
    """The limits that a listener for everybody can have, with the file descriptors of this process."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    total = max(_FEWEST_CONNECTIONS, min(wanted.total, descriptors - _RESERVED))
    return wanted.model_copy(update={"total": total})


class Acceptor:
    """Accepts connections.

    Args:
        make: makes what serves one; it is a protocol of asyncio.
        connections: those that are open.
        network_of: the network that an address counts for; None for a load balancer's.
        ssl_context: for TLS; None for plain TCP.
    """

    def __init__(
        self,
        make: Callable[[], Client],
        connections: Connections,
        network_of: Callable[[str], bytes | None],
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._make = make
        self._connections = connections
        self._network_of = network_of
        self._tls: dict[str, Any] = {}
        if ssl_context is not None:
            self._tls = {
                "ssl": ssl_context,
                "ssl_handshake_timeout": _HANDSHAKE_TIMEOUT,
                "ssl_shutdown_timeout": _GOODBYE_TIMEOUT,
            }
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._exhausted = False

    def start(self, listening: socket.socket) -> None:
        """Accept connections from now on."""
        self._pauses.pop(listening, None)
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def stop(self, listening: socket.socket) -> None:
        """Accept no more connections."""
        asyncio.get_running_loop().remove_reader(listening)
        if (pause := self._pauses.pop(listening, None)) is not None:
            pause.cancel()

    def _accept(self, listening: socket.socket) -> None:
        """Accept the clients that wait, or some of them: the event loop calls again while there are more."""
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(listening, error)
                # Otherwise this client has gone again.
                return
            self._open(accepted, address[0])

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        self.stop(listening)
        self._pauses[listening] = asyncio.get_running_loop().call_later(_EXHAUSTED_PAUSE, self.start, listening)
        if not self._exhausted:
            self._exhausted = True
            _log.error("accept_failed", error=error.strerror, detail="logged once; see process_open_fds")

    def _open(self, accepted: socket.socket, address: str) -> None:
        client = self._make()
        if not self._connections.admit(client, self._network_of(address)):
            accepted.close()
            return
        client.opening = asyncio.get_running_loop().create_task(self._serve(client, accepted))

        def opened(opening: asyncio.Task[bool]) -> None:
            has_its_connection = False
            try:
                # One that is cut at once has not even begun.
                has_its_connection = not opening.cancelled() and opening.result()
            finally:
                if not has_its_connection:
                    accepted.close()
                    self._connections.remove(client)

        client.opening.add_done_callback(opened)

    async def _serve(self, client: Client, accepted: socket.socket) -> bool:
        """Return whether the client has its connection, which closes its socket from then on."""
        protocol = cast("asyncio.BaseProtocol", client)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, accepted, **self._tls)
        except OSError:
            # It does not speak TLS, or is gone.
            return False
        return True


@contextlib.asynccontextmanager
async def accepting(listen: Listen, setting: str, acceptor: Acceptor, *, reuse_port: bool) -> AsyncIterator[Listen]:
    """Accept connections while the context lasts.

    Args:
        listen: where to listen.
        setting: the name of the setting that this comes from, for the message of an error.
        acceptor: opens the connections.
        reuse_port: whether other processes may listen there as well, and get a share of the connections.

    Yields:
        where it really listens.

    Raises:
        ListenError: the port is in use, the address is not this host's, and the like.
    """
    try:
        sockets = await _bind(listen, reuse_port=reuse_port)
    except OSError as error:
        raise ListenError(_explain(error, listen, setting)) from error
    try:
        for listening in sockets:
            acceptor.start(listening)
        host, port = sockets[0].getsockname()[:2]
        yield Listen(host=host, port=port)
    finally:
        for listening in sockets:
            acceptor.stop(listening)
            listening.close()


async def is_taken(listen: Listen, *, reuse_port: bool = False) -> bool:
    """Whether another program uses the port. Of all else that is wrong, whoever listens there hears.

    Args:
        listen: where somebody is about to listen.
        reuse_port: whether other processes may listen there as well.
    """
    try:
        sockets = await _bind(listen, reuse_port=reuse_port)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    for listening in sockets:
        listening.close()
    return False


async def _bind(listen: Listen, *, reuse_port: bool) -> list[socket.socket]:
    """Sockets that listen on all addresses of a host."""
    if listen.host == _ALL and socket.has_dualstack_ipv6():
        # asyncio's server would leave out IPv4.
        listening = socket.create_server(
            (listen.host, listen.port),
            family=socket.AF_INET6,
            backlog=_BACKLOG,
            reuse_port=reuse_port,
            dualstack_ipv6=True,
        )
        listening.setblocking(False)
        return [listening]
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as on_error:
        server = await loop.create_server(
            asyncio.Protocol, listen.host, listen.port, reuse_port=reuse_port or None, start_serving=False
        )
        try:
            sockets = [on_error.enter_context(found.dup()) for found in server.sockets]
        finally:
            server.close()
        if not sockets:
            # asyncio leaves out what the host has no protocol for.
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        for listening in sockets:
            listening.setblocking(False)
            listening.listen(_BACKLOG)
        on_error.pop_all()
    return sockets


def _explain(error: OSError, listen: Listen, setting: str) -> str:
    if isinstance(error, socket.gaierror):
        reason, part = "this name has no address", "host"
    else:
        # From Python 3.13 on asyncio leaves the number out for addresses that this host does not have.
        code = error.errno or errno.EADDRNOTAVAIL
        reason, part = _LISTEN_ERRORS.get(code, (os.strerror(code), "port"))
    advice = f"; to use another one, set {setting}.{part}" if setting else ""
    return f"cannot listen on {listen}: {reason}{advice}"
