"""The kernel's dataplane on a real kernel; what it did is read with wg, ip and bridge."""

import asyncio
import base64
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from ipaddress import IPv6Address

import pytest

from tests.fakes import Recorder
from tests.kernel.lab import Namespace, eventually
from wgkex_ops.consumer.dataplane.base import LinkEvent
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane, probe
from wgkex_ops.consumer.dataplane.netlink import wire
from wgkex_ops.errors import DataplaneError, InterfaceMissingError
from wgkex_ops.model.changes import Change, Operation, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import ROUTE_PROTOCOL, DomainState, Incomplete, find_incomplete

DOMAINS = tuple(Domain(f"ffx_{suffix}", f"wg-{suffix}", f"vx-{suffix}") for suffix in ("a", "b", "c"))
A, B, C = DOMAINS

# What every gateway has besides ours: a peer, a route and an FDB entry towards another gateway.
STATIC_KEY = base64.b64encode(bytes(range(32))).decode()
STATIC_ADDRESS = "fe80::5:1"
STATIC = 4  # RTPROT_STATIC, linux/rtnetlink.h


@pytest.fixture
def own_keys(here: Namespace) -> list[str]:
    """All three domains are there and up; the own key of each."""
    return [here.add_domain(domain, number) for number, domain in enumerate(DOMAINS, 1)]


@pytest.fixture
async def dataplane(here: Namespace, recorder: Recorder) -> AsyncIterator[KernelDataplane]:
    async with KernelDataplane(DOMAINS, recorder) as opened:
        yield opened


def new_keys(count: int) -> list[PublicKey]:
    return [PublicKey(os.urandom(32)) for _ in range(count)]


def install(domain: Domain, keys: Iterable[PublicKey]) -> list[Change]:
    return [Change.install(domain, key) for key in keys]


def remove(domain: Domain, keys: Iterable[PublicKey]) -> list[Change]:
    return [Change.remove(domain, key) for key in keys]


def addresses(keys: Iterable[PublicKey]) -> list[str]:
    return sorted(str(key.link_local) for key in keys)


def assert_exactly(here: Namespace, domain: Domain, keys: Sequence[PublicKey]) -> None:
    """Each of these keys is there once in all three places, and nothing else is."""
    peers = here.wg(domain.wg).peers
    assert {key: peer.allowed_ips for key, peer in peers.items()} == {str(key): f"{key.link_local}/128" for key in keys}
    assert all(peer.endpoint == "(none)" and peer.keepalive == "off" for peer in peers.values())
    assert sorted(route["dst"] for route in here.routes(domain.wg, ROUTE_PROTOCOL)) == addresses(keys)
    assert sorted(here.fdb(domain.vx)) == addresses(keys)


def errors(outcomes: Sequence[Outcome]) -> list[tuple[str, str] | None]:
    return [(outcome.operation, outcome.error) if outcome else None for outcome in outcomes]


def packed(texts: Iterable[str]) -> frozenset[bytes]:
    return frozenset(IPv6Address(text).packed for text in texts)


async def test_installs_a_peer_a_route_and_an_fdb_entry(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, recorder: Recorder
) -> None:
    keys = new_keys(1)
    assert await dataplane.apply(install(A, keys)) == [None]

    assert_exactly(here, A, keys)
    (route,) = here.routes(A.wg, ROUTE_PROTOCOL)
    assert (route["dst"], route["protocol"], route["metric"]) == (str(keys[0].link_local), str(ROUTE_PROTOCOL), 1024)
    (entry,) = json.loads(here.run("bridge", "-json", "fdb", "show", "dev", A.vx))
    assert entry["viaIf"] == A.wg
    assert entry["flags"] == ["self"]
    assert entry["state"] == "permanent"
    assert [kind for kind, _, _ in recorder.seen if kind is not Operation.DUMP] == [
        Operation.PEER_ADD,
        Operation.ROUTE_ADD,
        Operation.FDB_ADD,
    ]
    assert recorder.of(Operation.PEER_ADD) == [(1, ())]


async def test_refreshing_changes_nothing(here: Namespace, own_keys: list[str], dataplane: KernelDataplane) -> None:
    keys = new_keys(3)
    for _ in range(3):
        assert await dataplane.apply(install(A, keys)) == [None] * 3
        assert_exactly(here, A, keys)


