"""WireGuard public keys: a value that cannot exist unless it is valid."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, Self

from wgkex_ops.errors import InvalidPublicKeyError, SmallOrderKeyError

# 43 characters carry 258 bits: the last of them may only have values whose two low bits are 0, so that each key has
# exactly one spelling.
_CANONICAL: Final = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw480]=", re.ASCII)

# The points of small order of Curve25519 as X25519 reads them (https://cr.yp.to/ecdh.html#validate): the top bit of the
# last byte is ignored, so it is cleared before the comparison.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(point)
    for point in (
        "0000000000000000000000000000000000000000000000000000000000000000",  # 0
        "0100000000000000000000000000000000000000000000000000000000000000",  # 1
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",  # of order 8
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",  # of order 8
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # p - 1
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # p, which is 0 again
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # p + 1, which is 1 again
    )
)

_LINK_LOCAL_PREFIX: Final = bytes.fromhex("fe80000000000000")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A node's WireGuard public key.

    Attributes:
        raw: the 32 bytes that the kernel knows.
    """

    raw: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key as nodes and the bus spell it: exactly 44 ASCII characters of canonical base64.

        Raises:
            InvalidPublicKeyError: it is anything else.
            SmallOrderKeyError: it is a point of small order.
        """
        if _CANONICAL.fullmatch(text) is None:
            raise InvalidPublicKeyError("the public key is not the canonical base64 of 32 bytes (44 characters)")
        raw = base64.b64decode(text)
        if raw[:31] + bytes((raw[31] & 0x7F,)) in _SMALL_ORDER:
            raise SmallOrderKeyError("the public key is a point of small order: no handshake can complete with it")
        return cls(raw)

    def __str__(self) -> str:
        return binascii.b2a_base64(self.raw, newline=False).decode("ascii")

    @property
    def link_local(self) -> IPv6Address:
        """The peer's address inside the tunnel, derived from its key (contract, section 2)."""
        return IPv6Address(link_local(self.raw))


def link_local(raw: bytes) -> bytes:
    """Derive a peer's link-local address (16 bytes) from its public key (32 bytes).

    md5 of the base64 text and a newline; ``02`` and five bytes of it form a MAC; its EUI-64 has ``ff:fe`` in the middle
    and keeps the ``02``: the universal/local bit stays set, as every node in the field computes it.
    """
    # It ends with the newline.
    digest = hashlib.md5(binascii.b2a_base64(raw), usedforsecurity=False).digest()
    return b"".join((_LINK_LOCAL_PREFIX, b"\x02", digest[:2], b"\xff\xfe", digest[2:5]))
