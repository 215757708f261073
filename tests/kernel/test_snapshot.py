"""Snapshots of a real kernel, compared with what wg, ip and bridge show."""

import asyncio
import base64
import sys
import time
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest

from tests.fakes import Recorder
from tests.kernel.dataplane import (
    DOMAINS,
    STATIC,
    STATIC_ADDRESS,
    STATIC_KEY,
    A,
    B,
    C,
    addresses,
    install,
    new_keys,
    packed,
)
from tests.kernel.lab import Namespace, eventually
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.changes import Operation
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import ROUTE_PROTOCOL, DomainState, Incomplete, Traffic, find_incomplete


async def test_a_snapshot_has_what_the_tools_show(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane
) -> None:
    keys = new_keys(700)
    await dataplane.apply([*install(A, keys), *install(B, new_keys(2))])
    many = ",".join(f"fe80::6:{number:x}/128" for number in range(1, 1200))  # continues in the next message
    here.sh(
        f"wg set {A.wg} peer {STATIC_KEY} endpoint 192.0.2.1:40001 persistent-keepalive 25 allowed-ips {many}",
        f"ip -6 route add {STATIC_ADDRESS}/128 dev {A.wg} proto static",
        f"ip -6 route add 2001:db8::/64 dev {A.wg} proto {ROUTE_PROTOCOL}",
        f"ip -6 route add fe80::9/128 dev {A.wg} proto {ROUTE_PROTOCOL} table 42",
        f"bridge fdb append 00:00:00:00:00:00 dev {A.vx} dst {STATIC_ADDRESS} via {A.wg}",
        f"bridge fdb append 00:00:00:00:00:00 dev {A.vx} dst {STATIC_ADDRESS} via {B.wg}",
        "ip link add other type dummy",
        "ip link set other up",
        f"ip -6 route add fe80::5:2/128 dev other proto {ROUTE_PROTOCOL}",
        "ip -6 route add fe80::5:3/128 dev other proto static",
        f"bridge fdb add 02:00:00:00:00:01 dev {A.vx} dst fe80::8 via {A.wg}",
        f"ip address add fe80::aaaa/64 dev {A.wg}",
        f"ip link set {B.vx} down",
    )
    before = time.time()
    snapshot = await dataplane.snapshot()
    assert before <= snapshot.taken_at <= time.time()
    assert list(snapshot.domains) == [domain.name for domain in DOMAINS]
    assert snapshot.routed_elsewhere == packed(["fe80::5:2"])

    state = snapshot.domains[A.name]
    seen = here.wg(A.wg)
    assert state.wg_present
    assert state.vx_present
    assert state.ready
    assert base64.b64encode(state.public_key).decode() == seen.public_key == own_keys[0]
    assert state.listen_port == seen.listen_port == 40001
    assert state.link_address == "fe80::1"
    assert len(state.peers) == len(seen.peers) == 701
    for peer in state.peers:
        key = base64.b64encode(peer.public_key).decode()
        assert (peer.handshake, peer.receive_bytes) == (0.0, 0)
        assert peer.transmit_bytes == seen.peers[key].transmit_bytes
        assert peer.link_local == (b"" if key == STATIC_KEY else IPv6Address(seen.peers[key].allowed_ips[:-4]).packed)
    assert state.shared_addresses == packed(many.replace("/128", "").split(","))
    assert state.routes == packed(str(key.link_local) for key in keys)
    assert state.fdb_entries == packed([*here.fdb(A.vx)])
    assert len(state.fdb_entries) == 701

    other = snapshot.domains[B.name]
    assert (other.wg_up, other.vx_present, other.vx_up, other.ready) == (True, True, False, False)
    assert len(other.peers) == len(other.routes) == len(other.fdb_entries) == 2


