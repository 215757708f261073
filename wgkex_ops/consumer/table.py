"""The table of a domain's peers has an end: which peers make room for new ones."""

import heapq
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass

from wgkex_ops.config import MAX_PEERS
from wgkex_ops.consumer.upkeep.journal_file import Row
from wgkex_ops.model.peers import DomainState


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
        candidates = (
            (-age(peer.public_key), row.installed_at, peer.public_key)
            for peer in state.peers
            if not peer.handshake
            # One that was restored has no handshake in the kernel yet. One that the journal does not know is as new, or
            # has just gone: it may go while this works.
            and (row := rows.get(peer.public_key)) is not None
            and not row.handshake
            and peer.link_local in state.routes
            and peer.has_derived_address
            and peer.public_key not in self.protected
            and peer.public_key not in needed
        )
        return [key for _, _, key in heapq.nsmallest(count, candidates)]
