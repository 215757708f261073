"""Answers questions on the bus, for gateways and brokers alike."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog

from wgkex_ops.bus.payloads import malformed_payload
from wgkex_ops.bus.questions import Question, answer_payload, answer_topic, parse_question
from wgkex_ops.bus.session import Session
from wgkex_ops.bus.values import Message
from wgkex_ops.errors import BusError
from wgkex_ops.model.inspection import Answer, Query

_log = structlog.get_logger(__name__)

# To answer takes a fraction of a second, and is done one at a time: keys come first. Who asks more gets no answer.
_MOST_WAITING: Final = 20
_PUBLISH_TIMEOUT: Final = 3.0


class Answerer:
    """Answers what operators ask. `run` is its only task.

    Args:
        session: the bus.
        name: of this worker or broker.
        inspect: finds the answer; raises nothing.
    """

    def __init__(self, session: Session, name: str, inspect: Callable[[Query], Awaitable[Answer]]) -> None:
        self._session = session
        self._name = name
        self._inspect = inspect
        self._waiting: asyncio.Queue[Question] = asyncio.Queue(_MOST_WAITING)

    def take(self, message: Message) -> None:
        """Take a question.

        Raises:
            InvalidMessageError: it is none.
        """
        if message.retained:
            raise malformed_payload("a retained question would be answered again at each connection")
        question = parse_question(message.payload, message.response_topic, message.correlation)
        try:
            self._waiting.put_nowait(question)
        except asyncio.QueueFull:
            _log.warning("question_dropped", detail=f"{_MOST_WAITING} others wait for their answers")

    async def run(self) -> NoReturn:
        """Answer for ever."""
        while True:
            question = await self._waiting.get()
            answer = await self._inspect(Query(question.query))
            try:
                await self._session.publish(
                    answer_topic(question, self._name),
                    answer_payload(answer),
                    timeout=_PUBLISH_TIMEOUT,
                    correlation=question.correlation,
                )
            except BusError as error:
                # Who asked may be gone.
                _log.info("answer_failed", reason=error.reason, detail=str(error))
