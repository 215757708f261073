"""When each key was last asked for: what the kernel does not tell of a peer that never had a handshake."""

import time
from collections.abc import Callable, Mapping


class Offers:
    """Times by this host's monotonic clock, which no change of the date moves.

    Args:
        clock: seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._latest: dict[str, dict[bytes, float]] = {}

    def note(self, domain: str, raw: bytes) -> None:
        """Take note that a key (32 bytes) was asked for, or put back, now."""
        self._latest.setdefault(domain, {})[raw] = self._clock()

    def age(self, domain: str, raw: bytes) -> float | None:
        """Tell for how many seconds a key has not been asked for; None if it never was."""
        latest = self._latest.get(domain, {}).get(raw)
        return None if latest is None else self._clock() - latest

    @property
    def since_start(self) -> float:
        """For how many seconds there have been notes."""
        return self._clock() - self._started

    def forget(self, older_than: float, peers: Mapping[str, frozenset[bytes]]) -> None:
        """Forget the keys of nobody: whoever has no peer, and has not asked for so many seconds.

        Args:
            older_than: seconds.
            peers: keys (32 bytes) by domain.
        """
        before = self._clock() - older_than
        for domain, latest in self._latest.items():
            there = peers.get(domain, frozenset())
            self._latest[domain] = {raw: when for raw, when in latest.items() if when > before or raw in there}
