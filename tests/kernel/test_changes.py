"""What changes do to a real kernel, read with wg, ip and bridge."""

import json

import pytest

from tests.fakes import Recorder
from tests.kernel.dataplane import STATIC, STATIC_ADDRESS, STATIC_KEY, A, B, assert_exactly, install, new_keys, remove
from tests.kernel.lab import Namespace
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.model.changes import Change, Operation
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import ROUTE_PROTOCOL


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


async def test_the_route_follows_a_key_to_another_domain(
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
async def test_the_route_goes_to_the_domain_of_the_last_change_in_a_batch(
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


async def test_static_peers_stay_as_they_are(here: Namespace, own_keys: list[str], dataplane: KernelDataplane) -> None:
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


async def test_clearing_an_address_that_leads_to_no_peer(
    here: Namespace, own_keys: list[str], dataplane: KernelDataplane, recorder: Recorder
) -> None:
    ours, static, whole = keys = new_keys(3)
    await dataplane.apply(install(A, keys))
    here.sh(
        f"wg set {A.wg} peer {ours} remove",
        f"wg set {A.wg} peer {static} remove",
        f"ip -6 route replace {static.link_local}/128 dev {A.wg} proto static",
    )
    before = here.routes(A.wg, STATIC)
    recorder.seen.clear()

    cleared = [Change.clear(A, key.link_local.packed) for key in (ours, static, *new_keys(1))]
    assert await dataplane.apply(cleared) == [None] * 3
    assert_exactly(here, A, [whole])
    # A route with another protocol number is not ours.
    assert here.routes(A.wg, STATIC) == before
    assert recorder.seen == [(Operation.FDB_REMOVE, 3, ()), (Operation.ROUTE_REMOVE, 3, ())]
