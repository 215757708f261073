"""The interfaces of a domain on a gateway: what they should be, and what the nodes' firmware fixes of them.

The firmware is Gluon with the package ffmuc-mesh-vpn-wireguard-vxlan (https://github.com/freifunk-gluon/community-packages).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address
from typing import Final

from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

# The UDP port of the nodes' VXLAN interfaces; fixed in the package.
VXLAN_PORT: Final = 8472

# That of the first domain of the configuration, if nothing else is known: gateways in the field count from here.
FIRST_PORT: Final = 40_000

# What WireGuard itself assumes: 1500 bytes without an IPv6 header (40), a UDP header (8) and its own (32).
WIREGUARD_MTU: Final = 1420
# IPv6 needs at least this (RFC 8200, section 5), and all traffic in the tunnels is IPv6.
SMALLEST_MTU: Final = 1280
# Jumbo frames.
LARGEST_MTU: Final = 9000
# Headers of IPv6 (40), UDP (8), VXLAN (8) and Ethernet (14) around each frame.
VXLAN_OVERHEAD: Final = 70

# 24 bits (RFC 7348, section 5); networkd takes no 0.
LARGEST_VNI: Final = (1 << 24) - 1


def vni_of_seed(seed: str) -> int:
    """The VNI that nodes use in a domain.

    The first three bytes of an md5, as Gluon's `domain_seed_bytes` computes them for the package's key.

    Args:
        seed: `domain_seed` of the domain in Gluon's site configuration (64 hexadecimal digits).
    """
    digest = hashlib.md5(f"gluon-mesh-vpn-vxlan{seed.lower()}1".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:3], "big")


@dataclass(frozen=True, slots=True)
class DomainInterfaces:
    """What the two interfaces of a domain should be.

    Attributes:
        domain: names them.
        port: UDP port of the WireGuard interface.
        vni: VXLAN network identifier of the VXLAN interface.
        mtu: of the WireGuard interface, in bytes.
        public_key: of the WireGuard interface; None while it has no key.
    """

    domain: Domain
    port: int
    vni: int
    mtu: int
    public_key: PublicKey | None

    @property
    def address(self) -> IPv6Address | None:
        """The link-local address of the WireGuard interface, which derives from its key as that of each peer does."""
        return self.public_key.link_local if self.public_key else None

    @property
    def vxlan_mtu(self) -> int:
        """MTU of the VXLAN interface, in bytes: what is left of a packet in the tunnel."""
        return self.mtu - VXLAN_OVERHEAD


class InterfaceState(StrEnum):
    """What became of an interface."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class InterfaceOutcome:
    """What became of an interface, and why.

    Attributes:
        interface: its name.
        created: whether it was missing.
        changes: what was set, a few words each.
        problems: what is not as it should be, a sentence with the remedy each.
    """

    interface: str
    created: bool = False
    changes: Sequence[str] = ()
    problems: Sequence[str] = ()

    @property
    def state(self) -> InterfaceState:
        """One word for all of it."""
        if self.problems:
            return InterfaceState.FAILED
        if self.created:
            return InterfaceState.CREATED
        return InterfaceState.CHANGED if self.changes else InterfaceState.UNCHANGED
