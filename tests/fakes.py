"""All fakes of the tests: each stands for one seam of the product, and injects its faults."""

import asyncio
import functools
import selectors
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from tests.helpers import DOMAINS, WELT
from wgkex_ops.bus.session import Message, Session
from wgkex_ops.consumer.dataplane.base import LinkEvent, OperationObserver
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane, MemoryInterfaces
from wgkex_ops.errors import (
    DataplaneError,
    InterfaceMissingError,
    NoSubscribersError,
    NotConnectedError,
    PublishRefusedError,
)
from wgkex_ops.model.changes import Action, Change, Operation, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.peers import ROUTE_PROTOCOL_STATIC, DomainState, Snapshot

T = TypeVar("T")

# --- the dataplane


class NullObserver:
    """Observes nothing."""

    def observe(self, operation: Operation, count: int, errors: Sequence[str], seconds: float) -> None: ...


Part = Literal["peer", "route", "fdb"]


class FaultyDataplane(MemoryDataplane):
    """The memory dataplane, with what other programs do to a gateway and with a kernel in trouble.

    Args:
        domains: the configured domains.
        observer: is called for each batch of operations.
        clock: seconds since the epoch.

    Attributes:
        batches: the changes of each call of apply(), in order, from its begin on.
        batch_times: when each of these calls began, in seconds of the event loop's clock.
        may_apply: apply() waits until this is set, as it is at first.
        may_read: the same of snapshot().
        snapshots: how often snapshot() was called.
        snapshot_error: what snapshot() raises; None for nothing.
        error: the errno name with which all operations of apply() fail; empty for none.
        routed_elsewhere: goes into each snapshot.
        vxlan_silent: names of domains whose VXLAN interfaces carry nothing, as behind a firewall.
    """

    def __init__(
        self,
        domains: Sequence[Domain] = tuple(DOMAINS.values()),
        observer: OperationObserver = NullObserver(),  # noqa: B008  it has no state
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(domains, observer, clock)
        self.batches: list[list[Change]] = []
        self.batch_times: list[float] = []
        self.may_apply = asyncio.Event()
        self.may_apply.set()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.snapshots = 0
        self.snapshot_error: Exception | None = None
        self.error = ""
        self.routed_elsewhere = frozenset[bytes]()
        self.vxlan_silent: set[str] = set()
        self._refused: dict[bytes, tuple[Operation, str]] = {}
        self._link_events: asyncio.Queue[LinkEvent] = asyncio.Queue()

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        self.batches.append(list(changes))
        self.batch_times.append(asyncio.get_running_loop().time())
        await self.may_apply.wait()
        return await super().apply(changes)

    async def snapshot(self) -> Snapshot:
        self.snapshots += 1
        await self.may_read.wait()
        if self.snapshot_error is not None:
            raise self.snapshot_error
        return replace(await super().snapshot(), routed_elsewhere=self.routed_elsewhere)

    async def events(self) -> AsyncIterator[LinkEvent]:
        while True:
            yield await self._link_events.get()

    def apply_one(self, change: Change, steps: dict[Operation, list[str]]) -> Outcome:
        if not self.interfaces[change.domain.name].state.wg_present:
            # Nothing is tried. What was on an interface is gone with it.
            missing = InterfaceMissingError(Operation.PEER_ADD, change.domain.wg)
            return missing if change.action is Action.INSTALL else None
        return super().apply_one(change, steps)

    def carry_out(self, operation: Operation, change: Change) -> None:
        refused, error = self._refused.get(change.key, (None, ""))
        if self.error or operation is refused:
            raise DataplaneError(operation, self.error or error)
        super().carry_out(operation, change)

    def shake_hands(self, domain: Domain, key: PublicKey, when: float | None = None) -> bool:
        interfaces = self.interfaces[domain.name]
        before = interfaces.state.vx_traffic
        done = super().shake_hands(domain, key, when)
        if domain.name in self.vxlan_silent:
            interfaces.state = replace(interfaces.state, vx_traffic=before)
        return done

    # What a test sees

    async def installed(self, domain: Domain = WELT) -> list[bytes]:
        """Public keys of the peers, in the order of their installation."""
        return [peer.public_key for peer in (await super().snapshot()).domains[domain.name].peers]

    async def complete(self, domain: Domain = WELT) -> set[bytes]:
        """Public keys of the peers that have route and FDB entry."""
        state = (await super().snapshot()).domains[domain.name]
        return {peer.public_key for peer in state.peers if peer.link_local in state.routes & state.fdb_entries}

    # What the kernel does

    def refuse(self, key: PublicKey, operation: Operation, error: str) -> None:
        """Fail one step of all changes of a key until accept(); the steps before it are carried out."""
        self._refused[key.raw] = (operation, error)

    def accept(self, key: PublicKey) -> None:
        """Fail no more."""
        del self._refused[key.raw]

    # What other programs do

    def readdress(self, domain: Domain, key: PublicKey, *addresses: bytes) -> None:
        """Add or change a peer: these (16 bytes each) become its only allowed addresses."""
        if self.interfaces[domain.name].state.wg_present:
            self.interfaces[domain.name].set_peer(key.raw, *addresses)

    def reroute(self, domain: Domain, address: bytes, protocol: int) -> None:
        """Route an address (16 bytes) over a domain's interface, in place of any other route to it."""
        if self.interfaces[domain.name].state.wg_present:
            self.set_route(self.interfaces[domain.name], address, protocol)

    def forward(self, domain: Domain, address: bytes) -> None:
        """Add an FDB entry with a destination (16 bytes)."""
        if self.interfaces[domain.name].state.vx_present:
            self.interfaces[domain.name].fdb_entries.add(address)

    def add_static(
        self, domain: Domain, key: PublicKey, *addresses: bytes, protocol: int = ROUTE_PROTOCOL_STATIC
    ) -> None:
        """Add a peer that is not ours, complete with routes to its addresses and FDB entries.

        Without addresses it gets the one that derives from its key, as the older wgkex has installed its peers.
        """
        addresses = addresses or (link_local(key.raw),)
        self.readdress(domain, key, *addresses)
        for address in addresses:
            self.reroute(domain, address, protocol)
            self.forward(domain, address)

    def lose(self, domain: Domain, key: PublicKey, *parts: Part) -> None:
        """Take parts of a peer away; a route only if it leads over this domain's interface."""
        interfaces, address = self.interfaces[domain.name], link_local(key.raw)
        if "peer" in parts:
            interfaces.remove_peer(key.raw)
        if "route" in parts:
            self.remove_route(interfaces, address)
        if "fdb" in parts:
            interfaces.fdb_entries.discard(address)

    def remove_interfaces(self, domain: Domain) -> None:
        """Delete a domain's interfaces with all that they carry."""
        self._replace(domain, MemoryInterfaces(DomainState()))

    def create_interfaces(self, domain: Domain) -> None:
        """Create a domain's interfaces, empty and up."""
        self._replace(domain, self.new_interfaces(domain))

    def report_links(self) -> None:
        """Have the kernel report that something has changed, though nothing has: the worker scans."""
        self._link_events.put_nowait(LinkEvent("", present=False, up=False))

    def _replace(self, domain: Domain, new: MemoryInterfaces) -> None:
        old = self.interfaces[domain.name]
        for address in [*old.routes, *old.foreign_routes]:
            self.remove_route(old, address)
        self.interfaces[domain.name] = new
        present = new.state.wg_present
        for interface in (domain.wg, domain.vx):
            self._link_events.put_nowait(LinkEvent(interface, present=present, up=present))


@dataclass
class Recorder:
    """An observer that keeps all operations."""

    seen: list[tuple[Operation, int, tuple[str, ...]]] = field(default_factory=list)

    def observe(self, operation: Operation, count: int, errors: Sequence[str], seconds: float) -> None:
        assert seconds >= 0
        self.seen.append((operation, count, tuple(errors)))

    def of(self, operation: Operation) -> list[tuple[int, tuple[str, ...]]]:
        return [(count, errors) for kind, count, errors in self.seen if kind is operation]


# --- the bus


@dataclass(frozen=True)
class Published:
    """What a FakeSession was given to publish."""

    topic: str
    payload: bytes
    timeout: float
    retain: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)
    response_topic: str = ""
    correlation: bytes = b""
    expires_after: int = 0


