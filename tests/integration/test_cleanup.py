"""The cleanup of a whole worker: it runs again and again, with what nodes request over the bus."""

import time
from typing import Any

import pytest

from tests.helpers import CITY, WELT
from tests.integration.inprocess import client, configuration, new_key, running_worker
from tests.integration.loopback import eventually_answered
from tests.integration.servers import Mosquitto
from wgkex_ops.bus.messages import key_topic
from wgkex_ops.config import CleanupConfig, Config
from wgkex_ops.model.keys import PublicKey

DAY = 86_400.0


def cleaning(mosquitto: Mosquitto, **settings: Any) -> Config:  # noqa: ANN401
    """A configuration with a cleanup that does not take minutes; no file can have that."""
    often = CleanupConfig.model_construct(
        **{
            "interval": 0.05,
            "stale_after": 10_800,
            "never_after": 600,
            "adopt": False,
            "protected_keys": (),
            **settings,
        }
    )
    return configuration(mosquitto.port).model_copy(update={"cleanup": often})


async def request(mosquitto: Mosquitto, key: PublicKey) -> None:
    async with client(mosquitto.port) as sender:
        await sender.publish(key_topic(WELT.name), str(key).encode())


async def test_a_peer_goes_when_it_is_old_and_comes_back_when_its_node_requests_it(mosquitto: Mosquitto) -> None:
    gone, staying, protected = new_key(), new_key(), new_key()
    async with running_worker(cleaning(mosquitto, never_after=0.0, protected_keys=(protected,))) as worker:
        for key in (staying, protected):
            worker.dataplane.add_static(WELT, key, protocol=158)
            worker.dataplane.shake_hands(WELT, key)
        worker.dataplane.shake_hands(WELT, protected, time.time() - DAY)
        runs = worker.metric("wgkex_worker_cleanup_runs_total", result="completed")

        async def run_through() -> bool:
            return worker.metric("wgkex_worker_cleanup_runs_total", result="completed") >= runs + 2

        await eventually_answered(run_through, "two runs of the cleanup")
        for times in (1, 2):
            await request(mosquitto, gone)

            async def removed(times: int = times) -> bool:
                reason = {"domain": WELT.name, "reason": "never_connected"}
                return worker.metric("wgkex_worker_peers_removed_total", **reason) == times

            await eventually_answered(removed, "the removed peer")
        assert {peer.public_key for peer in (await worker.state(WELT)).peers} == {staying.raw, protected.raw}
        assert worker.metric("wgkex_worker_cleanup_last_success_timestamp_seconds") == pytest.approx(
            time.time(), abs=60
        )


async def test_a_peer_that_was_just_requested_has_time(mosquitto: Mosquitto) -> None:
    """Requests are known to the cleanup: by the time since the start alone, both peers would go."""
    requested, other = new_key(), new_key()
    async with running_worker(cleaning(mosquitto, never_after=3.0)) as worker, client(mosquitto.port) as sender:
        worker.dataplane.add_static(WELT, other, protocol=158)

        def removed() -> float:
            return worker.metric("wgkex_worker_peers_removed_total", domain=WELT.name, reason="never_connected")

        async def some_gone() -> bool:
            # Again and again, as by a node whose handshake does not succeed.
            await sender.publish(key_topic(WELT.name), str(requested).encode())
            return removed() > 0

        async def installed() -> bool:
            return await worker.has(WELT, requested)

        await eventually_answered(some_gone, "the peer that nobody requests")
        await eventually_answered(installed, "the peer that is requested")
        assert not await worker.has(WELT, other)
        assert removed() == 1


async def test_peers_of_the_older_wgkex_are_taken_over_if_asked_to(mosquitto: Mosquitto) -> None:
    old, static, protected = new_key(), new_key(), new_key()
    async with running_worker(cleaning(mosquitto, adopt=True, protected_keys=(protected,))) as worker:
        worker.dataplane.add_static(WELT, static, bytes.fromhex("fe80") + bytes(14))
        worker.dataplane.add_static(WELT, protected)
        worker.dataplane.add_static(CITY, old)

        async def adopted() -> bool:
            return worker.metric("wgkex_worker_peers_adopted_total", domain=CITY.name) == 1

        await eventually_answered(adopted, "the adopted peer")
        assert (await worker.state(CITY)).routes == {old.link_local.packed}
        state = await worker.state(WELT)
        assert state.routes == set()
        assert state.foreign_routes == {bytes.fromhex("fe80") + bytes(14): 4, protected.link_local.packed: 4}
        assert worker.metric("wgkex_worker_peers_adopted_total", domain=WELT.name) == 0


async def test_else_they_stay_as_they_are(mosquitto: Mosquitto) -> None:
    old = new_key()
    async with running_worker(cleaning(mosquitto, never_after=0.0)) as worker:
        worker.dataplane.add_static(WELT, old)

        async def run_through() -> bool:
            return worker.metric("wgkex_worker_cleanup_runs_total", result="completed") >= 3

        await eventually_answered(run_through, "three runs of the cleanup")
        assert (await worker.state(WELT)).foreign_routes == {old.link_local.packed: 4}