async def test_peers_that_lost_a_part_are_incomplete(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane
) -> None:
    whole, no_route, no_fdb, no_peer, not_ours, moved = keys = new_keys(6)
    assert await dataplane.apply([*install(A, keys[:4]), *install(A, [moved]), *install(B, [moved])]) == [None] * 6
    here.sh(
        f"ip -6 route delete {no_route.link_local}/128 dev {A.wg}",
        f"bridge fdb delete 00:00:00:00:00:00 dev {A.vx} dst {no_fdb.link_local} via {A.wg}",
        f"wg set {A.wg} peer {no_peer} remove",
        # As the older wgkex leaves them.
        f"wg set {A.wg} peer {not_ours} allowed-ips {not_ours.link_local}/128",
        f"ip -6 route add {not_ours.link_local}/128 dev {A.wg} proto static",
    )
    snapshot = await dataplane.snapshot()
    assert snapshot.domains[A.name].foreign_routes == {not_ours.link_local.packed: STATIC}
    assert snapshot.domains[B.name].foreign_routes == {}

    incomplete = find_incomplete(snapshot)
    assert incomplete[A.name] == Incomplete(
        peer=packed(addresses([no_peer])), route=packed(addresses([no_route])), fdb=packed(addresses([no_fdb]))
    )
    assert incomplete[B.name] == incomplete[C.name] == Incomplete(frozenset(), frozenset(), frozenset())

    # To install them again repairs them.
    assert await dataplane.apply(install(A, [whole, no_route, no_fdb, no_peer])) == [None] * 4
    assert find_incomplete(await dataplane.snapshot())[A.name] == incomplete[B.name]


@pytest.mark.parametrize(
    ("allowed_ips", "expected"),
    [
        ("fe80::7/128", IPv6Address("fe80::7").packed),
        ("", b""),
        ("fe80::7/127", b""),
        ("10.0.0.7/32", b""),
        ("fe80::7/128,10.0.0.7/32", b""),
    ],
)
async def test_only_a_single_address_is_a_peers_address(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, allowed_ips: str, expected: bytes
) -> None:
    here.run("wg", "set", A.wg, "peer", STATIC_KEY, "allowed-ips", allowed_ips)
    state = (await dataplane.snapshot()).domains[A.name]
    (peer,) = state.peers
    assert peer.link_local == expected
    assert state.unaddressed == ({peer.public_key} if not allowed_ips else set())


async def test_an_interface_without_a_key(here: Namespace, dataplane: KernelDataplane) -> None:
    here.run("ip", "link", "add", A.wg, "type", "wireguard")
    state = (await dataplane.snapshot()).domains[A.name]
    assert state == DomainState(wg_present=True, wg_traffic=Traffic(0, 0))


def add_node(here: Namespace, node: Namespace, gateway_key: str) -> PublicKey:
    """Give a node a cable to this host, and a WireGuard interface towards the first domain; its public key."""
    private_key = node.run("wg", "genkey").strip()
    key = PublicKey.parse(node.run("wg", "pubkey", stdin=private_key).strip())
    here.sh(
        f"ip link add uplink type veth peer name uplink netns {node.name}",
        "ip address add 192.0.2.1/24 dev uplink",
        "ip link set uplink up",
    )
    node.run(
        "sh",
        "-ec",
        "ip address add 192.0.2.2/24 dev uplink; ip link set uplink up\n"
        "ip link add wg-node type wireguard\n"
        f"wg set wg-node private-key /dev/stdin peer {gateway_key} allowed-ips fe80::1/128 endpoint 192.0.2.1:40001\n"
        f"ip link set wg-node addrgenmode none; ip address add {key.link_local}/64 dev wg-node\n"
        "ip link set wg-node up",
        stdin=private_key,
    )
    return key


