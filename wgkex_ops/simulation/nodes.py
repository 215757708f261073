"""Nodes that boot, and ask for a tunnel until they get one, as the firmware does."""

import asyncio
import errno
import os
import random
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Network
from typing import Final

from wgkex_ops.errors import RoundFailedError
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.probe.post import parse_refusal, parse_version_1, parse_version_2
from wgkex_ops.simulation.post import Post, Response

# All nodes boot within so many seconds: each waits for a random part of them.
BOOT_SECONDS: Final = 39.0
# A node that has no tunnel asks once a minute.
RETRY_SECONDS: Final = 60.0

# The nodes' addresses: RFC 2544, for benchmarks.
_ADDRESSES: Final = IPv4Network("198.18.0.0/15")
_REASON: Final = re.compile("[a-z0-9_]{1,40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST, and what came of it.

    Attributes:
        api_version: 1 or 2.
        retry: whether the node has asked before.
        status: of the HTTP response; 0 if there was none.
        seconds: until the response; 0 if there was none.
        reason: why the key was not accepted: the reason of the error object, `http_404` and the like without one,
            `unusable_response` for a 200 from which no node gets a tunnel; without a response, why not. Empty if it
            was accepted.
        gateway: the one that version 2 named; empty if there is none.
    """

    api_version: int
    retry: bool = False
    status: int = 0
    seconds: float = 0.0
    reason: str = ""
    gateway: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the node takes it for success."""
        return not self.reason


class Node:
    """A node without a tunnel.

    Args:
        post: asks a broker.
        domain: the name of its mesh network.
        note: gets each attempt.
        key: by default a random one: any 32 bytes are a point on the curve, and nobody has the private key.
        client: the address that it comes from; by default any.
    """

    def __init__(
        self,
        post: Post,
        domain: str,
        note: "Callable[[Node, Attempt], None]",
        *,
        key: PublicKey | None = None,
        client: str = "",
    ) -> None:
        self._post = post
        self._note = note
        self._asked = False
        self.domain = domain
        self.key = key or PublicKey(os.urandom(32))
        self.client = client or _address(_any_address())

    async def connect(self, tries: int | None, pause: float = RETRY_SECONDS) -> bool:
        """Ask until the key is accepted.

        Args:
            tries: how often at the most; None for as often as it takes.
            pause: seconds until it asks again.

        Returns:
            whether it was.
        """
        asked = 1
        while not await self.ask():
            if asked == tries:
                return False
            await asyncio.sleep(pause)
            asked += 1
        return True

    async def ask(self) -> bool:
        """Ask by version 2, and by version 1 at once if that fails; whether the key was accepted."""
        retry, self._asked = self._asked, True
        return (await self.submit(2, retry=retry)).accepted or (await self.submit(1, retry=retry)).accepted

    async def submit(self, api_version: int, *, retry: bool = False) -> Attempt:
        """POST the key once."""
        try:
            response = await self._post(api_version, self.domain, self.key, self.client)
        except (OSError, ValueError) as error:
            attempt = Attempt(api_version, retry, reason=_why(error))
        else:
            attempt = _judge(api_version, response, retry=retry)
        self._note(self, attempt)
        return attempt


def make_nodes(
    count: int, domains: Sequence[str], post: Post, note: Callable[[Node, Attempt], None], *, behind: int
) -> list[Node]:
    """Nodes with random keys, spread over the domains.

    Args:
        count: how many.
        domains: names.
        post: asks a broker.
        note: gets each attempt.
        behind: how many share an address, as behind NAT.
    """
    # Not those of the last run: a broker remembers them.
    first = _any_address()
    return [
        Node(post, domains[number % len(domains)], note, client=_address(first + number // behind))
        for number in range(count)
    ]


async def storm(
    nodes: Iterable[Node], *, within: float = BOOT_SECONDS, tries: int | None = None, pause: float = RETRY_SECONDS
) -> None:
    """Let nodes boot, as after a power cut or the reboot of a gateway; returns when each has succeeded or given up.

    Args:
        nodes: all of them.
        within: seconds; each boots at a random time.
        tries: how often each asks at the most; None for as often as it takes.
        pause: seconds until one asks again.
    """

    async def boot(node: Node) -> None:
        await asyncio.sleep(random.uniform(0, within))  # noqa: S311  a simulation
        await node.connect(tries, pause)

    async with asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(boot(node))


def _any_address() -> int:
    return random.randrange(_ADDRESSES.num_addresses)  # noqa: S311  a simulation


def _address(number: int) -> str:
    return str(_ADDRESSES[number % _ADDRESSES.num_addresses])


def _judge(api_version: int, response: Response, *, retry: bool) -> Attempt:
    """What a node makes of a response: only 200 is success, and only with what a tunnel needs."""
    reason = gateway = ""
    if response.status != HTTPStatus.OK:
        found, _ = parse_refusal(response.body) or ("", "")
        reason = found if _REASON.fullmatch(found) else f"http_{response.status}"
    else:
        try:
            if api_version == 1:
                parse_version_1(response.body)
            else:
                gateway = parse_version_2(response.body).address
        except RoundFailedError:
            reason = "unusable_response"
    return Attempt(api_version, retry, response.status, response.seconds, reason, gateway)


def _why(error: OSError | ValueError) -> str:
    """Why there is no response."""
    match error:
        case TimeoutError():
            why = "timeout"
        case ConnectionRefusedError():
            why = "connection_refused"
        case ConnectionError():
            why = "connection_lost"
        case socket.gaierror():
            why = "no_address"
        case ssl.SSLError():
            why = "tls"
        case OSError():
            # Without a number: each of several addresses failed in its own way.
            why = errno.errorcode.get(error.errno or 0, "unreachable").lower()
        case _:
            why = "not_http"
    return why
