"""Simulated nodes: they request a tunnel over real HTTP, exactly as the firmware does."""

import asyncio
import json
import os
import random
from collections.abc import Callable, Sequence
from http import HTTPStatus
from ipaddress import IPv4Network
from typing import Any, Final
from zlib import crc32

import structlog

from wgkex_ops.config import Listen
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

_log = structlog.get_logger(__name__)

_REQUEST_TIMEOUT: Final = 10.0
# A real node checks its tunnel once a minute; WireGuard makes a new handshake every two minutes of traffic.
_RETRY_SECONDS: Final = 60.0
_HANDSHAKE_SECONDS: Final = 120.0
# Real tunnels live for days; these are shorter, so that there is something to see. A node that asked again within five
# minutes would look like one that got no tunnel.
_SHORTEST_LIFE_SECONDS: Final = 330.0
_MEAN_LIFE_SECONDS: Final = 900.0
# All nodes boot within this time, as after a power cut.
_BOOT_SECONDS: Final = 10.0

# RFC 2544.
_TEST_ADDRESSES: Final = IPv4Network("198.18.0.0/15")

# Simulates a handshake of an installed peer; False while there is no such peer.
ShakeHands = Callable[[Domain, PublicKey], bool]


class Node:
    """One simulated node.

    Args:
        broker: the broker that it asks.
        domain: its mesh network.
        shake_hands: simulates its handshakes, where no kernel makes real ones.
    """

    def __init__(self, broker: Listen, domain: Domain, shake_hands: ShakeHands | None) -> None:
        self._broker = broker
        self._domain = domain
        self._shake_hands = shake_hands
        # Any 32 bytes are a point on the curve; there is no private key for this one.
        self._key = PublicKey(os.urandom(32))

    async def live(self) -> None:
        """Boot, request a tunnel, use it, lose it, request it again, without end."""
        await asyncio.sleep(random.uniform(0, _BOOT_SECONDS))  # noqa: S311  a simulation
        while True:
            if await self._ask():
                await self._use_tunnel()
            else:
                await asyncio.sleep(random.uniform(0.5, 1.0) * _RETRY_SECONDS)  # noqa: S311

    async def _ask(self) -> bool:
        """POST the key by version 2, and by version 1 at once if that fails, as the firmware does."""
        for version in (2, 1):
            try:
                async with asyncio.timeout(_REQUEST_TIMEOUT):
                    status, response = await post_key(self._broker, version, self._domain.name, self._key)
            except (OSError, ValueError) as error:
                _log.info("node_got_no_response", api_version=version, error=str(error))
                continue
            if status == HTTPStatus.OK and ("Endpoint" in response or "Message" in response):
                return True
            _log.info("node_refused", api_version=version, status=status)
        return False

    async def _use_tunnel(self) -> None:
        loop = asyncio.get_running_loop()
        further = random.expovariate(1 / (_MEAN_LIFE_SECONDS - _SHORTEST_LIFE_SECONDS))
        end = loop.time() + _SHORTEST_LIFE_SECONDS + further
        while loop.time() < end:
            installed = self._shake_hands is None or self._shake_hands(self._domain, self._key)
            pause = _HANDSHAKE_SECONDS if installed else 0.5
            await asyncio.sleep(min(pause, max(0.0, end - loop.time())))


async def simulate(broker: Listen, domains: Sequence[Domain], count: int, shake_hands: ShakeHands | None) -> None:
    """Run a number of nodes, spread over the domains, without end."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            node = Node(broker, domains[number % len(domains)], shake_hands)
            group.create_task(node.live(), name=f"node-{number}")


async def post_key(
    broker: Listen, version: int, domain: str, key: PublicKey, client: str = ""
) -> tuple[int, dict[str, Any]]:
    """POST a key as a node's wget does: with a form's content type, in chunks, without a length.

    A load balancer on this host seems to forward it, so that each node has an address of its own.

    Args:
        broker: where it listens.
        version: of the API.
        domain: the node's.
        key: the node's.
        client: the node's address; by default, one that follows from domain and key.

    Returns:
        the HTTP status and the JSON object of the response.

    Raises:
        OSError: nothing listens, or the connection broke.
        ValueError: the response is not HTTP, or its body is not a JSON object.
    """
    body = json.dumps({"domain": domain, "public_key": str(key)}).encode()
    client = client or str(_TEST_ADDRESSES[crc32(body) % _TEST_ADDRESSES.num_addresses])
    reader, writer = await asyncio.open_connection(broker.host, broker.port)
    try:
        writer.write(
            f"POST /api/v{version}/wg/key/exchange HTTP/1.1\r\n"
            f"Host: {broker}\r\n"
            f"X-Forwarded-For: {client}\r\n"
            "User-Agent: Wget/1.21.3\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            "Transfer-Encoding: chunked\r\n"
            "Connection: close\r\n\r\n".encode()
            + f"{len(body):x}\r\n".encode()
            + body
            + b"\r\n0\r\n\r\n"
        )
        await writer.drain()
        head, _, content = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    response = json.loads(content)
    if not isinstance(response, dict):
        raise ValueError("the body is not a JSON object")  # noqa: TRY004  the value comes from outside
    return int(head.split(b" ", 2)[1]), response
