"""Publishes whether this broker is online: the others count each assignment once per broker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, NoReturn

import structlog

from wgkex_ops.bus.messages import status_payload, status_properties
from wgkex_ops.bus.session import Session
from wgkex_ops.errors import BusError
from wgkex_ops.metrics.build import software_version

_log = structlog.get_logger(__name__)

_RETRY_AFTER: Final = 5.0
# A stop takes 5 s at the most, and requests in progress are finished before.
_GOODBYE_TIMEOUT: Final = 1.0


class Announcer:
    """Keeps this broker's retained status up to date.

    Args:
        session: with the MQTT server.
        status_topic: this broker's.
        publish_timeout: seconds to wait for an acknowledgement.
    """

    def __init__(self, session: Session, *, status_topic: str, publish_timeout: float) -> None:
        self._session = session
        self._status_topic = status_topic
        self._publish_timeout = publish_timeout

    async def run(self) -> NoReturn:
        """Publish on each connection that this broker is online."""
        connection = 0
        while True:
            connection = await self._session.connection_after(connection)
            await self._announce()

    @contextlib.asynccontextmanager
    async def goodbye(self) -> AsyncIterator[None]:
        """Publish at the end of the context that this broker is offline."""
        try:
            yield
        finally:
            with contextlib.suppress(BusError):
                await self._publish(online=False, within=_GOODBYE_TIMEOUT)

    async def _announce(self) -> None:
        while self._session.connected:
            try:
                await self._publish(online=True, within=self._publish_timeout)
            except BusError as error:
                _log.warning("announcement_failed", reason=error.reason, detail=str(error))
                await asyncio.sleep(_RETRY_AFTER)
            else:
                return

    async def _publish(self, *, online: bool, within: float) -> None:
        await self._session.publish(
            self._status_topic,
            status_payload(online=online),
            timeout=within,
            retain=True,
            properties=status_properties(software_version()),
        )
