"""Who has to go: found in a snapshot, by the handshakes that it tells and by what else is known of the keys."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from wgkex_ops.metrics.cleanup import NEVER_CONNECTED, STALE
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import ACTIVE_SECONDS, ROUTE_PROTOCOL_STATIC, Snapshot

# Clocks that are set a little back are no reason to doubt them.
_FUTURE_SECONDS: Final = 60.0


class Identity(NamedTuple):
    """A key (32 bytes) in a domain, by its name."""

    domain: str
    key: bytes


class Departure(NamedTuple):
    """A peer that has to go, why (STALE or NEVER_CONNECTED), and its last handshake; 0.0 if there was none."""

    domain: Domain
    key: PublicKey
    reason: str
    handshake: float

    @property
    def identity(self) -> Identity:
        """The key in its domain."""
        return Identity(self.domain.name, self.key.raw)


@dataclass(frozen=True, slots=True)
class Limits:
    """Ages in seconds, and whom they do not touch.

    Attributes:
        stale_after: of the last handshake.
        never_after: of the last time that the key was asked for.
        protected: keys (32 bytes).
    """

    stale_after: float
    never_after: float
    protected: frozenset[bytes]


class Sighting(NamedTuple):
    """A handshake whose age may not be what it seems, and a moment by a clock that is never set.

    Of one that lies in the future (`judge`), or makes somebody look old who need not be (`Cleanup`), it is when it was
    first seen so; of one that is neither, when it was.
    """

    handshake: float
    since: float


def known_sighting(known: Mapping[Identity, Sighting], identity: Identity, handshake: float) -> Sighting | None:
    """Find the earlier sighting of this very handshake: with another one, everything begins anew."""
    sighting = known.get(identity)
    return sighting if sighting is not None and sighting.handshake == handshake else None


@dataclass(slots=True)
class Judgement:
    """What a snapshot says of our peers.

    Attributes:
        departures: who has to go.
        active: who has a live session.
        idle: who had one, and has none.
        connected: how many ever had a handshake.
        future: whose handshake lies in the future.
        peers: all keys (32 bytes), by domain.
    """

    departures: list[Departure] = field(default_factory=list)
    active: set[Identity] = field(default_factory=set)
    idle: dict[Identity, Sighting] = field(default_factory=dict)
    connected: int = 0
    future: dict[Identity, Sighting] = field(default_factory=dict)
    peers: dict[str, frozenset[bytes]] = field(default_factory=dict)


def judge(
    snapshot: Snapshot,
    domains: Sequence[Domain],
    *,
    limits: Limits,
    asked: Callable[[Identity], float],
    future: Mapping[Identity, Sighting],
    now: float,
) -> Judgement:
    """Tell who has to go.

    A peer is ours exactly when its only allowed IP derives from its key, and a route of ours leads there. It may lead
    over another domain's interface, unless somebody else's leads over the peer's own: a node that moves takes its route
    along, and leaves its peer behind. Until that has gone, the one with the route stays: without the route nobody could
    tell any longer whose the other one is.

    Args:
        snapshot: what is there.
        domains: the configured domains.
        limits: how old is too old.
        asked: for how many seconds a key has not been asked for.
        future: the handshakes in the future that were known before.
        now: seconds by a clock that is never set.
    """
    found = Judgement()
    routed = snapshot.routed
    ours = {
        domain.name: [
            peer
            for peer in snapshot.domains[domain.name].peers
            if peer.link_local in routed
            and peer.link_local not in snapshot.domains[domain.name].foreign_routes
            and peer.has_derived_address
        ]
        for domain in domains
    }
    found.peers = {name: frozenset(peer.public_key for peer in peers) for name, peers in ours.items()}
    for domain in domains:
        routes = snapshot.domains[domain.name].routes
        others = [peers for name, peers in found.peers.items() if name != domain.name]
        for peer in ours[domain.name]:
            identity = Identity(domain.name, peer.public_key)
            if peer.handshake:
                found.connected += 1
                age = snapshot.taken_at - peer.handshake
                if age < -_FUTURE_SECONDS:
                    # The clock was set back since. How old it is cannot be told, only for how long it has been known.
                    sighting = known_sighting(future, identity, peer.handshake) or Sighting(peer.handshake, now)
                    found.future[identity] = sighting
                    age = now - sighting.since
                if age < ACTIVE_SECONDS:
                    found.active.add(identity)
                else:
                    found.idle[identity] = Sighting(peer.handshake, now - age)
                reason = STALE if age >= limits.stale_after else ""
            else:
                reason = NEVER_CONNECTED
            if (
                reason
                and asked(identity) >= limits.never_after
                and peer.public_key not in limits.protected
                # Its node has moved here, and has left that other one behind.
                and not (peer.link_local in routes and any(peer.public_key in keys for keys in others))
            ):
                found.departures.append(Departure(domain, PublicKey(peer.public_key), reason, peer.handshake))
    return found


def find_adoptable(
    snapshot: Snapshot, domains: Sequence[Domain], protected: frozenset[bytes]
) -> list[tuple[Domain, PublicKey]]:
    """Tell which peers the older wgkex has left behind.

    Their only allowed IP is the address that derives from their key, and leads to them by a static route: that is how
    it installed them. Others' peers look the same only if somebody made them so by hand.
    """
    routed = snapshot.routed
    return [
        (domain, PublicKey(peer.public_key))
        for domain in domains
        for peer in snapshot.domains[domain.name].peers
        if snapshot.domains[domain.name].foreign_routes.get(peer.link_local) == ROUTE_PROTOCOL_STATIC
        and peer.link_local not in routed
        and peer.public_key not in protected
        and peer.has_derived_address
    ]
