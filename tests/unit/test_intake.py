"""From messages on the bus to offers, and to counters for what is refused."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import pytest
import structlog
from prometheus_client import CollectorRegistry

from tests.helpers import CITY, DOMAINS, KEY, OTHER_KEY, TESTDATA, WELT, moved, running, samples, settle
from wgkex_ops.consumer.installer import CAPACITY, Installer
from wgkex_ops.consumer.intake import Intake
from wgkex_ops.consumer.memory import MemoryDataplane
from wgkex_ops.dataplane import Operation
from wgkex_ops.domains import Domain
from wgkex_ops.keys import PublicKey
from wgkex_ops.metrics.worker import REJECTION_REASONS, ConsumerMetrics
from wgkex_ops.mqtt import Message

REJECTED: Final[dict[str, list[dict[str, Any]]]] = json.loads((TESTDATA / "public_keys_rejected.json").read_text())
OWN_KEY: Final = "ecQSH8YIV9/+/HS5mcyF8ZCsRsi833KOcP5szoYeM+Y="
STATIC_KEY: Final = "sOpfXZjJh15B2W/mKq2k0ETqubzUCMxs3lJHjtcwkD4="


class Nobody:
    """Observes nothing."""

    def observe(self, operation: Operation, count: int, errors: Sequence[str], seconds: float) -> None:
        pass


class Bench:
    """An intake before a real installer and the dataplane in memory."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.dataplane = MemoryDataplane(tuple(DOMAINS.values()), Nobody())
        metrics = ConsumerMetrics(self.registry, DOMAINS, CAPACITY)
        self.installer = Installer(self.dataplane, metrics)
        self.intake = Intake(
            worker="gw04",
            domains=DOMAINS,
            own_key=self._own_key,
            static_keys=self._static_keys,
            installer=self.installer,
            metrics=metrics,
        )
        self.acknowledged: list[str] = []

    def _own_key(self, domain: Domain) -> bytes:
        return PublicKey.parse(OWN_KEY).raw if domain == WELT else b""

    def _static_keys(self, domain: Domain) -> frozenset[bytes]:
        return frozenset({PublicKey.parse(STATIC_KEY).raw}) if domain == WELT else frozenset()

    async def take(self, *messages: tuple[str, bytes], **properties: str) -> dict[str, float]:
        """Let messages arrive, and return the counters that they have moved before anything is installed."""

        async def arrive() -> AsyncIterator[Message]:
            for topic, payload in messages:

                def acknowledge(topic: str = topic) -> None:
                    self.acknowledged.append(topic)

                yield Message(topic, payload, properties=properties, _acknowledge=acknowledge)

        before = samples(self.registry)
        await self.intake.run(arrive())
        return moved(before, samples(self.registry))

    async def install(self) -> list[str]:
        async with running(self.installer.run()):
            await settle()
        snapshot = await self.dataplane.snapshot()
        return [str(PublicKey(peer.public_key)) for peer in snapshot.domains[WELT.name].peers]


def received(domain: str) -> str:
    return f'wgkex_worker_messages_received_total{{domain="{domain}"}}'


def rejection(reason: str) -> str:
    return f'wgkex_worker_message_rejections_total{{reason="{reason}"}}'


@pytest.mark.parametrize("target", ["all", "gw04"])
async def test_key_for_everybody_or_for_this_worker_is_installed_and_then_acknowledged(target: str) -> None:
    bench = Bench()
    topic = f"wireguard/{WELT.name}/{target}"
    assert await bench.take((topic, KEY.encode())) == {received(WELT.name): 1, "wgkex_worker_queue_length": 1}
    assert bench.acknowledged == []
    assert await bench.install() == [KEY]
    assert bench.acknowledged == [topic]


@pytest.mark.parametrize("payload", [KEY.encode(), b"garbage"], ids=("key", "garbage"))
@pytest.mark.parametrize("domain", [WELT.name, "ffmuc_nowhere"])
async def test_message_for_another_worker_is_acknowledged_and_counts_nothing(payload: bytes, domain: str) -> None:
    bench = Bench()
    topic = f"wireguard/{domain}/gw05"
    with structlog.testing.capture_logs() as events:
        assert await bench.take((topic, payload)) == {}
    assert bench.acknowledged == [topic]
    assert events == []


