"""What this broker knows of a key: its latest request, and what became of it. It changes nothing."""

import time
from collections.abc import Callable, Sequence

from wgkex_ops.http.gateways.nodes import RecentNodes, RecentRequest
from wgkex_ops.model.inspection import BrokerAnswer, KeyAtBroker, Query
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey


class BrokerInspector:
    """Finds out what this broker knows of a key.

    Args:
        broker: its name.
        domains: names of the configured domains.
        nodes: those that have asked lately.
        lists: the key lists in force.
    """

    def __init__(
        self, *, broker: str, domains: Sequence[str], nodes: RecentNodes, lists: Callable[[], KeyLists]
    ) -> None:
        self._broker = broker
        self._domains = domains
        self._nodes = nodes
        self._lists = lists

    async def inspect(self, query: Query) -> BrokerAnswer:
        """Answer a question; of a key that is not known here, too."""
        keys = [] if query.is_name or query.key is not None else self._nodes.keys()
        found = query.find(keys, self._lists().names)
        return BrokerAnswer(self._broker, tuple(about for key in found for about in self._about(key)))

    def _about(self, key: bytes) -> list[KeyAtBroker]:
        """One for each domain that the node has asked in; if there is none, one without a domain."""
        requests = self._nodes.requests(key, self._domains)
        return [self._report(key, domain, request) for domain, request in requests.items()] or [
            self._report(key, "", None)
        ]

    def _report(self, key: bytes, domain: str, request: RecentRequest | None) -> KeyAtBroker:
        lists, now = self._lists(), time.time()
        asked_in = (domain,) if domain else self._domains
        refusals = {lists.refusal(one, key, now) for one in asked_in}
        return KeyAtBroker(
            key=str(PublicKey(key)),
            name=lists.names.get(key, ""),
            domain=domain,
            asked_at=request.origin.accepted_at if request is not None else None,
            api_version=request.origin.api_version if request is not None else 0,
            request_id=request.origin.request_id if request is not None else "",
            receipts=dict(request.receipts) if request is not None else {},
            named=request.named if request is not None else "",
            # Without a domain, only if it is refused in all of them.
            refused="" if "" in refusals else min(refusals, default=""),
        )
