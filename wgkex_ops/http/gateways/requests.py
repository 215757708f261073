"""The latest request of each key, and what became of it, for operators. No I/O."""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from wgkex_ops.http.gateways.confirmations import UnconfirmedKey

_Key = TypeVar("_Key")

# Of the interface.
_VERSIONS: Final = (1, 2)

# Seconds. A node without a tunnel asks once a minute.
REMEMBERED_FOR: Final = 300.0
# A request takes about 1 KB here. Invented keys displace the oldest ones; those that are refused, which cost their
# sender least, displace none that were taken.
LIMIT: Final = 40_000
REFUSED_LIMIT: Final = 5_000


@dataclass(slots=True)
class RecentRequest:
    """A request, and what is known of it by now.

    Attributes:
        domain: its name; empty for one that is not served here.
        asked_at: seconds since the epoch.
        api_version: that the node asked by, 1 or 2.
        request_id: as in the logs.
        receipts: as `UnconfirmedKey.receipts`, and the same object: what comes later is in it.
        named: the gateway that the response has named; empty for none.
        failure: the reason in the response (protocol, section 1); empty for 200, or while there is none yet.
    """

    domain: str
    asked_at: float
    api_version: int
    request_id: str
    receipts: Mapping[str, str]
    named: str = ""
    failure: str = ""


class RecentRequests:
    """Keeps requests for REMEMBERED_FOR; at most LIMIT that were taken, and REFUSED_LIMIT that were not.

    Args:
        domains: names of the configured domains.
        clock: seconds since the epoch.
    """

    def __init__(self, domains: Collection[str], clock: Callable[[], float] = time.time) -> None:
        self._domains = domains
        self._clock = clock
        # The oldest first; a plain dict looks for it behind all that it has deleted.
        self._taken: OrderedDict[tuple[str, int, bytes], RecentRequest] = OrderedDict()
        self._refused: OrderedDict[bytes, RecentRequest] = OrderedDict()

    def take(self, key: UnconfirmedKey) -> RecentRequest:
        """Keep a request whose key is about to be published; its outcome is written into what is returned."""
        origin = key.origin
        request = RecentRequest(key.domain.name, self._clock(), origin.api_version, origin.request_id, key.receipts)
        self._keep(self._taken, (key.domain.name, origin.api_version, key.public_key.raw), request, LIMIT)
        return request

    def refuse(self, key: bytes, domain: str, api_version: int, request_id: str, reason: str) -> None:
        """Keep a request that was refused; of each key (32 bytes), the latest one."""
        request = RecentRequest(domain, self._clock(), api_version, request_id, {}, failure=reason)
        self._keep(self._refused, key, request, REFUSED_LIMIT)

    def keys(self) -> set[bytes]:
        """The keys (32 bytes) of all requests."""
        return {key for *_, key in self._taken} | self._refused.keys()

    def of(self, key: bytes) -> list[RecentRequest]:
        """The latest requests of a key (32 bytes): in each domain by each version, and the latest that was refused."""
        since = self._clock() - REMEMBERED_FOR
        found = [self._taken.get((domain, version, key)) for domain in self._domains for version in _VERSIONS]
        return [request for request in (*found, self._refused.get(key)) if request and request.asked_at >= since]

    def _keep(self, kept: OrderedDict[_Key, RecentRequest], key: _Key, request: RecentRequest, limit: int) -> None:
        kept.pop(key, None)
        since = self._clock() - REMEMBERED_FOR
        while kept and (len(kept) >= limit or next(iter(kept.values())).asked_at < since):
            kept.popitem(last=False)
        kept[key] = request
