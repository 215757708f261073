"""Whatever clients send: no new series, and counters that add up exactly."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry

from tests.helpers import CITY, OTHER_KEY, TESTDATA, WELT, connection, read_answer
from tests.integration.inprocess import (
    RunningBroker,
    RunningWorker,
    client,
    configuration,
    new_key,
    running_broker,
    running_worker,
)
from tests.integration.loopback import eventually
from tests.integration.servers import Mosquitto
from wgkex_ops.config import Listen
from wgkex_ops.http.public.app import PATH_V1, PATH_V2
from wgkex_ops.model.changes import Operation

# Of each kind: domains, keys, paths, user agents, methods, names of workers, topics.
SENT: Final = 10_000
WORKERS: Final = {"gw01": {"weight": 1}, "gw02": {"weight": 1}}
STEPS: Final = (Operation.PEER_ADD, Operation.ROUTE_ADD, Operation.FDB_ADD)


def series(registry: CollectorRegistry) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Every series, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())) for family in registry.collect() for sample in family.samples
    }


def total(registry: CollectorRegistry, *names: str) -> float:
    """The sum over all label sets of some metrics."""
    return sum(sample.value for family in registry.collect() for sample in family.samples if sample.name in names)


@asynccontextmanager
async def both(port: int) -> AsyncIterator[tuple[RunningBroker, RunningWorker]]:
    config = configuration(port, workers=WORKERS)
    async with running_worker(config) as worker, running_broker(config) as broker:
        # Every series that a peer can cause exists.
        assert (await broker.submit(1, WELT.name, new_key())).status == 200
        await eventually(lambda: total(worker.registry, "wgkex_worker_peers_installed_total") == 1, "an installed peer")
        for page in (broker, worker):
            await page.page("/metrics")
        yield broker, worker


def hostile_requests(seeded: random.Random) -> Iterator[bytes]:
    """Each with another path or domain, key, method and user agent."""
    methods = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "BREW")
    for number in range(SENT):
        noise = seeded.randbytes(8).hex()
        body = json.dumps({"domain": f"ffmuc_{noise}", "public_key": str(new_key()), "noise": noise})
        method, path = seeded.choice(
            (
                ("POST", PATH_V1),
                ("POST", PATH_V2),
                ("POST", f"/{noise}"),
                (f"{seeded.choice(methods)}", f"/api/{noise}?q={noise}"),
                (f"X{noise[:4]}", PATH_V1),
                ("PUT", PATH_V2),
            )
        )
        yield (
            f"{method} {path} HTTP/1.1\r\nHost: {noise}.example\r\nUser-Agent: {noise}/{number}\r\n"
            f"X-Forwarded-For: 2001:db8::{number:x}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


async def send_all(listen: Listen, requests: Iterator[bytes]) -> Counter[str]:
    """Send over a connection that is made anew when the server ends it; how many got which kind of answer."""
    answered = Counter[str]()
    upcoming = next(requests, None)
    while upcoming is not None:
        async with connection(listen) as (reader, writer):
            while upcoming is not None:
                writer.write(upcoming)
                try:
                    answer = await read_answer(reader, head_only=upcoming.startswith(b"HEAD "))
                except (asyncio.IncompleteReadError, ConnectionError):
                    break
                answered["" if not answer.body else answer.json["error"]["reason"]] += 1
                upcoming = next(requests, None)
                if answer.headers.get("connection") == "close":
                    break
    return answered


async def test_hostile_senders_make_no_new_series(mosquitto: Mosquitto) -> None:
    seeded = random.Random(1)
    async with both(mosquitto.port) as (broker, worker), client(mosquitto.port) as stranger:
        before = {"broker": series(broker.registry), "worker": series(worker.registry)}

        answers = await send_all(broker.nodes, hostile_requests(seeded))
        assert answers.total() == SENT
        assert answers.keys() == {"", "unknown_domain", "not_found", "method_not_allowed", "bad_request"}

        async def publish(topic: str, payload: bytes) -> None:
            await stranger.publish(topic, payload, properties={"wgkex-request-id": seeded.randbytes(20).hex()})

        for start in range(0, SENT, 500):
            async with asyncio.TaskGroup() as group:
                for _ in range(start, start + 500):
                    name = seeded.randbytes(8).hex()
                    topic, payload = seeded.choice(
                        (
                            (f"wireguard-worker/{name}/status", b"1"),
                            (f"wireguard-metrics/{WELT.name}/{name}/connected_peers", b"7"),
                            (f"wireguard-metrics/{name}/gw01/connected_peers", b"7"),
                            (f"wireguard-worker/{name}/{name}/data", b"{}"),
                            (f"wireguard-broker/{name}/status", b"1"),
                            (f"wireguard/{WELT.name}/all", name.encode()),
                            (f"wireguard/{WELT.name}/all", str(new_key()).encode()),
                        )
                    )
                    group.create_task(publish(topic, payload))
        await stranger.publish("wireguard-worker/gw01/status", b"not a status")
        await eventually(
            lambda: broker.metric("wgkex_broker_message_rejections_total", reason="malformed_payload"),
            "the last message",
        )
        for page in (broker, worker):
            assert (await page.page("/metrics")).status == 200

        after = {"broker": series(broker.registry), "worker": series(worker.registry)}
        assert after == before
        assert total(broker.registry, "wgkex_broker_message_rejections_total") > 0
        # What cannot be read as HTTP is no request.
        requests = total(broker.registry, "wgkex_broker_http_requests_total")
        assert requests == SENT + 1 - answers["bad_request"]
        assert total(broker.registry, "wgkex_broker_key_requests_total") == total(
            broker.registry,
            "wgkex_broker_keys_published_total",
            "wgkex_broker_key_rejections_total",
            "wgkex_broker_key_failures_total",
        )


async def test_each_message_of_the_worker_ends_in_exactly_one_counter(mosquitto: Mosquitto) -> None:
    """Received = installed + merged + rejected + failed + waiting."""
    seeded = random.Random(2)
    good, refused = ([new_key() for _ in range(60)] for _ in range(2))
    rejected = json.loads((TESTDATA / "public_keys_rejected.json").read_text())["small_order"]
    payloads = [
        *(str(key).encode() for key in good for _ in range(3)),
        *(str(key).encode() for key in refused),
        *(f"{OTHER_KEY}{number}".encode() for number in range(40)),
        *(item["public_key"].encode() for item in rejected),
    ]
    seeded.shuffle(payloads)

    async with both(mosquitto.port) as (_, worker), client(mosquitto.port) as stranger:
        for number, key in enumerate(refused):
            worker.dataplane.refuse(key, STEPS[number % 3], "ENOBUFS")
        # One domain's keys wait for their interface.
        worker.dataplane.remove_interfaces(CITY)

        def settled() -> float:
            return total(
                worker.registry,
                "wgkex_worker_peers_installed_total",
                "wgkex_worker_messages_deduplicated_total",
                "wgkex_worker_message_rejections_total",
                "wgkex_worker_peer_install_failures_total",
                "wgkex_worker_queue_length",
            )

        def received() -> float:
            return total(worker.registry, "wgkex_worker_messages_received_total")

        async with asyncio.TaskGroup() as group:
            for number, payload in enumerate(payloads):
                domain = (WELT, CITY)[number % 2].name
                group.create_task(stranger.publish(f"wireguard/{domain}/all", payload))
        # At each moment, not only in the end.
        while received() < len(payloads) + 1:
            assert received() == settled()
            await asyncio.sleep(0)
        waiting = worker.metric("wgkex_worker_queue_length")
        assert waiting > 0
        assert received() == settled() == len(payloads) + 1
        worker.dataplane.create_interfaces(CITY)
        await eventually(lambda: worker.metric("wgkex_worker_queue_length") == 0, "the end of all that waits")
        assert received() == settled() == len(payloads) + 1
        for name in (
            "peers_installed",
            "messages_deduplicated",
            "message_rejections",
            "peer_install_failures",
        ):
            assert total(worker.registry, f"wgkex_worker_{name}_total") > 0, name
