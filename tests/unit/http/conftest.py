"""A public application that serves, and proof that nothing went wrong in it."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from tests.unit.http.public.application import Broker


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker().serving() as broker:
        yield broker


@pytest.fixture
def no_tracebacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails the test if a library logs an error, or we do."""
    with structlog.testing.capture_logs() as events:
        yield
    assert [event for event in events if event["log_level"] in ("error", "critical") or "exc_info" in event] == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
