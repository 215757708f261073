"""Interfaces and namespaces for tests, created with iproute2 and wg, and what these tools show of them.

Nothing here uses the code under test: other tools show what it did.
"""

import asyncio
import base64
import ctypes
import inspect
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wgkex_ops.model.domains import Domain

_PREFIX_OF_TESTS = "wgkex-"
ALL_ZERO_MAC = "00:00:00:00:00:00"
_CLONE_NEWNET = 0x40000000  # linux/sched.h


class WgPeer(NamedTuple):
    """A line of `wg show … dump`."""

    endpoint: str
    allowed_ips: str
    handshake: int
    receive_bytes: int
    transmit_bytes: int
    keepalive: str


class WgDevice(NamedTuple):
    public_key: str
    listen_port: int
    peers: dict[str, WgPeer]


@dataclass(frozen=True)
class Namespace:
    """A network namespace: one by name, or, without a name, the one that pytest runs in."""

    name: str = ""

    def command(self, *words: str) -> list[str]:
        """The command line that runs a command in it."""
        return ["ip", "netns", "exec", self.name, *words] if self.name else [*words]

    def run(self, *words: str, stdin: str = "") -> str:
        done = subprocess.run(self.command(*words), input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def sh(self, *lines: str) -> None:
        """Run lines of shell up to one that fails. One process for all: each start takes long in a guest."""
        self.run("sh", "-ec", "\n".join(lines))

    def links(self) -> dict[str, dict[str, Any]]:
        return {link["ifname"]: link for link in json.loads(self.run("ip", "-json", "link"))}

    def traffic(self, interface: str) -> tuple[int, int]:
        """Bytes that an interface has received and sent."""
        [link] = json.loads(self.run("ip", "-json", "-s", "link", "show", "dev", interface))
        return link["stats64"]["rx"]["bytes"], link["stats64"]["tx"]["bytes"]

    def wg(self, interface: str) -> WgDevice:
        first, *rest = self.run("wg", "show", interface, "dump").splitlines()
        _, public_key, port, _ = first.split("\t")
        peers = {}
        for line in rest:
            key, _, endpoint, allowed_ips, handshake, receive, transmit, keepalive = line.split("\t")
            peers[key] = WgPeer(endpoint, allowed_ips, int(handshake), int(receive), int(transmit), keepalive)
        return WgDevice(public_key, int(port), peers)

    def routes(self, interface: str, protocol: int | None = None) -> list[dict[str, Any]]:
        """IPv6 routes of the main table over an interface; `dst` of a /128 has no length, `protocol` is a number."""
        found = json.loads(self.run("ip", "-json", "-N", "-6", "route", "show", "dev", interface))
        return [route for route in found if protocol is None or route["protocol"] == str(protocol)]

    def fdb(self, interface: str) -> list[str]:
        """Destinations of the all-zero FDB entry, with repetitions."""
        entries = json.loads(self.run("bridge", "-json", "fdb", "show", "dev", interface))
        return [entry["dst"] for entry in entries if entry["mac"] == ALL_ZERO_MAC]

    def add_domain(self, domain: Domain, number: int) -> str:
        """Create a domain's interfaces as a gateway has them; the number makes VNI, port and address unique.

        Returns:
            the public key of the WireGuard interface.
        """
        return self.run("sh", "-ec", _creation(domain, number)).strip()

    def add_domains(self, *domains: Domain) -> list[str]:
        """Create the interfaces of many domains, numbered from 1; see `add_domain`."""
        scripts = [_creation(domain, number) for number, domain in enumerate(domains, 1)]
        return self.run("sh", "-ec", "\n".join(scripts)).split()

    def remove_links(self, *names: str) -> None:
        """Remove interfaces; some may be gone already, with another one."""
        # With peers, the removal of a WireGuard interface takes the kernel 20 ms for each of them.
        steps = "wg setconf $name /dev/null; ip link delete $name"
        self.run("sh", "-c", f"for name in {' '.join(names)}; do {steps}; done 2>/dev/null; true")


def _creation(domain: Domain, number: int) -> str:
    """A shell script for a domain's interfaces, which prints the public key."""
    address = f"fe80::{number:x}"
    private_key = base64.b64encode(os.urandom(32)).decode()
    script = f"""
        ip -batch - <<END
        link add {domain.wg} type wireguard
        link set {domain.wg} addrgenmode none
        address add {address}/64 dev {domain.wg}
        link add {domain.vx} type vxlan id {number} local {address} dev {domain.wg} dstport 4789
        link set {domain.wg} up
        link set {domain.vx} up
        END
        echo {private_key} | wg set {domain.wg} private-key /dev/stdin listen-port {40000 + number}
        wg show {domain.wg} public-key
    """
    return inspect.cleandoc(script)


@contextmanager
def namespaces() -> Iterator[Callable[[str], Namespace]]:
    """A function that creates namespaces, which last as long as the context."""
    host = Namespace()
    with ExitStack() as stack:

        def add(name: str) -> Namespace:
            namespace = Namespace(f"{_PREFIX_OF_TESTS}{name}")
            host.run("ip", "netns", "add", namespace.name)
            stack.callback(host.run, "ip", "netns", "delete", namespace.name)
            namespace.run("ip", "link", "set", "lo", "up")
            return namespace

        yield add


@contextmanager
def inside(path: Path) -> Iterator[None]:
    """Let this thread, and what it starts, be in a network namespace for a while."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as here, path.open("rb") as there:
        assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(here.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


async def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until a condition holds; the limit only distinguishes slow from never."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        await asyncio.sleep(0.05)
