"""What is taken out of texts before they go into a bug report."""

import pytest

from tests.helpers import KEY
from wgkex_ops.doctor.bundle import mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("client=203.0.113.7 rejected", "client=(address) rejected"),
        ("client:203.0.113.7.", "client:(address)."),
        ("from 203.0.113.7:40011", "from (address):40011"),
        ('"client":"2001:db8::7"', '"client":"(address)"'),
        ("client:2001:db8::7", "client:(address)"),
        ("[2001:db8:0:1::7]:40011", "[(address)]:40011"),
        ("::ffff:203.0.113.7", "(address)"),
        ("2001:db8:1:2:3:4:5:6", "(address)"),
        ("2001:DB8::/56", "(address)/56"),
        ("fe80::27c:16ff:fec0:6c74 127.0.0.1 ::1", "fe80::27c:16ff:fec0:6c74 127.0.0.1 ::1"),
        ("2026-11-27T03:45:01+0000 gw01 at 03:45:01", "2026-11-27T03:45:01+0000 gw01 at 03:45:01"),
        ("version 0.1.0, 3.11.7", "version 0.1.0, 3.11.7"),
        ("at 52:54:00:12:34:56 and 00:00:00:00:00:00", "at (MAC) and 00:00:00:00:00:00"),
        (f"public_key={KEY} installed", "public_key=o52Ge+Rp… installed"),
    ],
)
def test_addresses_and_keys(text: str, masked: str) -> None:
    assert mask(text) == masked
