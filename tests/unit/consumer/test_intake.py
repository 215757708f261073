"""From messages on the bus to requests, and to counters for what is rejected."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import pytest
import structlog

from tests.fakes import FakeSession
from tests.helpers import DOMAINS, KEY, OTHER_KEY, TESTDATA, WELT, moved, running, samples, settle
from tests.unit.consumer.bench import Bench as InstallerBench
from wgkex_ops.bus.questions import ASK, question_payload
from wgkex_ops.bus.session import Message
from wgkex_ops.consumer.installer import CAPACITY
from wgkex_ops.consumer.intake import Intake
from wgkex_ops.errors import InvalidMessageError
from wgkex_ops.metrics.worker import REJECTION_REASONS
from wgkex_ops.model.keys import PublicKey

REJECTED: Final[dict[str, list[dict[str, Any]]]] = json.loads((TESTDATA / "public_keys_rejected.json").read_text())


class Bench(InstallerBench):
    """An intake before a real installer and the dataplane in memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.questions: list[Message] = []
        self.intake = Intake(
            worker="gw04",
            domains=DOMAINS,
            ready=self.admission.ready,
            installer=self.installer,
            take_question=self._take_question,
            send_receipts=self.send_receipts,
            unsubscribe=self._unsubscribe,
            metrics=self.metrics,
        )
        self.admission.ready.set()
        self.acknowledged: list[str] = []
        self.unsubscribed: list[str] = []

    def _take_question(self, message: Message) -> None:
        if message.payload == b"x":
            raise InvalidMessageError("malformed_payload", "no question")
        self.questions.append(message)

    async def _unsubscribe(self, topic_filter: str) -> None:
        self.unsubscribed.append(topic_filter)

    async def take(self, *messages: tuple[str, bytes], **properties: str) -> dict[str, float]:
        """Let messages arrive, and return the counters that they have moved before anything is installed."""
        return await self.take_whole(*(Message(topic, payload, properties=properties) for topic, payload in messages))

    async def take_whole(self, *messages: Message) -> dict[str, float]:
        """The same for messages that have more to them than topic and payload."""

        async def arrive() -> AsyncIterator[Message]:
            for message in messages:

                def acknowledge(topic: str = message.topic) -> None:
                    self.acknowledged.append(topic)

                yield replace(message, on_acknowledge=acknowledge)

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


async def test_a_question_waits_neither_for_the_dataplane_nor_for_room() -> None:
    bench = Bench()
    bench.admission.ready.clear()
    session = FakeSession()
    question = Message(ASK, question_payload("Rathaus"), on_acknowledge=lambda: bench.acknowledged.append(ASK))
    malformed = replace(question, payload=b"x")
    with structlog.testing.capture_logs() as events:
        async with (
            running(bench.intake.run(session.messages())),
            running(bench.intake.take_questions(session.urgent_messages())),
        ):
            session.deliver(Message(f"wireguard/{WELT.name}/all", KEY.encode()))
            for message in (malformed, question):
                session.deliver(message, urgent=True)
            await settle()
    assert bench.questions == [question]
    assert bench.acknowledged == [ASK, ASK]
    assert [event["reason"] for event in events if event["event"] == "question_rejected"] == ["malformed_payload"]
    # The key still waits.
    assert samples(bench.registry)[received(WELT.name)] == 0


async def test_retained_key_is_rejected() -> None:
    bench = Bench()
    message = Message(f"wireguard/{WELT.name}/all", KEY.encode(), retained=True)
    assert await bench.take_whole(message) == {received(WELT.name): 1, rejection("retained_key"): 1}
    assert bench.acknowledged == [message.topic]
    assert await bench.install() == []


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
    ],
    ids=lambda value: ascii(value)[:50],
)
async def test_rejected_message_is_counted_logged_and_acknowledged(
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


@pytest.mark.parametrize(
    ("domain", "payload", "result"),
    [
        (WELT.name, KEY, ""),
        (WELT.name, "x", "invalid_public_key"),
        ("ffmuc_nowhere", KEY, "unknown_domain"),
    ],
)
async def test_each_message_that_wants_a_receipt_gets_one(domain: str, payload: str, result: str) -> None:
    bench = Bench()
    message = Message(
        f"wireguard/{domain}/all",
        payload.encode(),
        response_topic="wgkex/receipts/b1",
        correlation=b"\x00\xff",
    )
    with structlog.testing.capture_logs():
        await bench.take_whole(message)
        assert bench.receipts == ([([b"\x00\xff"], result)] if result else [])
        await bench.install()
    assert bench.receipts == [([b"\x00\xff"], result)]


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "wgkex/receipts",
        "wgkex/receipts/",
        "wgkex/receipts/b1/c",
        "wgkex/receipts/#",
        "wgkex/receiptsx/b1",
        "wireguard/ffmuc_welt/all",
    ],
)
@pytest.mark.parametrize("payload", [KEY, "garbage"])
async def test_receipts_go_nowhere_else(topic: str, payload: str) -> None:
    bench = Bench()
    with structlog.testing.capture_logs():
        await bench.take_whole(
            Message(f"wireguard/{WELT.name}/all", payload.encode(), response_topic=topic, correlation=b"c")
        )
        await bench.install()
    assert bench.receipts == []


async def test_message_for_another_worker_gets_no_receipt() -> None:
    bench = Bench()
    await bench.take_whole(
        Message(f"wireguard/{WELT.name}/gw05", KEY.encode(), response_topic="wgkex/receipts/b1", correlation=b"c")
    )
    assert await bench.install() == []
    assert bench.receipts == []


async def test_a_subscription_from_before_the_configuration_changed_is_given_up() -> None:
    bench = Bench()
    with structlog.testing.capture_logs():
        await bench.take((f"wireguard/{WELT.name}/all", KEY.encode()), ("wireguard/ffmuc_old/all", KEY.encode()))
        # What was no key's topic tells nothing of a subscription.
        await bench.take(("wireguard/ffmuc_old", KEY.encode()), ("wireguard/ffmuc_old/all", b"x"))
        # A whole backlog of it is one occasion.
        await bench.take(*[("wireguard/ffmuc_old/all", OTHER_KEY.encode())] * 100)
    assert bench.unsubscribed == ["wireguard/ffmuc_old/+"]


async def test_message_of_qos_0_takes_no_other_ones_place() -> None:
    bench = Bench()
    topic = f"wireguard/{WELT.name}/all"

    async def arrive() -> AsyncIterator[Message]:
        yield Message(topic, KEY.encode())

    await bench.take((topic, KEY.encode()))
    await bench.intake.run(arrive())
    assert bench.acknowledged == []
    await bench.install()
    assert bench.acknowledged == [topic]


async def test_rejected_message_does_not_stop_the_next() -> None:
    bench = Bench()
    topic = f"wireguard/{WELT.name}/all"
    with structlog.testing.capture_logs():
        await bench.take((topic, b"x"), (topic, KEY.encode()), (topic, b""), (topic, OTHER_KEY.encode()))
    assert await bench.install() == [KEY, OTHER_KEY]
    assert len(bench.acknowledged) == 4


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
async def test_request_id_of_the_broker_is_logged_with_the_installed_peer(
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
