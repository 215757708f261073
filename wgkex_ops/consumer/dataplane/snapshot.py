"""What the kernel tells of links, peers, routes and FDB entries."""

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from wgkex_ops.consumer.dataplane.apply import number_of
from wgkex_ops.consumer.dataplane.base import OperationObserver
from wgkex_ops.consumer.dataplane.netlink import wire
from wgkex_ops.consumer.dataplane.netlink.errnos import code_of, dump_error, explain, name_of
from wgkex_ops.consumer.dataplane.netlink.links import dump_addresses
from wgkex_ops.consumer.dataplane.netlink.sockets import NetlinkSocket, WireGuardSocket
from wgkex_ops.model.changes import Operation
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import DomainState, Peer, Snapshot

_T = TypeVar("_T")

# A dump is interrupted when somebody else changes the same thing meanwhile; more than this in a row is no accident.
_DUMP_ATTEMPTS: Final = 5


class Reading:
    """Reads the kernel; for one thread at a time.

    Args:
        domains: whose interfaces are read.
        wireguard: where peers are asked for.
        route: the same for all else.
        observer: is told of each dump.
        route_protocol: the number that our routes carry.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        wireguard: WireGuardSocket,
        route: NetlinkSocket,
        observer: OperationObserver,
        route_protocol: int,
    ) -> None:
        self._domains = domains
        self._wireguard = wireguard
        self._route = route
        self._observer = observer
        self._route_protocol = route_protocol

    def obstacle(self) -> str | None:
        """A sentence why peers cannot be installed here; None if they can."""
        wanted = {domain.wg for domain in self._domains}
        present = [number for name in wanted if (number := number_of(name))]
        if not present:
            return f"none of the WireGuard interfaces is there ({', '.join(sorted(wanted))})"
        try:
            self._dump(self._wireguard.dump_device, present[0])
        except (OSError, wire.DecodeError) as problem:
            if code_of(problem) == errno.EOPNOTSUPP:
                return "the kernel offers no WireGuard: it has none, or its module is not loaded"
            return f"the kernel does not tell its WireGuard peers: {explain(code_of(problem))}"
        return None

    def links(self) -> list[wire.Link]:
        """All interfaces.

        Raises:
            DataplaneError: they could not be read.
        """
        try:
            return self._links()
        except (OSError, wire.DecodeError) as problem:
            raise dump_error(problem) from problem

    def snapshot(self) -> Snapshot:
        """Read the state of all domains.

        Raises:
            DataplaneError: it could not be read.
        """
        try:
            links = {link.name: link for link in self._links()}
            addresses = self._dump(dump_addresses)
            routes = self._routes()
            states = {
                domain.name: self._state(links.get(domain.wg), links.get(domain.vx), addresses, routes)
                for domain in self._domains
            }
        except (OSError, wire.DecodeError) as problem:
            raise dump_error(problem) from problem
        here = {links[domain.wg].number for domain in self._domains if domain.wg in links}
        elsewhere = (destinations for interface, destinations in routes.items() if interface not in here)
        return Snapshot(time.time(), states, frozenset().union(*elsewhere))

    def _links(self) -> list[wire.Link]:
        return list(wire.decode_links(self._dump(self._route.dump, wire.dump_links())))

    def _routes(self) -> dict[int, set[bytes]]:
        """Destinations of our routes by interface."""
        bodies = self._dump(self._route.dump, wire.dump_routes(self._route_protocol))
        found: dict[int, set[bytes]] = {}
        for destination, interface, _ in wire.decode_routes(bodies, self._route_protocol):
            found.setdefault(interface, set()).add(destination)
        return found

    def _state(
        self, wg: wire.Link | None, vx: wire.Link | None, addresses: dict[int, str], routes: dict[int, set[bytes]]
    ) -> DomainState:
        state = DomainState(vx_present=vx is not None, vx_up=vx is not None and vx.up)
        device = self._device(wg) if wg else None
        if wg is None or device is None:
            return state
        # Each address is told three times, by peer, route and FDB entry: of thousands, one copy each is enough.
        known = {peer.link_local: peer.link_local for peer in device.peers}
        ours = frozenset(known.get(address, address) for address in routes.get(wg.number, ()))
        return replace(
            state,
            wg_present=True,
            wg_up=wg.up,
            wg_index=wg.number,
            public_key=device.public_key,
            listen_port=device.listen_port,
            link_address=addresses.get(wg.number, ""),
            peers=device.peers,
            shared_addresses=device.shared_addresses,
            routes=ours,
            foreign_routes=self._foreign_routes(wg, device.peers, ours),
            fdb_entries=frozenset(known.get(address, address) for address in self._fdb(vx, wg)) if vx else frozenset(),
        )

    def _foreign_routes(self, wg: wire.Link, peers: Iterable[Peer], ours: frozenset[bytes]) -> dict[bytes, int]:
        """Protocols of other people's routes, by destination; asked for only where some peer has none of ours."""
        if all(not peer.link_local or peer.link_local in ours for peer in peers):
            return {}
        try:
            bodies = self._dump(self._route.dump, wire.dump_routes_over(wg.number))
        except OSError as problem:
            if problem.errno == errno.ENODEV:
                # It has gone in the meantime, and its routes with it.
                return {}
            raise
        found: dict[bytes, int] = {}
        for destination, interface, protocol in wire.decode_routes(bodies):
            if interface == wg.number and destination not in ours:
                # Of several to one address the kernel tells the one first that is in use.
                found.setdefault(destination, protocol)
        return found

    def _device(self, wg: wire.Link) -> wire.Device | None:
        """The WireGuard interface with its peers; None if it has gone in the meantime, or is of another kind."""
        try:
            return wire.decode_device(self._dump(self._wireguard.dump_device, wg.number))
        except OSError as problem:
            if problem.errno in (errno.ENODEV, errno.EOPNOTSUPP):
                return None
            raise

    def _fdb(self, vx: wire.Link, wg: wire.Link) -> Iterator[bytes]:
        bodies = self._dump(self._route.dump, wire.dump_fdb(vx.number))
        return (destination for destination, via in wire.decode_fdb(bodies, vx.number) if via == wg.number)

    def _dump(self, work: Callable[..., _T], *request: wire.Requests | int) -> _T:
        """Dump, again if it was interrupted.

        Raises:
            OSError: the kernel refused it, the socket failed, or it was interrupted too often (EINTR).
            wire.DecodeError: it cannot be read.
        """
        for _ in range(_DUMP_ATTEMPTS):
            started = time.monotonic()
            names: list[str] = []
            try:
                return work(*request)
            except InterruptedError:
                names = [name_of(errno.EINTR)]
            except (OSError, wire.DecodeError) as problem:
                names = [name_of(code_of(problem))]
                raise
            finally:
                self._observer.observe(Operation.DUMP, 1, names, time.monotonic() - started)
        raise OSError(errno.EINTR, "it changed under each of several attempts")
