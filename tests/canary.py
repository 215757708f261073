"""The canary without a kernel."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.helpers import WELT
from wgkex_ops.bus.messages import Endpoint
from wgkex_ops.model.domains import Domain
from wgkex_ops.probe.keys import PrivateKey
from wgkex_ops.probe.rounds import OpenTunnel, Tunnel


@dataclass
class FakeTunnels:
    """Tunnels without a kernel: how long their phases take, in seconds, and why there can be none."""

    handshake_seconds: float = 0.0
    vxlan_seconds: float = 0.0
    error: Exception | None = None
    opened: list[Endpoint] = field(default_factory=list)
    closed: int = 0

    def opener(self, domain: Domain, key: PrivateKey) -> OpenTunnel:
        return self.open

    async def check(self, domain: Domain) -> None:
        if self.error is not None:
            raise self.error

    @contextlib.asynccontextmanager
    async def open(self, endpoint: Endpoint) -> AsyncIterator[Tunnel]:
        await self.check(WELT)
        self.opened.append(endpoint)
        try:
            yield self
        finally:
            self.closed += 1

    async def handshake(self) -> None:
        await asyncio.sleep(self.handshake_seconds)

    async def vxlan(self) -> None:
        await asyncio.sleep(self.vxlan_seconds)
