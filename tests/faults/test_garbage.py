"""Random bytes on every topic of the contract: each is counted, and nothing ends."""

import asyncio
import json
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.helpers import WELT
from tests.integration.inprocess import client, configuration, new_key, running_broker, running_worker
from tests.integration.loopback import eventually_answered
from tests.integration.servers import Bench

EXAMPLES: Final = 100
MESSAGES: Final = 100

LEVELS: Final = st.sampled_from(
    ["gw01", "gw02", WELT.name, "ffmuc_elsewhere", "all", "data", "status", "connected_peers", "é", "\u202e", "x" * 300]
)
TOPICS: Final = st.one_of(
    st.builds("wireguard/{}/{}".format, LEVELS, LEVELS),
    st.builds("wireguard-worker/{}/{}/data".format, LEVELS, LEVELS),
    st.builds("wireguard-worker/{}/status".format, LEVELS),
    st.builds("wireguard-metrics/{}/{}/connected_peers".format, LEVELS, LEVELS),
    st.builds("wireguard-broker/{}/status".format, LEVELS),
    st.builds("wgkex/receipts/{}".format, LEVELS),
    st.builds("wgkex/receipts/{}/{}".format, LEVELS, LEVELS),
    # What the programs really listen to, more often than chance would have it.
    st.sampled_from(
        [
            f"wireguard/{WELT.name}/all",
            f"wireguard-worker/gw01/{WELT.name}/data",
            "wireguard-worker/gw01/status",
            f"wireguard-metrics/{WELT.name}/gw01/connected_peers",
            "wireguard-broker/gw01/status",
            "wgkex/receipts/gw01",
            "wgkex/receipts/gw01/gw02",
        ]
    ),
)
PAYLOADS: Final = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"", b"0", b"1", b"-1", b"99999999999", b"nan", b"{}", b"[]", b"null", b"[" * 3000]),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    ).map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({"worker": st.text(), "result": st.sampled_from(["installed", "failed", ""])}).map(
        lambda value: json.dumps(value).encode()
    ),
)


def test_garbage_on_every_topic(tmp_path: Path) -> None:
    async def run(messages: list[tuple[str, bytes, bytes]]) -> None:
        with Bench(tmp_path) as bench:
            mosquitto = await bench.mosquitto()
            config = configuration(mosquitto.port, workers={"gw01": {"weight": 1}, "gw02": {"weight": 1}})
            async with (
                running_worker(config) as worker,
                running_broker(config) as broker,
                client(mosquitto.port) as stranger,
            ):
                # A few at a time: broker, worker and stranger share one event loop, and a slow machine has to keep the
                # connections alive.
                for start in range(0, len(messages), MESSAGES):
                    async with asyncio.TaskGroup() as group:
                        for topic, payload, correlation in messages[start : start + MESSAGES]:
                            group.create_task(
                                stranger.publish(
                                    topic,
                                    payload,
                                    retain=True,
                                    response_topic="wireguard-worker/gw01/status",
                                    correlation=correlation,
                                )
                            )
                # What is right still goes through.
                key = new_key()
                await stranger.publish(f"wireguard/{WELT.name}/all", str(key).encode())

                async def installed() -> bool:
                    return await worker.has(WELT, key)

                await eventually_answered(installed, "a key among the garbage")
                assert (await broker.submit(1, WELT.name, new_key())).status == 200
                for running in (worker, broker):
                    assert (await running.page("/metrics")).status == 200
                    assert (await running.page("/")).status == 200

    collected: list[tuple[str, bytes, bytes]] = []

    @given(st.lists(st.tuples(TOPICS, PAYLOADS, st.binary(max_size=80)), min_size=MESSAGES, max_size=MESSAGES))
    @settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def collect(messages: list[tuple[str, bytes, bytes]]) -> None:
        collected.extend(messages)

    collect()
    assert len(collected) >= EXAMPLES * MESSAGES
    asyncio.run(run(collected))
