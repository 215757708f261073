"""The purpose of it all: a router submits its key over HTTP, and its mesh comes up through the gateway."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.lab import Namespace
from tests.kernel.network import DOMAIN, OTHER_DOMAIN, create_tunnel, eventually, new_key_pair, running_network
from wgkex_ops.model.keys import PublicKey


@pytest.mark.timeout(1800)
def test_a_router_that_posts_its_key_sees_the_gateway_as_a_batman_neighbour(
    add_namespace: Callable[[str], Namespace], tmp_path: Path
) -> None:
    with running_network(add_namespace, tmp_path) as network:
        router, gateway = network.router, network.gateway
        private_key, public_key = new_key_pair(router)
        address = str(PublicKey.parse(public_key).link_local)

        endpoint = network.post_with_wget(2, public_key)["Endpoint"]

        def installed() -> bool:
            return (
                public_key in gateway.wg(DOMAIN.wg).peers
                and [route["dst"] for route in gateway.routes(DOMAIN.wg, 158)] == [address]
                and gateway.fdb(DOMAIN.vx) == [address]
            )

        eventually(installed, "peer, route and FDB entry of the router")

        create_tunnel(router, private_key, public_key)
        gateway_address = endpoint["AllowedIPs"][0]
        router.sh(
            f"wg set {DOMAIN.wg} peer {endpoint['PublicKey']} persistent-keepalive 25"
            f" endpoint {endpoint['Address']}:{endpoint['Port']} allowed-ips {gateway_address}/128",
            f"ip -6 route add {gateway_address}/128 dev {DOMAIN.wg}",
            f"bridge fdb append 00:00:00:00:00:00 dev {DOMAIN.vx} dst {gateway_address} via {DOMAIN.wg}",
        )

        eventually(lambda: gateway.wg(DOMAIN.wg).peers[public_key].handshake, "a handshake")
        mac = json.loads(gateway.run("ip", "-json", "link", "show", DOMAIN.vx))[0]["address"]
        eventually(lambda: mac in router.run("batctl", "meshif", "bat0", "n"), "the gateway among the neighbours")

        assert network.metric(f'wgkex_worker_peers{{domain="{DOMAIN}",state="active"}}') == 1
        assert network.metric(f'wgkex_worker_peers_installed_total{{domain="{DOMAIN}"}}') == 1
        family = "wgkex_worker_peer_handshake_age_seconds"
        assert network.metric(f'{family}_gcount{{domain="{DOMAIN}"}}') == 1
        assert 0 <= network.metric(f'{family}_gsum{{domain="{DOMAIN}"}}') < 180

        # The two reach the page of metrics, too.
        for direction in ("receive", "transmit"):
            name = f"wgkex_worker_interface_{direction}_bytes_total"
            for interface in (DOMAIN.wg, DOMAIN.vx):
                assert network.metric(f'{name}{{domain="{DOMAIN}",interface="{interface}"}}') > 0
        started = f'wgkex_worker_peer_sessions_started_total{{domain="{DOMAIN}"}}'
        eventually(lambda: network.metric(started) == 1, "a scan that shows the session")

        # A stranger requests the router's key in another domain: its route never moves, and its mesh stays.
        refused = 'wgkex_worker_message_rejections_total{reason="live_elsewhere"}'
        before = gateway.wg(DOMAIN.wg).peers[public_key].allowed_ips
        for number in range(1, 4):
            assert network.post_with_wget(1, public_key, OTHER_DOMAIN) == {"Message": "OK"}
            eventually(lambda number=number: network.metric(refused) == number, "a refusal")  # type: ignore[misc]
            assert installed()
            assert gateway.wg(DOMAIN.wg).peers[public_key].allowed_ips == before
            assert gateway.wg(OTHER_DOMAIN.wg).peers == {}
        assert mac in router.run("batctl", "meshif", "bat0", "n")
