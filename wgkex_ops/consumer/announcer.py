"""What a worker announces to brokers: how nodes reach this gateway, whether it is online, and how many peers it has."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn

import structlog

from wgkex_ops.bus.messages import (
    PEERS_UNKNOWN,
    Endpoint,
    connected_peers_topic,
    data_payload,
    status_payload,
    status_properties,
    worker_data_topic,
    worker_status_topic,
)
from wgkex_ops.bus.session import Session
from wgkex_ops.errors import BusError, DataplaneError, PublishRefusedError
from wgkex_ops.metrics.build import software_version
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import Snapshot, count_active, interface_problems

_log = structlog.get_logger(__name__)

# Brokers are used to an announcement a minute, and count their own assignments in between.
ANNOUNCE_INTERVAL: Final = 60.0
_PUBLISH_TIMEOUT: Final = 5.0
_AGAIN_AFTER: Final = 5.0
# Interfaces come and go in groups: one snapshot for all of them.
_GATHERING: Final = 0.25


@dataclass(frozen=True, slots=True)
class _Announcement:
    """What brokers may know of a domain.

    Attributes:
        endpoint: how nodes reach this gateway; None while they could not get through.
        active: peers with a live session.
        problems: what keeps the domain's nodes from this gateway, a sentence each.
    """

    endpoint: Endpoint | None
    active: int
    problems: tuple[str, ...]


class Announcer:
    """Announces on each connection, once a minute, and when something has changed.

    Args:
        session: the bus.
        read: reads a snapshot, or raises DataplaneError.
        domains: the configured domains.
        worker: this worker's name.
        address: the host name under which nodes reach this gateway.
        receipts: whether this worker sends receipts, and brokers may wait for them.
        draining: whether brokers are to send no new nodes here. The number of peers is unknown then, which keeps old
            brokers from it as well.

    Attributes:
        announced: set once brokers could know this gateway.
    """

    def __init__(
        self,
        *,
        session: Session,
        read: Callable[[], Awaitable[Snapshot]],
        domains: Sequence[Domain],
        worker: str,
        address: str,
        receipts: bool,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._session = session
        self._read = read
        self._domains = domains
        self._worker = worker
        self._address = address
        self._receipts = receipts
        self._draining = draining
        # By domain; None for one that was withdrawn.
        self._published: dict[str, Endpoint | None] = {}
        # Whether brokers may have it from this process, or from the one before, that this gateway drains.
        self._drained = False
        # By domain; empty while the dataplane cannot be read.
        self._latest: Mapping[str, _Announcement] = {}
        self._triggered = asyncio.Event()
        self.announced = asyncio.Event()

    def problems(self) -> list[str]:
        """Why this gateway cannot serve all of its domains, by the latest snapshot."""
        if not self._latest:
            return ["the dataplane could not be read"]
        return [problem for announcement in self._latest.values() for problem in announcement.problems]

    def trigger(self) -> None:
        """Announce soon: something has changed."""
        self._triggered.set()

    async def refresh(self) -> None:
        """Read the dataplane, and keep what is announced of it."""
        self._drained = self._drained or self._draining()
        try:
            snapshot = await self._read()
        except DataplaneError as error:
            _log.error("snapshot_failed", error=str(error))
            self._latest = {}
        else:
            self._latest = {domain.name: self._announcement(domain, snapshot) for domain in self._domains}

    async def run(self) -> NoReturn:
        """Announce for ever."""
        seen = 0
        while True:
            number = await self._session.connection_after(0)
            new = number != seen
            # Before the snapshot: what changes while it is read is not in it.
            self._triggered.clear()
            await self.refresh()
            try:
                await self._announce(new)
            except BusError as error:
                _log.warning("announcement_failed", reason=error.reason, detail=str(error))
                pause = _AGAIN_AFTER
            else:
                seen = number
                pause = ANNOUNCE_INTERVAL
            await self._wait(pause, number)

    async def sign_off(self, within: float) -> None:
        """Announce that this gateway is no longer to be chosen: as well as that works in the given seconds."""
        unknown = str(PEERS_UNKNOWN).encode()
        announcements = [
            (worker_status_topic(self._worker), status_payload(online=False)),
            *((connected_peers_topic(domain.name, self._worker), unknown) for domain in self._domains),
        ]
        try:
            async with asyncio.timeout(within):
                for topic, payload in announcements:
                    # One that is refused must not keep the others from being published.
                    with contextlib.suppress(PublishRefusedError):
                        await self._publish(topic, payload)
        except (BusError, TimeoutError) as error:
            _log.warning("sign_off_failed", detail=str(error))

    async def _wait(self, pause: float, seen: int) -> None:
        """Wait for the next announcement: its time, a change, or a new connection."""
        waits = [
            asyncio.create_task(self._triggered.wait(), name="announce-trigger"),
            asyncio.create_task(self._session.connection_after(seen), name="announce-connection"),
        ]
        try:
            await asyncio.wait(waits, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if self._triggered.is_set():
                await asyncio.sleep(_GATHERING)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _announce(self, new: bool) -> None:
        """Publish the data, then the peers, then the status: a broker that reads `1` has everything else."""
        for domain in self._domains:
            latest = self._latest.get(domain.name)
            endpoint = latest.endpoint if latest else None
            await self._publish_data(domain.name, endpoint, again=new)
            takes_nodes = latest is not None and endpoint is not None and not endpoint.draining
            peers = latest.active if latest is not None and takes_nodes else PEERS_UNKNOWN
            await self._publish(connected_peers_topic(domain.name, self._worker), str(peers).encode())
        if new:
            properties = status_properties(software_version())
            await self._publish(worker_status_topic(self._worker), status_payload(online=True), properties)
            self.announced.set()
            _log.info("worker_announced", name=self._worker, address=self._address)

    async def _publish_data(self, domain: str, endpoint: Endpoint | None, *, again: bool) -> None:
        """Publish how nodes reach this gateway, if that has changed or should come again.

        While they do not, brokers keep the former data: keys are sent here all the same. But it must not say for ever
        that this gateway drains. Data of an earlier process, which is not known here, is withdrawn for that.
        """
        data, known = endpoint, self._published.get(domain)
        if endpoint is None:
            if known is not None:
                data = replace(known, draining=self._draining())
            elif domain in self._published or self._draining() or not self._drained:
                return
        if again or data != known or domain not in self._published:
            await self._publish(worker_data_topic(self._worker, domain), data_payload(data))
            self._published[domain] = data

    async def _publish(self, topic: str, payload: bytes, properties: Mapping[str, str] | None = None) -> None:
        await self._session.publish(topic, payload, timeout=_PUBLISH_TIMEOUT, retain=True, properties=properties)

    def _announcement(self, domain: Domain, snapshot: Snapshot) -> _Announcement:
        state = snapshot.domains[domain.name]
        reachable = state.ready and state.public_key and state.listen_port and state.link_address
        endpoint = Endpoint(
            address=self._address,
            port=state.listen_port,
            public_key=str(PublicKey(state.public_key)),
            link_address=state.link_address,
            receipts=self._receipts,
            draining=self._draining(),
        )
        active = count_active(state.peers, snapshot.taken_at)
        return _Announcement(endpoint if reachable else None, active, tuple(interface_problems(domain, state)))
