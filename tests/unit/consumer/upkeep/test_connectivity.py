"""Which sessions begin, and whether VXLAN carries anything, by scans of a gateway whose clock may be set."""

import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.helpers import CITY, WELT, key, samples
from tests.unit.consumer.upkeep.gateway import HOUR, MINUTE, Gateway, running_gateway
from wgkex_ops.consumer.upkeep.connectivity import Connectivity
from wgkex_ops.errors import DataplaneError
from wgkex_ops.metrics.worker import SessionMetrics
from wgkex_ops.model.changes import Operation
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import DomainState, Peer, Snapshot

JUMPS = (HOUR, -HOUR, 400 * 24 * HOUR, 100.0, -100.0, 59.0, -59.0)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


def started(gateway: Gateway, domain: Domain = WELT) -> float:
    return gateway.process.count("peer_sessions_started", f'domain="{domain.name}"')


async def scans(gateway: Gateway, minutes: int, alive: Iterable[int] = (), domain: Domain = WELT) -> None:
    """Scan once a minute; who is alive has a handshake every other minute, ten seconds before a scan."""
    for minute in range(minutes):
        gateway.clocks.advance(MINUTE - 10)
        if minute % 2 == 0:
            gateway.shake_hands(domain, *alive)
        gateway.clocks.advance(10)
        await gateway.reconcile()


# --- sessions


async def test_a_session_begins_with_the_first_handshake_and_goes_on_with_later_ones(gateway: Gateway) -> None:
    await gateway.request(WELT, 1, 2)
    await scans(gateway, 2)
    assert started(gateway) == 0
    await scans(gateway, 8, alive=[1])
    assert (started(gateway, WELT), started(gateway, CITY)) == (1, 0)
    await scans(gateway, 1, alive=[1, 2])
    assert started(gateway) == 2


