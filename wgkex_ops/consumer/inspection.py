"""What this gateway has of a key: kernel, journal and key lists, put together for operators. It changes nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from ipaddress import IPv6Address
from typing import Literal

from wgkex_ops.consumer.upkeep.journal_file import Row
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.inspection import GatewayAnswer, JournalEntry, KeyOnGateway, PeerReport, Query
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey, link_local
from wgkex_ops.model.names import DENIED_KEY
from wgkex_ops.model.peers import (
    DomainState,
    Peer,
    Snapshot,
    handshake_age,
    interface_problems,
    peer_state,
)
from wgkex_ops.model.verdicts import on_gateway


class Inspector:
    """Finds out what this gateway has of a key.

    Args:
        gateway: this worker's name.
        domains: the configured domains.
        read: reads a snapshot, or raises DataplaneError.
        rows: the journal's.
        lists: the key lists in force.
        names: friendly names by key (32 bytes), of the lists and of others.
        protected: keys (32 bytes) whose peers are never removed.
        stale_after: the age of a handshake, in seconds, at which a peer is stale.
    """

    def __init__(
        self,
        *,
        gateway: str,
        domains: Sequence[Domain],
        read: Callable[[], Awaitable[Snapshot]],
        rows: Callable[[], Mapping[bytes, Row]],
        lists: Callable[[], KeyLists],
        names: Callable[[], Mapping[bytes, str]],
        protected: Container[bytes],
        stale_after: float,
    ) -> None:
        self._gateway = gateway
        self._domains = domains
        self._read = read
        self._rows = rows
        self._lists = lists
        self._names = names
        self._protected = protected
        self._stale_after = stale_after

    async def inspect(self, query: Query) -> GatewayAnswer:
        """Answer a question; of a key that is not known here, too."""
        try:
            snapshot = await self._read()
        except DataplaneError as error:
            return GatewayAnswer(self._gateway, problem=f"the kernel's peers cannot be read: {error}")
        # Names may be in a file.
        names, rows = await asyncio.to_thread(self._names), self._rows()
        found = query.find(rows, names)
        if query.address is not None:
            # Also peers of others, whose address does not derive from their key.
            owners = (
                peer.public_key
                for state in snapshot.domains.values()
                for peer in state.peers
                if peer.link_local == query.address
            )
            found = list(dict.fromkeys((*found, *owners)))
        answers = tuple(self._about(key, snapshot, rows.get(key), names.get(key, "")) for key in found)
        return GatewayAnswer(self._gateway, answers)

    def _about(self, key: bytes, snapshot: Snapshot, row: Row | None, name: str) -> KeyOnGateway:
        now = time.time()
        lists = self._lists()
        refused = {
            domain.name: "denied" if reason == DENIED_KEY else "not_allowed"
            for domain in self._domains
            if (reason := lists.refusal(domain.name, key, now))
        }
        peers = tuple(
            self._report(domain, snapshot, peer)
            for domain in self._domains
            for peer in snapshot.domains[domain.name].peers
            if peer.public_key == key
        )
        address = str(IPv6Address(link_local(key)))
        journal = JournalEntry(row.domain, row.installed_at, row.version_2) if row is not None else None
        problems = {
            domain.name: f"{', '.join(found)}: see 'wgkex-ops doctor'"
            for domain in self._domains
            if (found := interface_problems(domain, snapshot.domains[domain.name]))
        }
        return KeyOnGateway(
            key=str(PublicKey(key)),
            name=name,
            address=address,
            peers=peers,
            journal=journal,
            refused=refused,
            protected=key in self._protected,
            verdict=on_gateway(address, peers, journal, refused, interface_problems=problems, now=now),
        )

    def _report(self, domain: Domain, snapshot: Snapshot, peer: Peer) -> PeerReport:
        state = snapshot.domains[domain.name]
        age = handshake_age(peer, snapshot.taken_at)
        return PeerReport(
            domain=domain.name,
            interface=domain.wg,
            port=state.listen_port,
            allowed_ips=_allowed_ips(peer, state),
            route=_route(peer.link_local, state, snapshot),
            fdb=peer.link_local in state.fdb_entries,
            endpoint=peer.endpoint,
            handshake=peer.handshake or None,
            received=peer.receive_bytes,
            sent=peer.transmit_bytes,
            state=peer_state(age, self._stale_after),
        )


def _allowed_ips(peer: Peer, state: DomainState) -> str:
    if peer.link_local:
        return f"{IPv6Address(peer.link_local)}/128"
    return "none" if peer.public_key in state.unaddressed else "several"


def _route(
    address: bytes, state: DomainState, snapshot: Snapshot
) -> Literal["ours", "foreign", "elsewhere", "missing", "several"]:
    """Where the route to an address leads."""
    if not address:
        return "several"
    if address in state.routes:
        return "ours"
    if address in state.foreign_routes:
        return "foreign"
    return "elsewhere" if address in snapshot.routed or address in snapshot.routed_by_others else "missing"