async def test_refreshing_repairs_what_is_missing_or_wrong(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane
) -> None:
    keys = new_keys(3)
    await dataplane.apply(install(A, keys))
    here.sh(
        f"wg set {A.wg} peer {keys[0]} allowed-ips fe80::77/128,10.0.0.0/8",
        f"ip -6 route delete {keys[1].link_local}/128 dev {A.wg}",
        f"bridge fdb delete 00:00:00:00:00:00 dev {A.vx} dst {keys[2].link_local} via {A.wg}",
    )
    assert await dataplane.apply(install(A, keys)) == [None] * 3
    assert_exactly(here, A, keys)


async def test_removes_what_it_installed(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, recorder: Recorder
) -> None:
    kept, gone = new_keys(2), new_keys(2)
    await dataplane.apply(install(A, [*kept, *gone]))
    recorder.seen.clear()

    assert await dataplane.apply(remove(A, gone)) == [None] * 2
    assert_exactly(here, A, kept)
    assert recorder.seen == [
        (Operation.FDB_REMOVE, 2, ()),
        (Operation.ROUTE_REMOVE, 2, ()),
        (Operation.PEER_REMOVE, 2, ()),
    ]


async def test_what_is_absent_counts_as_removed(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, recorder: Recorder
) -> None:
    keys = new_keys(3)
    assert await dataplane.apply(remove(A, keys)) == [None] * 3

    await dataplane.apply(install(A, keys))
    here.sh(
        f"wg set {A.wg} peer {keys[0]} remove",
        f"ip -6 route delete {keys[1].link_local}/128 dev {A.wg}",
        f"bridge fdb delete 00:00:00:00:00:00 dev {A.vx} dst {keys[2].link_local} via {A.wg}",
    )
    assert await dataplane.apply(remove(A, keys)) == [None] * 3
    assert_exactly(here, A, [])
    assert not any(failed for _, _, failed in recorder.seen)


async def test_the_same_key_twice_is_done_in_order(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane
) -> None:
    there, gone = new_keys(2)
    changes = [
        *install(A, [there, gone]),
        *remove(A, [there, gone]),
        *install(A, [there]),
        *install(B, [gone]),  # another domain: another peer
    ]
    assert await dataplane.apply(changes) == [None] * 6
    assert_exactly(here, A, [there])
    assert_exactly(here, B, [gone])


async def test_the_route_goes_along_when_a_node_moves_to_another_domain(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane
) -> None:
    keys = new_keys(1)
    await dataplane.apply(install(A, keys))
    assert await dataplane.apply(install(B, keys)) == [None]
    # There is one route to an address in a table, whatever interface it leads to.
    assert here.routes(A.wg, ROUTE_PROTOCOL) == []
    assert_exactly(here, B, keys)

    assert await dataplane.apply(remove(A, keys)) == [None]
    assert_exactly(here, A, [])
    assert_exactly(here, B, keys)


@pytest.mark.parametrize("domains", [(A, B), (B, A)], ids=["there", "back"])
async def test_the_route_goes_to_where_a_node_has_asked_last_in_one_batch(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, domains: tuple[Domain, Domain]
) -> None:
    first, last = domains
    keys = new_keys(3)
    assert await dataplane.apply([*install(first, keys), *install(last, keys)]) == [None] * 6
    assert here.routes(first.wg, ROUTE_PROTOCOL) == []
    assert_exactly(here, last, keys)


async def test_nothing_to_do(dataplane: KernelDataplane, recorder: Recorder) -> None:
    recorder.seen.clear()
    assert await dataplane.apply([]) == []
    assert recorder.seen == []


async def test_static_neighbours_stay_as_they_are(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane
) -> None:
    here.sh(
        f"wg set {A.wg} peer {STATIC_KEY} endpoint 192.0.2.1:40001 persistent-keepalive 25"
        f" allowed-ips {STATIC_ADDRESS}/128,fe80::5:2/128",
        f"ip -6 route add {STATIC_ADDRESS}/128 dev {A.wg} proto static",
        f"bridge fdb append 00:00:00:00:00:00 dev {A.vx} dst {STATIC_ADDRESS} via {A.wg}",
    )

    def static() -> tuple[object, ...]:
        return (
            here.wg(A.wg).peers[STATIC_KEY],
            here.routes(A.wg, STATIC),
            [address for address in here.fdb(A.vx) if address == STATIC_ADDRESS],
        )

    before = static()
    keys = new_keys(5)
    for changes in (install(A, keys), install(A, keys), remove(A, keys), remove(A, keys)):
        assert await dataplane.apply(changes) == [None] * 5
        assert static() == before
    assert list(here.wg(A.wg).peers) == [STATIC_KEY]
    assert here.fdb(A.vx) == [STATIC_ADDRESS]


