"""Where a node is whose key has peers in several domains: the one route to it leads to where it was asked for last."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from wgkex_ops.consumer.upkeep.removal import Identity, Sighting
from wgkex_ops.consumer.upkeep.requests import Offers
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import ACTIVE_SECONDS, Peer, Snapshot


class Stayed(NamedTuple):
    """A peer that should have the route to its address (16 bytes), and the domain, by its name, that has it."""

    domain: Domain
    peer: Peer
    elsewhere: str


class Moves:
    """Finds out who has not moved to where their key was asked for.

    Nobody has to prove that a key is theirs: by mistake or on purpose it is asked for in another domain, and that takes
    the route from a node that never left. But a handshake proves where a node is. So the route belongs to a peer that
    has had one since the key was asked for where the route leads now, if the key's other peers have had none for some
    minutes: two devices with one key would have it by turns otherwise.

    What the handshakes' times say does not matter, only that they change: the clock that tells them can be set.

    Args:
        offers: when each key was last asked for.
    """

    def __init__(self, offers: Offers) -> None:
        self._offers = offers
        # When the last snapshot was begun. What it said of the keys with several peers, and since when that is so.
        self._last = 0.0
        self._seen: dict[Identity, Sighting] = {}

    def stayed(self, snapshot: Snapshot, domains: Sequence[Domain], begun: float) -> list[Stayed]:
        """Tell whose route leads elsewhere than to where their node has been since the last time that this was asked.

        Args:
            snapshot: what is there.
            domains: the configured domains.
            begun: when it was begun to be taken, by `Offers.since_start`.
        """
        homeless = _homeless(snapshot, domains)
        keys = {one.peer.public_key for one in homeless}
        peers = {
            Identity(name, peer.public_key): peer
            for name, state in snapshot.domains.items()
            for peer in (state.peers if keys else ())
            if peer.public_key in keys
        }
        last, self._last = self._last, begun
        changed = self._take_note(peers, begun)
        alive = Counter(
            identity.key
            for identity, sighting in self._seen.items()
            if sighting.handshake and begun - sighting.since < ACTIVE_SECONDS
        )
        return [
            one
            for one in homeless
            if Identity(one.domain.name, one.peer.public_key) in changed
            # Itself.
            and alive[one.peer.public_key] == 1
            and self._asked_at(one.elsewhere, one.peer.public_key) < last
        ]

    def _take_note(self, peers: Mapping[Identity, Peer], begun: float) -> set[Identity]:
        """Remember the handshakes until the next time; who had a new one since the last."""
        earlier, self._seen = self._seen, {}
        changed: set[Identity] = set()
        for identity, peer in peers.items():
            known = earlier.get(identity)
            # A peer that was made anew has none, and that is no news of its node.
            if known is not None and peer.handshake in (0.0, known.handshake):
                self._seen[identity] = known
                continue
            self._seen[identity] = Sighting(peer.handshake, begun)
            if known is not None:
                changed.add(identity)
        return changed

    def _asked_at(self, domain: str, raw: bytes) -> float:
        age = self._offers.age(domain, raw)
        return 0.0 if age is None else self._offers.since_start - age


def _homeless(snapshot: Snapshot, domains: Sequence[Domain]) -> list[Stayed]:
    """Peers whose route leads over another domain's interface."""
    return [
        Stayed(domain, peer, elsewhere)
        for domain in domains
        if (state := snapshot.domains[domain.name]).ready
        for peer in state.peers
        if peer.link_local not in state.routes and peer.link_local not in state.foreign_routes
        for elsewhere, other in snapshot.domains.items()
        if peer.link_local in other.routes and peer.has_derived_address
    ]
