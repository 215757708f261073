"""Numbers, times and names as people read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgkex_ops.model.words import count, duration, in_words, iso_time, share, things, visible


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.99, "0 s"),
        (59.99, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d"),
        (90_000, "1 d 1 h"),
        (1e9, "11574 d 1 h"),
        (math.inf, "an unknown time"),
        (math.nan, "an unknown time"),
    ],
)
def test_durations_have_one_or_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_have_separators_and_things_their_plural() -> None:
    assert count(1_234_567) == "1,234,567"
    assert count(0.4) == "0"
    assert things(1, "key") == "1 key"
    assert things(0, "key") == "0 keys"
    assert things(2000, "key") == "2,000 keys"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 5, "0 %"), (1, 1000, "1 %"), (999, 1000, "99 %"), (3, 3, "100 %"), (2, 3, "67 %")],
)
def test_shares_are_never_rounded_to_all_or_nothing(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_labels_are_words() -> None:
    assert in_words("small_order_public_key") == "small order public key"


def test_moments_are_in_utc() -> None:
    assert iso_time(1_700_000_000) == "2023-11-14T22:13:20+00:00"


@pytest.mark.parametrize("at", [1e300, -1e300, math.inf, math.nan])
def test_moments_that_no_calendar_has_are_empty(at: float) -> None:
    assert iso_time(at) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gw01.example.net", "gw01.example.net"),
        ("Gateway Größenwahn", "Gateway Größenwahn"),
        ("שער", "שער"),
        ("gw\u202e10", r"gw\u202e10"),
        ("gw\u200b01", r"gw\u200b01"),
        ("gw\ufeff01", r"gw\ufeff01"),
        ("a\x1b[2Jb\n\x00", r"a\x1b[2Jb\n\x00"),
        ("half \udc80", r"half \udc80"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_any_text_becomes_printable(text: str) -> None:
    assert visible(text).isprintable()
    visible(text).encode()
