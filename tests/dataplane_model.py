"""A gateway in a few dictionaries, and a machine that does at random to real dataplanes what can happen to a gateway.

After each step the dataplanes have to be what the model is. It says what a gateway should be like in its own words, and
uses nothing of the code under test: nodes are numbers here, and so are addresses. A number below `KEYS` is that of a
key and of the address that derives from it, one below zero is a gateway's own key, and any other is nobody's address.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from prometheus_client import CollectorRegistry

from tests.fakes import Nobody
from tests.helpers import key, samples
from wgkex_ops.config import CleanupConfig
from wgkex_ops.consumer.dataplane.base import Dataplane
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane, Part
from wgkex_ops.consumer.dataplane.turns import Turns
from wgkex_ops.consumer.upkeep.cleanup import Cleanup
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.consumer.upkeep.removal import Limits, judge
from wgkex_ops.consumer.upkeep.requests import Offers
from wgkex_ops.errors import InterfaceMissingError
from wgkex_ops.metrics.cleanup import CleanupMetrics
from wgkex_ops.metrics.journal import JournalMetrics
from wgkex_ops.model.changes import Action, Change, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.peers import Snapshot

DOMAINS: Final = tuple(Domain(f"ffx_{suffix}", f"wg-{suffix}", f"vx-{suffix}") for suffix in ("a", "b"))

KEYS: Final = 4
PROTECTED: Final = 3
NOBODYS: Final = (10, 11)
OWN: Final = {domain.name: -number for number, domain in enumerate(DOMAINS, 1)}

OURS: Final = 158
STATIC: Final = 4
BABEL: Final = 42

STALE_AFTER: Final = 10_800.0
NEVER_AFTER: Final = 600.0
ACTIVE: Final = 180.0
FUTURE: Final = 60.0
AGREEMENT: Final = 300.0
FEW: Final = 10
SLACK: Final = 60.0

# A key in a domain, by its name.
Identity = tuple[str, int]


class Clocks:
    """The two clocks of a host."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.monotonic = 5000.0


# --- what should be


@dataclass
class Node:
    """A peer: its allowed addresses, and its last handshake."""

    allowed: set[int]
    handshake: float = 0.0


@dataclass
class View:
    """What there is to see of a domain.

    Attributes:
        peers: the one allowed address of each, or None, and its last handshake.
        routes: our routes over the domain's interface.
        foreign: all others, with their protocol, if there is a reason to look at them.
        entries: of the VXLAN interface.
    """

    peers: dict[int, tuple[int | None, float]] = field(default_factory=dict)
    routes: set[int] = field(default_factory=set)
    foreign: dict[int, int] = field(default_factory=dict)
    entries: set[int] = field(default_factory=set)


@dataclass
class Kernel:
    """What a kernel keeps: peers and entries by interface, and one table of routes."""

    present: set[str]
    nodes: dict[Identity, Node] = field(default_factory=dict)
    routes: dict[int, tuple[str, int]] = field(default_factory=dict)
    entries: set[Identity] = field(default_factory=set)

    def allow(self, domain: str, number: int, addresses: set[int]) -> None:
        if domain not in self.present or number < 0:
            return
        for (where, other), node in self.nodes.items():
            if where == domain and other != number:
                node.allowed -= addresses
        self.nodes.setdefault((domain, number), Node(set())).allowed = set(addresses)

    def install(self, domain: str, number: int) -> None:
        if domain in self.present:
            self.allow(domain, number, {number})
            self.routes[number] = (domain, OURS)
            self.entries.add((domain, number))

    def remove(self, domain: str, number: int) -> None:
        self.entries.discard((domain, number))
        if self.routes.get(number) == (domain, OURS):
            del self.routes[number]
        self.nodes.pop((domain, number), None)

    def delete_interfaces(self, domain: str) -> None:
        self.present.discard(domain)
        self.nodes = {identity: node for identity, node in self.nodes.items() if identity[0] != domain}
        self.routes = {address: route for address, route in self.routes.items() if route[0] != domain}
        self.entries = {entry for entry in self.entries if entry[0] != domain}

    @property
    def ours(self) -> set[Identity]:
        """Whose only allowed address derives from its key, and has a route of ours, over whichever interface."""
        routed = {address for address, (_, protocol) in self.routes.items() if protocol == OURS}
        return {(domain, one) for (domain, one), node in self.nodes.items() if node.allowed == {one} and one in routed}

    def view(self, domain: str) -> View:
        peers = {
            number: (next(iter(node.allowed)) if len(node.allowed) == 1 else None, node.handshake)
            for (where, number), node in self.nodes.items()
            if where == domain
        }
        here = {address: protocol for address, (where, protocol) in self.routes.items() if where == domain}
        ours = {address for address, protocol in here.items() if protocol == OURS}
        doubtful = {address for address, _ in peers.values() if address is not None} - ours
        return View(
            peers,
            ours,
            {address: protocol for address, protocol in here.items() if protocol != OURS} if doubtful else {},
            {address for where, address in self.entries if where == domain},
        )


