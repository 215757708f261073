"""Makes the interfaces of domains, and changes those that are there, for `wgkex-ops interfaces`. Blocks.

`wgkex-ops doctor` only reads what they are.

Nothing is ever removed: no interface, no peer, no address. What the kernel does not change on an interface that exists
becomes a problem with its remedy.
"""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final

from wgkex_ops.consumer.dataplane.netlink import interfaces, parse, query, uapi
from wgkex_ops.consumer.dataplane.netlink.errnos import code_of, explain
from wgkex_ops.consumer.dataplane.netlink.framing import DecodeError, Requests
from wgkex_ops.consumer.dataplane.netlink.interfaces import VXLAN_KIND, WIREGUARD_KIND, LinkSettings, VxlanSettings
from wgkex_ops.consumer.dataplane.netlink.sockets import NetlinkSocket, WireGuardSocket
from wgkex_ops.errors import CannotConfigureError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.interfaces import VXLAN_PORT, DomainInterfaces, InterfaceOutcome

# A dump is interrupted when another program changes the same thing meanwhile.
_DUMP_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Present:
    """What the interfaces of a domain have that nodes know of; None where there is nothing.

    Attributes:
        private_key: of the WireGuard interface (32 bytes).
        port: its UDP port.
        mtu: its MTU, in bytes.
        vni: of the VXLAN interface.
    """

    private_key: bytes | None = field(default=None, repr=False)
    port: int | None = None
    mtu: int | None = None
    vni: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """How the interfaces of a domain are configured.

    Attributes:
        domain: names them.
        wg, vx: the WireGuard and the VXLAN interface; None if there is none of that name, whatever its kind.
        addresses: IPv6 addresses of the WireGuard interface.
        public_key: the WireGuard interface's own (32 bytes); empty if it has none, or is of another kind.
        port: its UDP port; 0 if it has none.
        lower: the name of the interface that VXLAN packets go over; ``none`` if none is set.
    """

    domain: Domain
    wg: LinkSettings | None = None
    vx: LinkSettings | None = None
    addresses: tuple[IPv6Address, ...] = ()
    public_key: bytes = b""
    port: int = 0
    lower: str = "none"


class _RefusedError(Exception):
    """The kernel refuses a change, for a reason that the message gives."""