async def test_removing_leaves_a_route_that_is_not_ours(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane
) -> None:
    (key,) = new_keys(1)
    here.run("ip", "-6", "route", "add", f"{key.link_local}/128", "dev", A.wg, "proto", "static")
    before = here.routes(A.wg)
    assert await dataplane.apply(remove(A, [key])) == [None]
    assert here.routes(A.wg) == before

    # Contract, section 2: installing replaces it.
    assert await dataplane.apply(install(A, [key])) == [None]
    assert_exactly(here, A, [key])
    assert here.routes(A.wg, STATIC) == []


async def test_many_in_several_domains(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, recorder: Recorder
) -> None:
    keys = new_keys(900)
    by_domain = {domain: keys[start::3] for start, domain in enumerate(DOMAINS)}
    changes = [Change.install(DOMAINS[position % 3], key) for position, key in enumerate(keys)]

    assert await dataplane.apply(changes) == [None] * 900
    for domain in DOMAINS:
        assert_exactly(here, domain, by_domain[domain])
    assert sum(count for count, _ in recorder.of(Operation.FDB_ADD)) == 900

    assert await dataplane.apply([Change.remove(DOMAINS[position % 3], key) for position, key in enumerate(keys[:450])])
    for domain in DOMAINS:
        assert_exactly(here, domain, by_domain[domain][150:])


@pytest.mark.parametrize("bad_positions", [[0], [149], [239], [7, 8, 200], [*range(40, 60)]])
async def test_bad_keys_do_not_spoil_the_good_ones(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, recorder: Recorder, bad_positions: list[int]
) -> None:
    # PublicKey.parse() lets no key of 31 bytes through; it is the one thing about a single peer that WireGuard refuses.
    keys = [PublicKey(os.urandom(31 if position in bad_positions else 32)) for position in range(240)]
    good = [key for key in keys if len(key.raw) == 32]

    domains = [(B, A, A)[position % 3] for position in range(240)]

    outcomes = await dataplane.apply([Change.install(domain, key) for domain, key in zip(domains, keys, strict=True)])
    assert [position for position, outcome in enumerate(outcomes) if outcome] == bad_positions
    assert {failed for failed in errors(outcomes) if failed} == {("peer_add", "ERANGE")}
    for one in (A, B):
        assert_exactly(
            here, one, [key for domain, key in zip(domains, keys, strict=True) if domain == one and key in good]
        )
    assert recorder.of(Operation.PEER_ADD) == [(240, ("ERANGE",) * len(bad_positions))]
    assert recorder.of(Operation.ROUTE_ADD) == [(len(good), ())]

    outcomes = await dataplane.apply([Change.remove(domain, key) for domain, key in zip(domains, keys, strict=True)])
    assert [position for position, outcome in enumerate(outcomes) if outcome] == bad_positions
    for one in (A, B):
        assert_exactly(here, one, [])


async def test_an_interface_that_is_down_fails_its_own_domain_only(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane
) -> None:
    here.run("ip", "link", "set", B.wg, "down")
    keys = new_keys(300)
    outcomes = await dataplane.apply([*install(B, keys), *install(A, keys[:2])])
    assert set(errors(outcomes[:300])) == {("route_add", "ENETDOWN")}
    assert outcomes[300:] == [None, None]
    assert_exactly(here, A, keys[:2])

    here.run("ip", "link", "set", B.wg, "up")
    assert await dataplane.apply(install(B, keys)) == [None] * 300
    assert_exactly(here, B, keys)


async def test_a_vxlan_interface_of_the_wrong_kind(here: Namespace, own_keys: list[str], recorder: Recorder) -> None:
    odd = Domain("ffx_odd", A.wg, "vx-odd")
    here.run("ip", "link", "add", "vx-odd", "type", "vxlan", "id", "9", "remote", "192.0.2.1", "dstport", "4790")
    async with KernelDataplane([odd], recorder) as dataplane:
        outcomes = await dataplane.apply(install(odd, new_keys(1)))
    assert errors(outcomes) == [("fdb_add", "EAFNOSUPPORT")]


