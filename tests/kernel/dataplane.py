"""Domains and helpers of the tests that have a dataplane on a real kernel."""

import base64
import os
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address
from typing import Final

from tests.kernel.lab import Namespace
from wgkex_ops.model.changes import Change, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import ROUTE_PROTOCOL

DOMAINS: Final = tuple(Domain(f"ffx_{suffix}", f"wg-{suffix}", f"vx-{suffix}") for suffix in ("a", "b", "c"))
A, B, C = DOMAINS

# What every gateway has besides ours: a peer, a route and an FDB entry towards another gateway.
STATIC_KEY: Final = base64.b64encode(bytes(range(32))).decode()
STATIC_ADDRESS: Final = "fe80::5:1"
STATIC: Final = 4  # RTPROT_STATIC, linux/rtnetlink.h


def new_keys(count: int) -> list[PublicKey]:
    return [PublicKey(os.urandom(32)) for _ in range(count)]


def install(domain: Domain, keys: Iterable[PublicKey]) -> list[Change]:
    return [Change.install(domain, key) for key in keys]


def remove(domain: Domain, keys: Iterable[PublicKey]) -> list[Change]:
    return [Change.remove(domain, key) for key in keys]


def addresses(keys: Iterable[PublicKey]) -> list[str]:
    return sorted(str(key.link_local) for key in keys)


def packed(texts: Iterable[str]) -> frozenset[bytes]:
    return frozenset(IPv6Address(text).packed for text in texts)


def errors(outcomes: Sequence[Outcome]) -> list[tuple[str, str] | None]:
    return [(outcome.operation, outcome.error) if outcome else None for outcome in outcomes]


def assert_exactly(here: Namespace, domain: Domain, keys: Sequence[PublicKey]) -> None:
    """Each of these keys has its three parts once, and there is nothing else."""
    peers = here.wg(domain.wg).peers
    assert {key: peer.allowed_ips for key, peer in peers.items()} == {str(key): f"{key.link_local}/128" for key in keys}
    assert all(peer.endpoint == "(none)" and peer.keepalive == "off" for peer in peers.values())
    assert sorted(route["dst"] for route in here.routes(domain.wg, ROUTE_PROTOCOL)) == addresses(keys)
    assert sorted(here.fdb(domain.vx)) == addresses(keys)
