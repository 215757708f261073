"""What a gateway has of a key: kernel, journal and key lists."""

import time
from dataclasses import replace
from ipaddress import IPv6Address

from tests.fakes import FaultyDataplane
from tests.helpers import CITY, WELT, key
from wgkex_ops.consumer.inspection import Inspector
from wgkex_ops.consumer.upkeep.journal_file import Row
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.changes import Action, Change
from wgkex_ops.model.inspection import KeyOnGateway, PeerReport, Query
from wgkex_ops.model.key_lists import KeyLists, ListedKey


class AGateway:
    """A gateway's parts, to be broken one by one."""

    def __init__(self) -> None:
        self.dataplane = FaultyDataplane((WELT, CITY))
        self.rows: dict[bytes, Row] = {}
        self.lists = KeyLists()
        self.protected: set[bytes] = set()
        self.inspector = Inspector(
            gateway="gw01",
            domains=(WELT, CITY),
            read=self.dataplane.snapshot,
            rows=lambda: self.rows,
            lists=lambda: self.lists,
            names=lambda: self.lists.names,
            protected=self.protected,
            stale_after=10_800,
        )

    async def install(self, number: int) -> None:
        await self.dataplane.apply([Change(Action.INSTALL, WELT, key(number).raw, key(number).link_local.packed)])
        self.rows[key(number).raw] = Row(key(number).raw, WELT.name, 5.0, 0.0, version_2=True)

    async def about(self, query: object) -> KeyOnGateway:
        answer = await self.inspector.inspect(Query(str(query)))
        assert (answer.name, answer.problem) == ("gw01", "")
        (found,) = answer.keys
        return found

    async def peer(self, query: object) -> PeerReport:
        (found,) = (await self.about(query)).peers
        return found


async def test_a_whole_peer() -> None:
    gateway = AGateway()
    await gateway.install(1)
    await gateway.install(2)
    for query in (key(1), key(1).link_local):
        found = await gateway.about(query)
        assert (found.key, found.address, found.name) == (str(key(1)), str(key(1).link_local), "")
        assert found.journal is not None
        assert (found.journal.domain, found.journal.entered_at, found.journal.version_2) == (WELT.name, 5.0, True)
        assert (found.refused, found.protected) == ({}, False)
        (peer,) = found.peers
        assert (peer.domain, peer.interface, peer.route, peer.fdb) == (WELT.name, WELT.wg, "ours", True)
        assert (peer.allowed_ips, peer.handshake, peer.state) == (f"{key(1).link_local}/128", None, "never")
        assert peer.port > 0


async def test_each_missing_part() -> None:
    gateway = AGateway()
    await gateway.install(1)
    interfaces = gateway.dataplane.interfaces[WELT.name]
    address = key(1).link_local.packed
    interfaces.fdb_entries.clear()
    assert (await gateway.peer(key(1))).fdb is False
    interfaces.routes.clear()
    assert (await gateway.peer(key(1))).route == "missing"
    gateway.dataplane.interfaces[CITY.name].routes.add(address)
    assert (await gateway.peer(key(1))).route == "elsewhere"
    gateway.dataplane.interfaces[CITY.name].routes.clear()
    interfaces.foreign_routes[address] = 4
    assert (await gateway.peer(key(1))).route == "foreign"
    interfaces.set_peer(key(1).raw, address, IPv6Address("fe80::1").packed)
    assert ((await gateway.peer(key(1))).allowed_ips, (await gateway.peer(key(1))).route) == ("several", "several")
    interfaces.set_peer(key(1).raw)
    assert (await gateway.peer(key(1))).allowed_ips == "none"
    interfaces.remove_peer(key(1).raw)
    found = await gateway.about(key(1))
    assert found.peers == ()
    assert found.verdict.text.startswith("should be a peer in")


async def test_interfaces_that_are_down_or_missing() -> None:
    gateway = AGateway()
    await gateway.install(1)
    interfaces = gateway.dataplane.interfaces[WELT.name]
    interfaces.state = replace(interfaces.state, vx_up=False)
    assert (await gateway.about(key(1))).verdict.text == f"{WELT.vx} is down: see 'wgkex-ops doctor'"
    interfaces.state = replace(interfaces.state, vx_present=False)
    assert (await gateway.about(key(1))).verdict.text == f"{WELT.vx} is missing: see 'wgkex-ops doctor'"


async def test_lists_and_names() -> None:
    gateway = AGateway()
    gateway.protected.add(key(1).raw)
    gateway.lists = KeyLists(
        denied={key(1).raw: ListedKey("Rathaus"), key(2).raw: ListedKey("Old", expires=time.time() - 1)},
        allowed={CITY.name: {key(3).raw: ListedKey()}},
    )
    found = await gateway.about("rathaus")
    assert found.refused == {WELT.name: "denied", CITY.name: "denied"}
    assert (found.name, found.protected, found.verdict.outcome) == ("Rathaus", True, "refused")
    assert (await gateway.about(key(2))).refused == {CITY.name: "not_allowed"}
    assert (await gateway.about(key(3))).refused == {}
    assert (await gateway.inspector.inspect(Query("nobody"))).keys == ()


async def test_a_peer_of_others_is_found_by_its_address() -> None:
    gateway = AGateway()
    gateway.dataplane.interfaces[WELT.name].set_peer(key(9).raw, IPv6Address("fe80::9").packed)
    assert (await gateway.about("fe80::9")).key == str(key(9))


async def test_a_kernel_that_cannot_be_read_is_an_answer() -> None:
    gateway = AGateway()
    gateway.dataplane.snapshot_error = DataplaneError("get_device", "EPERM")
    answer = await gateway.inspector.inspect(Query(str(key(1))))
    assert answer.keys == ()
    assert answer.problem.startswith("the kernel's peers cannot be read: ")
