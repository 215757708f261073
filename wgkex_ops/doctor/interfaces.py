"""The interfaces of a gateway and its peers in the kernel, for the worker."""

import asyncio
import configparser
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from wgkex_ops.config import Config
from wgkex_ops.consumer.dataplane.kernel import read_once
from wgkex_ops.consumer.dataplane.netlink.interfaces import VXLAN_KIND, WIREGUARD_KIND
from wgkex_ops.consumer.interfaces import Found, Interfaces
from wgkex_ops.consumer.upkeep.journal_file import JournalUnavailableError, Row, read_journal
from wgkex_ops.doctor.findings import Finding, critical, ok, warning, worst
from wgkex_ops.doctor.host import Host
from wgkex_ops.doctor.process import Process
from wgkex_ops.errors import CannotConfigureError, DataplaneError
from wgkex_ops.model.fleet import Severity
from wgkex_ops.model.interfaces import VXLAN_OVERHEAD
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import Incomplete, Snapshot, find_incomplete

_CHECK: Final = "interfaces"
_MAKE: Final = "wgkex-ops interfaces --apply makes it (docs/interfaces.md)"
# In the order of systemd: of files with one name, the first counts.
_NETWORKD: Final = ("etc", "run", "usr/local/lib", "usr/lib")


async def check_interfaces(config: Config, process: Process, host: Host) -> list[Finding]:
    """Check rights, interfaces, peers and networkd."""
    if config.worker.dataplane == "memory":
        text = "worker.dataplane is memory: this worker installs nothing, and is for trying out"
        return [warning(_CHECK, text, "set worker.dataplane to kernel")]
    rights = await asyncio.to_thread(check_rights, process, host)
    try:
        found = await asyncio.to_thread(_read, config)
    except CannotConfigureError as error:
        return [*rights, warning(_CHECK, str(error), "run this as root")]
    problems = [*interface_findings(found), *await asyncio.to_thread(lambda: list(_taken_ports(found, host)))]
    names = ", ".join(f"{one.domain.wg} and {one.domain.vx}" for one in found)
    shown = problems or [ok(_CHECK, f"{names} are as they should be")]
    networkd = await asyncio.to_thread(check_networkd, host)
    return [*rights, *shown, *await _check_peers(config, process, worst(problems)), *networkd]


def check_rights(process: Process, host: Host) -> list[Finding]:
    """Whether the running worker may change the kernel."""
    if process.pid is None:
        return []
    if host.has_net_admin(process.pid) is False:
        text = f"the worker (process {process.pid}) has no CAP_NET_ADMIN: it can install no peer"
        remedy = "set AmbientCapabilities=CAP_NET_ADMIN as in deploy/systemd/wgkex-worker.service; systemctl restart it"
        return [critical("rights", text, remedy)]
    return [ok("rights", "the worker has CAP_NET_ADMIN")]


def interface_findings(found: Sequence[Found]) -> list[Finding]:
    """What is wrong with interfaces; empty if nothing is."""
    return [*(finding for one in found for finding in (*_of_wireguard(one), *_of_vxlan(one))), *_clashes(found)]


def _of_wireguard(found: Found) -> Iterator[Finding]:
    name, wg = found.domain.wg, found.wg
    if wg is None:
        yield critical(_CHECK, f"{name} is missing: nodes of {found.domain} get no tunnel here", _MAKE)
        return
    if wg.kind != WIREGUARD_KIND:
        text = f"{name} is no WireGuard interface ({wg.kind or 'a network card'})"
        yield critical(_CHECK, text, f"rename or remove it; {_MAKE}")
        return
    if not wg.up:
        yield critical(_CHECK, f"{name} is down", f"ip link set {name} up; an error names its cause")
    if not found.public_key:
        yield critical(_CHECK, f"{name} has no private key", "wgkex-ops interfaces --apply makes one")
    if wg.up and not found.port:
        yield critical(_CHECK, f"{name} has no UDP port", f"wg set {name} listen-port 40000, or another one")
    own = sorted(address for address in found.addresses if address.is_link_local)
    if not own and wg.up:
        remedy = "wgkex-ops interfaces --apply gives it one; so does the unit that --output writes"
        yield critical(_CHECK, f"{name} has no link-local address: no node gets its endpoint", remedy)
    derived = PublicKey(found.public_key).link_local if found.public_key else None
    if own and derived is not None and own[0] != derived:
        text = f"{name} is announced with {own[0]}, and its key derives {derived}, which some nodes expect"
        remedy = f"wgkex-ops interfaces --apply adds it; then ip address delete {own[0]} dev {name}"
        yield warning(_CHECK, text, remedy)


def _of_vxlan(found: Found) -> Iterator[Finding]:
    name, vx, wg = found.domain.vx, found.vx, found.domain.wg
    again = f"ip link delete {name}, then wgkex-ops interfaces --apply --vni {found.domain}=VNI"
    if vx is None:
        yield critical(_CHECK, f"{name} is missing: nodes of {found.domain} get no mesh here", _MAKE)
        return
    if vx.kind != VXLAN_KIND or vx.vxlan is None:
        text = f"{name} is no VXLAN interface ({vx.kind or 'a network card'})"
        yield critical(_CHECK, text, f"rename or remove it; {_MAKE}")
        return
    if not vx.up:
        yield critical(_CHECK, f"{name} is down", f"ip link set {name} up; an error names its cause")
    if found.lower != wg:
        yield critical(_CHECK, f"{name} sends over {found.lower}, not over {wg}: nodes get no mesh", again)
    largest = found.wg.mtu - VXLAN_OVERHEAD if found.wg is not None else None
    if largest is not None and vx.mtu > largest:
        text = f"the MTU of {name} is {vx.mtu}, and {wg} carries {largest} of it: large packets get lost"
        yield critical(_CHECK, text, f"ip link set {name} mtu {largest}, and MTUBytes= in its unit")
    local = vx.vxlan.local
    if found.addresses and local is not None and local not in found.addresses:
        text = f"{name} sends from {local}, which {wg} does not have: nodes drop its packets"
        yield critical(_CHECK, text, "wgkex-ops interfaces --apply sets the address of both")


