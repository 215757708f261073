"""What is a location, and what is none."""

import pytest

from wgkex_ops.model.locations import parse_location


@pytest.mark.parametrize("text", ["a", "0", "_", "munich", "MUNICH", "Munich-2.south_east", "x" * 64])
def test_location_is_compared_in_lower_case(text: str) -> None:
    assert parse_location(text) == text.lower()


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "x" * 65,
        "x" * 4096,
        "munich ",
        "munich\n",
        "a b",
        "a/b",
        "a,b",
        "m\u00fcnich",
        "\u212a",
        "\ud800",
        "\0",
    ],
    ids=repr,
)
def test_other_texts_are_none(value: str) -> None:
    # U+212A is the sign of the kelvin, which is "k" in lower case.
    assert parse_location(value) is None


@pytest.mark.parametrize("value", [None, True, 1, 1.5, float("nan"), ["munich"], {"munich": 1}, b"munich"], ids=repr)
def test_what_is_no_text_is_none(value: object) -> None:
    assert parse_location(value) is None
