"""Sends keys again that nobody has confirmed."""

import asyncio
import itertools
from collections.abc import Awaitable
from typing import Final, NoReturn, Protocol

import structlog

from wgkex_ops.bus.messages import Origin
from wgkex_ops.errors import BusError, NoSubscribersError, PublishRefusedError
from wgkex_ops.http.gateways.confirmations import Handover, Outstanding
from wgkex_ops.http.public.submission import Submission

_log = structlog.get_logger(__name__)

# Seconds between two looks at what is due.
_LOOK_AGAIN_AFTER: Final = 1.0
# How many keys are on their way at a time: those of new nodes wait behind them for a place in the server's window.
WINDOW: Final = 200


class Connection(Protocol):
    """What has to be known of the session with the MQTT server."""

    @property
    def connected(self) -> bool: ...
    @property
    def opened_at(self) -> float: ...
    async def connection_after(self, seen: int) -> int: ...


class PublishAgain(Protocol):
    """Hands a key over to one worker of its domain, or to all; as `exchange.PublishKey` else."""

    def __call__(self, submission: Submission, origin: Origin, target: str) -> Awaitable[None]: ...


class Republisher:
    """Sends keys again: to silent workers, to those that have just connected, and after a reconnect to all.

    Args:
        outstanding: the keys.
        connection: with the MQTT server.
        publish: hands a key over.
    """

    def __init__(self, outstanding: Outstanding, *, connection: Connection, publish: PublishAgain) -> None:
        self._outstanding = outstanding
        self._connection = connection
        self._publish = publish
        self._came: set[str] = set()

    def came(self, worker: str) -> None:
        """A worker has just said that it is online."""
        self._came.add(worker)

    async def run(self) -> NoReturn:
        """Look at what is due once a second, and at once after a reconnect."""
        seen = 0
        while True:
            try:
                async with asyncio.timeout(_LOOK_AGAIN_AFTER):
                    seen = await self._connection.connection_after(seen)
            except TimeoutError:
                pass
            else:
                self._outstanding.reconnected()
            self._outstanding.expire()
            came, self._came = self._came, set()
            self._outstanding.came(came)
            if self._connection.connected:
                await self._send_due()

    async def _send_due(self) -> None:
        due = iter(self._outstanding.due(self._connection.opened_at))
        while batch := list(itertools.islice(due, WINDOW)):
            done = await asyncio.gather(*(self._send(handover, target) for handover, target in batch))
            if not all(done):
                # With the next look; the server needs a pause, or is gone.
                return

    async def _send(self, handover: Handover, target: str) -> bool:
        """Send one key again, and tell whether that is done with."""
        if not self._outstanding.wants(handover, target):
            return True
        try:
            await self._publish(handover.submission, handover.origin, target)
        except PublishRefusedError as error:
            _log.warning("republishing_refused", target=target, detail=str(error))
            self._outstanding.refused(handover, target)
        except NoSubscribersError:
            # It stays due, but must not hold up the keys of domains that have somebody.
            return True
        except BusError as error:
            _log.debug("republishing_failed", target=target, reason=error.reason)
            return False
        else:
            self._outstanding.sent(handover, target)
        return True
