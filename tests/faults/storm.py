"""Many nodes at once that send their keys as the firmware does, and a record of the responses."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tests.integration.inprocess import new_key
from tests.integration.loopback import eventually
from wgkex_ops.config import Listen
from wgkex_ops.demo.routers import post_key
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

# Nodes wait 10 s for a response, and send their key again once a minute; here after about a second.
RESPONSE_TIMEOUT: Final = 10.0
AGAIN_AFTER: Final = 1.0
STORM_TIMEOUT: Final = 120.0


@dataclass
class Storm:
    """Senders that share keys among them.

    Attributes:
        domains: each key belongs to one of them, in rotation.
        brokers: where nodes send their keys.
        ready: for each broker, whether a load balancer would send nodes there; empty if it always would.
        sent: submissions, those without a response included.
        statuses: how often each status came; 0 stands for no response.
        accepted: keys that ever got 200, by domain.
        slowest: the longest time until a response, in seconds.
    """

    domains: Sequence[Domain]
    brokers: Sequence[Listen]
    ready: Sequence[Callable[[], Awaitable[bool]]] = ()
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: dict[str, set[PublicKey]] = field(default_factory=dict)
    slowest: float = 0.0

    async def blow(self, keys: int, per_second: float, senders: int = 8, *, until: asyncio.Event | None = None) -> None:
        """Let nodes boot, at a rate; returns when each of them has got its 200.

        Args:
            keys: how many nodes boot at least.
            per_second: the rate.
            senders: how many tasks let nodes boot.
            until: further nodes boot until this is set.
        """
        numbers = itertools.takewhile(lambda number: number < keys or (until and not until.is_set()), itertools.count())
        waiting = ((self.domains[number % len(self.domains)], new_key()) for number in numbers)
        async with asyncio.TaskGroup() as nodes:

            async def sender() -> None:
                for domain, key in waiting:
                    nodes.create_task(self._node(domain, key))
                    await asyncio.sleep(senders / per_second * random.uniform(0.5, 1.5))

            async with asyncio.TaskGroup() as group:
                for _ in range(senders):
                    group.create_task(sender())

    async def _node(self, domain: Domain, key: PublicKey) -> None:
        """Version 2, version 1 at once if that fails, and then again after a while."""
        while True:
            if await self._submit(2, domain, key) or await self._submit(1, domain, key):
                return
            await asyncio.sleep(AGAIN_AFTER * random.uniform(0.5, 1.5))

    async def _submit(self, version: int, domain: Domain, key: PublicKey) -> bool:
        broker = await self._choose()
        self.sent += 1
        status = 0
        began = time.monotonic()
        with suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(RESPONSE_TIMEOUT):
                status, _ = await post_key(broker, version, domain.name, key)
        self.statuses[status] += 1
        self.slowest = max(self.slowest, time.monotonic() - began)
        if status == 200:
            self.accepted.setdefault(domain.name, set()).add(key)
        return status == 200

    async def _choose(self) -> Listen:
        """One that is ready, as a load balancer chooses it."""
        if not self.ready:
            return random.choice(self.brokers)
        while True:
            for number in random.sample(range(len(self.brokers)), len(self.brokers)):
                if await self.ready[number]():
                    return self.brokers[number]
            await asyncio.sleep(0.01)

    async def reaches(self, keys: int) -> None:
        """Wait until so many keys have got 200."""
        await eventually(lambda: self.total >= keys, f"{keys} accepted keys", STORM_TIMEOUT)

    @property
    def total(self) -> int:
        """How many keys ever got 200."""
        return sum(map(len, self.accepted.values()))
