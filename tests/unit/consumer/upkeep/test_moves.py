"""Who has not moved to where their key was asked for, and who has."""

from dataclasses import replace
from typing import Final

import pytest

from tests.helpers import CITY, WELT, key
from wgkex_ops.consumer.upkeep.moves import Moves
from wgkex_ops.consumer.upkeep.requests import Offers
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import link_local
from wgkex_ops.model.peers import ACTIVE_SECONDS, DomainState, Peer, Snapshot

MINUTE: Final = 60.0
THIRD: Final = Domain("ffmuc_third", "wg-third", "vx-third")
DOMAINS: Final = (WELT, CITY, THIRD)
UP: Final = DomainState(wg_present=True, wg_up=True, vx_present=True, vx_up=True)
RAW: Final = key(1).raw
ADDRESS: Final = link_local(RAW)


class Story:
    """A key with peers in several domains, and one look a minute."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.offers = Offers(lambda: self.now)
        self.moves = Moves(self.offers)
        # By domain, what there is but peers and routes, and the peers' handshakes; and where the route leads.
        self.interfaces = dict.fromkeys(DOMAINS, UP)
        self.handshakes: dict[Domain, float] = {}
        self.route: Domain | None = None

    def ask(self, domain: Domain) -> None:
        """The key is asked for, and installed."""
        self.now += 1
        self.offers.note(domain.name, RAW)
        self.handshakes.setdefault(domain, 0.0)
        self.route = domain

    def shake(self, *domains: Domain, clock: float = 0.0) -> None:
        """A handshake, by a clock that may be wrong by so many seconds."""
        self.now += 1
        for domain in domains:
            self.handshakes[domain] = 1e9 + self.now + clock

    def look(self) -> list[str]:
        """The names of the domains whose peers should have the route."""
        self.now += MINUTE
        states = {domain.name: state for domain, state in self.interfaces.items()}
        for domain, handshake in self.handshakes.items():
            peers = (Peer(key(2).raw, 0.0, 0, 0, key(2).link_local.packed), Peer(RAW, handshake, 0, 0, ADDRESS))
            states[domain.name] = replace(states[domain.name], peers=peers)
        if self.route is not None:
            states[self.route.name] = replace(states[self.route.name], routes=frozenset({ADDRESS}))
        found = self.moves.stayed(Snapshot(0.0, states), DOMAINS, self.offers.since_start)
        assert all((one.peer.public_key, one.elsewhere) == (RAW, self.route and self.route.name) for one in found)
        return [one.domain.name for one in found]


@pytest.fixture
def story() -> Story:
    """A node of WELT; its key was asked for in CITY, too, and that was seen."""
    story = Story()
    story.ask(WELT)
    story.shake(WELT)
    story.ask(CITY)
    assert story.look() == []
    return story


@pytest.mark.parametrize("clock", [0.0, 3600.0, -3600.0, -1e9])
def test_who_has_a_handshake_where_it_was_has_stayed_whatever_the_clock_says(story: Story, clock: float) -> None:
    assert story.look() == []
    story.shake(WELT, clock=clock)
    assert story.look() == [WELT.name]


def test_who_has_none_any_more_may_have_moved(story: Story) -> None:
    for _ in range(10):
        assert story.look() == []


def test_who_has_one_where_the_route_leads_has_moved(story: Story) -> None:
    for _ in range(10):
        story.shake(CITY)
        assert story.look() == []


def test_a_handshake_before_the_question_proves_nothing(story: Story) -> None:
    story.shake(WELT)
    story.ask(CITY)
    assert story.look() == []
    assert story.look() == []


def test_a_handshake_of_which_nobody_knows_whether_it_was_before_the_question_proves_nothing() -> None:
    story = Story()
    story.ask(WELT)
    assert story.look() == []
    story.ask(CITY)
    story.shake(WELT)
    assert story.look() == []
    story.shake(WELT)
    assert story.look() == [WELT.name]


def test_what_was_asked_for_before_the_start_was_before(story: Story) -> None:
    again = Story()
    again.handshakes, again.route, again.now = story.handshakes, story.route, story.now
    assert again.look() == []
    again.shake(WELT)
    assert again.look() == [WELT.name]


def test_two_devices_with_one_key_do_not_get_the_route_by_turns(story: Story) -> None:
    story.shake(WELT, CITY)
    for number in range(20):
        assert story.look() == []
        story.shake((WELT, CITY)[number % 2])
        assert story.look() == []
        story.shake(WELT, CITY)
        assert story.look() == []


def test_when_one_of_them_is_gone_the_other_one_gets_it(story: Story) -> None:
    story.shake(WELT, CITY)
    silent_since = story.now
    assert story.look() == []
    while not story.look():
        story.shake(WELT)
    assert silent_since + ACTIVE_SECONDS <= story.now <= silent_since + ACTIVE_SECONDS + 3 * MINUTE


def test_of_three_peers_the_living_one_gets_it(story: Story) -> None:
    story.ask(THIRD)
    assert story.look() == []
    story.shake(THIRD, CITY)
    assert story.look() == []
    for _ in range(3):
        assert story.look() == []
    story.shake(WELT, CITY)
    assert story.look() == []
    for _ in range(3):
        assert story.look() == []
    story.shake(CITY)
    assert story.look() == [CITY.name]


def test_a_peer_that_comes_with_a_handshake_proves_nothing(story: Story) -> None:
    """Somebody else has put it there."""
    story.shake(THIRD)
    assert story.look() == []


def test_a_peer_that_was_made_anew_proves_nothing(story: Story) -> None:
    story.handshakes[WELT] = 0.0
    assert story.look() == []


@pytest.mark.parametrize(
    "state", [replace(UP, vx_up=False), replace(UP, foreign_routes={ADDRESS: 4})], ids=["not ready", "route of others"]
)
def test_others_are_left_alone(story: Story, state: DomainState) -> None:
    story.interfaces[WELT] = state
    for _ in range(3):
        story.shake(WELT)
        assert story.look() == []


def test_where_there_is_no_route_the_journal_decides(story: Story) -> None:
    story.route = None
    for _ in range(3):
        story.shake(WELT)
        assert story.look() == []