def _clashes(found: Sequence[Found]) -> Iterator[Finding]:
    names: dict[tuple[str, int, int], str] = {}
    for one in found:
        if one.vx is not None and one.vx.vxlan is not None:
            vni = one.vx.vxlan.vni
            other = names.setdefault(("vni", vni, one.vx.vxlan.port), one.domain.vx)
            if other != one.domain.vx:
                text = f"{other} and {one.domain.vx} both have the VNI {vni}: nodes of one domain get no mesh"
                remedy = f"find the right one: wgkex-ops interfaces --domain-seed {one.domain}=SEED prints it"
                yield critical(_CHECK, text, remedy)
        other = names.setdefault(("port", one.port, 0), one.domain.wg)
        if one.port and other != one.domain.wg:
            text = f"{other} and {one.domain.wg} both have the UDP port {one.port}"
            yield critical(_CHECK, text, f"wg set {one.domain.wg} listen-port with another one")


def _taken_ports(found: Sequence[Found], host: Host) -> Iterator[Finding]:
    """Find programs that keep an interface from being set up. The kernel's own sockets have no process."""
    for one in found:
        if one.wg is not None and not one.wg.up and one.port:
            holder = host.holder(one.port, "udp")
            if holder is not None and holder[1]:
                text = f"{holder[1]} (process {holder[0]}) has UDP port {one.port}, which {one.domain.wg} needs"
                yield critical(
                    "port", text, f"end that program, or wg set {one.domain.wg} listen-port with another one"
                )


def _read(config: Config) -> list[Found]:
    with closing(Interfaces()) as interfaces:
        return interfaces.found(config.domains)


# --- peers


async def _check_peers(config: Config, process: Process, interfaces: Severity) -> list[Finding]:
    if interfaces is Severity.CRITICAL:
        # Without an interface, or with one that is down, there are no routes either.
        return []
    try:
        snapshot = await read_once(config.domains, config.worker.route_protocol)
    except DataplaneError as error:
        return [warning("peers", f"the kernel's peers cannot be read: {error}", "run this as root")]
    try:
        rows = await asyncio.to_thread(read_journal, config.worker.state_dir)
    except JournalUnavailableError:
        # `state_dir` names the cause.
        rows = []
    return peer_findings(snapshot, rows, repaired=process.runs)


def peer_findings(snapshot: Snapshot, rows: Iterable[Row], *, repaired: bool) -> list[Finding]:
    """What peers lack.

    Args:
        snapshot: what the kernel has.
        rows: what the journal has.
        repaired: whether a worker runs, which restores what is missing within a minute.
    """
    lost: dict[str, int] = {}
    present = {name: {peer.public_key for peer in state.peers} for name, state in snapshot.domains.items()}
    for row in rows:
        if row.domain in present and row.key not in present[row.domain]:
            lost[row.domain] = lost.get(row.domain, 0) + 1
    found = []
    for name, incomplete in find_incomplete(snapshot).items():
        parts = [f"{count} {what}" for what, count in _missing(incomplete, lost.get(name, 0)) if count]
        if parts:
            text = f"{name}: missing in the kernel: {', '.join(parts)}; nodes have no tunnel or no mesh"
            if repaired:
                remedy = "the worker restores them within a minute; if this stays, another program removes them"
                found.append(warning("peers", text, remedy))
            else:
                found.append(critical("peers", text, "systemctl start wgkex-worker: it restores them"))
    return found or [ok("peers", f"{sum(map(len, present.values()))} peers, each with its route and FDB entry")]


def _missing(incomplete: Incomplete, lost: int) -> list[tuple[str, int]]:
    return [
        ("peers of the journal", lost),
        ("peers of routes", len(incomplete.peer)),
        ("routes", len(incomplete.route)),
        ("FDB entries", len(incomplete.fdb)),
    ]


# --- networkd


def check_networkd(host: Host) -> list[Finding]:
    """Whether systemd-networkd lets the worker's routes live, if it runs."""
    if not host.runs("systemd-networkd"):
        return []
    if _foreign_routes_stay(host.root):
        return [ok("networkd", "systemd-networkd leaves the worker's routes alone")]
    text = "systemd-networkd removes the worker's routes when it is restarted: ManageForeignRoutes is not no"
    remedy = "wgkex-ops interfaces --output /etc/systemd writes networkd.conf.d/10-wgkex.conf, which sets it"
    return [warning("networkd", text, remedy)]


def _foreign_routes_stay(root: Path) -> bool:
    drop_ins: dict[str, Path] = {}
    for folder in _NETWORKD:
        for path in (root / folder / "systemd/networkd.conf.d").glob("*.conf"):
            drop_ins.setdefault(path.name, path)
    main = [path for folder in _NETWORKD if (path := root / folder / "systemd/networkd.conf").exists()][:1]
    value = "yes"
    for path in (*main, *(drop_ins[name] for name in sorted(drop_ins))):
        value = _setting(path) or value
    return value.lower() in {"no", "false", "0", "off", "n", "f"}


def _setting(path: Path) -> str:
    """ManageForeignRoutes of a file; empty if it has none."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    if not os.access(path, os.R_OK):
        return ""
    try:
        parser.read_string(path.read_text())
    except (configparser.Error, UnicodeDecodeError):
        # networkd warns of such lines, and ignores them.
        return ""
    return parser.get("Network", "ManageForeignRoutes", fallback="") or ""
