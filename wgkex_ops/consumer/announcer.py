"""What a worker tells the brokers: how it is reached, whether it is there, and how many peers it has."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, NoReturn

import structlog

from wgkex_ops.bus.messages import (
    PEERS_UNKNOWN,
    Endpoint,
    connected_peers_topic,
    data_payload,
    status_payload,
    worker_data_topic,
    worker_status_topic,
)
from wgkex_ops.bus.session import Session
from wgkex_ops.errors import BusError, DataplaneError, PublishRefusedError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import DomainState, Snapshot, count_active

_log = structlog.get_logger(__name__)

# Brokers are used to a report a minute, and count their own assignments in between.
REPORT_INTERVAL: Final = 60.0
_PUBLISH_TIMEOUT: Final = 5.0
_AGAIN_AFTER: Final = 5.0
# Interfaces come and go in groups: one reading for all of them.
_GATHER: Final = 0.25

# What is known while the dataplane cannot be read.
_NOTHING: Final = Snapshot(taken_at=0.0)
_UNREAD: Final = DomainState()


class Reporter:
    """Reports on each connection, once a minute, and when something has changed.

    Args:
        session: the bus.
        read: reads a snapshot, or raises DataplaneError.
        domains: the configured domains.
        worker: this worker's name.
        address: the host name under which nodes reach this gateway.
        receipts: whether this worker tells what becomes of each key, and brokers may wait for that.

    Attributes:
        announced: set once brokers could know this gateway.
        read_once: whether the dataplane could be read: since then it is known which keys are static peers'.
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
    ) -> None:
        self._session = session
        self._read = read
        self._domains = domains
        self._worker = worker
        self._address = address
        self._receipts = receipts
        self._published: dict[str, Endpoint] = {}
        self._latest = _NOTHING
        self._static_keys: dict[str, frozenset[bytes]] = {}
        self._active: dict[str, int] = {}
        self._hurry = asyncio.Event()
        self.announced = asyncio.Event()
        self.read_once = False

    def problems(self) -> list[str]:
        """Why this gateway cannot serve all of its domains, by the latest reading."""
        if self._latest is _NOTHING:
            return ["the dataplane could not be read"]
        return [problem for domain in self._domains for problem in _problems(domain, self._state(domain))]

    def own_key(self, domain: Domain) -> bytes:
        """A domain's own public key (32 bytes) by the latest reading; empty if it is not known."""
        return self._state(domain).public_key

    def static_keys(self, domain: Domain) -> frozenset[bytes]:
        """Keys (32 bytes) of a domain's peers that others have put there, by the latest reading.

        Their allowed IPs are not the address derived from the key. To install such a key would take the peer over.
        """
        return self._static_keys.get(domain.name, frozenset())

    def hurry(self) -> None:
        """Report soon: something has changed."""
        self._hurry.set()

    async def look(self) -> None:
        """Read the dataplane, and keep what is told of it."""
        try:
            latest = await self._read()
            self._static_keys = {name: _static_keys(state) for name, state in latest.domains.items()}
            self._active = {name: count_active(state.peers, latest.taken_at) for name, state in latest.domains.items()}
            self._latest = _without_peers(latest)
            self.read_once = True
        except DataplaneError as error:
            _log.error("snapshot_failed", error=str(error))
            self._latest = _NOTHING

    async def run(self) -> NoReturn:
        """Report for ever."""
        seen = 0
        while True:
            number = await self._session.connection_after(0)
            new = number != seen
            # Before the reading: what changes while it is read is not in it.
            self._hurry.clear()
            await self.look()
            try:
                await self._report(new)
            except BusError as error:
                _log.warning("report_failed", reason=error.reason, detail=str(error))
                pause = _AGAIN_AFTER
            else:
                seen = number
                pause = REPORT_INTERVAL
            await self._wait(pause, number)

    async def say_goodbye(self, within: float) -> None:
        """Tell that this gateway is no longer to be chosen: as well as that works in the given seconds."""
        unknown = str(PEERS_UNKNOWN).encode()
        farewells = [
            (worker_status_topic(self._worker), status_payload(online=False)),
            *((connected_peers_topic(domain.name, self._worker), unknown) for domain in self._domains),
        ]
        try:
            async with asyncio.timeout(within):
                for topic, payload in farewells:
                    # One that is refused must not keep the others from being said.
                    with contextlib.suppress(PublishRefusedError):
                        await self._publish(topic, payload)
        except (BusError, TimeoutError) as error:
            _log.warning("goodbye_failed", detail=str(error))

    async def _wait(self, pause: float, seen: int) -> None:
        """Wait for the next report: its time, a change, or a new connection."""
        waits = [
            asyncio.create_task(self._hurry.wait(), name="report-hurry"),
            asyncio.create_task(self._session.connection_after(seen), name="report-connection"),
        ]
        try:
            await asyncio.wait(waits, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if self._hurry.is_set():
                await asyncio.sleep(_GATHER)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _report(self, new: bool) -> None:
        """Tell the data, then the peers, then the status: who reads `1` finds everything else there."""
        for domain in self._domains:
            endpoint = self._endpoint(domain)
            if endpoint is not None and (new or endpoint != self._published.get(domain.name)):
                await self._publish(worker_data_topic(self._worker, domain.name), data_payload(endpoint))
                self._published[domain.name] = endpoint
            peers = PEERS_UNKNOWN
            if endpoint is not None:
                peers = self._active[domain.name]
            await self._publish(connected_peers_topic(domain.name, self._worker), str(peers).encode())
        if new:
            await self._publish(worker_status_topic(self._worker), status_payload(online=True))
            self.announced.set()
            _log.info("worker_announced", name=self._worker, address=self._address)

    async def _publish(self, topic: str, payload: bytes) -> None:
        await self._session.publish(topic, payload, timeout=_PUBLISH_TIMEOUT, retain=True)

    def _state(self, domain: Domain) -> DomainState:
        return self._latest.domains.get(domain.name, _UNREAD)

    def _endpoint(self, domain: Domain) -> Endpoint | None:
        """How nodes reach this gateway; None while they could not get through."""
        state = self._state(domain)
        if not (state.ready and state.public_key and state.listen_port and state.link_address):
            return None
        return Endpoint(
            address=self._address,
            port=state.listen_port,
            public_key=str(PublicKey(state.public_key)),
            link_address=state.link_address,
            receipts=self._receipts,
        )


def _problems(domain: Domain, state: DomainState) -> list[str]:
    """What keeps a domain's nodes from this gateway."""
    problems = [
        f"{interface} is {'down' if present else 'missing'}"
        for interface, present, up in (
            (domain.wg, state.wg_present, state.wg_up),
            (domain.vx, state.vx_present, state.vx_up),
        )
        if not up
    ]
    if state.wg_up:
        if not state.public_key:
            problems.append(f"{domain.wg} has no private key")
        if not state.link_address:
            # That of an interface that was down is gone: the kernel takes it away.
            problems.append(f"{domain.wg} has no link-local address")
    return problems


def _without_peers(snapshot: Snapshot) -> Snapshot:
    """What is left when thousands of peers need not be kept in memory until the next look."""
    domains = {
        name: replace(
            state,
            peers=(),
            shared_addresses=frozenset(),
            routes=frozenset(),
            foreign_routes={},
            fdb_entries=frozenset(),
        )
        for name, state in snapshot.domains.items()
    }
    return replace(snapshot, domains=domains, routed_elsewhere=frozenset())


def _static_keys(state: DomainState) -> frozenset[bytes]:
    # Most peers have a route of ours, and need no look at their key.
    return frozenset(
        peer.public_key for peer in state.peers if peer.link_local not in state.routes and not peer.has_derived_address
    )