async def test_an_interface_of_another_kind_by_the_right_name(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane
) -> None:
    here.remove_links(A.vx, A.wg)
    here.sh(f"ip link add {A.wg} type dummy", f"ip link add {A.vx} type dummy")
    outcomes = await dataplane.apply([*install(A, new_keys(1)), *install(B, new_keys(1))])
    assert errors(outcomes) == [("peer_add", "EOPNOTSUPP"), None]
    snapshot = await dataplane.snapshot()
    assert snapshot.domains[A.name] == DomainState(vx_present=True)
    assert len(snapshot.domains[B.name].peers) == 1


async def test_a_missing_interface_is_picked_up_when_it_comes(here: Namespace, dataplane: KernelDataplane) -> None:
    here.add_domain(B, 2)
    keys = new_keys(2)
    outcomes = await dataplane.apply([*install(A, keys), *install(B, keys)])
    assert outcomes[2:] == [None, None]
    for outcome in outcomes[:2]:
        assert isinstance(outcome, InterfaceMissingError)
        assert (outcome.operation, outcome.interface) == ("peer_add", A.wg)
    assert await dataplane.apply(remove(A, keys)) == [None, None]
    snapshot = await dataplane.snapshot()
    assert snapshot.domains[A.name] == snapshot.domains[C.name] == DomainState()
    assert snapshot.domains[B.name].ready

    here.add_domain(A, 1)
    assert await dataplane.apply(install(A, keys)) == [None, None]
    assert_exactly(here, A, keys)

    here.run("ip", "link", "delete", A.vx)
    (outcome,) = await dataplane.apply(install(A, keys[:1]))
    assert isinstance(outcome, InterfaceMissingError)
    assert (outcome.operation, outcome.interface) == ("fdb_add", A.vx)
    assert await dataplane.apply(remove(A, keys)) == [None, None]
    assert here.wg(A.wg).peers == {}
    assert here.routes(A.wg, ROUTE_PROTOCOL) == []


async def test_interfaces_made_anew_while_it_is_open(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane
) -> None:
    keys = new_keys(3)
    await dataplane.apply(install(A, keys))
    for _ in range(2):
        here.remove_links(A.vx, A.wg)
        here.add_domain(A, 1)
        assert (await dataplane.snapshot()).domains[A.name].peers == ()
        assert await dataplane.apply(install(A, keys)) == [None] * 3
        assert_exactly(here, A, keys)
    assert await dataplane.apply(remove(A, keys)) == [None] * 3
    assert_exactly(here, A, [])


async def test_the_interfaces_own_key_is_silently_ignored(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane
) -> None:
    own = PublicKey.parse(own_keys[0])
    good = new_keys(1)
    assert await dataplane.apply(install(A, [own, *good])) == [None, None]
    assert list(here.wg(A.wg).peers) == [str(good[0])]
    assert await dataplane.apply(remove(A, [own])) == [None]
    assert_exactly(here, A, good)