async def test_a_real_handshake(
    here: Namespace,
    own_keys: list[str],
    dataplane: KernelDataplane,
    add_namespace: Callable[[str], Namespace],
) -> None:
    node = add_namespace("node")
    key = add_node(here, node, own_keys[0])
    await dataplane.apply(install(A, [key]))

    began = time.time()
    node.run("wg", "set", "wg-node", "peer", own_keys[0], "persistent-keepalive", "1")
    await eventually(lambda: here.wg(A.wg).peers[str(key)].handshake > 0)

    (peer,) = (await dataplane.snapshot()).domains[A.name].peers
    seen = here.wg(A.wg).peers[str(key)]
    assert int(peer.handshake) == seen.handshake
    assert began - 1 <= peer.handshake <= time.time()
    assert 0 < peer.receive_bytes <= seen.receive_bytes
    assert 0 < peer.transmit_bytes <= seen.transmit_bytes
    assert peer.link_local == key.link_local.packed

    # A refresh does not cut the session off.
    await dataplane.apply(install(A, [key]))
    assert here.wg(A.wg).peers[str(key)].handshake == seen.handshake
    assert here.wg(A.wg).peers[str(key)].endpoint.startswith("192.0.2.2:")


async def test_the_traffic_of_interfaces_is_what_ip_shows(
    here: Namespace,
    own_keys: list[str],
    dataplane: KernelDataplane,
    add_namespace: Callable[[str], Namespace],
) -> None:
    node = add_namespace("node")
    key = add_node(here, node, own_keys[0])
    await dataplane.apply(install(A, [key]))
    # Ethernet frames of the type for experiments: an IPv6 address cannot send while the kernel looks for duplicates.
    header = "bytes.fromhex('ffffffffffff 020000000001 88b5')"
    send = "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"
    to_gateway = f"{send}; s.bind(('vx-node', 0)); s.send({header} + bytes(1000))"
    to_node = f"{send}; s.bind(({A.vx!r}, 0)); s.send({header} + bytes(500))"
    node.sh(
        f"ip link add vx-node type vxlan id 1 local {key.link_local} dev wg-node dstport 4789",
        "ip link set vx-node up",
        "bridge fdb append 00:00:00:00:00:00 dev vx-node dst fe80::1 via wg-node",
    )

    def both_ways() -> bool:
        node.run(sys.executable, "-c", to_gateway)
        here.run(sys.executable, "-c", to_node)
        received, sent = here.traffic(A.vx)
        return received > 1000 and sent > 500

    await eventually(both_ways)
    for interface in (A.wg, A.vx):
        before = here.traffic(interface)
        state = (await dataplane.snapshot()).domains[A.name]
        after = here.traffic(interface)
        traffic = state.wg_traffic if interface == A.wg else state.vx_traffic
        assert traffic is not None
        assert before[0] <= traffic.receive_bytes <= after[0]
        assert before[1] <= traffic.transmit_bytes <= after[1]
        assert traffic.receive_bytes > 1000
        assert traffic.transmit_bytes > 500
    # Nothing goes over this one.
    other = (await dataplane.snapshot()).domains[B.name]
    assert other.wg_traffic
    assert other.wg_traffic.receive_bytes == 0

    here.run("ip", "link", "delete", A.vx)
    state = (await dataplane.snapshot()).domains[A.name]
    assert state.wg_traffic is not None
    assert state.vx_traffic is None


async def test_an_interrupted_dump_is_taken_again(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, recorder: Recorder
) -> None:
    keys = new_keys(2000)
    await dataplane.apply(install(A, keys))
    recorder.seen.clear()
    changing = f"while :; do wg set {A.wg} fwmark 1; sleep 0.05; wg set {A.wg} fwmark 2; sleep 0.1; done"
    other = await asyncio.create_subprocess_exec("sh", "-ec", changing)
    try:
        while True:
            try:
                snapshot = await dataplane.snapshot()
            except DataplaneError as problem:
                assert (problem.operation, problem.error) == ("dump", "EINTR")  # noqa: PT017 - it may happen, or not
                continue
            if (1, ("EINTR",)) in recorder.of(Operation.DUMP):
                break
    finally:
        other.kill()
        await other.wait()
    assert len(snapshot.domains[A.name].peers) == 2000
