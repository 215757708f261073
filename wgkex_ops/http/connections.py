"""The connections of a listener: how many there may be, and which of them has to go for another one. No I/O."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from wgkex_ops.config.limits import ConnectionLimits

_log = structlog.get_logger(__name__)

# Why a connection is cut: the listener has no room, its network has no more, its client is slow.
TOTAL, NETWORK, SLOW = "total", "network", "slow"
# Of the operators' listener: Prometheus and some browsers need a few.
OPERATORS_CONNECTIONS: Final = ConnectionLimits(total=64, per_network=64)
# Seconds between two log lines about connections that were cut.
_LOG_EVERY: Final = 60.0


class Connection(Protocol):
    """What is known of a connection."""

    def waits_for_client(self) -> bool:
        """Whether nothing is being done for the client: its request is not complete, or it does not read."""

    def is_slow(self, now: float) -> bool:
        """Whether the client should have sent its request, or read its response, by now (the loop's clock)."""

    def cut(self) -> None:
        """Close it at once, whatever the client does."""


class Connections:
    """The open connections, the one that was used longest ago first.

    Where there is no room for a new connection, the first one that waits for its client goes: a node sends its request
    at once, so whoever holds a connection without one soon loses it, and nobody else does.

    Args:
        limits: how many there may be.
        cut: counts a connection that was cut, or not accepted, by the reason.
    """

    def __init__(self, limits: ConnectionLimits, cut: Callable[[str], None]) -> None:
        self._limits = limits
        self._count = cut
        self._open: OrderedDict[Connection, bytes | None] = OrderedDict()
        self._of_network: Counter[bytes] = Counter()
        self._unlogged: Counter[str] = Counter()
        self._logged_at = -_LOG_EVERY
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection, network: bytes | None) -> bool:
        """Take a new connection in, and return whether there is room for it.

        Args:
            connection: the new one.
            network: where it comes from; None for a load balancer, whose connections are those of many clients.
        """
        if network is not None:
            if self._of_network[network] >= self._limits.per_network and not self._make_room(NETWORK, network):
                return False
            self._of_network[network] += 1
        if len(self._open) >= self._limits.total and not self._make_room(TOTAL):
            self._leave_network(network)
            return False
        self._open[connection] = network
        self._empty.clear()
        return True

    def use(self, connection: Connection) -> None:
        """A connection was used: it is the last one to go now."""
        if connection in self._open:
            self._open.move_to_end(connection)

    def remove(self, connection: Connection) -> None:
        """A connection is closed; one that was cut may be named again."""
        if connection in self._open:
            self._leave_network(self._open.pop(connection))
            if not self._open:
                self._empty.set()

    def cut_slow(self, now: float) -> None:
        """Cut the connections whose clients are too slow.

        Args:
            now: by the loop's clock.
        """
        for connection in [one for one in self._open if one.is_slow(now)]:
            self._cut(connection, SLOW)
        if self._unlogged and now - self._logged_at >= _LOG_EVERY:
            _log.warning("connections_cut", open=len(self._open), **self._unlogged)
            self._unlogged.clear()
            self._logged_at = now

    async def close(self) -> None:
        """Cut all of them, and return when they are closed."""
        for connection in self._open:
            connection.cut()
        # Those that were cut before take an iteration of the event loop, whatever their clients do; so do these.
        await asyncio.sleep(0)
        await self._empty.wait()

    def _make_room(self, reason: str, network: bytes | None = None) -> bool:
        for connection, its_network in self._open.items():
            if (network is None or its_network == network) and connection.waits_for_client():
                self._cut(connection, reason)
                return True
        # The new one is not accepted.
        self._note(reason)
        return False

    def _cut(self, connection: Connection, reason: str) -> None:
        self._note(reason)
        self.remove(connection)
        connection.cut()

    def _note(self, reason: str) -> None:
        self._count(reason)
        self._unlogged[reason] += 1

    def _leave_network(self, network: bytes | None) -> None:
        if network is not None:
            self._of_network[network] -= 1
            if not self._of_network[network]:
                del self._of_network[network]
