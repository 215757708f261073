"""What is a public key and what is not, by vectors and by an independent reading of the rule."""

import base64
import binascii
import json
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wgkex_ops.errors import InvalidPublicKeyError, SmallOrderKeyError
from wgkex_ops.model.keys import PublicKey, link_local

TESTDATA: Final = Path(__file__).parents[2] / "testdata"
LINK_LOCAL: Final[list[dict[str, str]]] = json.loads((TESTDATA / "link_local.json").read_text())["vectors"]
REJECTED: Final[dict[str, list[dict[str, Any]]]] = json.loads((TESTDATA / "public_keys_rejected.json").read_text())

# A key that is no text at all (a number, a list) never gets to PublicKey.parse. It is refused by the HTTP
# parser: handled, and tested, there.
MALFORMED: Final = {
    vector["why"]: vector["public_key"] for vector in REJECTED["malformed"] if isinstance(vector["public_key"], str)
}
SMALL_ORDER: Final = {vector["why"]: vector["public_key"] for vector in REJECTED["small_order"]}

KEY: Final = "o52Ge+Rpj4CUSitVag9mS7pSXUesNM0ESnvj/wwehkg="

raw_keys = st.binary(min_size=32, max_size=32)


def is_canonical(text: str) -> bool:
    """Tell by decoding and encoding again, where the product has a regular expression."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return False
    return len(raw) == 32 and base64.b64encode(raw).decode() == text


def test_the_vectors_are_all_there() -> None:
    assert len(LINK_LOCAL) == 30
    assert (len(MALFORMED), len(SMALL_ORDER)) == (11, 14)


@pytest.mark.parametrize("vector", LINK_LOCAL, ids=lambda vector: vector["link_local"])
def test_link_local_address(vector: dict[str, str]) -> None:
    key = PublicKey.parse(vector["public_key"])
    assert key.link_local == IPv6Address(vector["link_local"])
    assert link_local(key.raw) == IPv6Address(vector["link_local"]).packed


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_key(text: str) -> None:
    with pytest.raises(InvalidPublicKeyError) as caught:
        PublicKey.parse(text)
    assert caught.value.reason == "invalid_public_key"
    assert str(caught.value) == "the public key is not the canonical base64 of 32 bytes (44 characters)"


@pytest.mark.parametrize("text", SMALL_ORDER.values(), ids=SMALL_ORDER.keys())
def test_key_of_small_order(text: str) -> None:
    with pytest.raises(SmallOrderKeyError) as caught:
        PublicKey.parse(text)
    assert caught.value.reason == "small_order_public_key"
    assert str(caught.value) == "the public key is a point of small order: no handshake can complete with it"


@given(raw_keys)
def test_round_trip(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    try:
        key = PublicKey.parse(text)
    except SmallOrderKeyError:
        assert text in SMALL_ORDER.values()
    else:
        assert key.raw == raw
        assert str(key) == text
        assert key == PublicKey(raw)
        assert hash(key) == hash(PublicKey(raw))


@given(st.text())
@example(KEY + "\n")
@example("\n" + KEY)
@example(KEY.replace("o", "\uff4f"))
@example("٤" * 43 + "=")  # digits to Python, but not to base64
def test_whatever_is_not_canonical_is_rejected(text: str) -> None:
    if not is_canonical(text):
        with pytest.raises(InvalidPublicKeyError):
            PublicKey.parse(text)


@given(raw_keys, st.integers(0, 43), st.characters(codec="utf-8"))
def test_one_character_changed(raw: bytes, position: int, character: str) -> None:
    text = base64.b64encode(raw).decode()
    changed = text[:position] + character + text[position + 1 :]
    try:
        key = PublicKey.parse(changed)
    except InvalidPublicKeyError:
        assert not is_canonical(changed) or changed in SMALL_ORDER.values()
    else:
        assert is_canonical(changed)
        assert str(key) == changed


@given(raw_keys)
def test_link_local_addresses_have_one_shape(raw: bytes) -> None:
    address = PublicKey(raw).link_local
    assert address in IPv6Network("fe80::/64")
    # An EUI-64 of a MAC that starts with 02, whose universal/local bit is not flipped.
    assert address.packed[8] == 0x02
    assert address.packed[11:13] == b"\xff\xfe"
