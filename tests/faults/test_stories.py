"""Outages as operators have them, each with the alerts that it raises; a minute takes a second."""

import asyncio
import itertools
import re
import signal
from pathlib import Path

import pytest

from tests.faults.site import MINUTE, Site, running_site
from tests.helpers import WELT, key, post_key
from tests.integration.inprocess import new_key, submit
from tests.integration.loopback import eventually_answered
from tests.integration.servers import Bench
from tests.integration.watched import PACE, background
from wgkex_ops.http.gateways import nodes

pytestmark = pytest.mark.timeout(400)

# What the broker's clock measures is not shortened, and takes as long as at a real broker.
SILENT_WITHIN = 120.0
SHOWN_WITHIN = 30.0


async def test_hour_of_health_and_a_router_that_asks_a_hundred_times_a_minute_raise_nothing(bench: Bench) -> None:
    async with running_site(bench) as site:
        await site.stays_quiet(30)

        async def flap() -> None:
            for version in itertools.cycle((2, 1)):
                await post_key(site.broker.nodes, version, WELT.name, key(9_999))
                await asyncio.sleep(MINUTE / 100)

        async with background(flap()):
            await site.stays_quiet(30)
        peers = sum(
            site.broker.metric("wgkex_broker_worker_peers", worker=name, domain=WELT.name) for name in site.gateways
        )
        assert peers <= 51


# --- the access rules of the MQTT server keep the keys from a gateway


def write_acl(file: Path, *, blind: str = "") -> None:
    """Everybody may do everything, but one user may not read."""
    users = ("broker", "gw01", "gw02", "gw03")
    rights = {user: "write" if user == blind else "readwrite" for user in users}
    file.write_text("".join(f"user {user}\ntopic {right} #\n" for user, right in rights.items()))


async def submit_new_nodes(site: Site) -> None:
    """New nodes ask by version 2, some a second, for ever."""
    while True:
        await post_key(site.broker.nodes, 2, WELT.name, new_key())
        await asyncio.sleep(0.2)


async def test_gateway_that_may_not_read_its_keys_is_shown_passed_over_and_reported(
    bench: Bench, tmp_path: Path
) -> None:
    acl = tmp_path / "acl"
    write_acl(acl)
    settings = (f"acl_file {acl}",)
    async with running_site(bench, ("gw01", "gw02"), nodes=10, mosquitto_settings=settings, users=True) as site:

        async def page() -> str:
            return re.sub(r"<[^>]+>", "", (await site.broker.page("/")).text)

        async def names_it() -> bool:
            return "No receipt for the latest keys" in await page()

        def confirms() -> float:
            return site.broker.metric("wgkex_broker_worker_confirming", worker="gw01")

        async def passed_over() -> bool:
            await site.broker.page("/metrics")
            return confirms() == 0

        async def named() -> set[str]:
            """The gateways that are named to some new nodes."""
            responses = [await post_key(site.broker.nodes, 2, WELT.name, new_key()) for _ in range(20)]
            return {response["Endpoint"]["Address"].partition(".")[0] for _, response in responses}

        assert await named() == {"gw01", "gw02"}
        write_acl(acl, blind="gw01")
        site.mosquitto.send(signal.SIGHUP)
        async with background(submit_new_nodes(site)):
            await eventually_answered(names_it, "a page that names the gateway", SHOWN_WITHIN)
            assert "access rules" in await page()
            await eventually_answered(passed_over, "a gateway that is passed over", SILENT_WITHIN)
            assert await named() == {"gw02"}
            # Two minutes after it was accepted, a key counts as never confirmed.
            await site.fires("WgkexKeysUnconfirmed")
            # There is another gateway, so nobody is paged.
            assert "critical" not in {severity for _, severity in await site.firing()}
            assert "confirms nothing" in await page()

            write_acl(acl)
            site.mosquitto.send(signal.SIGHUP)

            async def has_come_back() -> bool:
                return "gw01" in await named()

            await eventually_answered(has_come_back, "a gateway that gets nodes again")
            assert "No receipt for the latest keys" not in await page()


# --- handshakes


async def test_firewalled_port_is_found_and_its_nodes_get_another_gateway(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The broker's memory of nodes has to run as fast as their lives.
    monkeypatch.setattr(nodes, "REMEMBERED_FOR", nodes.REMEMBERED_FOR * PACE)
    monkeypatch.setattr(nodes, "COUNTED_ONCE_IN", nodes.COUNTED_ONCE_IN * PACE)
    async with running_site(bench) as site:
        site.gateways["gw01"].firewalled = True
        await site.fires("WgkexGatewayBlackHole")

        # All its nodes, and no others, have lost their tunnel; they get another one when they come back.
        async def all_have_a_tunnel() -> bool:
            active = 'sum(wgkex_worker_peers{state="active"})'
            return await site.prometheus.scalar(active) == len(site.tries)

        await eventually_answered(all_have_a_tunnel, "tunnels for all nodes")
        lost = [tries for tries in site.tries.values() if len(tries) > 1]
        assert all(tries[0] == "gw01" and tries[1] != "gw01" for tries in lost)


async def test_gateway_whose_mesh_is_silent_is_found_although_all_nodes_are_active(bench: Bench) -> None:
    async with running_site(bench) as site:
        site.gateways["gw01"].worker.dataplane.vxlan_silent = {WELT.name}
        await site.fires("WgkexVxlanSilent")
        assert await site.firing() == {("WgkexWatchdog", "none"), ("WgkexVxlanSilent", "warning")}


async def test_broken_firmware_that_loses_the_whole_network_pages(bench: Bench) -> None:
    async with running_site(bench) as site:
        site.silent = True

        async def send_garbage() -> None:
            while True:
                await submit(str(site.broker.nodes), 2, WELT.name, "garbage")
                await asyncio.sleep(MINUTE / 50)

        async with background(send_garbage()):
            await site.fires("WgkexPeersLostEverywhere", "critical")
            await site.fires("WgkexKeyRejectionsHigh")


# --- gateways that install nothing


async def test_gateways_that_take_all_keys_and_install_none_page(bench: Bench) -> None:
    async with running_site(bench) as site:
        for gateway in site.gateways.values():
            gateway.worker.dataplane.error = "ENOMEM"

        async def ask_by_version_1() -> None:
            while True:
                status, _ = await post_key(site.broker.nodes, 1, WELT.name, new_key())
                assert status == 200
                await asyncio.sleep(0.2)

        async with background(ask_by_version_1()):
            await site.fires("WgkexKeysUnconfirmed", "critical")
