"""A round: the order of its phases, their times and limits. Pure, but for the clocks."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from wgkex_ops.bus.messages import Endpoint
from wgkex_ops.errors import RoundFailedError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.rounds import HANDSHAKE, LIMIT, POST, VXLAN, Round


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where the canary is sent.

    Attributes:
        name: what the gateway is called in logs and metrics.
        endpoint: how it is reached.
    """

    name: str
    endpoint: Endpoint

    def __str__(self) -> str:
        return f"{self.name} (UDP port {self.endpoint.port})"


class Tunnel(Protocol):
    """A WireGuard interface with a gateway as its peer."""

    async def handshake(self) -> None:
        """Wait until there was a handshake."""

    async def vxlan(self) -> None:
        """Wait for a VXLAN packet of the mesh from the gateway."""


# Submits the key. Raises RoundFailedError.
Request = Callable[[], Awaitable[Gateway]]
# Makes the interface, which begins a handshake; it is removed with the context. Raises RoundFailedError if the endpoint
# cannot be used, CannotProbeError if there can be no interface here.
OpenTunnel = Callable[[Endpoint], AbstractAsyncContextManager[Tunnel]]


async def run_round(
    domain: Domain,
    request: Request,
    open_tunnel: OpenTunnel,
    *,
    limit: float = LIMIT,
    clock: Callable[[], float] = time.monotonic,
) -> Round:
    """Go through the phases, up to the first one that fails.

    Args:
        domain: whose node the canary is.
        request: the first phase.
        open_tunnel: what the others need.
        limit: seconds for each phase.
        clock: seconds, never set back.

    Raises:
        CannotProbeError: there can be no interface here.
    """
    durations: dict[str, float] = {}
    gateway: Gateway | None = None
    failure = ""

    @asynccontextmanager
    async def phase(name: str, missing: str, advice: str) -> AsyncIterator[None]:
        began = clock()
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError:
            raise RoundFailedError(f"{missing} within {limit:g} s: {advice}") from None
        durations[name] = clock() - began

    try:
        async with AsyncExitStack() as stack:
            async with phase(POST, "no response", "check the broker and what is in front of it"):
                gateway = await request()
            advice = "its worker has not installed the key, or a firewall drops the packets"
            async with phase(HANDSHAKE, f"no handshake with {gateway}", advice):
                tunnel = await stack.enter_async_context(open_tunnel(gateway.endpoint))
                await tunnel.handshake()
            advice = f"check there that {domain.vx} is up and in its batman-adv interface, and its FDB entries"
            async with phase(VXLAN, f"a tunnel, but no VXLAN packet of the mesh from {gateway}", advice):
                await tunnel.vxlan()
    except RoundFailedError as error:
        failure = str(error)
    return Round(domain.name, time.time(), gateway.name if gateway else "", durations, failure)
