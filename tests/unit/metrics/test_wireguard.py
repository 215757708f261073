"""What a snapshot looks like to Prometheus: literal lines."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from tests.helpers import CITY, WELT, as_openmetrics, key
from wgkex_ops.errors import DataplaneError
from wgkex_ops.metrics.wireguard import WireGuardCollector
from wgkex_ops.model.changes import Operation
from wgkex_ops.model.keys import link_local
from wgkex_ops.model.peers import DomainState, Peer, Snapshot, Traffic, count_active, handshake_age, peer_state

NOW = 1_000_000.0


def peer(number: int, age: float | None) -> Peer:
    raw = key(number).raw
    return Peer(raw, 0.0 if age is None else NOW - age, 1, 2, link_local(raw))


def domain_state(*ages: float | None) -> DomainState:
    peers = tuple(peer(number, age) for number, age in enumerate(ages))
    addresses = frozenset(one.link_local for one in peers)
    return DomainState(
        wg_present=True,
        wg_up=True,
        vx_present=True,
        vx_up=True,
        wg_traffic=Traffic(3000, 2000),
        vx_traffic=Traffic(2_500_000_000_000, 1500),
        public_key=b"x" * 32,
        listen_port=40_000,
        link_address="fe80::1",
        peers=peers,
        routes=addresses,
        fdb_entries=addresses,
    )


class Reader:
    """Reads what it is given, or fails."""

    def __init__(self, domains: Mapping[str, DomainState]) -> None:
        self.domains = domains
        self.error: DataplaneError | None = None

    async def read(self) -> Snapshot:
        if self.error is not None:
            raise self.error
        return Snapshot(NOW, self.domains)


def collected(reader: Reader) -> tuple[CollectorRegistry, WireGuardCollector]:
    registry = CollectorRegistry()
    collector = WireGuardCollector(reader.read, (WELT, CITY), stale_after=10_800)
    registry.register(collector)
    return registry, collector


def exposition(registry: CollectorRegistry, *, openmetrics: bool = False) -> list[str]:
    """The lines without HELP and without the one that tells how long the reading took."""
    return [
        line
        for line in (as_openmetrics(registry) if openmetrics else generate_latest(registry).decode()).splitlines()
        if not line.startswith("# HELP") and not line.startswith("wgkex_worker_collector_duration_seconds{")
    ]


CITY_DOWN = DomainState(wg_present=True, wg_up=True, wg_traffic=Traffic(0, 80))
WELT_BUSY = replace(domain_state(10.0, 179.5, 180.0, 20_000.0, None), fdb_entries=frozenset())

BUCKETS = """\
wgkex_worker_peer_handshake_age_seconds_bucket{domain="ffmuc_welt",le="30.0"} 1.0
wgkex_worker_peer_handshake_age_seconds_bucket{domain="ffmuc_welt",le="60.0"} 1.0
wgkex_worker_peer_handshake_age_seconds_bucket{domain="ffmuc_welt",le="120.0"} 1.0
wgkex_worker_peer_handshake_age_seconds_bucket{domain="ffmuc_welt",le="180.0"} 3.0
wgkex_worker_peer_handshake_age_seconds_bucket{domain="ffmuc_welt",le="300.0"} 3.0
wgkex_worker_peer_handshake_age_seconds_bucket{domain="ffmuc_welt",le="600.0"} 3.0
wgkex_worker_peer_handshake_age_seconds_bucket{domain="ffmuc_welt",le="1800.0"} 3.0
wgkex_worker_peer_handshake_age_seconds_bucket{domain="ffmuc_welt",le="3600.0"} 3.0
wgkex_worker_peer_handshake_age_seconds_bucket{domain="ffmuc_welt",le="10800.0"} 3.0
wgkex_worker_peer_handshake_age_seconds_bucket{domain="ffmuc_welt",le="86400.0"} 4.0
wgkex_worker_peer_handshake_age_seconds_bucket{domain="ffmuc_welt",le="+Inf"} 4.0
"""
SUMS = """\
wgkex_worker_peer_handshake_age_seconds_gcount{domain="ffmuc_welt"} 4.0
wgkex_worker_peer_handshake_age_seconds_gsum{domain="ffmuc_welt"} 20369.5
"""
EMPTY_BUCKETS = (
    BUCKETS.replace("ffmuc_welt", "ffmuc_muc_cty")
    .replace(" 1.0", " 0.0")
    .replace(" 3.0", " 0.0")
    .replace(" 4.0", " 0.0")
)
EMPTY_SUMS = """\
wgkex_worker_peer_handshake_age_seconds_gcount{domain="ffmuc_muc_cty"} 0.0
wgkex_worker_peer_handshake_age_seconds_gsum{domain="ffmuc_muc_cty"} 0.0
"""
BEFORE = """\
# TYPE wgkex_worker_collector_success gauge
wgkex_worker_collector_success{collector="wireguard"} 1.0
# TYPE wgkex_worker_collector_duration_seconds gauge
# TYPE wgkex_worker_peers gauge
wgkex_worker_peers{domain="ffmuc_welt",state="active"} 2.0
wgkex_worker_peers{domain="ffmuc_welt",state="idle"} 1.0
wgkex_worker_peers{domain="ffmuc_welt",state="stale"} 1.0
wgkex_worker_peers{domain="ffmuc_welt",state="never"} 1.0
wgkex_worker_peers{domain="ffmuc_muc_cty",state="active"} 0.0
wgkex_worker_peers{domain="ffmuc_muc_cty",state="idle"} 0.0
wgkex_worker_peers{domain="ffmuc_muc_cty",state="stale"} 0.0
wgkex_worker_peers{domain="ffmuc_muc_cty",state="never"} 0.0
"""
TRAFFIC = """\
# TYPE wgkex_worker_interface_receive_bytes counter
wgkex_worker_interface_receive_bytes_total{domain="ffmuc_welt",interface="wg-welt"} 3000.0
wgkex_worker_interface_receive_bytes_total{domain="ffmuc_welt",interface="vx-welt"} 2.5e+12
wgkex_worker_interface_receive_bytes_total{domain="ffmuc_muc_cty",interface="wg-muc_cty"} 0.0
# TYPE wgkex_worker_interface_transmit_bytes counter
wgkex_worker_interface_transmit_bytes_total{domain="ffmuc_welt",interface="wg-welt"} 2000.0
wgkex_worker_interface_transmit_bytes_total{domain="ffmuc_welt",interface="vx-welt"} 1500.0
wgkex_worker_interface_transmit_bytes_total{domain="ffmuc_muc_cty",interface="wg-muc_cty"} 80.0
"""
AFTER = """\
# TYPE wgkex_worker_newest_handshake_timestamp_seconds gauge
wgkex_worker_newest_handshake_timestamp_seconds{domain="ffmuc_welt"} 999990.0
# TYPE wgkex_worker_routes gauge
wgkex_worker_routes{domain="ffmuc_welt"} 5.0
wgkex_worker_routes{domain="ffmuc_muc_cty"} 0.0
# TYPE wgkex_worker_fdb_entries gauge
wgkex_worker_fdb_entries{domain="ffmuc_welt"} 0.0
wgkex_worker_fdb_entries{domain="ffmuc_muc_cty"} 0.0
# TYPE wgkex_worker_interface_up gauge
wgkex_worker_interface_up{domain="ffmuc_welt",interface="wg-welt"} 1.0
wgkex_worker_interface_up{domain="ffmuc_welt",interface="vx-welt"} 1.0
wgkex_worker_interface_up{domain="ffmuc_muc_cty",interface="wg-muc_cty"} 1.0
wgkex_worker_interface_up{domain="ffmuc_muc_cty",interface="vx-muc_cty"} 0.0
"""
DRIFT = """\
# TYPE wgkex_worker_incomplete_peers gauge
wgkex_worker_incomplete_peers{domain="ffmuc_welt",missing="peer"} 0.0
wgkex_worker_incomplete_peers{domain="ffmuc_welt",missing="route"} 0.0
wgkex_worker_incomplete_peers{domain="ffmuc_welt",missing="fdb"} 5.0
wgkex_worker_incomplete_peers{domain="ffmuc_muc_cty",missing="peer"} 0.0
wgkex_worker_incomplete_peers{domain="ffmuc_muc_cty",missing="route"} 0.0
wgkex_worker_incomplete_peers{domain="ffmuc_muc_cty",missing="fdb"} 0.0
"""


async def test_snapshot_in_openmetrics() -> None:
    registry, collector = collected(Reader({WELT.name: WELT_BUSY, CITY.name: CITY_DOWN}))
    await collector.refresh()
    histogram = "# TYPE wgkex_worker_peer_handshake_age_seconds gaugehistogram\n"
    expected = BEFORE + histogram + BUCKETS + SUMS + EMPTY_BUCKETS + EMPTY_SUMS + AFTER + TRAFFIC + DRIFT + "# EOF\n"
    assert exposition(registry, openmetrics=True) == expected.splitlines()


async def test_snapshot_in_the_text_format() -> None:
    registry, collector = collected(Reader({WELT.name: WELT_BUSY, CITY.name: CITY_DOWN}))
    await collector.refresh()
    # It knows no gauge histograms: the sums are metrics of their own.
    histogram = "# TYPE wgkex_worker_peer_handshake_age_seconds histogram\n"
    sums = "".join(
        f"# TYPE wgkex_worker_peer_handshake_age_seconds_{kind} gauge\n"
        + "".join(line + "\n" for line in (SUMS + EMPTY_SUMS).splitlines() if f"_{kind}{{" in line)
        for kind in ("gcount", "gsum")
    )
    # And a counter's suffix is part of its name.
    traffic = TRAFFIC.replace("_bytes counter", "_bytes_total counter")
    expected = BEFORE + histogram + BUCKETS + EMPTY_BUCKETS + sums + AFTER + traffic + DRIFT
    assert exposition(registry) == expected.splitlines()


@pytest.mark.parametrize(
    ("age", "state"),
    [
        (0.0, "active"),
        (179.9, "active"),
        (180.0, "idle"),
        (10_799.9, "idle"),
        (10_800.0, "stale"),
        (1e9, "stale"),
        (None, "never"),
    ],
)
def test_state_of_a_peer_by_the_age_of_its_handshake(age: float | None, state: str) -> None:
    assert peer_state(age, 10_800) == state


async def test_states_are_counted_at_their_limits() -> None:
    ages = (179.9, 180.0, 10_799.9, 10_800.0, None, -30.0)
    registry, collector = collected(Reader({WELT.name: domain_state(*ages), CITY.name: CITY_DOWN}))
    await collector.refresh()
    counts = {
        state: registry.get_sample_value("wgkex_worker_peers", {"domain": WELT.name, "state": state})
        for state in ("active", "idle", "stale", "never")
    }
    assert counts == {"active": 2, "idle": 2, "stale": 1, "never": 1}
    assert count_active(domain_state(*ages).peers, NOW) == 2


async def test_handshake_in_the_future_is_as_young_as_can_be() -> None:
    assert handshake_age(peer(1, -30.0), NOW) == 0.0
    registry, collector = collected(Reader({WELT.name: domain_state(-30.0), CITY.name: CITY_DOWN}))
    await collector.refresh()
    lines = exposition(registry, openmetrics=True)
    assert 'wgkex_worker_peer_handshake_age_seconds_bucket{domain="ffmuc_welt",le="30.0"} 1.0' in lines
    assert 'wgkex_worker_peer_handshake_age_seconds_gsum{domain="ffmuc_welt"} 0.0' in lines
    assert 'wgkex_worker_newest_handshake_timestamp_seconds{domain="ffmuc_welt"} 1.00003e+06' in lines


async def test_peer_without_a_handshake_has_no_age() -> None:
    assert handshake_age(peer(1, None), NOW) is None
    registry, collector = collected(Reader({WELT.name: domain_state(None, None), CITY.name: CITY_DOWN}))
    await collector.refresh()
    lines = exposition(registry, openmetrics=True)
    assert 'wgkex_worker_peers{domain="ffmuc_welt",state="never"} 2.0' in lines
    assert 'wgkex_worker_peer_handshake_age_seconds_gcount{domain="ffmuc_welt"} 0.0' in lines
    assert not any(line.startswith("wgkex_worker_newest_handshake_timestamp_seconds{") for line in lines)


@pytest.mark.parametrize("age", [30, 60, 120, 180, 300, 600, 1800, 3600, 10_800, 86_400])
async def test_upper_bound_of_a_bucket_is_inside(age: int) -> None:
    registry, collector = collected(Reader({WELT.name: domain_state(float(age), age + 0.5), CITY.name: CITY_DOWN}))
    await collector.refresh()
    labels = {"domain": WELT.name, "le": f"{age}.0"}
    assert registry.get_sample_value("wgkex_worker_peer_handshake_age_seconds_bucket", labels) == 1.0


async def test_failed_reading_shows_no_old_numbers() -> None:
    reader = Reader({WELT.name: WELT_BUSY, CITY.name: CITY_DOWN})
    registry, collector = collected(reader)
    failed = [
        "# TYPE wgkex_worker_collector_success gauge",
        'wgkex_worker_collector_success{collector="wireguard"} 0.0',
        "# TYPE wgkex_worker_collector_duration_seconds gauge",
    ]
    # Nothing has been read yet.
    assert exposition(registry) == failed
    await collector.refresh()
    assert len(exposition(registry)) > 40
    reader.error = DataplaneError(Operation.DUMP, "ENOBUFS")
    await collector.refresh()
    assert exposition(registry) == failed
    reader.error = None
    await collector.refresh()
    assert len(exposition(registry)) > 40


async def test_duration_of_the_reading_is_told() -> None:
    registry, collector = collected(Reader({WELT.name: WELT_BUSY, CITY.name: CITY_DOWN}))
    await collector.refresh()
    seconds = registry.get_sample_value("wgkex_worker_collector_duration_seconds", {"collector": "wireguard"})
    assert seconds is not None
    assert 0 < seconds < 10


async def test_no_key_and_no_address_is_told() -> None:
    registry, collector = collected(Reader({WELT.name: WELT_BUSY, CITY.name: CITY_DOWN}))
    await collector.refresh()
    text = as_openmetrics(registry)
    for one in WELT_BUSY.peers:
        assert str(key(0))[:4] not in text
        assert one.public_key.hex() not in text
    assert "fe80" not in text
