"""Who has not moved to where their key was asked for, and who has."""

from dataclasses import replace
from typing import Final

import pytest
from msgspec import structs

from tests.helpers import CITY, WELT, key
from wgkex_ops.consumer.moves import find_stayed
from wgkex_ops.dataplane import DomainState, Peer, Snapshot
from wgkex_ops.keys import link_local

NOW: Final = 1_800_000_000.0
RAW: Final = key(1).raw
ADDRESS: Final = link_local(RAW)

# Asked for in CITY 100 s ago, with a handshake in WELT a minute later.
STAYED: Final = DomainState(
    wg_present=True, wg_up=True, vx_present=True, vx_up=True, peers=(Peer(RAW, NOW - 40, 0, 0, ADDRESS),)
)
ROUTED: Final = replace(STAYED, peers=(Peer(RAW, 0.0, 0, 0, ADDRESS),), routes=frozenset({ADDRESS}))


def handshake(state: DomainState, when: float) -> DomainState:
    return replace(state, peers=(structs.replace(state.peers[0], handshake=when),))


def stayed(welt: DomainState, city: DomainState = ROUTED, *, asked: float = 100.0) -> bool:
    def age(domain: str, raw: bytes) -> float:
        assert (domain, raw) == (CITY.name, RAW)
        return asked

    snapshot = Snapshot(NOW, {WELT.name: welt, CITY.name: city})
    found = find_stayed(snapshot, (WELT, CITY), age)
    assert found <= {(WELT, RAW)}
    return bool(found)


def test_a_handshake_after_the_key_was_asked_for_elsewhere_proves_that_the_node_has_stayed() -> None:
    assert stayed(STAYED)


@pytest.mark.parametrize(
    ("age", "proof"), [(-1.0, False), (0.0, True), (89.0, True), (90.0, False), (200.0, False)], ids=str
)
def test_it_has_to_be_later_and_not_from_the_future(age: float, proof: bool) -> None:
    assert stayed(handshake(STAYED, NOW - age)) is proof


@pytest.mark.parametrize(("when", "proof"), [(NOW - 41, True), (NOW - 40, False), (NOW - 1, False)])
def test_a_later_handshake_where_the_route_is_proves_that_it_has_moved(when: float, proof: bool) -> None:
    assert stayed(STAYED, handshake(ROUTED, when)) is proof


@pytest.mark.parametrize(
    "welt",
    [
        handshake(STAYED, 0.0),
        replace(STAYED, vx_up=False),
        replace(STAYED, foreign_routes={ADDRESS: 4}),
        replace(STAYED, routes=frozenset({ADDRESS})),
        replace(STAYED, peers=(structs.replace(STAYED.peers[0], link_local=b""),)),
        replace(STAYED, peers=(structs.replace(STAYED.peers[0], public_key=key(2).raw),)),
    ],
    ids=["no handshake", "not ready", "route of others", "route of ours", "no address", "not its address"],
)
def test_others_are_left_alone(welt: DomainState) -> None:
    assert not stayed(welt)


def test_where_there_is_no_route_at_all_the_journal_decides() -> None:
    assert not stayed(STAYED, replace(ROUTED, routes=frozenset()))


def test_a_route_without_a_peer_is_no_proof_of_a_move() -> None:
    assert stayed(STAYED, replace(ROUTED, peers=()))
