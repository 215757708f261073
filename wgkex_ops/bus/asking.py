"""Asks all gateways and brokers, and collects their answers, for operators' commands and brokers' pages."""

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final, Protocol

from wgkex_ops.bus.messages import CORRELATION_BYTES
from wgkex_ops.bus.questions import ASK, answers_subscription, answers_to, parse_answer, question_payload
from wgkex_ops.bus.values import Message
from wgkex_ops.errors import NoSubscribersError
from wgkex_ops.model.fleet_verdicts import in_fleet, keys_in
from wgkex_ops.model.inspection import MOST_KEYS, Answer, Answers, BrokerAnswer, Found, KeyInFleet, Query
from wgkex_ops.model.keys import PublicKey

# Seconds. An answer takes a fraction of one, on a gateway with 20,000 peers, too. Processes that are too old for
# questions answer never.
ANSWERS_WITHIN: Final = 3.0
_ANSWER_TAKES: Final = 0.5


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


# Who answers: the kind of its answer, and its name. A host may have a broker and a worker of one name.
Answering = tuple[type[Answer], str]


class Fleet(Protocol):
    """Who is online, as far as that is known."""

    def answering(self) -> Collection[Answering]:
        """Gateways and brokers that should answer questions."""
        ...

    def unable(self) -> Collection[str]:
        """Gateways and brokers that cannot be asked: too old, or MQTT 3.1.1."""
        ...


async def _at_once() -> None:
    """A broker has known the fleet before anybody can ask."""


class Asker:
    """Has questions published, and collects the answers.

    Args:
        name: a level of the topic that answers go to; no other asker has it.
        publish: publishes the questions.
        fleet: who is online; asked again with each answer.
        known: returns when all who are online are known.
    """

    def __init__(
        self, name: str, publish: Publish, fleet: Fleet, *, known: Callable[[], Awaitable[None]] = _at_once
    ) -> None:
        self._name = name
        self._publish = publish
        self._fleet = fleet
        self._known = known
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

        Args:
            query: a key, a name or an address.
            within: seconds from when the MQTT server has the question.

        Raises:
            BusError: the question could not be published.
        """
        correlation = secrets.token_bytes(CORRELATION_BYTES)
        found = self._open[correlation] = {}
        try:
            try:
                await self._publish(
                    ASK,
                    question_payload(query),
                    response_topic=answers_to(self._name),
                    correlation=correlation,
                    expires_after=math.ceil(within),
                )
            except NoSubscribersError:
                # There is nobody to wait for.
                within = 0.0
            await self._known()
            await self._all_answered(found, within)
        finally:
            del self._open[correlation]
        answers = sorted(found.values(), key=lambda answer: (isinstance(answer, BrokerAnswer), answer.name))
        silent = {name for kind, name in self._fleet.answering() if (kind, name) not in found}
        return Answers(tuple(answers), tuple(sorted(silent)), tuple(sorted(self._fleet.unable())))

    async def _all_answered(self, found: Collection[Answering], within: float) -> None:
        """Wait until all have answered who are online, or for some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not set(found).issuperset(self._fleet.answering()):
                    self._news.clear()
                    await self._news.wait()

    async def about(self, query: Query, within: float = ANSWERS_WITHIN) -> Found:
        """Find out what all gateways and brokers know of a key; of several, if they share a name.

        A name or an address is looked up first: who knows it may not be who knows the rest.

        Raises:
            BusError: a question could not be published.
        """
        if query.key is not None:
            return Found((await self._about(PublicKey(query.key), within),))
        answers = await self.ask(query.text, within)
        all_keys = keys_in(answers.answers)
        keys = all_keys[:MOST_KEYS]
        # Who answers does so one after another.
        within += len(keys) * _ANSWER_TAKES
        found = await asyncio.gather(*(self._about(PublicKey.parse(key), within) for key in keys))
        return Found(tuple(found), answers.unheard, len(all_keys) > len(keys))

    async def _about(self, key: PublicKey, within: float) -> KeyInFleet:
        return in_fleet(await self.ask(str(key), within), key, time.time())