@pytest.mark.parametrize(
    ("topic", "payload", "reason", "domain"),
    [
        *(
            ("wireguard/ffmuc_welt/all", vector["public_key"].encode(), "invalid_public_key", "ffmuc_welt")
            for vector in REJECTED["malformed"]
            if isinstance(vector["public_key"], str)
        ),
        *(
            ("wireguard/ffmuc_welt/all", vector["public_key"].encode(), "small_order_public_key", "ffmuc_welt")
            for vector in REJECTED["small_order"]
        ),
        ("wireguard/ffmuc_welt/all", b"\xff", "invalid_public_key", "ffmuc_welt"),
        ("wireguard/ffmuc_welt/all", b"x" * 1_000_000, "invalid_public_key", "ffmuc_welt"),
        ("wireguard/ffmuc_welt/gw04", b"x", "invalid_public_key", "ffmuc_welt"),
        ("wireguard/ffmuc_nowhere/all", KEY.encode(), "unknown_domain", "unknown"),
        ("wireguard/FFMUC_WELT/all", KEY.encode(), "unknown_domain", "unknown"),
        ("wireguard//all", KEY.encode(), "malformed_topic", "unknown"),
        ("wireguard/ffmuc_welt", KEY.encode(), "malformed_topic", "ffmuc_welt"),
        ("wireguard/ffmuc_welt/all/x", KEY.encode(), "malformed_topic", "ffmuc_welt"),
        ("wireguard-x/ffmuc_welt/all", KEY.encode(), "malformed_topic", "ffmuc_welt"),
        ("", KEY.encode(), "malformed_topic", "unknown"),
        ("x" * 65_535, KEY.encode(), "malformed_topic", "unknown"),
        ("wireguard/ffmuc_welt/all", OWN_KEY.encode(), "own_key", "ffmuc_welt"),
        ("wireguard/ffmuc_welt/all", STATIC_KEY.encode(), "static_key", "ffmuc_welt"),
    ],
    ids=lambda value: ascii(value)[:50],
)
async def test_refused_message_is_counted_logged_and_acknowledged(
    topic: str, payload: bytes, reason: str, domain: str
) -> None:
    bench = Bench()
    with structlog.testing.capture_logs() as events:
        assert await bench.take((topic, payload)) == {received(domain): 1, rejection(reason): 1}
    assert bench.acknowledged == [topic]
    (event,) = events
    assert (event["event"], event["log_level"], event["reason"]) == ("message_rejected", "warning", reason)
    assert len(event["topic"]) <= 200
    assert await bench.install() == []


async def test_refused_message_does_not_stop_the_next() -> None:
    bench = Bench()
    topic = f"wireguard/{WELT.name}/all"
    with structlog.testing.capture_logs():
        await bench.take((topic, b"x"), (topic, KEY.encode()), (topic, b""), (topic, OTHER_KEY.encode()))
    assert await bench.install() == [KEY, OTHER_KEY]
    assert len(bench.acknowledged) == 4


async def test_own_key_of_one_domain_is_an_ordinary_key_in_another() -> None:
    bench = Bench()
    changes = await bench.take((f"wireguard/{CITY.name}/all", OWN_KEY.encode()))
    assert changes == {received(CITY.name): 1, "wgkex_worker_queue_length": 1}


@pytest.mark.parametrize(
    ("properties", "logged"),
    [
        ({"wgkex-request-id": "4711"}, {"request_ids": ["4711"]}),
        ({"wgkex-request-id": "x" * 65}, {}),
        ({"wgkex-request-id": "a\nb"}, {}),
        ({"wgkex-request-id": ""}, {}),
        ({"other": "4711"}, {}),
        ({}, {}),
    ],
    ids=("one", "too long", "two lines", "empty", "another property", "none"),
)
async def test_request_id_of_the_broker_is_told_with_the_installed_peer(
    properties: dict[str, str], logged: dict[str, list[str]]
) -> None:
    bench = Bench()
    await bench.take((f"wireguard/{WELT.name}/all", KEY.encode()), **properties)
    with structlog.testing.capture_logs() as events:
        await bench.install()
    assert events == [
        {"event": "peer_installed", "log_level": "info", "domain": WELT.name, "public_key": KEY, **logged}
    ]


async def test_all_series_that_can_be_known_are_there_from_the_start() -> None:
    fresh = samples(Bench().registry)
    for domain in (*DOMAINS, "unknown"):
        assert fresh[received(domain)] == 0.0
    for reason in REJECTION_REASONS:
        assert fresh[rejection(reason)] == 0.0
    assert fresh["wgkex_worker_queue_capacity"] == CAPACITY
