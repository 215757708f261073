"""Many nodes at once that send their keys as the firmware does, and a record of the responses."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.integration.loopback import eventually
from wgkex_ops.config import Listen
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.simulation.nodes import Attempt, Node
from wgkex_ops.simulation.post import BrokerClient, Response

# Nodes send their key again once a minute; here after a second.
AGAIN_AFTER: Final = 1.0
STORM_TIMEOUT: Final = 120.0


@dataclass
class Record:
    """What nodes got.

    Attributes:
        statuses: how often each status came; 0 stands for no response.
        accepted: keys that ever got 200, by domain.
        slowest: the longest time until a response, in seconds.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    accepted: dict[str, set[PublicKey]] = field(default_factory=dict)
    slowest: float = 0.0

    def note(self, node: Node, attempt: Attempt) -> None:
        self.statuses[attempt.status] += 1
        self.slowest = max(self.slowest, attempt.seconds)
        if attempt.status == 200:
            assert attempt.accepted, "a node would take this for a failure"
            self.accepted.setdefault(node.domain, set()).add(node.key)


class Storm(Record):
    """Nodes that boot at a rate.

    Args:
        domains: each key belongs to one of them, in rotation.
        brokers: where nodes send their keys.
        ready: for each broker, whether a load balancer would send nodes there; empty if it always would.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        brokers: Sequence[Listen],
        *,
        ready: Sequence[Callable[[], Awaitable[bool]]] = (),
    ) -> None:
        super().__init__()
        self._domains = domains
        self._brokers = [BrokerClient(f"http://{broker}") for broker in brokers]
        self._ready = ready

    async def blow(self, keys: int, per_second: float, *, until: asyncio.Event | None = None) -> None:
        """Let nodes boot; returns when each of them has got its 200.

        Args:
            keys: how many nodes boot at least.
            per_second: the rate.
            until: further nodes boot until this is set.
        """
        async with asyncio.TaskGroup() as nodes:
            for number in itertools.count():
                if number >= keys and not (until and not until.is_set()):
                    break
                node = Node(self._post, self._domains[number % len(self._domains)].name, self.note)
                nodes.create_task(node.connect(tries=None, pause=AGAIN_AFTER))
                await asyncio.sleep(random.uniform(0.5, 1.5) / per_second)

    async def _post(self, api_version: int, domain: str, key: object, client: str) -> Response:
        broker = await self._choose()
        return await broker(api_version, domain, key, client)

    async def _choose(self) -> BrokerClient:
        """One that is ready, as a load balancer chooses it."""
        if not self._ready:
            return random.choice(self._brokers)
        while True:
            for number in random.sample(range(len(self._brokers)), len(self._brokers)):
                if await self._ready[number]():
                    return self._brokers[number]
            await asyncio.sleep(0.01)

    async def reaches(self, keys: int) -> None:
        """Wait until so many keys have got 200."""
        await eventually(lambda: self.total >= keys, f"{keys} accepted keys", STORM_TIMEOUT)

    @property
    def sent(self) -> int:
        """Submissions, those without a response included."""
        return self.statuses.total()

    @property
    def total(self) -> int:
        """How many keys ever got 200."""
        return sum(map(len, self.accepted.values()))
