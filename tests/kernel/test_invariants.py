"""A kernel, through whatever can happen to a gateway; what other programs do to it, they do with their tools."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Address

import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec import structs

from tests.fakes import NullObserver
from tests.invariants import DOMAINS, GatewayMachine, Part, Reachable
from tests.kernel.lab import ALL_ZERO_MAC, Namespace
from tests.unit.consumer.upkeep.gateway import Clocks
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.model.changes import Action, Change, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.peers import Snapshot

# To look for a short example of what went wrong would take a guest without KVM very long.
PROFILE = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    # The tree is not writable in the guest.
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class PaintedKernel(KernelDataplane):
    """The kernel with handshakes and a clock that are not its own; what others do to it, they do with their tools.

    Args:
        here: the namespace of this process.
        clocks: what its snapshots are dated by.
    """

    def __init__(self, here: Namespace, clocks: Clocks) -> None:
        super().__init__(DOMAINS, NullObserver())
        self._here = here
        self._clocks = clocks
        self._handshakes: dict[tuple[str, bytes], float] = {}
        for domain in DOMAINS:
            self.create_interfaces(domain)

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        outcomes = await super().apply(changes)
        for change in changes:
            if change.action is Action.REMOVE:
                self._handshakes.pop((change.domain.name, change.key), None)
        return outcomes

    async def snapshot(self) -> Snapshot:
        snapshot = await super().snapshot()
        states = {
            name: replace(
                state,
                peers=tuple(
                    structs.replace(peer, handshake=self._handshakes.get((name, peer.public_key), 0.0))
                    for peer in state.peers
                ),
            )
            for name, state in snapshot.domains.items()
        }
        return Snapshot(self._clocks.wall, states)

    def shake_hands(self, domain: Domain, key: PublicKey, when: float | None = None) -> bool:
        self._handshakes[domain.name, key.raw] = self._clocks.wall if when is None else when
        return True

    def add_static(self, domain: Domain, key: PublicKey, *addresses: bytes, protocol: int = 4) -> None:
        addresses = addresses or (link_local(key.raw),)
        self._here.run("wg", "set", domain.wg, "peer", str(key), "allowed-ips", ",".join(map(prefix, addresses)))
        for address in addresses:
            self.reroute(domain, address, protocol)
            self.forward(domain, address)

    def reroute(self, domain: Domain, address: bytes, protocol: int) -> None:
        self._here.run(*f"ip -6 route replace {prefix(address)} dev {domain.wg} proto {protocol}".split())

    def forward(self, domain: Domain, address: bytes) -> None:
        self._entry("append", domain, IPv6Address(address))

    def lose(self, domain: Domain, key: PublicKey, *parts: Part) -> None:
        for part in parts:
            match part:
                case "peer":
                    self._here.run("wg", "set", domain.wg, "peer", str(key), "remove")
                    self._handshakes.pop((domain.name, key.raw), None)
                case "route":
                    self._here.run(*f"ip -6 route delete {key.link_local}/128 dev {domain.wg}".split())
                case "fdb":
                    self._entry("delete", domain, key.link_local)

    def remove_interfaces(self, domain: Domain) -> None:
        self._here.remove_links(domain.vx, domain.wg)
        self._handshakes = {
            (name, raw): handshake for (name, raw), handshake in self._handshakes.items() if name != domain.name
        }

    def create_interfaces(self, domain: Domain) -> None:
        self._here.add_domain(domain, DOMAINS.index(domain) + 1)

    def _entry(self, verb: str, domain: Domain, address: IPv6Address) -> None:
        self._here.run(*f"bridge fdb {verb} {ALL_ZERO_MAC} dev {domain.vx} dst {address} via {domain.wg}".split())


def prefix(address: bytes) -> str:
    return f"{IPv6Address(address)}/128"


class KernelMachine(GatewayMachine):
    here: Namespace

    def make_dataplane(self) -> Reachable:
        return PaintedKernel(self.here, self.clocks)

    def teardown(self) -> None:
        super().teardown()
        self.here.remove_links(*(name for domain in DOMAINS for name in (domain.vx, domain.wg)))


def test_what_must_hold_holds_whatever_happens(here: Namespace) -> None:
    KernelMachine.here = here
    with structlog.testing.capture_logs():
        run_state_machine_as_test(KernelMachine, settings=PROFILE)