class FakeSession(Session):
    """A session whose MQTT server is slow, refuses, and is away, as a test wants. It is connected at first.

    It has no timeouts: a test that needs one sets `error`.

    Attributes:
        seconds: how long each acknowledgement takes.
        error: raised in place of each acknowledgement; None for none.
        refused: a part of the topics that an access rule forbids; empty for none.
        no_subscribers: topics that no client has subscribed to.
        sent: all that was published, in order.
        acknowledged: what the server has acknowledged of it, in order.
        unsubscribed: topic filters, in order.
        in_flight: how many publishes wait for their acknowledgement.
        most_in_flight: the highest number of them so far.
    """

    def __init__(self, *, refused: str = "") -> None:
        self.seconds = 0.0
        self.error: Exception | None = None
        self.refused = refused
        self.no_subscribers: set[str] = set()
        self.sent: list[Published] = []
        self.acknowledged: list[Published] = []
        self.unsubscribed: list[str] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._urgent_inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._online = True
        self._number = 1
        self.began_at = 0.0
        self._changed = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._online

    @property
    def opened_at(self) -> float:
        """By the clock of the event loop; a test may set `began_at`."""
        return self.began_at

    @property
    def stuck(self) -> bool:
        return False

    def disconnect(self) -> None:
        """Lose the connection: what is in flight on it fails when its acknowledgement would come."""
        self._online = False

    def reconnect(self) -> None:
        """Begin another connection at this moment."""
        self._online = True
        self._number += 1
        self.began_at = asyncio.get_running_loop().time()
        self._changed.set()
        self._changed = asyncio.Event()

    def deliver(self, message: Message, *, urgent: bool = False) -> None:
        """Have a message arrive."""
        (self._urgent_inbox if urgent else self._inbox).put_nowait(message)

    async def connection_after(self, seen: int) -> int:
        while not self._online or self._number <= seen:
            await self._changed.wait()
        return self._number

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            yield await self._inbox.get()

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        timeout: float,  # noqa: ASYNC109  the session's signature
        retain: bool = False,
        properties: Mapping[str, str] | None = None,
        response_topic: str = "",
        correlation: bytes = b"",
        expires_after: int = 0,
    ) -> None:
        sent_with = (properties or {}, response_topic, correlation, expires_after)
        message = Published(topic, payload, timeout, retain, *sent_with)
        await self._exchange(message)
        self.acknowledged.append(message)

    async def unsubscribe(self, topic_filter: str, *, timeout: float) -> None:  # noqa: ASYNC109  as in publish
        await self._exchange(None)
        self.unsubscribed.append(topic_filter)

    async def _exchange(self, message: Published | None) -> None:
        """Send something, and wait for the acknowledgement."""
        if not self._online:
            raise NotConnectedError("the fake session is not connected")
        if message is not None:
            self.sent.append(message)
        connection = (True, self._number)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.in_flight -= 1
        if self.error is not None:
            raise self.error
        if (self._online, self._number) != connection:
            raise NotConnectedError("the fake session's connection broke")
        if message is not None and self.refused and self.refused in message.topic:
            raise PublishRefusedError(0x87)
        if message is not None and message.topic in self.no_subscribers:
            raise NoSubscribersError("no client has subscribed to this topic")


# --- time


class _ImpatientSelector(selectors.DefaultSelector):
    """Waits for input no longer than the grace, in real seconds; then the clock jumps to the next timer."""

    def __init__(self, grace: float) -> None:
        super().__init__()
        self._grace = grace
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(min(timeout, self._grace))
        if not ready:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in which no time passes but that which everybody sleeps through."""

    def __init__(self, grace: float) -> None:
        self._impatient = _ImpatientSelector(grace)
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._impatient.now


def run_in_virtual_time(coroutine: Coroutine[Any, Any, T], *, grace: float = 0.0) -> T:
    """Run a coroutine to its end.

    Args:
        coroutine: what is run.
        grace: real seconds for bytes to cross the loopback interface; 0 where there are no sockets.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(grace)) as runner:
        return runner.run(coroutine)


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Make an ordinary test of one that needs no sockets and no real time."""

    @functools.wraps(test)
    def run() -> None:
        run_in_virtual_time(test())

    return run
