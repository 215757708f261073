"""What a gateway has of its peers at one moment, and what that means: a peer's state, and what it lacks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import link_local

# Routes that we add carry this protocol number, which no other program has in /etc/iproute2/rt_protos: a peer is ours
# exactly when its own /128 route carries it, after any restart.
ROUTE_PROTOCOL: Final = 158
# What `ip route` says of routes that an operator has added by hand, or as the older wgkex did (linux/rtnetlink.h).
ROUTE_PROTOCOL_STATIC: Final = 4

# WireGuard throws a session away after this many seconds (REJECT_AFTER_TIME in section 6.1 of its white paper,
# https://www.wireguard.com/papers/wireguard.pdf): a peer with a younger handshake has a live session.
ACTIVE_SECONDS: Final = 180

# A peer's states, by the age of its handshake; see `peer_state`.
STATES: Final = ("active", "idle", "stale", "never")

# Why a peer is removed: its last handshake is too old, it never had one, a key list refuses it, or its gateway drains.
STALE: Final = "stale"
NEVER_CONNECTED: Final = "never_connected"
DENIED: Final = "denied"
NOT_ALLOWED: Final = "not_allowed"
RELEASED: Final = "released"
REMOVAL_REASONS: Final = (STALE, NEVER_CONNECTED, DENIED, NOT_ALLOWED, RELEASED)

# The parts of a peer, in the order in which they are installed.
PARTS: Final = ("peer", "route", "fdb")


class Peer(msgspec.Struct, frozen=True, gc=False):
    """One WireGuard peer as the dataplane sees it.

    There are thousands in a snapshot. A struct of this kind is made in a quarter of the time of a named tuple, and is
    nothing that the garbage collector goes through while the event loop stands still; it refers to no other objects.

    Attributes:
        public_key: 32 bytes.
        handshake: seconds since the epoch of the last handshake; 0.0 if there was none yet.
        receive_bytes: received from the peer.
        transmit_bytes: sent to the peer.
        link_local: the one address (16 bytes) that is routed to the peer; empty if it has other allowed IPs than
            exactly one IPv6 /128.
        endpoint: family of its address outside of the tunnel, ``IPv4`` or ``IPv6``; empty as long as it has none.
    """

    public_key: bytes
    handshake: float
    receive_bytes: int
    transmit_bytes: int
    link_local: bytes
    endpoint: str = ""

    @property
    def has_derived_address(self) -> bool:
        """Whether its only allowed IP is what its key derives (`keys.link_local`): without that, it cannot be ours."""
        return self.link_local == link_local(self.public_key)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What an interface has carried since it was created, in bytes."""

    receive_bytes: int = 0
    transmit_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DomainState:
    """One domain's interfaces and what they carry, at one moment.

    Attributes:
        wg_present, wg_up: whether the WireGuard interface exists, and is up.
        vx_present, vx_up: the same for the VXLAN interface.
        wg_traffic, vx_traffic: what each of the two has carried; None without an interface.
        public_key: the WireGuard interface's own key (32 bytes); empty without an interface or without a private key.
        listen_port: its UDP port; 0 without an interface.
        link_address: its own link-local address as text without a prefix length; empty if it has none.
        peers: all peers, ours and others.
        shared_addresses: addresses (16 bytes) of peers that have more than one allowed IP, and so are not ours.
        unaddressed: keys (32 bytes) of peers that have no allowed IP at all.
        routes: destinations (16 bytes) of /128 routes over the interface that carry our protocol number.
        foreign_routes: the same of routes that carry another number, and which; only read if some peer has no route of
            ours.
        fdb_entries: destinations (16 bytes) of all-zero FDB entries of the VXLAN interface via the WireGuard interface.
    """

    wg_present: bool = False
    wg_up: bool = False
    vx_present: bool = False
    vx_up: bool = False
    wg_traffic: Traffic | None = None
    vx_traffic: Traffic | None = None
    public_key: bytes = b""
    listen_port: int = 0
    link_address: str = ""
    peers: tuple[Peer, ...] = ()
    shared_addresses: frozenset[bytes] = frozenset()
    unaddressed: frozenset[bytes] = frozenset()
    routes: frozenset[bytes] = frozenset()
    foreign_routes: Mapping[bytes, int] = field(default_factory=dict)
    fdb_entries: frozenset[bytes] = frozenset()

    @property
    def ready(self) -> bool:
        """Whether peers can be installed and can exchange packets."""
        return self.wg_up and self.vx_up


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything about all domains, read in one go.

    Attributes:
        taken_at: seconds since the epoch, by the clock that the handshakes are noted in.
        domains: the state by the domain's name; every configured domain is there.
        routed_elsewhere: destinations (16 bytes) of routes that carry our protocol number, over interfaces of no
            configured domain: another worker's, or those of a domain that was taken out of the configuration.
    """

    taken_at: float
    domains: Mapping[str, DomainState] = field(default_factory=dict)
    routed_elsewhere: frozenset[bytes] = frozenset()

    @property
    def routed(self) -> frozenset[bytes]:
        """What routes with our protocol number lead to; put together anew each time."""
        return self.routed_elsewhere.union(*(state.routes for state in self.domains.values()))

    @property
    def routed_by_others(self) -> frozenset[bytes]:
        """The same of other programs' routes, as far as they were read."""
        return frozenset[bytes]().union(*(state.foreign_routes for state in self.domains.values()))


