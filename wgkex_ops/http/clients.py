"""The clients of the public listener: the address that a request comes from, and the network that it counts for."""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Final

import structlog

_log = structlog.get_logger(__name__)

_MAPPED: Final = bytes(10) + b"\xff\xff"
_IPV4_BYTES: Final = 4
# Providers give a customer a /56, and each customer has as many addresses as they like.
_NETWORK_BYTES: Final = 7

# So many new nodes in a row, all from one address that may forward and sent no header, are no single client.
SUSPICIOUS_NODES: Final = 10
# Addresses of which it is remembered whether they are load balancers'.
_REMEMBERED: Final = 4096
# For the page and the log.
LIKELY_CAUSE: Final = "a load balancer without X-Forwarded-For?"


def network_of(address: str) -> bytes:
    """The network whose clients are limited together: the 4 bytes of an IPv4 address, 7 bytes (a /56) of IPv6.

    An IPv4 address in IPv6 form, as a listener on `::` shows it, counts as what it is.

    Raises:
        ValueError: this is no address.
    """
    packed = _pack(address)
    return packed if len(packed) == _IPV4_BYTES else packed[:_NETWORK_BYTES]


class TrustedProxies:
    """Who is believed about the client of a request.

    Args:
        networks: of the load balancers.
    """

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        self._networks = [
            (network.network_address.packed, int(network.netmask), int(network.network_address)) for network in networks
        ]
        # Nearly all requests come from a few load balancers.
        self._known: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        """Whether an address is one of theirs; what is no address is not."""
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[address] = self._includes(address)
        return known

    def _includes(self, address: str) -> bool:
        try:
            packed = _pack(address)
        except ValueError:
            return False
        value = int.from_bytes(packed, "big")
        return any(
            len(first) == len(packed) and value & netmask == network for first, netmask, network in self._networks
        )

    def network_of_connection(self, address: str) -> bytes | None:
        """The network that a connection from an address counts for; None for a load balancer's, which many share."""
        return None if address in self else network_of(address)

    def client(self, peer: str, forwarded_for: str, real_ip: str) -> str:
        """The address that a request comes from.

        Each proxy adds the address of whom it serves to the end of `X-Forwarded-For`. What stands before the entry of
        the first proxy that is not trusted is that one's own invention.

        Args:
            peer: the address that has opened the connection.
            forwarded_for: the values of all headers `X-Forwarded-For`, joined with commas; empty if there is none.
            real_ip: the value of the header `X-Real-IP`, used if there is no other; empty if there is none.
        """
        if not (forwarded_for or real_ip) or peer not in self:
            return peer
        client = peer
        for entry in reversed((forwarded_for or real_ip).split(",")):
            address = entry.strip()
            if not _is_address(address):
                break
            client = address
            if client not in self:
                break
        return client


class ForwardingWatch:
    """Which load balancer all nodes come from, as long as it does not name them.

    Args:
        proxies: who may be one.

    Attributes:
        suspect: its address; empty if there is none.
    """

    def __init__(self, proxies: TrustedProxies) -> None:
        self._proxies = proxies
        self.suspect = ""
        self._peer = ""
        self._nodes = 0

    def note(self, peer: str, client: str) -> None:
        """Note a new node.

        Args:
            peer: the address that has opened the connection.
            client: the address that it forwards for; its own if it does not name one.
        """
        if client != peer or peer not in self._proxies:
            self.suspect, self._peer, self._nodes = "", "", 0
            return
        self._nodes = self._nodes + 1 if peer == self._peer else 1
        self._peer = peer
        if self._nodes >= SUSPICIOUS_NODES and self.suspect != peer:
            self.suspect = peer
            detail = f"all requests come from {peer}: {LIKELY_CAUSE}; see trusted_proxies"
            _log.warning("clients_not_forwarded", address=peer, detail=detail)


def _pack(address: str) -> bytes:
    try:
        if ":" not in address:
            return socket.inet_pton(socket.AF_INET, address)
        # A link-local address may name its interface behind a percent sign.
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        raise ValueError(f"{address!r} is not an IP address") from None
    return packed.removeprefix(_MAPPED)


def _is_address(text: str) -> bool:
    try:
        _pack(text)
    except ValueError:
        return False
    return True
