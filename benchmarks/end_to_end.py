"""A burst of 1,000 nodes: how many keys a second come from POST to the kernel, through HTTP, broker, MQTT and worker.

From the first byte of the first POST until the kernel reports the last FDB entry, which is the last part of a peer. All
processes are real ones, with the log lines, receipts and journal that they have by default. The client, 16 connections
with prepared requests, shares the same two processors. Compared, in each round, with only the last step of the old way:
one key at a time, installed with new sockets, without HTTP and MQTT. And with how many such requests a second a bare
aiohttp handler serves, which shares both processors with the client only.
"""

import json
import os
import select
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from benchmarks.gateway import DOMAIN, HTTP_PORT, gateway, listening, running
from benchmarks.installing import seconds
from benchmarks.old_way import install_the_old_way
from tests.kernel.network import eventually
from wgkex_ops.model.keys import PublicKey, link_local

ROUNDS: Final = 3
BURST: Final = 1000
CONNECTIONS: Final = 16
OLD_KEYS: Final = 25

_BARE_PORT: Final = 5001

_RTMGRP_NEIGH: Final = 4
_RTM_NEWNEIGH: Final = 28
_AF_BRIDGE: Final = 7
_SO_RCVBUFFORCE: Final = 33
_TIMEOUT: Final = 60_000
_HEADER: Final = struct.Struct("=IH")


def request(key: PublicKey) -> bytes:
    """What a node sends."""
    body = json.dumps({"domain": DOMAIN.name, "public_key": str(key)}).encode()
    # Each node has an address of its own, as behind a load balancer.
    client = IPv4Address(key.raw[:4])
    head = f"POST /api/v1/wg/key/exchange HTTP/1.1\r\nHost: gateway\r\nX-Forwarded-For: {client}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def destinations(datagram: bytes) -> set[bytes]:
    """Destinations of new FDB entries, from the kernel's notifications about neighbours."""
    found = set()
    offset = 0
    while offset < len(datagram):
        length, kind = _HEADER.unpack_from(datagram, offset)
        if kind == _RTM_NEWNEIGH and datagram[offset + 16] == _AF_BRIDGE:
            position = offset + 16 + 12
            while position < offset + length:
                size, attribute = struct.unpack_from("=HH", datagram, position)
                if attribute == 1:
                    found.add(datagram[position + 4 : position + size])
                position += (size + 3) & ~3
        offset += (length + 3) & ~3
    return found


def burst(port: int, *, installed: bool = True) -> tuple[float, float]:
    """Seconds until the last HTTP response, and until the last key is in the kernel, if keys are installed."""
    keys = [PublicKey(os.urandom(32)) for _ in range(BURST)]
    requests = [request(key) for key in keys]
    missing = {link_local(key.raw) for key in keys} if installed else set()
    connections = {}
    poll = select.poll()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as notifications:
        notifications.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
        notifications.bind((0, _RTMGRP_NEIGH))
        poll.register(notifications, select.POLLIN)
        for _ in range(CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", port))
            connections[connection.fileno()] = connection
            poll.register(connection, select.POLLIN)
        started = time.monotonic()
        responded_after = 0.0
        for connection in connections.values():
            connection.send(requests.pop())
        waiting = BURST
        while missing or waiting:
            events = poll.poll(_TIMEOUT)
            assert events, f"nothing more comes: {len(missing)} keys and {waiting} HTTP responses are missing"
            for number, _ in events:
                if number == notifications.fileno():
                    missing -= destinations(notifications.recv(1 << 16))
                    continue
                response = connections[number].recv(4096)
                assert response.startswith(b"HTTP/1.1 200 "), response
                waiting -= 1
                responded_after = time.monotonic() - started
                if requests:
                    connections[number].send(requests.pop())
        installed_after = time.monotonic() - started
        for connection in connections.values():
            connection.close()
    return responded_after, installed_after


def processor_times(pids: Mapping[str, int]) -> dict[str, float]:
    """Seconds of processor time of each process until now."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = {}
    for name, pid in pids.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found[name] = (int(fields[11]) + int(fields[12])) / ticks
    return found


def old() -> None:
    for _ in range(OLD_KEYS):
        install_the_old_way(DOMAIN, PublicKey(os.urandom(32)))


def main() -> None:
    rates: list[float] = []
    old_rates: list[float] = []
    bare_rates: list[float] = []
    spent: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway(with_broker=True, folder=Path(folder)) as processes,
        running([sys.executable, "-m", "benchmarks.bare_http", str(_BARE_PORT)], Path(folder, "bare_http.log")),
    ):
        pids = processes.pids | {"client": os.getpid()}
        eventually(listening(_BARE_PORT), "aiohttp listens")
        for number in range(ROUNDS + 1):
            old_rate = OLD_KEYS / seconds(old)
            before = processor_times(pids)
            responded_after, installed_after = burst(HTTP_PORT)
            # Receipts are still on their way.
            time.sleep(2)
            after = processor_times(pids)
            bare_rate = BURST / burst(_BARE_PORT, installed=False)[0]
            print(
                f"{BURST} keys: HTTP responses after {responded_after:.1f} s, installed after {installed_after:.1f} s; "
                f"the old way: {old_rate:.1f} keys/s; aiohttp alone: {bare_rate:.1f} requests/s",
                flush=True,
            )
            # The first round warms up.
            if number:
                old_rates.append(old_rate)
                bare_rates.append(bare_rate)
                rates.append(BURST / installed_after)
                spent.append({name: (after[name] - before[name]) * 1000 / BURST for name in pids})
    rate, old_rate = statistics.median(rates), statistics.median(old_rates)
    print(
        f"POST to installed peer: {rate:.1f} keys/s ({min(rates):.1f} to {max(rates):.1f}); {rate / old_rate:.1f} of "
        f"the old install alone, {old_rate:.1f} keys/s ({min(old_rates):.1f} to {max(old_rates):.1f})"
    )
    bare_rate = statistics.median(bare_rates)
    print(f"aiohttp alone: {bare_rate:.1f} requests/s; {bare_rate / old_rate:.1f} of the old install alone")
    times = (f"{name} {statistics.median(one[name] for one in spent):.1f} ms" for name in pids)
    print(f"processor time per key: {', '.join(times)}")


if __name__ == "__main__":
    main()
