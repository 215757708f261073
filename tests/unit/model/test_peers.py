"""Which peers lack what, and which only seem to."""

from dataclasses import replace
from typing import Final

from msgspec import structs

from tests.helpers import CITY, WELT, key
from wgkex_ops.model.keys import link_local
from wgkex_ops.model.peers import DomainState, Incomplete, Peer, Snapshot, find_incomplete

NONE: Final = frozenset[bytes]()


NOTHING: Final = Incomplete(NONE, NONE, NONE)


def addresses(*numbers: int) -> frozenset[bytes]:
    return frozenset(link_local(key(number).raw) for number in numbers)


def peers(*numbers: int) -> tuple[Peer, ...]:
    return tuple(Peer(key(number).raw, 0.0, 0, 0, link_local(key(number).raw)) for number in numbers)


def whole(*numbers: int) -> DomainState:
    return DomainState(peers=peers(*numbers), routes=addresses(*numbers), fdb_entries=addresses(*numbers))


def drift(welt: DomainState, city: DomainState | None = None, elsewhere: frozenset[bytes] = NONE) -> Incomplete:
    return find_incomplete(Snapshot(0.0, {WELT.name: welt, CITY.name: city or DomainState()}, elsewhere))[WELT.name]


def test_whole_peers_and_none_are_no_drift() -> None:
    assert drift(whole(1, 2, 3)) == drift(DomainState()) == NOTHING


def test_route_without_a_peer() -> None:
    assert drift(replace(whole(1, 2), peers=peers(1))) == Incomplete(peer=addresses(2), route=NONE, fdb=NONE)


def test_route_to_a_peer_with_another_address_lacks_its_peer() -> None:
    state = replace(whole(1), peers=(structs.replace(peers(1)[0], link_local=b""),))
    assert drift(state) == Incomplete(peer=addresses(1), route=NONE, fdb=NONE)


def test_peer_without_an_fdb_entry() -> None:
    assert drift(replace(whole(1, 2), fdb_entries=addresses(2))) == Incomplete(NONE, NONE, fdb=addresses(1))


def test_peer_whose_route_leads_over_an_interface_of_no_domain() -> None:
    assert drift(replace(whole(1, 2), routes=addresses(2)), elsewhere=addresses(1)) == NOTHING


def test_peer_that_nothing_is_routed_to() -> None:
    assert drift(replace(whole(1, 2), routes=addresses(2))) == Incomplete(NONE, route=addresses(1), fdb=NONE)


def test_peer_that_lacks_both_is_told_twice() -> None:
    state = DomainState(peers=peers(1))
    assert drift(state) == Incomplete(NONE, route=addresses(1), fdb=addresses(1))


def test_peer_that_somebody_else_has_routed_is_not_ours() -> None:
    assert drift(DomainState(peers=peers(1), foreign_routes=dict.fromkeys(addresses(1), 4))) == Incomplete(
        NONE, NONE, NONE
    )


def test_static_peer_with_an_address_of_its_own_is_not_ours() -> None:
    static = structs.replace(peers(1)[0], link_local=bytes(16))
    assert drift(DomainState(peers=(static, structs.replace(static, link_local=b"")))) == NOTHING


def test_node_that_has_moved_to_another_domain_has_taken_its_route_along() -> None:
    left_behind = DomainState(peers=peers(1), fdb_entries=addresses(1))
    assert drift(left_behind, whole(1)) == NOTHING


def test_peer_whose_route_is_somebody_elses_in_another_domain_is_not_mended() -> None:
    left_behind = DomainState(peers=peers(1), fdb_entries=addresses(1))
    assert drift(left_behind, DomainState(foreign_routes=dict.fromkeys(addresses(1), 4))) == Incomplete(
        NONE, NONE, NONE
    )
