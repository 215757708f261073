"""Bare netlink: a script that knows all numbers beforehand and expects no error.

It is the limit for the installer. Its messages are those of the worker, with as many peers in each, over one open
socket for each kind. The address is derived from the key, as no message works without it. Nothing else is done: no
outcomes, no objects, and of what the kernel sends only the last acknowledgement of each send is read.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from tests.kernel.lab import Namespace
from wgkex_ops.consumer.dataplane.netlink.configure import PEERS_PER_MESSAGE
from wgkex_ops.consumer.dataplane.netlink.sockets import MESSAGES_PER_SEND
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import link_local
from wgkex_ops.model.peers import ROUTE_PROTOCOL

_REQUEST: Final = 0x001
_ACK: Final = 0x004
_REPLACE: Final = 0x100
_CREATE: Final = 0x400
_APPEND: Final = 0x800
_HEADER: Final = struct.Struct("=IHHII")

# Attributes by hand: a peer (key, flags, its one address) and its removal, a route, an FDB entry.
_PEER: Final = struct.Struct("=HH HH32s HHI HH HH HHH2x HH16s HHB3x")
_PEER_REMOVAL: Final = struct.Struct("=HH HH32s HHI")
_ROUTE: Final = struct.Struct("=IHHII BBBBBBBBI HH16s HHi")
_FDB: Final = struct.Struct("=IHHII BxxxiHBB HH6s2x HH16s HHI")


class Bare:
    """Open sockets, and the indices of a domain's interfaces."""

    def __init__(self, domain: Domain) -> None:
        self.wg = socket.if_nametoindex(domain.wg)
        self.vx = socket.if_nametoindex(domain.vx)
        self._route = _open(socket.NETLINK_ROUTE)
        self._generic = _open(16)  # NETLINK_GENERIC
        self._family = _family_of_wireguard(self._generic)

    def close(self) -> None:
        self._route.close()
        self._generic.close()

    def install(self, keys: Sequence[bytes]) -> None:
        """All three parts of all keys."""
        peers = [(key, link_local(key)) for key in keys]
        addresses = [address for _, address in peers]
        self.add_peers(peers)
        self.add_routes(addresses)
        self.add_fdb_entries(addresses)

    def add_peers(self, peers: Sequence[tuple[bytes, bytes]]) -> None:
        # fmt: off
        pack = _PEER.pack
        self._set_device([
            pack(_PEER.size, 0x8000, 36, 1, key, 8, 3, 2, 44, 0x8009, 40, 0x8000, 6, 1, 10, 20, 2, address, 5, 3, 128)
            for key, address in peers
        ])
        # fmt: on

    def remove_peers(self, keys: Iterable[bytes]) -> None:
        pack = _PEER_REMOVAL.pack
        self._set_device([pack(_PEER_REMOVAL.size, 0x8000, 36, 1, key, 8, 3, 5) for key in keys])

    def add_routes(self, addresses: Sequence[bytes]) -> None:
        self._change_routes(addresses, 24, _CREATE | _REPLACE)

    def remove_routes(self, addresses: Sequence[bytes]) -> None:
        self._change_routes(addresses, 25, 0)

    def add_fdb_entries(self, addresses: Sequence[bytes]) -> None:
        self._change_fdb(addresses, 28, _CREATE | _APPEND)

    def remove_fdb_entries(self, addresses: Sequence[bytes]) -> None:
        self._change_fdb(addresses, 29, 0)

    def _set_device(self, peers: Sequence[bytes]) -> None:
        for start in range(0, len(peers), PEERS_PER_MESSAGE):
            body = b"".join(peers[start : start + PEERS_PER_MESSAGE])
            head = struct.pack("=BBxxHHIHH", 1, 1, 8, 1, self.wg, 4 + len(body), 0x8008)
            size = _HEADER.size + len(head) + len(body)
            self._generic.send(_HEADER.pack(size, self._family, _REQUEST | _ACK, 1, 0) + head + body)
            _acknowledged(self._generic)

    def _change_routes(self, addresses: Sequence[bytes], kind: int, flags: int) -> None:
        size, pack, wg = _ROUTE.size, _ROUTE.pack, self.wg

        def one(address: bytes, wanted: int) -> bytes:
            # fmt: off
            return pack(size, kind, flags | wanted, 1, 0, 10, 128, 0, 0, 254, ROUTE_PROTOCOL, 0, 1, 0,
                        20, 1, address, 8, 4, wg)
            # fmt: on

        self._send_many(addresses, one)

    def _change_fdb(self, addresses: Sequence[bytes], kind: int, flags: int) -> None:
        size, pack, vx, wg = _FDB.size, _FDB.pack, self.vx, self.wg

        def one(address: bytes, wanted: int) -> bytes:
            # fmt: off
            return pack(size, kind, flags | wanted, 1, 0, 7, vx, 0xC0, 2, 0,
                        10, 2, b"", 20, 1, address, 8, 8, wg)
            # fmt: on

        self._send_many(addresses, one)

    def _send_many(self, addresses: Sequence[bytes], one: Callable[[bytes, int], bytes]) -> None:
        for start in range(0, len(addresses), MESSAGES_PER_SEND):
            *others, last = addresses[start : start + MESSAGES_PER_SEND]
            messages = [one(address, _REQUEST) for address in others]
            messages.append(one(last, _REQUEST | _ACK))
            self._route.send(b"".join(messages))
            _acknowledged(self._route)


def _open(protocol: int) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    opened.setsockopt(270, 10, 1)  # SOL_NETLINK, NETLINK_CAP_ACK
    opened.connect((0, 0))
    return opened


def _acknowledged(connection: socket.socket) -> None:
    """An error would come before the acknowledgement. It fails the benchmark."""
    (code,) = struct.unpack_from("=i", connection.recv(65536), _HEADER.size)
    assert code == 0, errno.errorcode.get(-code, str(code))


def _family_of_wireguard(connection: socket.socket) -> int:
    """Look it up by name, as a script would."""
    body = struct.pack("=BBxxHH10s2x", 3, 1, 14, 2, b"wireguard\0")
    connection.send(_HEADER.pack(_HEADER.size + len(body), 0x10, _REQUEST, 1, 0) + body)
    reply = connection.recv(65536)
    offset = _HEADER.size + 4
    while offset < len(reply):
        size, kind = struct.unpack_from("=HH", reply, offset)
        if kind == 1:
            (family,) = struct.unpack_from("=H", reply, offset + 4)
            return int(family)
        offset += (size + 3) & ~3
    raise LookupError("no WireGuard among the generic netlink families")


def random_keys(count: int) -> list[bytes]:
    return [os.urandom(32) for _ in range(count)]


def fresh_domains(host: Namespace, count: int) -> list[Domain]:
    """Create the interfaces of domains again, without a peer."""
    domains = [Domain(f"ffmuc_{number}", f"wg-{number}", f"vx-{number}") for number in range(1, count + 1)]
    host.remove_links(*(name for domain in domains for name in (domain.vx, domain.wg)))
    for number, domain in enumerate(domains, 1):
        host.add_domain(domain, number)
    return domains