async def test_a_snapshot_says_what_the_tools_say(
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
    assert state.wg_index == socket.if_nametoindex(A.wg)
    assert state.routes == packed(str(key.link_local) for key in keys)
    assert state.fdb_entries == packed([*here.fdb(A.vx)])
    assert len(state.fdb_entries) == 701

    other = snapshot.domains[B.name]
    assert (other.wg_up, other.vx_present, other.vx_up, other.ready) == (True, True, False, False)
    assert len(other.peers) == len(other.routes) == len(other.fdb_entries) == 2


async def test_drift_is_what_somebody_took_away(
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

    drift = find_incomplete(snapshot)
    assert drift[A.name] == Incomplete(
        peer=packed(addresses([no_peer])), route=packed(addresses([no_route])), fdb=packed(addresses([no_fdb]))
    )
    assert drift[B.name] == drift[C.name] == Incomplete(frozenset(), frozenset(), frozenset())

    # To offer the keys again mends all of it.
    assert await dataplane.apply(install(A, [whole, no_route, no_fdb, no_peer])) == [None] * 4
    assert find_incomplete(await dataplane.snapshot())[A.name] == drift[B.name]


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
    (peer,) = (await dataplane.snapshot()).domains[A.name].peers
    assert peer.link_local == expected


async def test_an_interface_without_a_key(here: Namespace, dataplane: KernelDataplane) -> None:
    here.run("ip", "link", "add", A.wg, "type", "wireguard")
    state = (await dataplane.snapshot()).domains[A.name]
    assert state == DomainState(wg_present=True, wg_index=socket.if_nametoindex(A.wg))


async def test_a_real_handshake(
    here: Namespace,
    own_keys: list[str],
    dataplane: KernelDataplane,
    add_namespace: Callable[[str], Namespace],
) -> None:
    node = add_namespace("node")
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
        f"wg set wg-node private-key /dev/stdin peer {own_keys[0]} allowed-ips fe80::1/128 endpoint 192.0.2.1:40001\n"
        f"ip link set wg-node addrgenmode none; ip address add {key.link_local}/64 dev wg-node\n"
        "ip link set wg-node up",
        stdin=private_key,
    )
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


async def test_an_interrupted_dump_is_taken_again(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, recorder: Recorder
) -> None:
    keys = new_keys(2000)
    await dataplane.apply(install(A, keys))
    recorder.seen.clear()
    meddling = f"while :; do wg set {A.wg} fwmark 1; sleep 0.05; wg set {A.wg} fwmark 2; sleep 0.1; done"
    meddler = await asyncio.create_subprocess_exec("sh", "-ec", meddling)
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
        meddler.kill()
        await meddler.wait()
    assert len(snapshot.domains[A.name].peers) == 2000


async def test_answers_that_do_not_fit_are_no_reason_to_hang(
    here: Namespace, own_keys: list[str], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.run("ip", "link", "set", A.wg, "down")
    keys = new_keys(100)
    # The kernel makes of this the smallest buffer that it allows, in which a hundred failures find no room.
    monkeypatch.setattr(wire, "RECEIVE_BUFFER_BYTES", 1)
    async with KernelDataplane(DOMAINS, recorder) as dataplane:
        assert set(errors(await dataplane.apply(install(A, keys)))) == {("route_add", "ENOBUFS")}
        monkeypatch.undo()
        here.run("ip", "link", "set", A.wg, "up")
        assert await dataplane.apply(install(A, keys)) == [None] * 100
    assert_exactly(here, A, keys)


async def test_being_cancelled_leaves_everything_usable(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, recorder: Recorder
) -> None:
    keys = new_keys(3000)
    applying = asyncio.create_task(dataplane.apply(install(A, keys)))
    await eventually(lambda: bool(recorder.of(Operation.PEER_ADD)))
    reading = asyncio.create_task(dataplane.snapshot())
    await asyncio.sleep(0)
    for task in (applying, reading):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    # What had begun was brought to its end, and the rest was left alone.
    state = (await dataplane.snapshot()).domains[A.name]
    assert 0 < len(state.peers) < 3000
    assert len(state.peers) == len(state.routes) == len(state.fdb_entries)
    assert await dataplane.apply(remove(A, keys)) == [None] * 3000
    assert_exactly(here, A, [])


async def test_changes_and_snapshots_at_the_same_time(own_keys: list[str], dataplane: KernelDataplane) -> None:
    changing = [asyncio.create_task(dataplane.apply(install(domain, new_keys(400)))) for domain in DOMAINS]
    while not all(task.done() for task in changing):
        for state in (await dataplane.snapshot()).domains.values():
            # None of our own changes is ever seen half done.
            assert {peer.link_local for peer in state.peers} == state.routes == state.fdb_entries
    assert [await task for task in changing] == [[None] * 400] * 3


async def test_events(here: Namespace, dataplane: KernelDataplane) -> None:
    events = aiter(dataplane.events())

    here.run("ip", "link", "add", "dummy7", "type", "dummy")  # nobody's
    here.run("ip", "link", "add", A.wg, "type", "wireguard")
    assert await anext(events) == LinkEvent(A.wg, present=True, up=False)
    here.run("ip", "link", "set", A.wg, "up")
    assert await anext(events) == LinkEvent(A.wg, present=True, up=True)
    here.run("ip", "link", "set", A.wg, "mtu", "1400")  # changes nothing that matters
    here.run("ip", "link", "set", A.wg, "down")
    assert await anext(events) == LinkEvent(A.wg, present=True, up=False)

    here.run("ip", "link", "set", A.wg, "name", B.wg)
    assert await anext(events) == LinkEvent(A.wg, present=False, up=False)
    assert await anext(events) == LinkEvent(B.wg, present=True, up=False)
    here.run("ip", "link", "set", B.wg, "name", "other")
    assert await anext(events) == LinkEvent(B.wg, present=False, up=False)
    here.run("ip", "link", "set", "other", "name", A.wg)
    assert await anext(events) == LinkEvent(A.wg, present=True, up=False)

    here.sh(f"ip link delete {A.wg}", f"ip link add {A.wg} type wireguard")
    assert await anext(events) == LinkEvent(A.wg, present=False, up=False)
    assert await anext(events) == LinkEvent(A.wg, present=True, up=False)


async def test_leaving_a_bridge_is_not_going_away(here: Namespace, own_keys: list[str], recorder: Recorder) -> None:
    async with KernelDataplane(DOMAINS, recorder) as dataplane:
        events = aiter(dataplane.events())
        here.sh(
            "ip link add br7 type bridge",
            f"ip link set {A.vx} master br7",
            f"ip link set {A.vx} nomaster",
            f"ip link set {A.vx} down",
        )
        assert await anext(events) == LinkEvent(A.vx, present=True, up=False)


async def test_events_that_nobody_read_in_time_are_told_as_lost(
    here: Namespace, own_keys: list[str], recorder: Recorder
) -> None:
    async with KernelDataplane(DOMAINS, recorder) as dataplane:
        flapping = "\n".join(f"link set dev {A.wg} {state}" for _ in range(200) for state in ("down", "up"))
        here.run("ip", "-batch", "-", stdin=flapping)
        events = aiter(dataplane.events())
        assert await anext(events) == LinkEvent("", present=False, up=False)
        here.run("ip", "link", "set", A.wg, "down")
        assert await anext(events) == LinkEvent(A.wg, present=True, up=False)


async def test_events_can_be_waited_for_and_given_up(here: Namespace, dataplane: KernelDataplane) -> None:
    events = aiter(dataplane.events())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await anext(events)
    here.run("ip", "link", "add", A.wg, "type", "wireguard")
    assert await anext(aiter(dataplane.events())) == LinkEvent(A.wg, present=True, up=False)


def test_probe(here: Namespace) -> None:
    assert probe([A, B]) == "none of the WireGuard interfaces is there (wg-a, wg-b)"
    here.add_domain(B, 2)
    before = here.links()
    assert probe([A, B]) is None
    assert here.links() == before


# Installs a peer and prints what came of it, in whatever rights it is given.
PROGRAM = """
import asyncio, sys
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane, probe
from wgkex_ops.model.changes import Action, Change
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import Incomplete, find_incomplete
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.keys import PublicKey

class Nobody:
    def observe(self, operation, count, errors, seconds): ...

async def main(domain, key):
    print("probe", probe([domain]))
    async with KernelDataplane([domain], Nobody()) as dataplane:
        print("install", *await dataplane.apply([Change.install(domain, key)]))
        try:
            print("peers", len((await dataplane.snapshot()).domains[domain.name].peers))
        except DataplaneError as problem:
            print("snapshot", problem)

asyncio.run(main(Domain("ffx_a", "wg-a", "vx-a"), PublicKey.parse(sys.argv[1])))
"""

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")


def test_needs_no_right_but_cap_net_admin(here: Namespace, own_keys: list[str]) -> None:
    keys = new_keys(1)
    right = ("--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin", "--bounding-set=-all,+net_admin")
    said = here.run(*NOBODY, *right, sys.executable, "-c", PROGRAM, str(keys[0]))
    assert said.splitlines() == ["probe None", "install None", "peers 1"]
    assert_exactly(here, A, keys)


def test_says_which_right_is_missing(here: Namespace, own_keys: list[str]) -> None:
    none = ("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all")
    said = here.run(*NOBODY, *none, sys.executable, "-c", PROGRAM, str(new_keys(1)[0]))
    assert said.splitlines() == [
        "probe the kernel does not tell its WireGuard peers: the right CAP_NET_ADMIN is needed",
        "install peer_add: EPERM: the right CAP_NET_ADMIN is needed",
        "snapshot dump: EPERM: the right CAP_NET_ADMIN is needed",
    ]
    assert_exactly(here, A, [])