class Interfaces:
    """The interfaces of this host.

    Each method raises CannotConfigureError if this process may not, or the kernel cannot.
    """

    def __init__(self) -> None:
        self._route = NetlinkSocket(uapi.NETLINK_ROUTE)
        self._wireguard = WireGuardSocket()

    def close(self) -> None:
        """Close the sockets."""
        self._route.close()
        self._wireguard.close()

    def check_rights(self) -> None:
        """Find out whether interfaces may be changed, by a change of nothing."""
        self._exchange(self._route, interfaces.change_nothing())

    def present(self, domain: Domain) -> Present:
        """Read what the interfaces of a domain have. Needs CAP_NET_ADMIN if there are any."""
        links = self._links()
        wg, vx = links.get(domain.wg), links.get(domain.vx)
        vni = vx.vxlan.vni if vx and vx.vxlan else None
        if wg is None or wg.kind != WIREGUARD_KIND:
            return Present(vni=vni)
        bodies = self._device(wg)
        private_key, port = interfaces.decode_private_key(bodies), parse.decode_device(bodies).listen_port
        return Present(private_key or None, port or None, wg.mtu, vni)

    def found(self, domains: Sequence[Domain]) -> list[Found]:
        """Read how the interfaces of domains are configured. Needs CAP_NET_ADMIN if there are any."""
        links = self._links()
        return [self._found(domain, links) for domain in domains]

    def _found(self, domain: Domain, links: Mapping[str, LinkSettings]) -> Found:
        wg, vx = links.get(domain.wg), links.get(domain.vx)
        index = vx.vxlan.lower if vx and vx.vxlan else 0
        lower = next((link.name for link in links.values() if link.index == index), "none")
        if wg is None or wg.kind != WIREGUARD_KIND:
            return Found(domain, wg, vx, lower=lower)
        device = parse.decode_device(self._device(wg))
        addresses = interfaces.decode_addresses(self._dump(self._route, interfaces.dump_addresses(wg.index)))
        return Found(domain, wg, vx, tuple(addresses), device.public_key, device.listen_port, lower)

    def apply(self, wanted: DomainInterfaces, private_key: bytes) -> list[InterfaceOutcome]:
        """Make the interfaces of a domain as they should be.

        Args:
            wanted: what they should be, with a public key.
            private_key: that belongs to it (32 bytes).

        Returns:
            the outcome of the WireGuard interface, then that of the VXLAN interface.
        """
        wg = _Work(wanted.domain.wg)
        with wg.refusals():
            self._apply_wireguard(wg, wanted, private_key)
        vx = _Work(wanted.domain.vx)
        with vx.refusals():
            self._apply_vxlan(vx, wanted)
        return [wg.outcome(), vx.outcome()]

    def _apply_wireguard(self, work: "_Work", wanted: DomainInterfaces, private_key: bytes) -> None:
        link = self._find_or_create(work, WIREGUARD_KIND, interfaces.create_wireguard(work.name))
        before = parse.decode_device(self._device(link))
        # Not the private keys: the kernel sets some bits of them.
        other_key = wanted.public_key is None or before.public_key != wanted.public_key.raw
        if other_key or before.listen_port != wanted.port:
            request = interfaces.set_device(self._family(), link.index, private_key, wanted.port)
            self._change(self._wireguard, request, f"UDP port {wanted.port}")
            work.changed("key", other_key)
            work.changed(f"port {wanted.port}, was {before.listen_port}", before.listen_port != wanted.port)
        self._set_mtu(work, link, wanted.mtu)
        self._set_up(work, link, f"UDP port {wanted.port}")
        # Last: an interface that is set down loses its addresses.
        self._add_address(work, link, wanted.address)

    def _add_address(self, work: "_Work", link: LinkSettings, address: IPv6Address | None) -> None:
        present = interfaces.decode_addresses(self._dump(self._route, interfaces.dump_addresses(link.index)))
        if address is not None and address not in present:
            self._change(self._route, interfaces.add_address(link.index, address), f"address {address}")
            work.changed(f"address {address}")
        for other in present:
            # The worker takes the lowest one for the gateway's.
            if address is not None and other.is_link_local and other < address:
                work.problems.append(
                    f"has the link-local address {other}, too, which nodes would be told in place of {address}; "
                    f"remove it: ip address delete {other} dev {work.name}"
                )

    def _apply_vxlan(self, work: "_Work", wanted: DomainInterfaces) -> None:
        lower = self._links().get(wanted.domain.wg)
        if lower is None or lower.kind != WIREGUARD_KIND:
            raise _RefusedError(f"needs {wanted.domain.wg}")
        settings = VxlanSettings(wanted.vni, VXLAN_PORT, lower.index, wanted.address, learning=True)
        link = self._find_or_create(work, VXLAN_KIND, interfaces.create_vxlan(work.name, settings), settings)
        has = link.vxlan
        if has is None:
            return
        if work.created:
            self._change(self._route, interfaces.generate_no_address(link.index), "no address")
        for what, wants, is_ in (
            ("VNI", settings.vni, has.vni),
            ("UDP port", settings.port, has.port),
            ("lower interface", lower.name, self._name(has.lower)),
        ):
            if wants != is_:
                work.problems.append(
                    f"has the {what} {is_}, not {wants}, which cannot be changed; make it anew: "
                    f"ip link delete {work.name}, and this command again"
                )
        if work.problems:
            return
        if (has.local, has.learning) != (settings.local, settings.learning):
            self._change(self._route, interfaces.change_vxlan(link.index, settings), f"address {settings.local}")
            work.changed(f"address {settings.local}", has.local != settings.local)
            work.changed("learning", has.learning != settings.learning)
        self._set_mtu(work, link, wanted.vxlan_mtu)
        self._set_up(work, link, f"UDP port {VXLAN_PORT}")

    def _find_or_create(
        self, work: "_Work", kind: str, creation: Requests, settings: VxlanSettings | None = None
    ) -> LinkSettings:
        """The interface, made if it is missing.

        Raises:
            _RefusedError: it cannot be made, or is of another kind.
        """
        links = self._links()
        link = links.get(work.name)
        if link is None:
            self._create(creation, kind, settings, links)
            work.created = True
            link = self._links()[work.name]
        if link.kind != kind:
            raise _RefusedError(f"is no {kind} interface ({link.kind or 'a network card'}): rename or remove it")
        return link

    def _create(
        self, creation: Requests, kind: str, settings: VxlanSettings | None, links: dict[str, LinkSettings]
    ) -> None:
        code = self._exchange(self._route, creation)
        if code == errno.EOPNOTSUPP:
            raise CannotConfigureError(f"this kernel cannot make {kind} interfaces: the module {kind} is missing")
        if code == errno.EEXIST and settings is not None:
            others = [link.name for link in links.values() if link.vxlan and link.vxlan.vni == settings.vni]
            raise _RefusedError(
                f"cannot be made: {', '.join(others) or 'another interface'} has the VNI {settings.vni}; "
                "remove that one, or name another VNI"
            )
        if code:
            raise _RefusedError(f"cannot be made: {explain(code)}")

    def _set_mtu(self, work: "_Work", link: LinkSettings, mtu: int) -> None:
        if link.mtu != mtu:
            self._change(self._route, interfaces.set_mtu(link.index, mtu), f"MTU {mtu}")
            work.changed(f"MTU {mtu}, was {link.mtu}")

    def _set_up(self, work: "_Work", link: LinkSettings, bound: str) -> None:
        if not link.up:
            self._change(self._route, interfaces.set_up(link.index), bound)
            work.changed("up")

    def _change(self, socket: NetlinkSocket, request: Requests, what: str) -> None:
        code = self._exchange(socket, request)
        if code == errno.EADDRINUSE:
            raise _RefusedError(f"cannot have {what}: another interface or program on this host has it")
        if code:
            raise _RefusedError(f"cannot have {what}: {explain(code)}")

    def _exchange(self, socket: NetlinkSocket, request: Requests) -> int:
        with _only_ours():
            (code,) = socket.exchange(request)
        if code == errno.EPERM:
            raise CannotConfigureError(
                "network interfaces can only be made and changed with CAP_NET_ADMIN: run this as root"
            )
        return code

    def _dump(self, socket: NetlinkSocket, request: Requests) -> list[bytes]:
        with _only_ours():
            for _ in range(_DUMP_ATTEMPTS):
                try:
                    return socket.dump(request)
                except InterruptedError:
                    continue
        raise CannotConfigureError("other programs changed the interfaces while they were read: run it again")

    def _links(self) -> dict[str, LinkSettings]:
        return {link.name: link for link in interfaces.decode_links(self._dump(self._route, query.dump_links()))}

    def _name(self, index: int) -> str:
        return next((link.name for link in self._links().values() if link.index == index), "none")

    def _family(self) -> int:
        with _only_ours():
            return self._wireguard.family()

    def _device(self, link: LinkSettings) -> list[bytes]:
        """Dump a WireGuard interface."""
        return self._dump(self._wireguard, query.dump_device(self._family(), link.index))


@dataclass(slots=True)
class _Work:
    """What has become of an interface so far."""

    name: str
    created: bool = False
    changes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def changed(self, what: str, condition: bool = True) -> None:
        if condition:
            self.changes.append(what)

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """What the kernel refuses ends the work on this interface, and on no other one."""
        try:
            yield
        except _RefusedError as error:
            self.problems.append(str(error))

    def outcome(self) -> InterfaceOutcome:
        # What a new interface has gone through is nothing to know.
        return InterfaceOutcome(
            self.name, self.created, () if self.created else tuple(self.changes), tuple(self.problems)
        )


@contextmanager
def _only_ours() -> Iterator[None]:
    try:
        yield
    except InterruptedError:
        raise
    except (OSError, DecodeError) as error:
        reason = "CAP_NET_ADMIN is needed: run this as root" if code_of(error) == errno.EPERM else error
        raise CannotConfigureError(f"the interfaces cannot be read: {reason}") from error
