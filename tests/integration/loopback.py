"""Waiting for conditions, free ports, HTTP and commands on this machine."""

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

T = TypeVar("T")

LOOPBACK: Final = "127.0.0.1"
# Tells slow from never, on a machine that is busy with other things.
TIMEOUT: Final = 120.0
_LOOK_AGAIN_AFTER: Final = 0.02
# Below the ports that the kernel gives to clients (ip_local_port_range): while a server is away, no client may get its
# port by chance, least of all the one that tries to reach it. Each process of pytest-xdist has ports of its own.
_FIRST_SERVER_PORT: Final = 20_000
_PORTS_OF_A_PROCESS: Final = 700
_PROCESSES: Final = 18
# The latest ones.
_given: Final = deque[int](maxlen=100)


async def eventually(look: Callable[[], T | None], what: str, seconds: float = TIMEOUT) -> T:
    """Look until there is something to see, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        if seen := look():
            return seen
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(_LOOK_AGAIN_AFTER)


async def eventually_answered(ask: Callable[[], Awaitable[T | None]], what: str, seconds: float = TIMEOUT) -> T:
    """The same for what has to be waited for itself."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := await ask():
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(_LOOK_AGAIN_AFTER)


def free_port() -> int:
    """A port that is free now, and that neither a client nor a test in another process gets by chance."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES
    ports = range(
        _FIRST_SERVER_PORT + process * _PORTS_OF_A_PROCESS, _FIRST_SERVER_PORT + (process + 1) * _PORTS_OF_A_PROCESS
    )
    while True:
        port = random.choice(ports)
        # A test that asks for several gets different ones, though it listens on none of them yet.
        if port not in _given:
            with contextlib.suppress(OSError), socket.create_server((LOOPBACK, port)):
                _given.append(port)
                return port


def accepts(port: int, address: str = LOOPBACK) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection((address, port), timeout=TIMEOUT).close()
    except ConnectionRefusedError:
        return False
    return True


@dataclass(frozen=True)
class Answer:
    """What an HTTP server said."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:  # noqa: ANN401  JSON can be anything
        return json.loads(self.text)


def _request(url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
    try:
        with build_opener(ProxyHandler({})).open(Request(url, body, headers), timeout=TIMEOUT) as response:
            return Answer(response.status, response.read().decode(), dict(response.headers))
    except HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(), dict(error.headers))


async def request(url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """GET, or POST if there is a body; off the loop, which may have the server to run."""
    return await asyncio.to_thread(_request, url, body, headers or {})


def run(*command: str, stdin: str | None = None, within: float = TIMEOUT) -> str:
    """Run a command and return what it prints; a failure shows what it said."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=within, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
    return done.stdout
