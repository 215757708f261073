"""Key lists on a running system: the file changes, and broker and worker follow it."""

import asyncio
import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.faults.system import Brokers, Place, Workers, place_settings, running_places
from tests.helpers import WELT, post_key
from tests.integration.inprocess import new_key
from tests.integration.loopback import eventually, eventually_answered
from tests.integration.servers import Bench, Mosquitto
from wgkex_ops.model.keys import PublicKey

REFUSED: Final = "wgkex_worker_message_rejections_total"


@dataclass
class Site:
    """A broker and a worker with one file of key lists."""

    file: Path
    broker: Brokers
    worker: Workers

    async def status(self, key: PublicKey) -> tuple[int, str]:
        """What a router gets, and why."""
        status, response = await post_key(self.broker.nodes, 1, WELT.name, key)
        return status, response.get("error", {}).get("reason", "")

    async def answered(self, key: PublicKey, status: int, reason: str = "") -> None:
        async def asked() -> bool:
            return await self.status(key) == (status, reason)

        await eventually_answered(asked, f"{status} {reason}", 10)

    async def installed(self, key: PublicKey) -> bool:
        return str(key) in (await self.worker.installed())[WELT.wg]

    async def gone(self, key: PublicKey) -> None:
        async def looked() -> bool:
            return not await self.installed(key)

        await eventually_answered(looked, "the end of a peer", 60)

    async def reads(self, *, successfully: bool) -> None:
        async def looked() -> bool:
            results = [await place.total("wgkex_key_list_last_reload_successful") for place in self.places]
            return results == [float(successfully)] * 2

        await eventually_answered(looked, "the file is read")

    @property
    def places(self) -> tuple[Brokers, Workers]:
        return self.broker, self.worker


@pytest.fixture
async def site(bench: Bench, mosquitto: Mosquitto, tmp_path: Path) -> Site:
    file = tmp_path / "keys.yaml"
    file.write_text("denied: []\n")
    document = place_settings(mosquitto.port, "gw01", tmp_path, key_lists=str(file))
    return Site(file, *await running_places(bench, document))


async def test_a_key_that_is_denied_while_all_runs_is_refused_and_its_peer_goes(site: Site) -> None:
    stolen, other = new_key(), new_key()
    for key in (stolen, other):
        assert await site.status(key) == (200, "")
    await site.worker.has_all({WELT.name: {stolen, other}})

    site.file.write_text(f"denied:\n- key: {stolen}\n  name: stolen router\n")
    await site.answered(stolen, 403, "denied_key")
    await site.gone(stolen)
    assert await site.installed(other)
    (line,) = site.worker.program.logged("peer_removed")
    assert (line["reason"], line["name"], line["public_key"]) == ("denied", "stolen router", str(stolen))
    assert await site.status(other) == (200, "")

    site.file.write_text("denied: []\n")
    await site.answered(stolen, 200)

    async def asks_again() -> bool:
        # The broker may have read the file a moment before the worker.
        assert await site.status(stolen) == (200, "")
        return await site.installed(stolen)

    await eventually_answered(asks_again, "a router that is welcome again")
    assert await site.installed(other)


async def test_a_worker_refuses_by_itself_what_a_broker_without_lists_takes(
    bench: Bench, mosquitto: Mosquitto, site: Site
) -> None:
    denied = new_key()
    site.file.write_text(f"denied:\n- key: {denied}\n")
    await site.answered(denied, 403, "denied_key")

    async def refused() -> bool:
        # The worker may read the file a moment after the broker.
        mosquitto.publish(f"wireguard/{WELT.name}/all", str(denied), "-q", "1")
        samples = (await site.worker.samples())[REFUSED]
        return samples[frozenset({("reason", "denied_key")})] >= 1

    await eventually_answered(refused, "a refusal")
    await site.gone(denied)


async def test_only_allowed_keys_where_a_domain_has_a_list(site: Site) -> None:
    member, other = new_key(), new_key()
    assert await site.status(other) == (200, "")
    await site.worker.has_all({WELT.name: {other}})
    site.file.write_text(f"allowed:\n  {WELT.name}:\n  - key: {member}\n")
    await site.answered(other, 403, "not_allowed_key")
    assert await site.status(member) == (200, "")
    await site.gone(other)
    await site.worker.has_all({WELT.name: {member}})


async def test_a_broken_file_leaves_the_lists_as_they_were(site: Site) -> None:
    denied = new_key()
    site.file.write_text(f"denied:\n- key: {denied}\n")
    await site.answered(denied, 403, "denied_key")
    site.file.write_text("denied: [")
    await site.reads(successfully=False)
    assert await site.status(denied) == (403, "denied_key")
    assert len(site.broker.program.logged("key_lists_rejected")) == 1
    site.file.write_text("denied: []\n")
    await site.reads(successfully=True)
    await site.answered(denied, 200)


def _has_read_more_than(place: Place, times: int) -> bool:
    return len(place.program.logged("key_lists_read")) > times


async def test_sighup_reads_the_file_and_ends_nothing(site: Site) -> None:
    for place in site.places:
        before = len(place.program.logged("key_lists_read"))
        os.kill(place.program.process.pid, signal.SIGHUP)
        read_again = partial(_has_read_more_than, place, before)
        await eventually(read_again, "a reading")
    await asyncio.sleep(0.1)
    assert await site.status(new_key()) == (200, "")