@dataclass
class Process:
    """What a worker process knows, and what it has counted.

    Attributes:
        started: by the monotonic clock, as are the next two.
        asked: when each key was last asked for, or put back.
        future: handshakes of the future, with the time of the run that saw them first.
        active, active_at: who was active at the last run that was not held, and when that was.
        idle: who was not, though there had been a handshake: which one, and when.
        held: whom the last run has held back.
        doubted: who has not gone yet for a doubt: with which handshake, and since when.
    """

    started: float
    asked: dict[Identity, float] = field(default_factory=dict)
    future: dict[Identity, tuple[float, float]] = field(default_factory=dict)
    active: set[Identity] | None = None
    active_at: float = 0.0
    idle: dict[Identity, tuple[float, float]] = field(default_factory=dict)
    held: AbstractSet[Identity] = frozenset()
    doubted: dict[Identity, tuple[float, float]] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)


@dataclass
class Model:
    """A gateway and its worker.

    Attributes:
        remembered: by the wall clock, when the journal's peers were installed.
    """

    clocks: Clocks
    adopts: bool
    kernel: Kernel
    process: Process
    remembered: dict[Identity, float] = field(default_factory=dict)

    def ask(self, domain: str, number: int) -> None:
        """A node asks for its key."""
        self.process.asked[domain, number] = self.clocks.monotonic
        if domain in self.kernel.present:
            self.kernel.install(domain, number)
            for home in DOMAINS:
                self.remembered.pop((home.name, number), None)
            self.remembered[domain, number] = self.clocks.wall

    def age(self, identity: Identity) -> float | None:
        """How old the last handshake is; None if there was none. A future one is as old as the knowledge of it."""
        handshake = self.kernel.nodes[identity].handshake
        if not handshake:
            return None
        if handshake > self.clocks.wall + FUTURE:
            return self.clocks.monotonic - self.process.future[identity][1]
        return self.clocks.wall - handshake

    def unasked(self, identity: Identity) -> float:
        """For how long nobody is known to have asked for a key."""
        since_start = self.clocks.monotonic - self.process.started
        if identity in self.process.asked:
            return self.clocks.monotonic - self.process.asked[identity]
        if since_start < NEVER_AFTER and identity in self.remembered:
            return max(since_start, self.clocks.wall - self.remembered[identity])
        return since_start

    def has_left_another(self, identity: Identity) -> bool:
        """Whether a peer has the route of which one in another domain is ours."""
        domain, number = identity
        elsewhere = {(home.name, number) for home in DOMAINS if home.name != domain}
        return self.kernel.routes.get(number) == (domain, OURS) and bool(elsewhere & self.kernel.ours)

    def can_be_old(self, identity: Identity) -> bool:
        """Whether there was time for that since the last run, by the clock that nobody sets."""
        handshake, since = self.process.idle.get(identity, (-1.0, 0.0))
        if handshake != self.kernel.nodes[identity].handshake:
            since = self.process.active_at - ACTIVE
        return self.clocks.monotonic - since + SLACK >= STALE_AFTER

    def clean(self) -> None:
        """One run of the cleanup."""
        process, kernel = self.process, self.kernel
        ours = kernel.ours
        future = {one: kernel.nodes[one].handshake for one in ours}
        future = {one: handshake for one, handshake in future.items() if handshake > self.clocks.wall + FUTURE}
        process.future = {
            one: known
            if (known := process.future.get(one)) and known[0] == handshake
            else (handshake, self.clocks.monotonic)
            for one, handshake in future.items()
        }
        ages = {one: self.age(one) for one in ours}
        connected = {one: age for one, age in ages.items() if age is not None}
        goes = {one for one in ours if one[1] != PROTECTED and self.unasked(one) >= NEVER_AFTER}
        goes = {one for one in goes if not self.has_left_another(one)}
        never = goes - connected.keys()
        stale = {one for one in goes & connected.keys() if connected[one] >= STALE_AFTER}

        now = self.clocks.monotonic
        # Since when each that would go has been waiting with the same handshake.
        waiting = {
            one: process.doubted[one]
            if one in process.doubted and process.doubted[one][0] == kernel.nodes[one].handshake
            else (kernel.nodes[one].handshake, now)
            for one in stale | never
        }
        agreed = {one for one, known in waiting.items() if one in process.doubted and now - known[1] >= AGREEMENT}
        first = process.active is None
        active = connected.keys() if process.active is None else process.active
        odd = {one for one in stale | never if first or not self.can_be_old(one)}
        if process.active is None:
            sudden = stale - agreed
        else:
            sudden = ((stale | never) & process.active | stale & process.idle.keys() & odd) - agreed
        held = 2 * len(sudden) > len(active) and (not first or len(sudden) >= FEW)
        process.counted["held" if held else "completed"] += 1
        process.held = waiting.keys() if held else set()
        if held:
            process.doubted = waiting
            return
        still = {one for one, known in waiting.items() if known == process.doubted.get(one)} - agreed
        doubted = still | ((sudden | stale) - agreed) & odd
        process.doubted = {one: waiting[one] for one in doubted}
        process.active = {one for one, age in connected.items() if age < ACTIVE}
        process.active_at = now
        process.idle = {
            one: (kernel.nodes[one].handshake, now - age) for one, age in connected.items() if age >= ACTIVE
        }
        never -= doubted
        stale -= doubted
        # Who is adopted becomes ours, and is judged by the next run.
        for (domain, number), node in kernel.nodes.items():
            if (
                self.adopts
                and number != PROTECTED
                and node.allowed == {number}
                and kernel.routes.get(number) == (domain, STATIC)
            ):
                kernel.install(domain, number)
                process.asked[domain, number] = self.clocks.monotonic
                process.counted[f"adopted {domain}"] += 1
        for reason, gone in (("never_connected", never), ("stale", stale)):
            for domain, number in gone:
                kernel.remove(domain, number)
                self.remembered.pop((domain, number), None)
                process.counted[f"removed {domain} {reason}"] += 1


