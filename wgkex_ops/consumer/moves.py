"""Where a node is whose key has peers in two domains: the one route to it leads to where the key was last asked for."""

from collections.abc import Callable, Sequence
from typing import Final

from wgkex_ops.dataplane import Snapshot
from wgkex_ops.domains import Domain

# Seconds by which a handshake has to be later: clocks are set a little now and then.
_SLACK: Final = 10.0


def find_stayed(
    snapshot: Snapshot, domains: Sequence[Domain], asked: Callable[[str, bytes], float]
) -> set[tuple[Domain, bytes]]:
    """Tell who has not moved to where their key was asked for.

    Nobody has to prove that a key is theirs: by mistake or on purpose it is asked for in another domain, and that takes
    the route from a node that never left. But a handshake proves where a node is. So the route belongs to the peer that
    had one after the key was asked for where the route leads now, if the peer there had none later.

    Args:
        snapshot: what is there.
        domains: the configured domains.
        asked: for how many seconds a key (32 bytes) has not been asked for in a domain, by its name.

    Returns:
        the domain and the key (32 bytes) of each peer that should have the route.
    """
    found = []
    for domain in domains:
        state = snapshot.domains[domain.name]
        for peer in state.peers if state.ready else ():
            if peer.link_local in state.routes or peer.link_local in state.foreign_routes or not peer.handshake:
                continue
            elsewhere = next((name for name, other in snapshot.domains.items() if peer.link_local in other.routes), "")
            if not elsewhere or not peer.has_derived_address:
                continue
            # One from the future tells nothing.
            if 0 <= snapshot.taken_at - peer.handshake < asked(elsewhere, peer.public_key) - _SLACK:
                found.append((domain, peer, elsewhere))
    keys = {peer.public_key for _, peer, _ in found}
    handshakes = {
        (name, twin.public_key): twin.handshake
        for name in {elsewhere for *_, elsewhere in found}
        for twin in snapshot.domains[name].peers
        if twin.public_key in keys
    }
    return {
        (domain, peer.public_key)
        for domain, peer, elsewhere in found
        if peer.handshake > handshakes.get((elsewhere, peer.public_key), 0.0)
    }
