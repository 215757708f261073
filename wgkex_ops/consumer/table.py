"""The table of a domain's peers has an end: which peers make room for new ones."""

import heapq
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass

from wgkex_ops.config import MAX_PEERS
from wgkex_ops.consumer.upkeep.journal_file import Row
from wgkex_ops.model.peers import DomainState, Peer


def _no_rows() -> Mapping[bytes, Row]:
    return {}


@dataclass(frozen=True, slots=True)
class Table:
    """How many peers a domain may have, and what is known of them besides the kernel's state.

    Attributes:
        limit: peers of a domain, static ones included.
        rows: reads the journal's rows, by key (32 bytes).
        protected: keys (32 bytes) whose peers are never removed.
    """

    limit: int = MAX_PEERS
    rows: Callable[[], Mapping[bytes, Row]] = _no_rows
    protected: Container[bytes] = frozenset()

    def removal_candidates(
        self, state: DomainState, count: int, age: Callable[[bytes], float], needed: Collection[bytes]
    ) -> list[bytes]:
        """Choose peers of ours that never connected, those that were requested longest ago first.

        Args:
            state: of the domain.
            count: how many are wanted; there may be fewer.
            age: for how many seconds a key (32 bytes) has not been requested, as far as this process knows.
            needed: keys (32 bytes) that are being installed.
        """
        rows = self.rows()

        def never_connected(peer: Peer) -> bool:
            row = rows.get(peer.public_key)
            # One that was restored has no handshake in the kernel yet. One that the journal does not know is as new.
            return not peer.handshake and row is not None and not row.handshake

        def requested(peer: Peer) -> tuple[float, float]:
            return -age(peer.public_key), rows[peer.public_key].installed_at

        candidates = (
            peer
            for peer in state.peers
            if peer.link_local in state.routes
            and never_connected(peer)
            and peer.has_derived_address
            and peer.public_key not in self.protected
            and peer.public_key not in needed
        )
        return [peer.public_key for peer in heapq.nsmallest(count, candidates, requested)]