# --- what is


class Hands(Protocol):
    """What others do to a gateway. `MemoryDataplane` tells what each of them is."""

    def readdress(self, domain: Domain, key: PublicKey, *addresses: bytes) -> None: ...
    def reroute(self, domain: Domain, address: bytes, protocol: int) -> None: ...
    def forward(self, domain: Domain, address: bytes) -> None: ...
    def lose(self, domain: Domain, key: PublicKey, *parts: Part) -> None: ...
    def shake_hands(self, domain: Domain, key: PublicKey, when: float | None = None) -> bool: ...
    def remove_interfaces(self, domain: Domain) -> None: ...
    def create_interfaces(self, domain: Domain) -> None: ...


class TouchableDataplane(Dataplane, Hands, Protocol):
    """A dataplane within reach of others."""


class Worker:
    """A dataplane and what a worker has around it.

    Args:
        dataplane: memory, or a kernel.
        clocks: the host's.
        adopts: whether peers of the older wgkex are taken over.
    """

    def __init__(self, dataplane: TouchableDataplane, clocks: Clocks, *, adopts: bool) -> None:
        self.dataplane = dataplane
        self._clocks = clocks
        self._settings = CleanupConfig(
            stale_after=STALE_AFTER, never_after=NEVER_AFTER, adopt=adopts, protected_keys=(key(PROTECTED),)
        )
        self._folder = TemporaryDirectory()
        self._gateway = AsyncExitStack()
        self._process = AsyncExitStack()
        self._own: dict[str, PublicKey] = {}

    def __str__(self) -> str:
        return type(self.dataplane).__name__

    async def open(self) -> None:
        """Begin."""
        await self._gateway.enter_async_context(self.dataplane)
        await self.restart()

    async def restart(self) -> None:
        """Begin again as a new process: of what it knew before only the journal is left."""
        await self._process.aclose()
        self.registry = CollectorRegistry()
        self.journal = await self._process.enter_async_context(
            Journal(
                Path(self._folder.name),
                JournalMetrics(self.registry),
                lambda: self._clocks.wall,
                patience=60.0,
                retry_after=0.0,
            )
        )
        self.offers = Offers(lambda: self._clocks.monotonic)
        self.turns = Turns(self.dataplane)
        self.cleanup = Cleanup(
            self.turns,
            self.journal,
            self.offers,
            DOMAINS,
            settings=self._settings,
            metrics=CleanupMetrics(self.registry, [domain.name for domain in DOMAINS]),
            clock=lambda: self._clocks.wall,
            monotonic=lambda: self._clocks.monotonic,
        )

    async def close(self) -> None:
        """End."""
        await self._process.aclose()
        await self._gateway.aclose()
        self._folder.cleanup()

    def key(self, domain: Domain, number: int) -> PublicKey:
        """The key that a number stands for."""
        return key(number) if number >= 0 else self._own[domain.name]

    async def apply(self, steps: Sequence[tuple[Action, Domain, int]]) -> list[Outcome]:
        """Carry out changes."""
        return await self.turns.apply(
            [
                (Change.install if action is Action.INSTALL else Change.remove)(domain, self.key(domain, one))
                for action, domain, one in steps
            ]
        )

    async def ask(self, domain: Domain, number: int) -> Outcome:
        """Do as the installer does when a node asks for its key."""
        asked = key(number)
        self.offers.note(domain.name, asked.raw)
        self.turns.touch(link_local(asked.raw))
        (outcome,) = await self.turns.apply([Change.install(domain, asked)])
        if outcome is None:
            await self.journal.settle([(domain, asked)], [])
        return outcome

    async def look(self) -> tuple[dict[str, View], set[Identity], set[str]]:
        """What there is to see: of each domain, whose peers are ours, and which domains have interfaces."""
        snapshot = await self.turns.snapshot()
        present = {name for name, state in snapshot.domains.items() if state.ready}
        self._own = {name: PublicKey(snapshot.domains[name].public_key) for name in present}
        keys = {key(number).raw: number for number in range(KEYS)}
        addresses = {address_of(number): number for number in (*range(KEYS), *NOBODYS)}
        addresses |= {own.link_local.packed: OWN[name] for name, own in self._own.items()}
        views = {
            name: View(
                {keys[peer.public_key]: (addresses.get(peer.link_local), peer.handshake) for peer in state.peers},
                {addresses[address] for address in state.routes},
                {addresses[address]: protocol for address, protocol in state.foreign_routes.items()},
                {addresses[address] for address in state.fdb_entries},
            )
            for name, state in snapshot.domains.items()
        }
        return views, {(name, keys[raw]) for name, raw in judged_ours(snapshot)}, present

    async def remembered(self) -> set[Identity]:
        """Whose peers the journal knows."""
        known = await self.journal.peers(math.inf)
        assert known is not None
        keys = {key(number): number for number in range(KEYS)}
        return {(name, keys[one]) for name, found in known.items() for one in found}

    @property
    def counted(self) -> Counter[str]:
        """What the cleanup has counted since the start, in the words of the model."""
        found: Counter[str] = Counter()
        for name, value in samples(self.registry, "wgkex_worker_").items():
            metric, _, labels = name.partition("{")
            values = " ".join(part.split("=")[1].strip('"}') for part in labels.split(",") if part)
            match metric:
                case "wgkex_worker_peers_removed_total":
                    found[f"removed {values}"] = int(value)
                case "wgkex_worker_peers_adopted_total":
                    found[f"adopted {values}"] = int(value)
                case "wgkex_worker_cleanup_runs_total" | "wgkex_worker_cleanup_held_peers":
                    found[values or "held peers"] = int(value)
        return +found