def interface_problems(domain: Domain, state: DomainState) -> list[str]:
    """What keeps a domain's nodes from this gateway, a sentence each."""
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


def handshake_age(peer: Peer, now: float) -> float | None:
    """Seconds since a peer's last handshake; None if there was none. A clock set back makes no negative age."""
    return max(0.0, now - peer.handshake) if peer.handshake else None


def peer_state(age: float | None, stale_after: float) -> str:
    """The state, one of STATES, that a handshake's age means.

    Args:
        age: seconds; None if there was no handshake.
        stale_after: the age at which the cleanup removes a peer.
    """
    if age is None:
        return "never"
    if age < ACTIVE_SECONDS:
        return "active"
    return "idle" if age < stale_after else "stale"


def is_active(peer: Peer, now: float) -> bool:
    """Whether a peer has a live session. A handshake that lies in the future, since the clock was set back, is one."""
    return peer.handshake > now - ACTIVE_SECONDS


def count_active(peers: Iterable[Peer], now: float) -> int:
    """How many peers have a live session."""
    return sum(is_active(peer, now) for peer in peers)


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Addresses (16 bytes) of a domain's incomplete peers. A peer that lacks two parts is in two sets.

    Attributes:
        peer: a route of ours leads to it, but WireGuard has no peer with this address.
        route: a peer has the address that derives from its key, but nothing is routed to it.
        fdb: VXLAN does not send to it.
    """

    peer: frozenset[bytes]
    route: frozenset[bytes]
    fdb: frozenset[bytes]


def find_incomplete(snapshot: Snapshot) -> Mapping[str, Incomplete]:
    """Find the incomplete peers of all domains, by the domain's name.

    Peers of others are none: a static one has a route of its own, as has one of the older wgkex. Nor is the peer that a
    node has left behind in another domain: the route to it leads elsewhere.
    """
    # Wherever a route of others leads: to repair the peer would take it.
    routed = snapshot.routed | snapshot.routed_by_others
    return {name: _find_incomplete(state, routed) for name, state in snapshot.domains.items()}


def _find_incomplete(state: DomainState, routed: frozenset[bytes]) -> Incomplete:
    addresses = frozenset(peer.link_local for peer in state.peers)
    without_route = frozenset(
        peer.link_local for peer in state.peers if peer.link_local not in routed and peer.has_derived_address
    )
    return Incomplete(
        peer=state.routes - addresses - state.shared_addresses,
        route=without_route,
        fdb=((state.routes & addresses) | without_route) - state.fdb_entries,
    )
