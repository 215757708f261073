"""Which keys are refused, protected and named."""

from math import inf

import pytest

from tests.helpers import CITY, WELT, key
from wgkex_ops.model.key_lists import KeyLists, ListedKey

NOW = 1_800_000_000.0
LISTS = KeyLists(
    denied={key(1).raw: ListedKey("stolen"), key(2).raw: ListedKey(expires=NOW)},
    allowed={WELT.name: {key(3).raw: ListedKey("ours"), key(4).raw: ListedKey(expires=NOW + 1)}},
    protected={key(5).raw: ListedKey("backup", expires=NOW + 1)},
)


@pytest.mark.parametrize(
    ("domain", "number", "now", "reason"),
    [
        (CITY, 1, NOW, "denied_key"),
        (WELT, 1, NOW, "denied_key"),
        (CITY, 2, NOW - 1, "denied_key"),
        (CITY, 2, NOW, ""),
        (CITY, 3, NOW, ""),
        (WELT, 3, NOW, ""),
        (WELT, 4, NOW, ""),
        (WELT, 4, NOW + 1, "not_allowed_key"),
        (WELT, 5, NOW, "not_allowed_key"),
    ],
)
def test_refusals(domain: object, number: int, now: float, reason: str) -> None:
    name = domain.name if hasattr(domain, "name") else ""
    assert LISTS.refusal(name, key(number).raw, now) == reason


def test_an_empty_list_allows_nobody_and_none_allows_everybody() -> None:
    lists = KeyLists(allowed={WELT.name: {}})
    assert lists.refusal(WELT.name, key(1).raw, NOW) == "not_allowed_key"
    assert lists.refusal(CITY.name, key(1).raw, NOW) == ""


def test_protection_ends() -> None:
    assert LISTS.protects(key(5).raw, NOW)
    assert not LISTS.protects(key(5).raw, NOW + 1)
    assert not LISTS.protects(key(1).raw, NOW)


def test_names_and_counts() -> None:
    assert LISTS.names == {key(1).raw: "stolen", key(3).raw: "ours", key(5).raw: "backup"}
    assert (LISTS.label(key(1).raw), LISTS.label(key(2).raw)) == ({"name": "stolen"}, {})
    counts = {name: LISTS.in_force(name, NOW) for name in ("denied", "allowed", "protected")}
    assert counts == {"denied": 1, "allowed": 2, "protected": 1}
    assert KeyLists().in_force("denied", inf) == 0