def address_of(number: int) -> bytes:
    """The address that a number stands for, if it is nobody's own."""
    return key(number).link_local.packed if number < KEYS else IPv6Address(f"fe80::5:{number}").packed


def judged_ours(snapshot: Snapshot) -> set[tuple[str, bytes]]:
    """Whose peers are ours, old or young."""
    limits = Limits(math.inf, math.inf, frozenset())
    judgement = judge(snapshot, DOMAINS, limits=limits, asked=lambda _: 0.0, future={}, now=0.0)
    return {(name, one) for name, found in judgement.peers.items() for one in found}


# --- what happens

domains = st.sampled_from(DOMAINS)
numbers = st.integers(0, KEYS - 1)
addresses = st.sampled_from((*range(KEYS), *NOBODYS))
durations = st.sampled_from((1.0, 60.0, 179.0, 599.0, 600.0, 10_200.0, 10_800.0))


class DataplaneMachine(RuleBasedStateMachine):
    """Does the same to all dataplanes and to the model."""

    def dataplanes(self, clocks: Clocks) -> list[TouchableDataplane]:
        """Fresh ones, with the interfaces of all domains."""
        return [MemoryDataplane(DOMAINS, Nobody(), lambda: clocks.wall)]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clocks = Clocks()
        self.workers: list[Worker] = []

    @initialize(adopts=st.booleans(), nodes=st.lists(st.tuples(domains, numbers, st.booleans()), max_size=6))
    def start(self, adopts: bool, nodes: list[tuple[Domain, int, bool]]) -> None:
        self.model = Model(
            self.clocks, adopts, Kernel({domain.name for domain in DOMAINS}), Process(self.clocks.monotonic)
        )
        self.workers = [Worker(dataplane, self.clocks, adopts=adopts) for dataplane in self.dataplanes(self.clocks)]
        for worker in self.workers:
            self.runner.run(worker.open())
            self.runner.run(worker.look())
        for domain, number, connects in nodes:
            (self.ask_and_connect if connects else self.ask)(domain, number)

    def teardown(self) -> None:
        for worker in self.workers:
            self.runner.run(worker.close())
        self.runner.close()

    # What the worker does

    @rule(
        steps=st.lists(
            st.tuples(st.sampled_from([Action.INSTALL, Action.REMOVE]), domains, st.integers(-1, KEYS - 1)),
            min_size=1,
            max_size=4,
        )
    )
    def change(self, steps: list[tuple[Action, Domain, int]]) -> None:
        steps = [(action, domain, one if one >= 0 else OWN[domain.name]) for action, domain, one in steps]
        steps = [step for step in steps if step[2] >= 0 or step[1].name in self.model.kernel.present]
        expected = []
        for action, domain, one in steps:
            expected.append(action is Action.INSTALL and domain.name not in self.model.kernel.present)
            (self.model.kernel.install if action is Action.INSTALL else self.model.kernel.remove)(domain.name, one)
        for worker in self.workers:
            assert [missing(one) for one in self.runner.run(worker.apply(steps))] == expected

    @rule(domain=domains, number=numbers)
    def ask_and_connect(self, domain: Domain, number: int) -> None:
        self.ask(domain, number)
        if domain.name in self.model.kernel.present:
            self._shake_hands(domain, number, self.clocks.wall)

    @rule(domain=domains, number=numbers)
    def ask(self, domain: Domain, number: int) -> None:
        self.model.ask(domain.name, number)
        for worker in self.workers:
            outcome = self.runner.run(worker.ask(domain, number))
            assert missing(outcome) == (domain.name not in self.model.kernel.present)

    @rule(seconds=st.sampled_from((60.0, 600.0, 10_800.0)), alive=st.sets(numbers))
    def clean_later(self, seconds: float, alive: set[int]) -> None:
        self._live(seconds, alive)
        self.clean()

    @rule(
        connected=st.sets(numbers, min_size=1),
        jump=st.sampled_from((0.0, 0.0, -86_400.0, 86_400.0)),
        alive=st.sets(numbers, max_size=2),
    )
    def clean_twice(self, connected: set[int], jump: float, alive: set[int]) -> None:
        self._live(60.0, connected)
        self.set_clock(jump)
        self.clean()
        self._live(10_800.0, connected & alive)
        self.clean()

    def _live(self, seconds: float, alive: set[int]) -> None:
        self.wait(seconds)
        for name, number in self.model.kernel.nodes:
            if number in alive:
                self._shake_hands(by_name(name), number, self.clocks.wall)

    @rule()
    def clean(self) -> None:
        self.model.clean()
        for worker in self.workers:
            self.runner.run(worker.cleanup.clean())

    @rule()
    def restart(self) -> None:
        self.model.process = Process(self.clocks.monotonic)
        for worker in self.workers:
            self.runner.run(worker.restart())

    # What nodes do, and time

    @rule(data=st.data(), age=st.sampled_from((0, 179, 181, 10_799, 10_801, -59, -61, -20_000)))
    def shake_hands(self, data: st.DataObject, age: float) -> None:
        if not self.model.kernel.nodes:
            return
        name, number = data.draw(st.sampled_from(sorted(self.model.kernel.nodes)))
        self._shake_hands(by_name(name), number, self.clocks.wall - age)

    def _shake_hands(self, domain: Domain, number: int, when: float) -> None:
        self.model.kernel.nodes[domain.name, number].handshake = when
        for worker in self.workers:
            assert worker.dataplane.shake_hands(domain, key(number), when)

    @rule(seconds=durations)
    def wait(self, seconds: float) -> None:
        self.clocks.wall += seconds
        self.clocks.monotonic += seconds

    @rule(seconds=st.sampled_from((-86_400, -59, 59, 86_400)))
    def set_clock(self, seconds: float) -> None:
        self.clocks.wall += seconds

    # What others do

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        kernel = self.model.kernel
        there: set[tuple[str, int, Part]] = {(name, number, "peer") for name, number in kernel.nodes}
        there |= {(name, address, "route") for address, (name, _) in kernel.routes.items()}
        there |= {(name, address, "fdb") for name, address in kernel.entries}
        there = {thing for thing in there if 0 <= thing[1] < KEYS}
        if not there:
            return
        name, number, part = data.draw(st.sampled_from(sorted(there)))
        match part:
            case "peer":
                del kernel.nodes[name, number]
            case "route":
                del kernel.routes[number]
            case "fdb":
                kernel.entries.remove((name, number))
        for worker in self.workers:
            worker.dataplane.lose(by_name(name), key(number), part)

    @rule(
        domain=domains,
        number=numbers,
        allowed=st.none() | st.sets(addresses, max_size=2),
        address=st.none() | addresses,
        protocol=st.none() | st.sampled_from((OURS, STATIC, BABEL)),
        forwarded=st.booleans(),
    )
    def meddle(
        self,
        *,
        domain: Domain,
        number: int,
        allowed: set[int] | None,
        address: int | None,
        protocol: int | None,
        forwarded: bool,
    ) -> None:
        """Some of what makes a peer, with the address that derives from its key or with another one."""
        if domain.name not in self.model.kernel.present:
            return
        address = number if address is None else address
        if allowed is not None:
            self.model.kernel.allow(domain.name, number, allowed)
            for worker in self.workers:
                worker.dataplane.readdress(domain, key(number), *map(address_of, sorted(allowed)))
        if protocol is not None:
            self.model.kernel.routes[address] = (domain.name, protocol)
            for worker in self.workers:
                worker.dataplane.reroute(domain, address_of(address), protocol)
        if forwarded:
            self.model.kernel.entries.add((domain.name, address))
            for worker in self.workers:
                worker.dataplane.forward(domain, address_of(address))

    @rule(domain=domains, number=numbers)
    def install_as_the_older_wgkex(self, domain: Domain, number: int) -> None:
        self.meddle(domain=domain, number=number, allowed={number}, address=number, protocol=STATIC, forwarded=True)

    @rule(domain=domains, really=st.integers(0, 3))
    def renew_interfaces(self, domain: Domain, really: int) -> None:
        if really:
            # All that hangs on them goes with them, so not too often.
            return
        present = domain.name in self.model.kernel.present
        if present:
            self.model.kernel.delete_interfaces(domain.name)
        else:
            self.model.kernel.present.add(domain.name)
        for worker in self.workers:
            if present:
                worker.dataplane.remove_interfaces(domain)
            else:
                worker.dataplane.create_interfaces(domain)

    # What has to hold

    @invariant()
    def all_are_what_the_model_is(self) -> None:
        if not self.workers:
            return
        kernel = self.model.kernel
        expected = ({domain.name: kernel.view(domain.name) for domain in DOMAINS}, kernel.ours, kernel.present)
        counted = self.model.process.counted + Counter({"held peers": len(self.model.process.held)})
        for worker in self.workers:
            found = self.runner.run(worker.look())
            assert found == expected, f"{worker}: {found} where the model has {expected}"
            remembered = self.runner.run(worker.remembered())
            assert remembered == self.model.remembered.keys(), f"{worker}: the journal has {remembered}"
            assert worker.counted == counted, f"{worker}: {worker.counted} where the model has {counted}"


def by_name(name: str) -> Domain:
    (domain,) = (domain for domain in DOMAINS if domain.name == name)
    return domain


def missing(outcome: Outcome) -> bool:
    """Whether there was no interface; there is nothing else that goes wrong."""
    assert outcome is None or isinstance(outcome, InterfaceMissingError)
    return outcome is not None
