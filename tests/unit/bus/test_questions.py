"""Questions to gateways and brokers, and their answers."""

import asyncio
import json
from collections.abc import Collection

import pytest
from msgspec import structs

from tests.fakes import FakeSession
from tests.helpers import key, running, until
from wgkex_ops.bus.answering import Answerer
from wgkex_ops.bus.asking import Answering, Asker
from wgkex_ops.bus.questions import (
    ASK,
    answer_payload,
    answers_to,
    is_answer,
    parse_answer,
    parse_question,
    question_payload,
)
from wgkex_ops.bus.session import Message
from wgkex_ops.errors import BusError, InvalidMessageError, NoSubscribersError, PublishTimeoutError
from wgkex_ops.model.inspection import Answer, BrokerAnswer, GatewayAnswer, KeyAtBroker, Query

MARK = b"m" * 16


def test_a_question_and_its_way_back() -> None:
    question = parse_question(question_payload("Rathaus"), answers_to("b1"), MARK)
    assert (question.query, question.answer_to, question.correlation) == ("Rathaus", "wgkex/answers/b1", MARK)


@pytest.mark.parametrize("payload", [b"", b"x", b"[]", b"{}", b'{"peer": 1}', b'{"peer": ""}', b'{"peer": "a\\nb"}'])
def test_what_is_no_question(payload: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        parse_question(payload, answers_to("b1"), MARK)


@pytest.mark.parametrize(
    ("topic", "mark"),
    [
        ("", MARK),
        ("wgkex/answers/", MARK),
        ("wgkex/answers/a/b", MARK),
        ("wgkex/answers/+", MARK),
        ("wireguard/ffmuc_welt/all", MARK),
        (answers_to("b1"), b""),
        (answers_to("b1"), bytes(65)),
    ],
)
def test_nobody_is_answered_elsewhere(topic: str, mark: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        parse_question(question_payload("Rathaus"), topic, mark)
    with pytest.raises(InvalidMessageError):
        parse_question(question_payload("x" * 201), answers_to("b1"), MARK)


def test_an_answer_names_who_its_topic_names() -> None:
    payload = answer_payload(GatewayAnswer("gw01"))
    assert json.loads(payload)["answer"]["role"] == "gateway"
    assert is_answer("wgkex/answers/b1/gw01")
    assert parse_answer("wgkex/answers/b1/gw01", payload) == GatewayAnswer("gw01")
    with pytest.raises(InvalidMessageError) as refused:
        parse_answer("wgkex/answers/b1/gw02", payload)
    assert refused.value.reason == "worker_mismatch"
    about = (
        b'{"key": "x", "name": "", "domain": "", "asked_at": null, "api_version": 0, "request_id": "", "named": "", '
    )
    no_key = b'{"answer": {"role": "broker", "name": "gw01", "keys": [' + about + b'"receipts": {}, "refused": ""}]}}'
    for broken in (b"", b"{}", b'{"answer": {"role": "king", "name": "gw01"}}', payload + b" " * 300_000, no_key):
        with pytest.raises(InvalidMessageError):
            parse_answer("wgkex/answers/b1/gw01", broken)


def test_an_answer_that_is_too_long_has_fewer_keys() -> None:
    about = [structs.replace(ABOUT, key=str(key(number)), receipts={"gw01": "x" * 60_000}) for number in range(10)]
    payload = answer_payload(BrokerAnswer("b", tuple(about)))
    assert parse_answer("wgkex/answers/b1/b", payload) == BrokerAnswer("b", tuple(about[:4]))


async def test_questions_are_answered_one_after_another_and_too_many_are_dropped() -> None:
    session = FakeSession()

    async def inspect(query: Query) -> Answer:
        return GatewayAnswer("gw01", problem=query.text)

    answerer = Answerer(session, "gw01", inspect)
    for number in range(30):
        answerer.take(Message(ASK, question_payload(str(number)), response_topic=answers_to("b1"), correlation=MARK))
    with pytest.raises(InvalidMessageError):
        answerer.take(
            Message(ASK, question_payload("x"), retained=True, response_topic=answers_to("b1"), correlation=MARK)
        )
    async with running(answerer.run()):
        await until(lambda: len(session.acknowledged) == 20)
    answers = [parse_answer(one.topic, one.payload) for one in session.acknowledged]
    assert answers == [GatewayAnswer("gw01", problem=str(number)) for number in range(20)]
    assert {(one.topic, one.correlation) for one in session.acknowledged} == {("wgkex/answers/b1/gw01", MARK)}


ABOUT = KeyAtBroker(
    key=str(key(1)),
    name="Rathaus",
    domain="",
    asked_at=None,
    api_version=0,
    request_id="",
    receipts={},
    named="",
    refused="",
)


class Fleet:
    """Who is asked, and answers at once or never."""

    def __init__(self, *answers: Answer, silent: Collection[Answering] = ()) -> None:
        self.answers = answers
        self.expected = {(type(answer), answer.name) for answer in answers} | set(silent)
        self.asked: list[str] = []
        self.failure: BusError | None = None
        self.asker = Asker("me", self.publish, self)

    def answering(self) -> Collection[Answering]:
        return self.expected

    def unable(self) -> Collection[str]:
        return ("ancient",)

    async def publish(
        self, topic: str, payload: bytes, *, response_topic: str, correlation: bytes, expires_after: int
    ) -> None:
        assert (topic, response_topic) == (ASK, "wgkex/answers/me")
        assert expires_after >= 1
        self.asked.append(json.loads(payload)["peer"])
        if self.failure is not None:
            raise self.failure
        if not self.answers:
            raise NoSubscribersError("nobody")
        for answer in self.answers:
            self.answer(answer, correlation)

    def answer(self, answer: Answer, correlation: bytes) -> None:
        self.asker.take(Message(f"wgkex/answers/me/{answer.name}", answer_payload(answer), correlation=correlation))


async def test_an_asker_waits_for_all_and_no_longer() -> None:
    fleet = Fleet(BrokerAnswer("one"), GatewayAnswer("one"), GatewayAnswer("gw"))
    async with asyncio.timeout(2):
        found = await fleet.asker.ask("x", within=60)
    assert found.answers == (GatewayAnswer("gw"), GatewayAnswer("one"), BrokerAnswer("one"))
    assert found.silent == ()


async def test_who_is_silent_is_named() -> None:
    fleet = Fleet(GatewayAnswer("gw"), silent=[(GatewayAnswer, "old")])
    found = await fleet.asker.ask("x", within=0.05)
    assert (found.answers, found.silent) == ((GatewayAnswer("gw"),), ("old",))
    # Late, and nobody asks any more.
    fleet.answer(GatewayAnswer("old"), MARK)
    nobody = Fleet(silent=[(GatewayAnswer, "old")])
    async with asyncio.timeout(2):
        assert (await nobody.asker.ask("x", within=60)).silent == ("old",)


async def test_a_name_is_looked_up_and_then_all_are_asked_for_the_key() -> None:
    fleet = Fleet(BrokerAnswer("b", (ABOUT,)), GatewayAnswer("gw"))
    found = await fleet.asker.about(Query("Rathaus"))
    assert fleet.asked == ["Rathaus", str(key(1))]
    assert [(one.key, one.name, one.unable) for one in found.keys] == [(str(key(1)), "Rathaus", ("ancient",))]
    assert not found.more
    assert len((await Fleet(GatewayAnswer("gw")).asker.about(Query(str(key(2))))).keys) == 1


async def test_who_may_know_a_name_that_nobody_has_heard_of() -> None:
    fleet = Fleet(GatewayAnswer("gw"), GatewayAnswer("gw03", problem="EPERM"), silent=[(GatewayAnswer, "gw02")])
    found = await fleet.asker.about(Query("Rathaus"), within=0.05)
    assert found.keys == ()
    assert found.unheard == " (no answer from gw02; cannot be asked: ancient; gw03 cannot tell: EPERM)"


async def test_keys_of_one_name_are_asked_for_at_once_and_only_ten_of_them() -> None:
    about = tuple(structs.replace(ABOUT, key=str(key(number))) for number in range(11))
    fleet = Fleet(BrokerAnswer("b", about), silent=[(GatewayAnswer, "gw02")])
    async with asyncio.timeout(5 * 10):
        found = await fleet.asker.about(Query("Rathaus"), within=0.05)
    assert [one.key for one in found.keys] == [str(key(number)) for number in range(10)]
    assert found.more


async def test_a_slow_publish_fails_and_does_not_pass_for_silence() -> None:
    fleet = Fleet(GatewayAnswer("gw"))
    fleet.failure = PublishTimeoutError("the MQTT server did not acknowledge in time")
    with pytest.raises(PublishTimeoutError):
        await fleet.asker.ask("x", within=60)


async def test_who_is_online_may_become_known_after_the_answers() -> None:
    fleet = Fleet(GatewayAnswer("gw"))
    everyone, fleet.expected = fleet.expected | {(GatewayAnswer, "late")}, set()

    async def known() -> None:
        fleet.expected = everyone

    asker = fleet.asker = Asker("me", fleet.publish, fleet, known=known)
    assert (await asker.ask("x", within=0.05)).silent == ("late",)
