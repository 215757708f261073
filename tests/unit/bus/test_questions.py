"""Questions to gateways and brokers, and their answers."""

import asyncio
import json
from collections.abc import Collection

import pytest

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
from wgkex_ops.errors import InvalidMessageError, NoSubscribersError
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
    for broken in (b"", b"{}", b'{"answer": {"role": "king", "name": "gw01"}}', payload + b" " * 300_000):
        with pytest.raises(InvalidMessageError):
            parse_answer("wgkex/answers/b1/gw01", broken)


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


class Fleet:
    """Who is asked, and answers at once or never."""

    def __init__(self, *answers: Answer, silent: Collection[Answering] = ()) -> None:
        self.answers = answers
        self.expected = {(type(answer), answer.name) for answer in answers} | set(silent)
        self.asked: list[str] = []
        self.asker = Asker("me", self.publish, lambda: self.expected)

    async def publish(
        self, topic: str, payload: bytes, *, response_topic: str, correlation: bytes, expires_after: int
    ) -> None:
        assert (topic, response_topic) == (ASK, "wgkex/answers/me")
        assert expires_after >= 1
        self.asked.append(json.loads(payload)["peer"])
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
    about = KeyAtBroker(
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
    fleet = Fleet(BrokerAnswer("b", (about,)), GatewayAnswer("gw"))
    [found] = await fleet.asker.about(Query("Rathaus"))
    assert fleet.asked == ["Rathaus", str(key(1))]
    assert (found.key, found.name) == (str(key(1)), "Rathaus")
    assert await Fleet(GatewayAnswer("gw")).asker.about(Query("Rathaus")) == []
    assert len(await Fleet(GatewayAnswer("gw")).asker.about(Query(str(key(2))))) == 1
