"""Reads the kernel: interfaces, peers, routes and FDB entries."""

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from wgkex_ops.consumer.dataplane.base import OperationObserver
from wgkex_ops.consumer.dataplane.netlink import parse, query
from wgkex_ops.consumer.dataplane.netlink.errnos import code_of, dump_error, explain, name_of
from wgkex_ops.consumer.dataplane.netlink.framing import DecodeError, Requests
from wgkex_ops.consumer.dataplane.netlink.links import dump_addresses, interface_index
from wgkex_ops.consumer.dataplane.netlink.sockets import NetlinkSocket, WireGuardSocket
from wgkex_ops.model.changes import Operation
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import DomainState, Peer, Snapshot

_T = TypeVar("_T")

# A dump is interrupted when another program changes the same thing meanwhile.
_DUMP_ATTEMPTS: Final = 5


class KernelReader:
    """Reads the kernel, for one thread at a time.

    Args:
        domains: the domains whose interfaces are read.
        wireguard: the socket for peers.
        route: the socket for everything else.
        observer: is called for each dump.
        route_protocol: the protocol number of our routes.
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
        names = {domain.wg for domain in self._domains}
        present = [index for name in names if (index := interface_index(name))]
        if not present:
            return f"there is none of the WireGuard interfaces {', '.join(sorted(names))}"
        try:
            self._dump(self._wireguard.dump_device, present[0])
        except (OSError, DecodeError) as problem:
            if code_of(problem) == errno.EOPNOTSUPP:
                return "the kernel has no WireGuard, or its module is not loaded"
            return f"the WireGuard peers cannot be read: {explain(code_of(problem))}"
        return None

    def links(self) -> list[parse.Link]:
        """All interfaces.

        Raises:
            DataplaneError: they could not be read.
        """
        try:
            return self._links()
        except (OSError, DecodeError) as problem:
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
        except (OSError, DecodeError) as problem:
            raise dump_error(problem) from problem
        here = {links[domain.wg].index for domain in self._domains if domain.wg in links}
        elsewhere = (destinations for interface, destinations in routes.items() if interface not in here)
        return Snapshot(time.time(), states, frozenset().union(*elsewhere))

    def _links(self) -> list[parse.Link]:
        return list(parse.decode_links(self._dump(self._route.dump, query.dump_links())))

    def _routes(self) -> dict[int, set[bytes]]:
        """Destinations of our routes by interface."""
        bodies = self._dump(self._route.dump, query.dump_routes(self._route_protocol))
        found: dict[int, set[bytes]] = {}
        for destination, interface, _ in parse.decode_routes(bodies, self._route_protocol):
            found.setdefault(interface, set()).add(destination)
        return found

    def _state(
        self, wg: parse.Link | None, vx: parse.Link | None, addresses: dict[int, str], routes: dict[int, set[bytes]]
    ) -> DomainState:
        state = DomainState()
        if vx is not None:
            state = DomainState(vx_present=True, vx_up=vx.up, vx_traffic=vx.traffic)
        device = self._device(wg) if wg else None
        if wg is None or device is None:
            return state
        # Peer, route and FDB entry have the same address: of thousands, one copy each is enough.
        known = {peer.link_local: peer.link_local for peer in device.peers}
        ours = frozenset(known.get(address, address) for address in routes.get(wg.index, ()))
        return replace(
            state,
            wg_present=True,
            wg_up=wg.up,
            wg_traffic=wg.traffic,
            public_key=device.public_key,
            listen_port=device.listen_port,
            link_address=addresses.get(wg.index, ""),
            peers=device.peers,
            shared_addresses=device.shared_addresses,
            unaddressed=device.unaddressed,
            routes=ours,
            foreign_routes=self._foreign_routes(wg, device.peers, ours),
            fdb_entries=frozenset(known.get(address, address) for address in self._fdb(vx, wg)) if vx else frozenset(),
        )

    def _foreign_routes(self, wg: parse.Link, peers: Iterable[Peer], ours: frozenset[bytes]) -> dict[bytes, int]:
        """Protocol numbers of routes that are not ours, by destination; read only if a peer has no route of ours."""
        if all(not peer.link_local or peer.link_local in ours for peer in peers):
            return {}
        try:
            bodies = self._dump(self._route.dump, query.dump_routes_over(wg.index))
        except OSError as problem:
            if problem.errno == errno.ENODEV:
                # The interface went meanwhile, and its routes with it.
                return {}
            raise
        found: dict[bytes, int] = {}
        for destination, interface, protocol in parse.decode_routes(bodies):
            if interface == wg.index and destination not in ours:
                # Of several to one address the kernel lists the one first that it uses.
                found.setdefault(destination, protocol)
        return found

    def _device(self, wg: parse.Link) -> parse.Device | None:
        """The WireGuard interface with its peers; None if it went meanwhile, or is of another kind."""
        try:
            return parse.decode_device(self._dump(self._wireguard.dump_device, wg.index))
        except OSError as problem:
            if problem.errno in (errno.ENODEV, errno.EOPNOTSUPP):
                return None
            raise

    def _fdb(self, vx: parse.Link, wg: parse.Link) -> Iterator[bytes]:
        bodies = self._dump(self._route.dump, query.dump_fdb(vx.index))
        return (destination for destination, via in parse.decode_fdb(bodies, vx.index) if via == wg.index)

    def _dump(self, work: Callable[..., _T], *request: Requests | int) -> _T:
        """Dump, again if it was interrupted.

        Raises:
            OSError: the kernel refused it, the socket failed, or it was interrupted too often (EINTR).
            DecodeError: a message cannot be decoded.
        """
        for _ in range(_DUMP_ATTEMPTS):
            started = time.monotonic()
            names: list[str] = []
            try:
                return work(*request)
            except InterruptedError:
                names = [name_of(errno.EINTR)]
            except (OSError, DecodeError) as problem:
                names = [name_of(code_of(problem))]
                raise
            finally:
                self._observer.observe(Operation.DUMP, 1, names, time.monotonic() - started)
        raise OSError(errno.EINTR, f"other programs changed it during each of {_DUMP_ATTEMPTS} dumps")
