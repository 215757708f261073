"""Halves: peers that lack a part, found by comparing WireGuard peers, routes and FDB entries of a snapshot."""

from collections.abc import Mapping
from dataclasses import dataclass

from wgkex_ops.model.peers import DomainState, Snapshot


@dataclass(frozen=True, slots=True)
class Drift:
    """Addresses (16 bytes) of a domain's peers that lack a part. A peer that lacks two of them is in two sets.

    Attributes:
        peer: a route of ours leads to it, but WireGuard has no peer with this address.
        route: a peer has the address that derives from its key, but nothing is routed to it.
        fdb: VXLAN does not send to it.
    """

    peer: frozenset[bytes]
    route: frozenset[bytes]
    fdb: frozenset[bytes]


def find_drift(snapshot: Snapshot) -> Mapping[str, Drift]:
    """Find the halves of all domains, by the domain's name.

    Peers of others are none: a static one has a route of its own, as has one of the older wgkex. Nor is a node that has
    moved to another domain, and has taken its route along.
    """
    # Wherever a route of others leads: to mend the peer would take it.
    routed = snapshot.routed | snapshot.routed_by_others
    return {name: _find_drift(state, routed) for name, state in snapshot.domains.items()}


def _find_drift(state: DomainState, routed: frozenset[bytes]) -> Drift:
    addresses = frozenset(peer.link_local for peer in state.peers)
    without_route = frozenset(
        peer.link_local for peer in state.peers if peer.link_local not in routed and peer.has_derived_address
    )
    return Drift(
        peer=state.routes - addresses,
        route=without_route,
        fdb=((state.routes & addresses) | without_route) - state.fdb_entries,
    )
