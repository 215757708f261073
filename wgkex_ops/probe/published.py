"""How a gateway is reached, as its worker has published it: retained messages on the bus."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, NoReturn, Protocol

import structlog

from wgkex_ops.bus.messages import Endpoint, WorkerData, parse_worker_event, worker_data_topic
from wgkex_ops.bus.session import Message
from wgkex_ops.errors import InvalidMessageError, RoundFailedError
from wgkex_ops.model.domains import Domain

_log = structlog.get_logger(__name__)

# Seconds until what the MQTT server has retained is here: less than a phase may take.
_TIMEOUT: Final = 10.0


class Inbox(Protocol):
    """What has to be known of the session with the MQTT server."""

    @property
    def connected(self) -> bool: ...
    def messages(self) -> AsyncIterator[Message]: ...


def subscriptions(worker: str, domains: Sequence[Domain]) -> list[str]:
    """The topics that have the endpoints of a worker."""
    return [worker_data_topic(worker, domain.name) for domain in domains]


class PublishedEndpoints:
    """The endpoints of one worker.

    Args:
        session: with subscriptions to them.
        worker: its name.
        timeout: seconds to wait for an endpoint.
    """

    def __init__(self, session: Inbox, worker: str, timeout: float = _TIMEOUT) -> None:
        self._session = session
        self._worker = worker
        self._timeout = timeout
        self._endpoints: dict[str, Endpoint] = {}
        self._changed = asyncio.Condition()

    async def run(self) -> NoReturn:
        """Take in what arrives, for ever."""
        async for message in self._session.messages():
            try:
                event = parse_worker_event(message.topic, message.payload)
            except InvalidMessageError as error:
                _log.warning("message_rejected", reason=error.reason, topic=message.topic[:200])
                event = None
            if isinstance(event, WorkerData):
                await self._update(event)
            message.acknowledge()
        raise AssertionError("messages never end")

    async def find(self, domain: Domain) -> Endpoint:
        """The endpoint in a domain.

        Raises:
            RoundFailedError: the worker has published none, or that cannot be known.
        """
        try:
            async with asyncio.timeout(self._timeout), self._changed:
                await self._changed.wait_for(lambda: domain.name in self._endpoints)
                return self._endpoints[domain.name]
        except TimeoutError:
            if not self._session.connected:
                raise RoundFailedError("there is no connection with the MQTT server, which has the endpoints") from None
            raise RoundFailedError(
                f"the worker {self._worker} has published no endpoint: it does not run, its interfaces are missing, "
                f"or the MQTT server lets this user not read {worker_data_topic(self._worker, domain.name)}"
            ) from None

    async def _update(self, data: WorkerData) -> None:
        async with self._changed:
            if data.endpoint is None:
                self._endpoints.pop(data.domain, None)
            else:
                self._endpoints[data.domain] = data.endpoint
            self._changed.notify_all()
