"""A listener opens or an error shows why not; its end closes every connection that it has accepted, and in time."""

import asyncio
import contextlib
import errno
import gc
import os
import socket
import time
import warnings
from collections.abc import Iterator
from typing import NoReturn

import pytest
from aiohttp import web

from tests.helpers import request, send, until
from wgkex_ops.config import Listen
from wgkex_ops.config.limits import ConnectionLimits
from wgkex_ops.errors import ListenError
from wgkex_ops.http.connections import Connections
from wgkex_ops.http.listening import is_taken
from wgkex_ops.http.server import serve

# More than the kernel takes off a server whose client reads nothing.
LARGE = 16_000_000
CLIENTS = 20


class Clients:
    """Connections to a listener. They are the kernel's: the server's event loop does not run while they are made."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.sockets: list[socket.socket] = []

    def connect(self, listen: Listen, raw: bytes = b"") -> None:
        client = self._stack.enter_context(socket.create_connection((listen.host, listen.port), timeout=5))
        client.sendall(raw)
        self.sockets.append(client)

    def all_closed(self) -> bool:
        """Whether each of them comes to its end, once what is on its way has been read."""
        for client in self.sockets:
            with contextlib.suppress(ConnectionResetError):
                while client.recv(1_000_000):
                    pass
        return True


@pytest.fixture
def clients() -> Iterator[Clients]:
    with contextlib.ExitStack() as stack:
        yield Clients(stack)


def an_app(hanging: list[web.Request] | None = None) -> web.Application:
    """Requests that hang are put into the list."""

    async def small(_request: web.Request) -> web.Response:
        return web.Response(text="small")

    async def large(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    async def hangs(request: web.Request) -> web.Response:
        if hanging is not None:
            hanging.append(request)
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    app = web.Application()
    app.router.add_get("/", small)
    app.router.add_get("/large", large)
    app.router.add_get("/hangs", hangs)
    return app


@contextlib.contextmanager
def nothing_left_open() -> Iterator[None]:
    """What runs in here leaves nothing that only the garbage collector closes."""
    gc.collect()
    gc.freeze()  # what was there before need not be searched again
    try:
        with warnings.catch_warnings(record=True) as complaints:
            warnings.simplefilter("always")
            yield
            gc.collect()
    finally:
        gc.unfreeze()
    assert [str(complaint.message) for complaint in complaints] == []


# --- the beginning


async def test_a_taken_port_is_an_error_that_names_the_address_the_reason_and_the_setting() -> None:
    async with serve(an_app(), Listen(port=0)) as taken:
        with pytest.raises(ListenError) as error:
            async with serve(an_app(), taken, setting="broker_listen"):
                pass
    assert str(error.value) == (
        f"cannot listen on 127.0.0.1:{taken.port}: another program uses this port; "
        "to use another one, set broker_listen.port"
    )


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", "cannot listen on 192.0.2.1:0: this host does not have this address"),
        ("2001:db8::1", "cannot listen on [2001:db8::1]:0: this host does not have this address"),
        ("gw01.invalid", "cannot listen on gw01.invalid:0: this name has no address"),
    ],
)
async def test_an_address_that_is_not_this_host_s_is_an_error_as_well(host: str, reason: str) -> None:
    with pytest.raises(ListenError) as error:
        async with serve(an_app(), Listen(host=host, port=0), setting="worker.metrics_listen"):
            pass
    assert str(error.value) == f"{reason}; to use another one, set worker.metrics_listen.host"


async def test_a_host_without_the_protocol_of_an_address_does_not_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_arguments: object) -> NoReturn:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", without)
    with pytest.raises(ListenError) as error:
        async with serve(an_app(), Listen(host="::1", port=0)):
            pass
    assert str(error.value) == "cannot listen on [::1]:0: this host does not have this address"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")
async def test_all_addresses_are_those_of_ipv4_as_well() -> None:
    peers = []

    async def handler(received: web.BaseRequest) -> web.Response:
        peers.append(received.remote)
        return web.Response()

    async with serve(handler, Listen(host="::", port=0)) as listen:
        for host in ("::1", "127.0.0.1"):
            await send(Listen(host=host, port=listen.port), request("GET", "/"))
    assert peers == ["::1", "::ffff:127.0.0.1"]


# --- the end


@pytest.mark.parametrize("iterations", range(6))
def test_a_connection_that_comes_as_the_listener_ends_is_closed(clients: Clients, iterations: int) -> None:
    async def run() -> None:
        async with serve(an_app(), Listen(port=0), shutdown_timeout=0.0) as listen:
            for _ in range(CLIENTS):
                clients.connect(listen, request("GET", "/", close=False))
            # The loop takes some to find the connections, to accept them, and to make something of them.
            for _ in range(iterations):
                await asyncio.sleep(0)

    with nothing_left_open():
        asyncio.run(run())
    assert clients.all_closed()


def test_connections_that_wait_for_a_request_or_are_in_the_middle_of_one_are_closed(clients: Clients) -> None:
    whole = request("GET", "/", close=False)

    async def run() -> None:
        async with serve(an_app(), Listen(port=0), shutdown_timeout=0.0) as listen:
            for raw in (
                b"",
                whole,
                whole[:10],
                whole + whole[:10],
                request("POST", "/", bytes(100), close=False)[:-50],
            ):
                for _ in range(CLIENTS):
                    clients.connect(listen, raw)
            await asyncio.sleep(0.1)

    with nothing_left_open():
        asyncio.run(run())
    assert clients.all_closed()


def test_a_client_that_reads_nothing_of_its_response_is_closed(clients: Clients) -> None:
    async def run() -> None:
        async with serve(an_app(), Listen(port=0), shutdown_timeout=0.0) as listen:
            clients.connect(listen, request("GET", "/large", close=False))
            clients.connect(listen, request("GET", "/large"))
            await asyncio.sleep(0.1)

    with nothing_left_open():
        asyncio.run(run())
    assert clients.all_closed()


@pytest.mark.parametrize("shutdown_timeout", [0.0, 0.2])
def test_a_request_that_hangs_does_not_hold_up_the_end(clients: Clients, shutdown_timeout: float) -> None:
    async def run() -> float:
        hanging: list[web.Request] = []
        async with serve(an_app(hanging), Listen(port=0), shutdown_timeout=shutdown_timeout) as listen:
            for _ in range(CLIENTS):
                clients.connect(listen, request("GET", "/hangs", close=False))
            await until(lambda: len(hanging) == CLIENTS)
            start = time.monotonic()
        return time.monotonic() - start

    with nothing_left_open():
        took = asyncio.run(asyncio.wait_for(run(), 10))
    # aiohttp waits for a request, then cancels it, and waits again.
    assert 2 * shutdown_timeout <= took < 2 * shutdown_timeout + 2
    assert clients.all_closed()


def test_the_end_may_itself_be_cancelled(clients: Clients) -> None:
    async def run() -> None:
        async with serve(an_app(), Listen(port=0), shutdown_timeout=60.0) as listen:
            for path in ("/", "/hangs", "/large"):
                clients.connect(listen, request("GET", path, close=False))
            await asyncio.sleep(0.1)

    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run(), 0.5)

    with nothing_left_open():
        asyncio.run(cancelled())
    assert clients.all_closed()


def test_connections_that_go_for_others_at_once_are_closed(clients: Clients) -> None:
    """All of them come before the event loop runs again: some are cut before anything was made of them."""

    async def run() -> None:
        connections = Connections(ConnectionLimits.model_construct(total=2, per_network=2), lambda _reason: None)
        async with serve(an_app(), Listen(port=0), connections=connections) as listen:
            for _ in range(CLIENTS):
                clients.connect(listen)
            await until(lambda: len(connections) == 2)
            await asyncio.sleep(0.1)
            assert len(connections) == 2

    with nothing_left_open():
        asyncio.run(asyncio.wait_for(run(), 10))
    assert clients.all_closed()


# --- whether a port is taken


async def test_a_port_is_taken_while_somebody_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "0.0.0.0", "::"):
            assert await is_taken(Listen(host=host, port=port)), host
    assert not await is_taken(Listen(host="127.0.0.1", port=port))
    # To look is to listen for a moment, and no longer.
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_a_port_that_others_share_is_taken_for_those_who_do_not() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        listen = Listen(host="127.0.0.1", port=other.getsockname()[1])
        assert await is_taken(listen)
        assert not await is_taken(listen, reuse_port=True)


async def test_an_address_that_is_not_this_host_s_has_no_taken_port() -> None:
    assert not await is_taken(Listen(host="192.0.2.1", port=5000))
    assert not await is_taken(Listen(host="nobody.invalid", port=5000))
