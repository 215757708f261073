"""Keys that operators have listed: whom they deny, whom alone they allow, and whose peers they protect."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf

from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.names import DENIED_KEY, NOT_ALLOWED_KEY

# The lists, as metrics name them.
DENIED, ALLOWED, PROTECTED = "denied", "allowed", "protected"
LISTS = (DENIED, ALLOWED, PROTECTED)


@dataclass(frozen=True, slots=True)
class ListedKey:
    """What a list says of a key.

    Attributes:
        name: for people; may be empty.
        remark: why it is there; may be empty.
        expires: seconds since the epoch from which on it does not count any more.
    """

    name: str = ""
    remark: str = ""
    expires: float = inf


# By key (32 bytes).
KeyList = Mapping[bytes, ListedKey]


@dataclass(frozen=True)
class KeyLists:
    """All lists. The time is an argument, since entries expire while nothing else changes.

    Attributes:
        denied: served by no broker, and installed on no gateway.
        allowed: by domain; where a domain has a list, all other keys are refused.
        protected: whose peers are never removed to make room, or as gone.
    """

    denied: KeyList = field(default_factory=dict)
    allowed: Mapping[str, KeyList] = field(default_factory=dict)
    protected: KeyList = field(default_factory=dict)

    def refusal(self, domain: str, key: bytes, now: float) -> str:
        """Why a key (32 bytes) is refused in a domain: a reason of error objects, receipts and metrics; else empty."""
        denied = self.denied.get(key)
        if denied is not None and now < denied.expires:
            return DENIED_KEY
        allowed = self.allowed.get(domain)
        if allowed is not None and not (key in allowed and now < allowed[key].expires):
            return NOT_ALLOWED_KEY
        return ""

    def protects(self, key: bytes, now: float) -> bool:
        """Whether the peer of a key (32 bytes) is protected."""
        protected = self.protected.get(key)
        return protected is not None and now < protected.expires

    def label(self, key: bytes) -> dict[str, str]:
        """The name of a key (32 bytes) as a field of a log line; nothing if it has none."""
        name = self.names.get(key)
        return {"name": name} if name else {}

    def describe(self, domain: str, key: PublicKey) -> dict[str, str]:
        """What log lines say of a key in a domain, with its name if it has one."""
        return {"domain": domain, "public_key": str(key), **self.label(key.raw)}

    @cached_property
    def names(self) -> Mapping[bytes, str]:
        """The names that are not empty, by key (32 bytes); those of expired entries, too."""
        return {key: listed.name for _, keys in self._all() for key, listed in keys.items() if listed.name}

    def in_force(self, name: str, now: float) -> int:
        """How many entries of a list, or of all lists of its kind, have not expired."""
        return sum(now < listed.expires for kind, keys in self._all() if kind == name for listed in keys.values())

    def _all(self) -> Iterator[tuple[str, KeyList]]:
        yield DENIED, self.denied
        for keys in self.allowed.values():
            yield ALLOWED, keys
        yield PROTECTED, self.protected
