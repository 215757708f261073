"""What this broker knows of a key: its latest request, and what became of it. It changes nothing."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence

from wgkex_ops.http.gateways.requests import RecentRequest, RecentRequests
from wgkex_ops.model.inspection import BrokerAnswer, KeyAtBroker, Query
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey


class BrokerInspector:
    """Finds out what this broker knows of a key.

    Args:
        broker: its name.
        domains: names of the configured domains.
        requests: the latest ones.
        confirming: the workers of a domain that are online and send receipts.
        lists: the key lists in force.
    """

    def __init__(
        self,
        *,
        broker: str,
        domains: Sequence[str],
        requests: RecentRequests,
        confirming: Callable[[str], Collection[str]],
        lists: Callable[[], KeyLists],
    ) -> None:
        self._broker = broker
        self._domains = domains
        self._requests = requests
        self._confirming = confirming
        self._lists = lists

    async def inspect(self, query: Query) -> BrokerAnswer:
        """Answer a question; of a key that is not known here, too."""
        keys = self._requests.keys() if query.address is not None else ()
        # To derive the addresses of all keys takes a while.
        found = await asyncio.to_thread(query.find, keys, self._lists().names)
        return BrokerAnswer(self._broker, tuple(about for key in found for about in self._about(key)))

    def _about(self, key: bytes) -> list[KeyAtBroker]:
        """One for each request; if there is none, one without."""
        return [self._report(key, request) for request in self._requests.of(key)] or [self._report(key, None)]

    def _report(self, key: bytes, request: RecentRequest | None) -> KeyAtBroker:
        lists, now = self._lists(), time.time()
        domain = request.domain if request is not None else ""
        asked_in = (domain,) if domain else self._domains
        receipts = dict(request.receipts) if request is not None else {}
        refusals = {lists.refusal(one, key, now) for one in asked_in}
        return KeyAtBroker(
            key=str(PublicKey(key)),
            name=lists.names.get(key, ""),
            domain=domain,
            asked_at=request.asked_at if request is not None else None,
            api_version=request.api_version if request is not None else 0,
            request_id=request.request_id if request is not None else "",
            receipts=receipts,
            named=request.named if request is not None else "",
            # Without a domain, only if it is refused in all of them.
            refused="" if "" in refusals else min(refusals, default=""),
            failure=request.failure if request is not None else "",
            awaited=tuple(sorted(set(self._confirming(domain)).difference(receipts))) if domain else (),
        )
