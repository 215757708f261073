"""Simulated routers that live on: they use their tunnel, are switched off, and request it again when they boot."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.simulation.nodes import Attempt, Node, make_nodes
from wgkex_ops.simulation.post import Post

_log = structlog.get_logger(__name__)

# WireGuard makes a new handshake every two minutes of traffic.
_HANDSHAKE_SECONDS: Final = 120.0
# Seconds until a router whose key is not installed yet tries its handshake again.
_TRY_AGAIN_SECONDS: Final = 0.5
# Most routers boot within the first seconds. Each third one is late, one after the other: until the first ones may
# come back, they make up for those that are switched off.
_BOOT_SECONDS: Final = 10.0
_LATE_EVERY: Final = 3
# Real routers run for weeks; these are switched off sooner, so that there is something to see.
_SHORTEST_LIFE_SECONDS: Final = 30.0
_MEAN_LIFE_SECONDS: Final = 900.0
_SHORTEST_PAUSE_SECONDS: Final = 20.0
# A node that asked again within five minutes would look like one that got no tunnel.
_ASKS_AGAIN_AFTER_SECONDS: Final = 330.0
# So many share an address.
_BEHIND: Final = 3

# Simulates a handshake of an installed peer; False while there is no such peer.
ShakeHands = Callable[[Domain, PublicKey], bool]


class Routers:
    """Simulated routers, spread over the domains.

    Args:
        post: asks the broker.
        domains: their mesh networks.
        count: how many there are.
        shake_hands: simulates their handshakes, where no kernel makes real ones; None where one does.

    Attributes:
        switched_on: how many are at this moment, with a tunnel or without.
    """

    def __init__(self, post: Post, domains: Sequence[Domain], count: int, shake_hands: ShakeHands | None) -> None:
        self._domains = {domain.name: domain for domain in domains}
        self._nodes = make_nodes(count, list(self._domains), post, _note, behind=_BEHIND)
        self._shake_hands = shake_hands
        self.switched_on = 0

    def __len__(self) -> int:
        return len(self._nodes)

    async def run(self) -> None:
        """Let them live, without end."""
        async with asyncio.TaskGroup() as group:
            for number, node in enumerate(self._nodes):
                if number % _LATE_EVERY == _LATE_EVERY - 1:
                    boots = _BOOT_SECONDS + number / len(self) * (_ASKS_AGAIN_AFTER_SECONDS - _BOOT_SECONDS)
                else:
                    boots = random.uniform(0, _BOOT_SECONDS)  # noqa: S311  a simulation
                group.create_task(self._live(node, boots), name=f"node-{number}")

    async def _live(self, node: Node, boots: float) -> None:
        """Boot, request a tunnel, use it, be switched off, boot again, without end."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(boots)
        while True:
            self.switched_on += 1
            await node.connect(tries=None)
            asked = loop.time()
            await self._use_tunnel(self._domains[node.domain], node.key)
            self.switched_on -= 1
            pause = random.uniform(_SHORTEST_PAUSE_SECONDS, 3 * _SHORTEST_PAUSE_SECONDS)  # noqa: S311  a simulation
            await asyncio.sleep(max(pause, asked + _ASKS_AGAIN_AFTER_SECONDS - loop.time()))

    async def _use_tunnel(self, domain: Domain, key: PublicKey) -> None:
        loop = asyncio.get_running_loop()
        further = random.expovariate(1 / (_MEAN_LIFE_SECONDS - _SHORTEST_LIFE_SECONDS))
        end = loop.time() + _SHORTEST_LIFE_SECONDS + further
        while loop.time() < end:
            installed = self._shake_hands is None or self._shake_hands(domain, key)
            pause = _HANDSHAKE_SECONDS if installed else _TRY_AGAIN_SECONDS
            await asyncio.sleep(min(pause, max(0.0, end - loop.time())))


def _note(_node: Node, attempt: Attempt) -> None:
    if not attempt.status:
        _log.info("node_got_no_response", api_version=attempt.api_version, error=attempt.reason)
    elif not attempt.accepted:
        _log.info("node_refused", api_version=attempt.api_version, status=attempt.status, reason=attempt.reason)
