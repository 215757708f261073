"""What nodes really get from this gateway, by its scans: which sessions begin, and whether VXLAN carries anything."""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from wgkex_ops.metrics.worker import SessionMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import ACTIVE_SECONDS, DomainState, Snapshot, Traffic, is_active

# Seconds by which the clock of the day may differ from the monotonic one between two scans without having been set; the
# two are read one after the other, and meanwhile a busy host may do something else.
_CLOCK_TOLERANCE: Final = 5.0


class _Handshake(msgspec.Struct, frozen=True, gc=False):
    """A peer's latest handshake: the kernel's time of it, and the latest time that it can have by the monotonic clock.

    There are as many as peers with a session, so they are of the same kind as `Peer`.
    """

    value: float
    latest: float


@dataclass(frozen=True, slots=True)
class _Silence:
    """What a VXLAN interface had carried at a scan.

    Attributes:
        traffic: that; None without an interface.
        received_at, sent_at: the scan since which it has received, and sent, no more, by the monotonic clock.
    """

    traffic: Traffic | None
    received_at: float
    sent_at: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is remembered of a scan.

    Attributes:
        at: when it was, by the monotonic clock; before any time for the one before the first.
        wall: the same by the clock of the day.
        handshakes: of the peers that had one, by domain and key (32 bytes).
        silences: by domain.
    """

    at: float = -math.inf
    wall: float = -math.inf
    handshakes: Mapping[str, Mapping[bytes, _Handshake]] = field(default_factory=dict)
    silences: Mapping[str, _Silence] = field(default_factory=dict)


class Connectivity:
    """Compares each scan with the one before.

    A session begins with a handshake that comes 180 s or more after the one before, or is a peer's first. What the
    first scan finds may have begun long before, and does not count: after a reboot of the gateway that is nothing, as
    the kernel has no peers then.

    The kernel notes handshakes by the clock of the day, and to set that begins no session: it only shows how long
    before its scan a handshake was. If it was set since the scan before, all that is known of a new handshake is that
    it came in between.

    Args:
        domains: the configured domains.
        metrics: what begins.
    """

    def __init__(self, domains: Sequence[Domain], metrics: SessionMetrics) -> None:
        self._domains = domains
        self._metrics = metrics
        self._seen = _Seen()

    async def observe(self, snapshot: Snapshot, now: float) -> None:
        """Take in a scan.

        Args:
            snapshot: what is there.
            now: when it was read, in seconds of a clock that is never set back.
        """
        # Thousands of peers take a while.
        seen, started = await asyncio.to_thread(_compare, self._seen, snapshot, now, self._domains)
        # The first one has nothing to be compared with.
        if self._seen.at > -math.inf:
            for domain, number in started.items():
                self._metrics.started.labels(domain).inc(number)
        self._seen = seen

    def vxlan_silent(self, seconds: float) -> list[str]:
        """The domains that had active peers, but no VXLAN traffic, at all scans of some seconds up to the last one.

        Each peer's mesh sends something each second, so a domain counts if nothing came or if nothing was sent.
        """
        return [
            domain
            for domain, silence in self._seen.silences.items()
            if self._seen.at - min(silence.received_at, silence.sent_at) >= seconds
        ]


def _compare(before: _Seen, snapshot: Snapshot, now: float, domains: Sequence[Domain]) -> tuple[_Seen, Counter[str]]:
    """What is remembered of a scan, and how many sessions began since the one before, by domain."""
    started: Counter[str] = Counter()
    # Of the first scan there is nothing to compare it with.
    drift = (snapshot.taken_at - before.wall) - (now - before.at) if before.at > -math.inf else 0.0
    handshakes: dict[str, dict[bytes, _Handshake]] = {}
    silences: dict[str, _Silence] = {}
    for domain in domains:
        state, name = snapshot.domains[domain.name], domain.name
        earlier_ones, found = before.handshakes.get(name, {}), handshakes.setdefault(name, {})
        for peer in state.peers:
            if not peer.handshake:
                continue
            earlier = earlier_ones.get(peer.public_key)
            if earlier is None or earlier.value != peer.handshake:
                at = now - (snapshot.taken_at - peer.handshake)
                known = abs(drift) < _CLOCK_TOLERANCE and before.at <= at <= now
                earliest, latest = (at, at) if known else (before.at, now)
                if earlier is None or earliest - earlier.latest >= ACTIVE_SECONDS:
                    started[name] += 1
                earlier = _Handshake(peer.handshake, latest)
            found[peer.public_key] = earlier
        silences[name] = _silence(before.silences.get(name), state, snapshot.taken_at, now)
    return _Seen(now, snapshot.taken_at, handshakes, silences), started


def _has_active(state: DomainState, now: float) -> bool:
    return any(is_active(peer, now) for peer in state.peers)


def _silence(before: _Silence | None, state: DomainState, taken_at: float, now: float) -> _Silence:
    traffic = state.vx_traffic
    if before is None or before.traffic is None or traffic is None or not _has_active(state, taken_at):
        # Without an interface, that is what is wrong.
        return _Silence(traffic, now, now)
    return _Silence(
        traffic,
        before.received_at if traffic.receive_bytes == before.traffic.receive_bytes else now,
        before.sent_at if traffic.transmit_bytes == before.traffic.transmit_bytes else now,
    )
