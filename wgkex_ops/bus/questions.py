"""Questions of operators and brokers to all gateways and brokers, and their answers, as typed values. Pure.

A question goes to `wgkex/ask` with a response topic `wgkex/answers/{asker}`; an answer goes to that topic with the name
of who answers added, so that access rules can tie it to its user. MQTT 5 only: 3.1.1 has no response topics.
"""

import re
from typing import Final

import msgspec
from msgspec import structs

from wgkex_ops.bus.payloads import decode, encode, is_name, malformed_payload
from wgkex_ops.errors import InvalidMessageError, InvalidPublicKeyError
from wgkex_ops.model.inspection import LONGEST_QUERY, Answer
from wgkex_ops.model.keys import PublicKey

ASK: Final = "wgkex/ask"
_ANSWERS: Final = "wgkex/answers/"
_CORRELATION_LIMIT: Final = 64
# Eleven keys, each a peer in all of fifty domains, are less.
_ANSWER_LIMIT: Final = 262_144
_VALID_QUERY: Final = re.compile(rf".{{1,{LONGEST_QUERY}}}")


class Question(msgspec.Struct, frozen=True):
    """A question about a key.

    Attributes:
        query: a key, a name or an address.
        answer_to: the response topic.
        correlation: the asker's mark.
    """

    query: str
    answer_to: str
    correlation: bytes


class _QuestionObject(msgspec.Struct, frozen=True):
    peer: str


class _AnswerObject(msgspec.Struct, frozen=True):
    answer: Answer


def answers_to(asker: str) -> str:
    """What an asker names as response topic."""
    return f"{_ANSWERS}{asker}"


def answers_subscription(asker: str) -> str:
    return f"{_ANSWERS}{asker}/+"


def answer_topic(question: Question, name: str) -> str:
    """Where a gateway or broker publishes its answer."""
    return f"{question.answer_to}/{name}"


def question_payload(query: str) -> bytes:
    return encode(_QuestionObject(query))


def is_answer(topic: str) -> bool:
    return topic.startswith(_ANSWERS)


def parse_question(payload: bytes, response_topic: str, correlation: bytes) -> Question:
    """Read a question.

    Raises:
        InvalidMessageError: reason ``malformed_payload``; also for a response topic that is not one of answers, since
            nobody must publish wherever another client wants it to.
    """
    query = decode(_QuestionObject, payload, "a question").peer
    if _VALID_QUERY.fullmatch(query) is None or not query.isprintable():
        raise malformed_payload(f"a question is a text of 1 to {LONGEST_QUERY} characters")
    asker = response_topic.removeprefix(_ANSWERS)
    if not is_answer(response_topic) or not is_name(asker) or not 0 < len(correlation) <= _CORRELATION_LIMIT:
        raise malformed_payload("a question names no response topic of answers, or no correlation data")
    return Question(query, response_topic, correlation)


def answer_payload(answer: Answer) -> bytes:
    """An answer; of one that is too long, as many keys as may be."""
    payload = encode(_AnswerObject(answer))
    while len(payload) > _ANSWER_LIMIT and answer.keys:
        answer = structs.replace(answer, keys=answer.keys[:-1])
        payload = encode(_AnswerObject(answer))
    return payload


def parse_answer(topic: str, payload: bytes) -> Answer:
    """Read an answer.

    Raises:
        InvalidMessageError: reason ``malformed_payload``, also if it is about what is no key; or ``worker_mismatch``
            for a name that is not the topic's.
    """
    answer = decode(_AnswerObject, payload, "an answer", _ANSWER_LIMIT).answer
    try:
        for about in answer.keys:
            PublicKey.parse(about.key)
    except InvalidPublicKeyError as error:
        raise malformed_payload("an answer is about what is no key") from error
    if topic.rpartition("/")[2] != answer.name:
        raise InvalidMessageError("worker_mismatch", "an answer names another sender than its topic")
    return answer
