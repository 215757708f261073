"""Simulated nodes that live on: they use their tunnel, lose it, and request it again."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from wgkex_ops.config import Listen
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.simulation.nodes import Attempt, Node, make_nodes
from wgkex_ops.simulation.post import BrokerClient

_log = structlog.get_logger(__name__)

# WireGuard makes a new handshake every two minutes of traffic.
_HANDSHAKE_SECONDS: Final = 120.0
# Real tunnels live for days; these are shorter, so that there is something to see. A node that asked again within five
# minutes would look like one that got no tunnel.
_SHORTEST_LIFE_SECONDS: Final = 330.0
_MEAN_LIFE_SECONDS: Final = 900.0
# All nodes boot within this time.
_BOOT_SECONDS: Final = 10.0
# So many share an address.
_BEHIND: Final = 3

# Simulates a handshake of an installed peer; False while there is no such peer.
ShakeHands = Callable[[Domain, PublicKey], bool]


async def simulate(broker: Listen, domains: Sequence[Domain], count: int, shake_hands: ShakeHands | None) -> None:
    """Run a number of nodes, spread over the domains, without end.

    Args:
        broker: where it listens.
        domains: the nodes' mesh networks.
        count: how many nodes there are.
        shake_hands: simulates their handshakes, where no kernel makes real ones.
    """
    by_name = {domain.name: domain for domain in domains}
    nodes = make_nodes(count, list(by_name), BrokerClient(f"http://{broker}"), _note, behind=_BEHIND)
    async with asyncio.TaskGroup() as group:
        for number, node in enumerate(nodes):
            group.create_task(_live(node, by_name[node.domain], shake_hands), name=f"node-{number}")


async def _live(node: Node, domain: Domain, shake_hands: ShakeHands | None) -> None:
    """Boot, request a tunnel, use it, lose it, request it again, without end."""
    await asyncio.sleep(random.uniform(0, _BOOT_SECONDS))  # noqa: S311  a simulation
    while True:
        await node.connect(tries=None)
        await _use_tunnel(domain, node.key, shake_hands)


async def _use_tunnel(domain: Domain, key: PublicKey, shake_hands: ShakeHands | None) -> None:
    loop = asyncio.get_running_loop()
    further = random.expovariate(1 / (_MEAN_LIFE_SECONDS - _SHORTEST_LIFE_SECONDS))
    end = loop.time() + _SHORTEST_LIFE_SECONDS + further
    while loop.time() < end:
        installed = shake_hands is None or shake_hands(domain, key)
        pause = _HANDSHAKE_SECONDS if installed else 0.5
        await asyncio.sleep(min(pause, max(0.0, end - loop.time())))


def _note(_node: Node, attempt: Attempt) -> None:
    if not attempt.status:
        _log.info("node_got_no_response", api_version=attempt.api_version, error=attempt.reason)
    elif not attempt.accepted:
        _log.info("node_refused", api_version=attempt.api_version, status=attempt.status, reason=attempt.reason)
