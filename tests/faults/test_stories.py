"""Outages as operators have them, each with the alerts that it raises; a minute takes a second."""

import asyncio
import itertools

import pytest

from tests.faults.site import MINUTE, running_site
from tests.helpers import WELT, key
from tests.integration.servers import Bench
from tests.integration.watched import background
from wgkex_ops.demo.routers import post_key

pytestmark = pytest.mark.timeout(400)


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
