"""Series of single peers: what they tell, and how many there are."""

from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry

from tests.helpers import CITY, WELT, as_openmetrics, key
from wgkex_ops.metrics.peers import PeerSeries
from wgkex_ops.metrics.wireguard import WireGuardCollector
from wgkex_ops.model.keys import link_local
from wgkex_ops.model.peers import DomainState, Peer, Snapshot


def peer(number: int, handshake: float = 0.0) -> Peer:
    raw = key(number).raw
    return Peer(raw, handshake, 10 * number, 100 * number, link_local(raw))


async def lines(peers: tuple[Peer, ...], limit: int, names: Mapping[bytes, str]) -> list[str]:
    """What is shown of single peers, without HELP and TYPE."""

    async def read() -> Snapshot:
        return Snapshot(2_000_000_000.0, {WELT.name: DomainState(peers=peers), CITY.name: DomainState()})

    registry = CollectorRegistry()
    collector = WireGuardCollector(read, (WELT, CITY), stale_after=10_800, peer_series=PeerSeries(limit, lambda: names))
    registry.register(collector)
    await collector.refresh()
    return [
        line
        for line in as_openmetrics(registry).splitlines()
        if line.startswith(("wireguard_", "wgkex_worker_peer_series"))
    ]


async def test_everything_about_two_peers() -> None:
    seen = await lines((peer(1, 1_999_999_990.5), peer(2)), 10, {key(2).raw: 'Rathaus "Süd"'})
    of_1 = f'{{interface="wg-welt",public_key="{key(1)}"}}'
    assert seen == [
        'wgkex_worker_peer_series_suppressed{domain="ffmuc_welt"} 0.0',
        'wgkex_worker_peer_series_suppressed{domain="ffmuc_muc_cty"} 0.0',
        f'wireguard_peer_info{{interface="wg-welt",name="",public_key="{key(1)}"}} 1.0',
        f'wireguard_peer_info{{interface="wg-welt",name="Rathaus \\"Süd\\"",public_key="{key(2)}"}} 1.0',
        f"wireguard_peer_last_handshake_timestamp_seconds{of_1} 1.9999999905e+09",
        f'wireguard_peer_receive_bytes_total{{interface="wg-welt",public_key="{key(1)}"}} 10.0',
        f'wireguard_peer_receive_bytes_total{{interface="wg-welt",public_key="{key(2)}"}} 20.0',
        f'wireguard_peer_transmit_bytes_total{{interface="wg-welt",public_key="{key(1)}"}} 100.0',
        f'wireguard_peer_transmit_bytes_total{{interface="wg-welt",public_key="{key(2)}"}} 200.0',
    ]


@pytest.mark.parametrize(("limit", "shown"), [(3, [1, 2, 4]), (2, [4, 1]), (1, [4]), (0, [])])
async def test_beyond_the_limit_peers_with_a_name_come_first_and_the_rest_is_counted(
    limit: int, shown: list[int]
) -> None:
    seen = await lines((peer(1), peer(2), peer(4)), limit, {key(4).raw: "Rathaus"})
    assert [line for line in seen if line.startswith("wireguard_peer_receive_bytes_total")] == [
        f'wireguard_peer_receive_bytes_total{{interface="wg-welt",public_key="{key(number)}"}} {10.0 * number}'
        for number in shown
    ]
    assert seen[0] == f'wgkex_worker_peer_series_suppressed{{domain="ffmuc_welt"}} {3.0 - len(shown)}'
