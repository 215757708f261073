"""Logging set-up: one line an event with a fixed name, for people on a terminal and as JSON for everything else."""

import contextlib
import logging
import sys
from typing import Final, Literal

import structlog
from structlog.typing import Processor

LogFormat = Literal["auto", "console", "json"]

# Libraries that tell in many words what this package tells itself, with the key or the cause attached.
_QUIET: Final = {
    "gmqtt": logging.CRITICAL,
    "pyroute2": logging.CRITICAL,
    "amqtt": logging.ERROR,
    "transitions": logging.ERROR,
    "asyncio": logging.WARNING,
    "aiohttp.access": logging.CRITICAL,
}

# Where passwords are in use, they are local variables.
_TRACEBACKS: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


class _Lines:
    """Writes our own lines to standard error, without a way through the standard library's logging.

    There is a line for each key: that way takes longer than all else that a line costs. Trouble with standard error is
    nobody's trouble here, as in that logging: nothing stops because a line cannot be told.

    Args:
        name: of the logger.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write a line."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = msg


def configure(level: str, log_format: LogFormat) -> None:
    """Send all logs, those of libraries included, to standard error.

    Args:
        level: the lowest level that is shown, in lower case. At ``debug`` libraries are shown as well.
        log_format: ``auto`` is ``console`` on a terminal and ``json`` elsewhere.
    """
    ours: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    terminal = sys.stderr.isatty()
    renderers: list[Processor]
    if log_format == "console" or (log_format == "auto" and terminal):
        renderers = [
            structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback),
        ]
    else:
        renderers = [structlog.processors.ExceptionRenderer(_TRACEBACKS), structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*ours, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else quiet)
    structlog.configure(
        processors=[*ours, *renderers],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=False,
    )
