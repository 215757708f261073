"""Interfaces that are down, missing, created again, or of another kind."""

from tests.fakes import Recorder
from tests.kernel.dataplane import A, B, C, assert_exactly, errors, install, new_keys, remove
from tests.kernel.lab import Namespace
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.errors import InterfaceMissingError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import ROUTE_PROTOCOL, DomainState, Traffic


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
    assert snapshot.domains[A.name] == DomainState(vx_present=True, vx_traffic=Traffic())
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


async def test_interfaces_created_again_while_the_dataplane_is_open(
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
