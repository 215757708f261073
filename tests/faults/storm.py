"""Many nodes at once, that ask as the firmware does, and a record of what they were told."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tests.integration.inprocess import new_key
from tests.integration.servers import eventually
from wgkex_ops.config import Listen
from wgkex_ops.demo.routers import post_key
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

# Nodes give up on an answer after 10 s, and ask again once a minute; here they are in more of a hurry.
ANSWER_PATIENCE: Final = 10.0
AGAIN_AFTER: Final = 1.0
STORM_PATIENCE: Final = 120.0


@dataclass
class Storm:
    """Senders that share keys among them.

    Attributes:
        domains: the keys belong to, in turns.
        brokers: where nodes ask.
        ready: of each broker, whether a load balancer would send nodes there; always, if it is not told.
        sent: submissions, those that nobody answered included.
        statuses: how often each status came; 0 is no answer.
        accepted: keys that ever got 200, by domain.
        slowest: seconds that an answer has taken at the most.
    """

    domains: Sequence[Domain]
    brokers: Sequence[Listen]
    ready: Sequence[Callable[[], Awaitable[bool]]] = ()
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: dict[str, set[PublicKey]] = field(default_factory=dict)
    slowest: float = 0.0

    async def blow(self, keys: int, per_second: float, senders: int = 8) -> None:
        """Let so many nodes boot, at a rate; returns when each of them has got its 200."""
        waiting = iter([(self.domains[number % len(self.domains)], new_key()) for number in range(keys)])
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
            if await self._ask(2, domain, key) or await self._ask(1, domain, key):
                return
            await asyncio.sleep(AGAIN_AFTER * random.uniform(0.5, 1.5))

    async def _ask(self, version: int, domain: Domain, key: PublicKey) -> bool:
        broker = await self._choose()
        self.sent += 1
        status = 0
        began = time.monotonic()
        with suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(ANSWER_PATIENCE):
                status, _ = await post_key(broker, version, domain.name, key)
        self.statuses[status] += 1
        self.slowest = max(self.slowest, time.monotonic() - began)
        if status == 200:
            self.accepted.setdefault(domain.name, set()).add(key)
        return status == 200

    async def _choose(self) -> Listen:
        """One that is ready, as a load balancer does it that asks before."""
        if not self.ready:
            return random.choice(self.brokers)
        while True:
            for number in random.sample(range(len(self.brokers)), len(self.brokers)):
                if await self.ready[number]():
                    return self.brokers[number]
            await asyncio.sleep(0.01)

    async def reaches(self, keys: int) -> None:
        """Wait until so many keys have got 200."""
        await eventually(lambda: self.total >= keys, f"{keys} accepted keys", STORM_PATIENCE)

    @property
    def total(self) -> int:
        """How many keys ever got 200."""
        return sum(map(len, self.accepted.values()))
