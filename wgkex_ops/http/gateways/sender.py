"""Sends keys to the gateways: each once to all of its domain, and again to those that have not confirmed it."""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Final, NoReturn, Protocol

import structlog

from wgkex_ops.bus.messages import key_topic, origin_properties
from wgkex_ops.errors import BusError, NoSubscribersError, PublishRefusedError
from wgkex_ops.http.gateways.confirmations import UnconfirmedKey, UnconfirmedKeys
from wgkex_ops.model.names import ALL_WORKERS

_log = structlog.get_logger(__name__)

# How often it checks what is due: nodes wait minutes for a lost key, so a second more does not matter.
_CHECK_EVERY: Final = 1.0
# How many keys are sent again at a time: keys of new nodes wait behind them for a place in the server's window.
WINDOW: Final = 200


class Publisher(Protocol):
    """What has to be known of the session with the MQTT server."""

    @property
    def connected(self) -> bool: ...
    @property
    def opened_at(self) -> float: ...
    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        timeout: float,  # noqa: ASYNC109  the session's own
        properties: Mapping[str, str] | None,
        response_topic: str,
        correlation: bytes,
    ) -> None: ...


class KeySender:
    """Sends keys, the first time and again.

    Args:
        keys: what is to be sent again.
        session: with the MQTT server.
        publish_timeout: seconds to wait for an acknowledgement.
    """

    def __init__(self, keys: UnconfirmedKeys, session: Publisher, *, publish_timeout: float) -> None:
        self._keys = keys
        self._session = session
        self._publish_timeout = publish_timeout

    async def send(self, key: UnconfirmedKey, target: str = ALL_WORKERS) -> None:
        """Publish a key for all workers of its domain, or for one; returns when the MQTT server has acknowledged.

        Raises:
            BusError: it has not.
        """
        receipt_to = key.origin.receipt_to
        await self._session.publish(
            key_topic(key.domain.name, target),
            str(key.public_key).encode(),
            timeout=self._publish_timeout,
            properties=origin_properties(key.origin),
            response_topic=receipt_to.topic if receipt_to else "",
            correlation=receipt_to.correlation if receipt_to else b"",
        )

    async def resend(self) -> NoReturn:
        """Send again what is due, and give up what is too old, for ever."""
        while True:
            self._keys.expire()
            if self._session.connected:
                await self._send_due()
            await asyncio.sleep(_CHECK_EVERY)

    async def _send_due(self) -> None:
        due = iter(self._keys.due(self._session.opened_at))
        while batch := list(itertools.islice(due, WINDOW)):
            settled = await asyncio.gather(*(self._send_again(key, worker) for key, worker in batch))
            if not all(settled):
                # The server needs a pause, or is gone: all the others are still due at the next check.
                return

    async def _send_again(self, key: UnconfirmedKey, worker: str) -> bool:
        """Send a key to one gateway, and return whether the MQTT server is still with us."""
        if worker in key.receipts:
            # Its receipt came while others were sent.
            return True
        try:
            await self.send(key, worker)
        except NoSubscribersError:
            # It has gone again. It gets the key when it comes online, or at the next of the usual times.
            self._keys.refused(key, worker)
        except PublishRefusedError as error:
            _log.warning("republishing_refused", worker=worker, detail=str(error))
            self._keys.refused(key, worker)
        except BusError as error:
            _log.debug("republishing_failed", worker=worker, reason=error.reason)
            return False
        else:
            self._keys.sent(key, worker)
        return True
