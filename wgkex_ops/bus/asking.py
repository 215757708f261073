"""Asks all gateways and brokers, and collects their answers, for operators' commands and brokers' pages."""

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from wgkex_ops.bus.messages import CORRELATION_BYTES
from wgkex_ops.bus.questions import ASK, answers_subscription, answers_to, parse_answer, question_payload
from wgkex_ops.bus.values import Message
from wgkex_ops.errors import NoSubscribersError
from wgkex_ops.model.inspection import MOST_KEYS, Answer, BrokerAnswer, KeyInFleet, Query
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.verdicts import in_fleet, keys_in

# Seconds. An answer takes a fraction of one, on a gateway with 20,000 peers, too. Processes that are too old for
# questions answer never.
ANSWERS_WITHIN: Final = 3.0


class Publish(Protocol):
    """Publishes a question; returns when the server has it, raises a BusError."""

    async def __call__(
        self,
        topic: str,
        payload: bytes,
        *,
        response_topic: str,
        correlation: bytes,
        expires_after: int,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of a question.

    Attributes:
        answers: those of gateways first, by their names.
        silent: the names of who should have answered, and has not.
    """

    answers: tuple[Answer, ...]
    silent: tuple[str, ...]


# Who answers: the kind of its answer, and its name. A host may have a broker and a worker of one name.
Answering = tuple[type[Answer], str]


class Asker:
    """Has questions published, and collects the answers.

    Args:
        name: a level of the topic that answers go to; no other asker has it.
        publish: publishes the questions.
        expected: who is online and can answer, as far as that is known when an answer comes.
    """

    def __init__(self, name: str, publish: Publish, expected: Callable[[], Collection[Answering]]) -> None:
        self._name = name
        self._publish = publish
        self._expected = expected
        # Of each question that is open, the answers by sender.
        self._open: dict[bytes, dict[Answering, Answer]] = {}
        self._news = asyncio.Event()

    @property
    def subscription(self) -> str:
        """The topic filter of answers."""
        return answers_subscription(self._name)

    def take(self, message: Message) -> None:
        """Take an answer; one that is late is none any more.

        Raises:
            InvalidMessageError: it is none.
        """
        if (found := self._open.get(message.correlation)) is not None:
            answer = parse_answer(message.topic, message.payload)
            found[type(answer), answer.name] = answer
            self._news.set()

    async def ask(self, query: str, within: float = ANSWERS_WITHIN) -> Answers:
        """Ask, and return when all have answered who are online, or the time is over.

        Raises:
            BusError: the question could not be published.
        """
        correlation = secrets.token_bytes(CORRELATION_BYTES)
        found = self._open[correlation] = {}
        try:
            # Without subscribers, there is nobody to wait for.
            with contextlib.suppress(TimeoutError, NoSubscribersError):
                async with asyncio.timeout(within):
                    await self._publish(
                        ASK,
                        question_payload(query),
                        response_topic=answers_to(self._name),
                        correlation=correlation,
                        expires_after=math.ceil(within),
                    )
                    while not set(self._expected()) <= found.keys():
                        self._news.clear()
                        await self._news.wait()
        finally:
            del self._open[correlation]
        answers = sorted(found.values(), key=lambda answer: (isinstance(answer, BrokerAnswer), answer.name))
        silent = {name for kind, name in self._expected() if (kind, name) not in found}
        return Answers(tuple(answers), tuple(sorted(silent)))

    async def about(self, query: Query, within: float = ANSWERS_WITHIN) -> list[KeyInFleet]:
        """Find out what all gateways and brokers know of a key; of several, if they share a name.

        A name or an address is looked up first: who knows it may not be who knows the rest.

        Returns:
            nothing if nobody knows a key by that name or address.

        Raises:
            BusError: the question could not be published.
        """
        keys = [str(PublicKey(query.key))] if query.key is not None else []
        if not keys:
            keys = keys_in((await self.ask(query.text, within)).answers)[:MOST_KEYS]
        found = []
        for key in keys:
            answers = await self.ask(key, within)
            found.append(in_fleet(answers.answers, PublicKey.parse(key), answers.silent, time.time()))
        return found
