"""Domains: the mesh networks that a key can belong to, and their interfaces on a gateway."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from wgkex_ops.errors import InvalidDomainError

# A name becomes a level of MQTT topics and a part of interface names: no `/`, `+`, `#`, no space, nothing but ASCII.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

# Linux: IFNAMSIZ is 16 with the terminating NUL (include/uapi/linux/if.h).
_INTERFACE_NAME_BYTES: Final = 15


@dataclass(frozen=True, slots=True)
class Domain:
    """One mesh network.

    Attributes:
        name: as nodes send it and topics carry it.
        wg: the WireGuard interface on a gateway.
        vx: the VXLAN interface on top of it.
    """

    name: str
    wg: str
    vx: str

    def __str__(self) -> str:
        return self.name


def parse_domain(name: str, prefixes: Sequence[str]) -> Domain:
    """Derive a domain from its configured name (contract, section 2).

    Args:
        name: the configured name.
        prefixes: ``domain_prefixes``, in order; the first one that fits is cut off.

    Raises:
        InvalidDomainError: the name has forbidden characters, fits no prefix, or leads to no possible interface name.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidDomainError(f"{name!r} may only have letters, digits, '_' and '-'")
    for prefix in prefixes:
        if name.startswith(prefix):
            suffix = name.removeprefix(prefix)
            break
    else:
        # What is in a prefix cannot be a terminal's command: repr escapes it.
        listed = ", ".join(repr(prefix)[1:-1] for prefix in prefixes)
        raise InvalidDomainError(f"{name!r} starts with none of domain_prefixes ({listed or 'empty'})")
    if not suffix:
        raise InvalidDomainError(f"{name!r} is nothing but a prefix: nothing is left to name the interfaces after")
    domain = Domain(name=name, wg=f"wg-{suffix}", vx=f"vx-{suffix}")
    if len(domain.wg) > _INTERFACE_NAME_BYTES:
        raise InvalidDomainError(
            f"{name!r} needs the interface {domain.wg}, which is {len(domain.wg)} bytes long; "
            f"Linux allows {_INTERFACE_NAME_BYTES}"
        )
    return domain


def find_collisions(domains: Iterable[Domain]) -> list[tuple[Domain, Domain]]:
    """Pairs of domains that would share their interfaces, the earlier one first."""
    owners: dict[str, Domain] = {}
    return [(owner, domain) for domain in domains if (owner := owners.setdefault(domain.wg, domain)) is not domain]