async def test_a_peer_that_connects_within_a_minute_of_its_key_counts(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await gateway.reconcile()
    assert started(gateway) == 1


@pytest.mark.parametrize(("seconds", "begins"), [(179.0, 0), (180.0, 1)])
async def test_a_session_begins_180_seconds_after_the_last_handshake(
    gateway: Gateway, seconds: float, begins: int
) -> None:
    await gateway.connect(WELT, 1)
    await gateway.reconcile()
    before = started(gateway)
    gateway.clocks.advance(seconds)
    gateway.shake_hands(WELT, 1)
    gateway.clocks.advance(30)
    await gateway.reconcile()
    assert started(gateway) == before + begins


async def test_a_node_that_comes_back_begins_another_session(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await scans(gateway, 6, alive=[1])
    await scans(gateway, 10)
    await scans(gateway, 6, alive=[1])
    assert started(gateway) == 2


# --- starts, reboots, failures


async def test_sessions_that_are_there_when_the_worker_alone_restarts_do_not_count(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1, 2)
    await scans(gateway, 5, alive=[1])
    await gateway.restart()
    await scans(gateway, 1, alive=[1])
    assert started(gateway) == 0
    # Its last handshake was in the time of the process before, and six minutes ago.
    await scans(gateway, 1, alive=[1, 2])
    assert started(gateway) == 1


async def test_each_session_counts_that_begins_after_a_reboot(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1, 2)
    await scans(gateway, 2, alive=[1, 2])
    await gateway.reboot()
    assert started(gateway) == 0
    await scans(gateway, 4, alive=[1, 2])
    assert started(gateway) == 2


async def test_each_session_counts_that_begins_after_an_interface_was_created_anew(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await scans(gateway, 2, alive=[1])
    gateway.dataplane.remove_interfaces(WELT)
    await gateway.reconcile()
    gateway.dataplane.create_interfaces(WELT)
    await gateway.reconcile()
    await scans(gateway, 4, alive=[1])
    assert started(gateway) == 2


async def test_a_first_snapshot_that_comes_late_is_what_later_ones_are_compared_with(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.dataplane.snapshot_error = DataplaneError(Operation.DUMP, "ENOBUFS")
    await gateway.restart()
    await scans(gateway, 5, alive=[1])
    gateway.dataplane.snapshot_error = None
    await scans(gateway, 4, alive=[1])
    assert started(gateway) == 0
    await gateway.connect(WELT, 2)
    await scans(gateway, 2, alive=[1, 2])
    assert started(gateway) == 1


async def test_a_failed_dump_neither_begins_a_session_nor_hides_one(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await gateway.request(WELT, 2)
    await gateway.reconcile()
    gateway.dataplane.snapshot_error = DataplaneError(Operation.DUMP, "ENOBUFS")
    await scans(gateway, 20, alive=[1])
    gateway.shake_hands(WELT, 2)
    gateway.dataplane.snapshot_error = None
    # Whether node 1 was there meanwhile, nobody saw; it is one session more at the most.
    await gateway.reconcile()
    after = started(gateway)
    assert after in (2, 3)
    await scans(gateway, 4, alive=[1, 2])
    assert started(gateway) == after


async def test_a_node_that_moves_to_another_domain_begins_a_session_there(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await scans(gateway, 2, alive=[1])
    await scans(gateway, 4)
    await gateway.request(CITY, 1)
    await scans(gateway, 6, alive=[1], domain=CITY)
    assert (started(gateway, WELT), started(gateway, CITY)) == (1, 1)


# --- clocks


async def test_a_worker_that_starts_when_the_clock_was_set_back_counts_who_comes_back(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    gateway.clocks.wall -= HOUR
    await gateway.restart()
    await scans(gateway, 5)
    await scans(gateway, 4, alive=[1])
    assert started(gateway) == 1


async def test_a_clock_that_is_set_and_set_back_between_two_scans_begins_no_session() -> None:
    for hour in (HOUR, -HOUR):
        assert await sessions_of_a_node([100, 225, 350], range(60, 420, 60), [(215, hour), (230, -hour)]) == 1


async def sessions_of_a_node(
    handshakes: Iterable[float], scans: Iterable[float], jumps: Iterable[tuple[float, float]]
) -> float:
    """How many sessions count of a node that had none at first.

    All times are seconds after the first scan. At the same time, a handshake comes first, and a scan last.

    Args:
        handshakes: when it has one.
        scans: when there is one; as many as are needed before and after the handshakes.
        jumps: when the clock is set, and by how many seconds.
    """
    registry = CollectorRegistry()
    connectivity = Connectivity((WELT,), SessionMetrics(registry, (WELT.name,)))
    wall, handshake = 1_800_000_000.0, 0.0
    events = [(at, "handshake", 0.0) for at in handshakes] + [(at, "scan", 0.0) for at in [0.0, *scans]]
    for now, event, seconds in sorted(events + [(at, "jump", seconds) for at, seconds in jumps]):
        if event == "handshake":
            handshake = wall + now
        elif event == "jump":
            wall += seconds
        else:
            peer = Peer(key(1).raw, handshake, 0, 0, key(1).link_local.packed)
            await connectivity.observe(Snapshot(wall + now, {WELT.name: DomainState(peers=(peer,))}), now)
    return samples(registry)[f'wgkex_worker_peer_sessions_started_total{{domain="{WELT.name}"}}']


@pytest.mark.parametrize("jump", JUMPS)
async def test_setting_the_clock_begins_no_session(jump: float) -> None:
    """Whenever it is set between two handshakes, 125 s apart, and whenever scans are, once a minute."""
    handshakes = [100.0 + 125 * number for number in range(5)]
    for set_at, first_scan in itertools.product(range(350, 475, 5), range(5, 65, 5)):
        scans = [first_scan + 60.0 * number for number in range(12)]
        assert await sessions_of_a_node(handshakes, scans, [(set_at, jump)]) == 1, (set_at, first_scan)


@pytest.mark.parametrize("jump", JUMPS)
async def test_sessions_that_begin_count_whatever_the_clock_shows(gateway: Gateway, jump: float) -> None:
    await gateway.connect(WELT, 1)
    await scans(gateway, 2, alive=[1])
    gateway.clocks.wall += jump
    await scans(gateway, 6)
    await scans(gateway, 4, alive=[1])
    assert started(gateway) == 2


PAUSES = st.lists(st.floats(54, 66), min_size=1, max_size=7)


@settings(deadline=None)
@given(apart=st.lists(st.floats(100, 179) | st.floats(181, 900), max_size=8), pauses=PAUSES)
async def test_with_a_good_clock_each_session_counts_once(apart: list[float], pauses: list[float]) -> None:
    handshakes = list(itertools.accumulate(apart, initial=7.0))
    scans = itertools.takewhile(lambda at: at < handshakes[-1] + 67, itertools.accumulate(itertools.cycle(pauses)))
    assert await sessions_of_a_node(handshakes, scans, []) == 1 + sum(seconds >= 180 for seconds in apart)


@settings(deadline=None)
@given(
    apart=st.lists(st.floats(100, 125), max_size=8),
    pauses=PAUSES,
    jumps=st.lists(st.tuples(st.floats(1, 1000), st.floats(-1e6, 1e6)), max_size=4),
)
async def test_with_any_clock_a_live_session_counts_once(
    apart: list[float], pauses: list[float], jumps: list[tuple[float, float]]
) -> None:
    handshakes = list(itertools.accumulate(apart, initial=7.0))
    scans = itertools.takewhile(lambda at: at < handshakes[-1] + 67, itertools.accumulate(itertools.cycle(pauses)))
    assert await sessions_of_a_node(handshakes, scans, jumps) == 1


# --- VXLAN


def silent(gateway: Gateway, seconds: float = 5 * MINUTE) -> list[str]:
    return gateway.process.connectivity.vxlan_silent(seconds)


async def test_a_mesh_that_works_is_not_silent(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await scans(gateway, 10, alive=[1])
    assert silent(gateway) == []


async def test_active_peers_and_nothing_over_vxlan_is_silence(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await gateway.connect(CITY, 2)
    await scans(gateway, 3, alive=[1])
    gateway.dataplane.vxlan_silent.add(WELT.name)
    for minute in range(1, 8):
        await scans(gateway, 1, alive=[1])
        assert silent(gateway) == ([WELT.name] if minute >= 5 else [])
    gateway.dataplane.vxlan_silent.clear()
    await scans(gateway, 1, alive=[1])
    assert silent(gateway) == []


@pytest.mark.parametrize("direction", ["receive_bytes", "transmit_bytes"])
async def test_one_direction_alone_is_silence(gateway: Gateway, direction: str) -> None:
    await gateway.connect(WELT, 1)
    for _ in range(8):
        gateway.clocks.advance(MINUTE)
        gateway.shake_hands(WELT, 1)
        interfaces = gateway.dataplane.interfaces[WELT.name]
        traffic = interfaces.state.vx_traffic
        assert traffic is not None
        interfaces.state = replace(interfaces.state, vx_traffic=replace(traffic, **{direction: 1000}))
        await gateway.reconcile()
    assert silent(gateway) == [WELT.name]


async def test_without_active_peers_nothing_is_expected(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await scans(gateway, 20)
    assert silent(gateway) == []
    gateway.dataplane.vxlan_silent.add(WELT.name)
    await scans(gateway, 4, alive=[1])
    assert silent(gateway) == []


async def test_an_interface_that_is_missing_is_not_silent(gateway: Gateway) -> None:
    await gateway.connect(WELT, 1)
    await gateway.reconcile()
    for _ in range(10):
        interfaces = gateway.dataplane.interfaces[WELT.name]
        interfaces.state = replace(interfaces.state, vx_present=False, vx_up=False, vx_traffic=None)
        await scans(gateway, 1, alive=[1])
    assert silent(gateway) == []
    gateway.dataplane.create_interfaces(WELT)
    await gateway.reconcile()
    await scans(gateway, 2, alive=[1])
    assert silent(gateway) == []
