"""Clients that keep a listener busy without ever being served: a program of its own, as an attacker would be.

Usage: python -m tests.faults.attacks NAME HOST PORT SECONDS; it prints one line of JSON at the end.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple, cast

from wgkex_ops.http.public.app import PATH_V1

ADDRESS: Final = "127.0.0.66"
_HEAD: Final = f"POST {PATH_V1} HTTP/1.1\r\nHost: broker\r\n".encode()


@dataclass
class Report:
    """What an attack has seen.

    Attributes:
        opened: connections that were opened.
        longest: how many seconds one of them lasted at the most.
        sent: megabytes that were sent.
    """

    opened: int = 0
    longest: float = 0.0
    sent: float = 0.0


class Attack(NamedTuple):
    """One kind of client.

    Attributes:
        connections: how many are held at the same time; each that is closed is opened again.
        pieces: what each of them sends.
        reads: whether it takes what comes back.
    """

    connections: int
    pieces: Callable[[], AsyncIterator[bytes]]
    reads: bool = True


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


async def _partial_head() -> AsyncIterator[bytes]:
    yield _HEAD + b"Content-Len"


async def _large_head() -> AsyncIterator[bytes]:
    yield _HEAD
    for number in range(120):
        yield f"X-{number}: {'x' * 8000}\r\n".encode()


async def _slow_body() -> AsyncIterator[bytes]:
    yield _HEAD + b"Content-Length: 1000\r\n\r\n"
    while True:
        yield b"{"
        await asyncio.sleep(1)


async def _chunk_extension() -> AsyncIterator[bytes]:
    yield _HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;"
    while True:
        yield b"x" * 65_536


async def _requests_without_end() -> AsyncIterator[bytes]:
    request = _HEAD + b"Content-Length: 2\r\n\r\n{}"
    while True:
        yield request * 100


ATTACKS: Final = {
    "idle": Attack(1100, _nothing),
    "partial-heads": Attack(1100, _partial_head),
    "large-heads": Attack(500, _large_head),
    "slow-bodies": Attack(1100, _slow_body),
    "chunk-extensions": Attack(50, _chunk_extension),
    "never-reads": Attack(900, _requests_without_end, reads=False),
}


async def _hold(attack: Attack, host: str, port: int, report: Report) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port, local_addr=(ADDRESS, 0))
        except OSError:
            await asyncio.sleep(0.1)
            continue
        report.opened += 1
        began = time.monotonic()
        if not attack.reads:
            # So the kernel's buffers fill, and nothing more is taken.
            cast("asyncio.Transport", writer.transport).pause_reading()
        try:
            async for piece in attack.pieces():
                writer.write(piece)
                await writer.drain()
                report.sent += len(piece) / 1e6
            while await reader.read(65_536):
                pass
        except OSError:
            pass
        finally:
            report.longest = max(report.longest, time.monotonic() - began)
            writer.transport.abort()
        await asyncio.sleep(0.05)


async def _run(attack: Attack, host: str, port: int, seconds: float) -> Report:
    report = Report()
    tasks = [asyncio.create_task(_hold(attack, host, port, report)) for _ in range(attack.connections)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return report


if __name__ == "__main__":
    name, host, port, seconds = sys.argv[1:]
    print(json.dumps(asdict(asyncio.run(_run(ATTACKS[name], host, int(port), float(seconds))))))  # noqa: T201  its result
