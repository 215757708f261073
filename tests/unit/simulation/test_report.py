"""How the attempts of many nodes are counted."""

from collections import Counter

import pytest

from tests.helpers import WELT
from wgkex_ops.simulation.nodes import Attempt, Node
from wgkex_ops.simulation.post import Response
from wgkex_ops.simulation.report import Report


async def nobody(api_version: int, domain: str, key: object, client: str) -> Response:
    raise ConnectionRefusedError


def report(*attempts: Attempt) -> Report:
    found = Report()
    node = Node(nobody, WELT.name, found.note)
    for attempt in attempts:
        found.note(node, attempt)
    return found


def test_each_attempt_is_counted_once() -> None:
    found = report(
        Attempt(2, status=200, seconds=0.1, gateway="gw01"),
        Attempt(2, status=200, seconds=0.2, gateway="gw02"),
        Attempt(2, status=200, seconds=0.2, gateway="gw01"),
        # One that gets its key on the second try, by version 1.
        Attempt(2, status=503, seconds=3, reason="no_worker"),
        Attempt(1, reason="timeout"),
        Attempt(2, retry=True, status=503, seconds=4, reason="no_worker"),
        Attempt(1, retry=True, status=200, seconds=5),
    )
    assert found == Report(
        requests=Counter({1: 2, 2: 5}),
        accepted=Counter({1: 1, 2: 3}),
        refused=Counter(no_worker=2),
        no_response=Counter(timeout=1),
        retries=1,
        gateways=Counter(gw01=2, gw02=1),
        response_times=[0.1, 0.2, 0.2, 3, 4, 5],
    )


@pytest.mark.parametrize(
    ("count", "median", "p99", "slowest"),
    [(1, 1, 1, 1), (2, 1, 2, 2), (5, 3, 5, 5), (100, 50, 99, 100), (1000, 500, 990, 1000)],
)
def test_a_share_of_the_responses_took_no_longer(count: int, median: float, p99: float, slowest: float) -> None:
    found = report(*(Attempt(2, status=200, seconds=number) for number in range(count, 0, -1)))
    assert [found.response_time(share) for share in (0.5, 0.99, 1.0)] == [median, p99, slowest]


def test_without_a_response_there_is_no_response_time() -> None:
    assert report(Attempt(2, reason="timeout")).response_time(1.0) is None
