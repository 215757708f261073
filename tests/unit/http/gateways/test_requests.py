"""The latest request of each key, for operators."""

from tests.helpers import CITY, DOMAINS, WELT, key
from wgkex_ops.bus.messages import Origin
from wgkex_ops.http.gateways.confirmations import UnconfirmedKey
from wgkex_ops.http.gateways.requests import LIMIT, REFUSED_LIMIT, REMEMBERED_FOR, RecentRequest, RecentRequests
from wgkex_ops.model.domains import Domain


class Requests:
    """Requests by a clock that stands still unless a test sets it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.kept = RecentRequests(DOMAINS, lambda: self.now)

    def take(
        self, number: int, domain: Domain = WELT, request_id: str = "first", api_version: int = 2
    ) -> tuple[UnconfirmedKey, RecentRequest]:
        taken = UnconfirmedKey(domain, key(number), Origin(request_id, api_version=api_version), b"", 0.0)
        return taken, self.kept.take(taken)

    def refuse(self, number: int, reason: str, domain: str = WELT.name) -> None:
        self.kept.refuse(key(number).raw, domain, 1, "refused", reason)

    def of(self, number: int) -> list[RecentRequest]:
        return self.kept.of(key(number).raw)


def test_a_request_is_kept_for_five_minutes_with_what_comes_later() -> None:
    requests = Requests()
    assert requests.of(1) == []
    taken, request = requests.take(1)
    taken.add_receipt("gw01", "ENODEV")
    request.named = "gw02"
    assert requests.of(1) == [RecentRequest(WELT.name, 1_000_000.0, 2, "first", {"gw01": "ENODEV"}, "gw02")]
    request.failure = "no_worker"
    assert [one.failure for one in requests.of(1)] == ["no_worker"]
    requests.now += REMEMBERED_FOR
    assert len(requests.of(1)) == 1
    requests.now += 1
    assert requests.of(1) == []


def test_what_is_known_of_an_earlier_request_is_not_said_of_a_later_one() -> None:
    requests = Requests()
    _, request = requests.take(1)
    request.named = "gw01"
    requests.take(1, request_id="second")
    assert [(one.request_id, one.named) for one in requests.of(1)] == [("second", "")]
    # The firmware asks by version 1 at once when version 2 fails: both are worth knowing.
    requests.take(1, request_id="third", api_version=1)
    assert [(one.api_version, one.request_id) for one in requests.of(1)] == [(1, "third"), (2, "second")]


def test_a_key_has_one_request_in_each_domain_and_one_that_was_refused() -> None:
    requests = Requests()
    requests.take(1)
    requests.take(1, CITY)
    requests.refuse(1, "denied_key")
    requests.refuse(1, "unknown_domain", "")
    requests.refuse(2, "rate_limited")
    assert {(one.domain, one.failure) for one in requests.of(1)} == {
        (WELT.name, ""),
        (CITY.name, ""),
        ("", "unknown_domain"),
    }
    assert [(one.failure, one.api_version, one.request_id) for one in requests.of(2)] == [
        ("rate_limited", 1, "refused")
    ]
    assert requests.kept.keys() == {key(1).raw, key(2).raw}


def test_memory_is_bounded_and_refused_requests_displace_none_that_were_taken() -> None:
    requests = Requests()
    requests.take(0)
    for number in range(1, REFUSED_LIMIT + 2):
        requests.refuse(number, "denied_key")
    assert len(requests.kept.keys()) == REFUSED_LIMIT + 1
    assert requests.of(1) == []
    assert len(requests.of(0)) == 1
    for number in range(1, LIMIT + 1):
        requests.take(number)
    assert requests.of(0) == []
    # The memory of a quiet night is given back.
    requests.now += REMEMBERED_FOR + 1
    requests.take(0)
    requests.refuse(1, "denied_key")
    assert requests.kept.keys() == {key(0).raw, key(1).raw}
