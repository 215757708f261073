"""Logging set-up: one line an event with a fixed name, for people on a terminal and as JSON for everything else."""

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


def configure(level: str, log_format: LogFormat) -> None:
    """Send all logs, those of libraries included, to standard error.

    Args:
        level: the lowest level that is shown, in lower case. At ``debug`` libraries are shown as well.
        log_format: ``auto`` is ``console`` on a terminal and ``json`` elsewhere.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
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
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else quiet)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
