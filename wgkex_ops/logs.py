"""Logging set-up: one line for each event, with a fixed name; text on a terminal, JSON everywhere else."""

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, TypeVar

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["auto", "console", "json"]

_T = TypeVar("_T")

# Libraries that log at length what this package logs itself, with the key or the cause attached.
_QUIET: Final = {
    "gmqtt": logging.CRITICAL,
    "pyroute2": logging.CRITICAL,
    "amqtt": logging.ERROR,
    "transitions": logging.ERROR,
    "asyncio": logging.WARNING,
    "aiohttp.access": logging.CRITICAL,
}

# Lines with one reason; see `LineSample`.
SAMPLED_PER_SECOND: Final = 5

# Where passwords are in use, they are local variables.
_TRACEBACKS: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def log_each(name: str, event: str, contexts: Iterable[EventDict]) -> None:
    """Log one event for each of many keys, at level info. The fields that all lines share are made once.

    Args:
        name: the logger's name.
        event: the event's name, the same in each line.
        contexts: the further fields of each line.
    """
    if not structlog.get_logger().is_enabled_for(logging.INFO):
        return
    *describe, render = structlog.get_config()["processors"]
    logger, common = _Lines(name), {"event": event}
    for processor in describe:
        common = processor(logger, "info", common)
    events = [{**context, **common} for context in contexts]
    if isinstance(render, structlog.processors.JSONRenderer) and (text := _ascii_json(_encoder.encode_lines, events)):
        _write(text)
        return
    lines: list[str] = []
    for one in events:
        with contextlib.suppress(structlog.DropEvent):
            lines.append(f"{render(logger, 'info', one)}\n")
    _write("".join(lines))


class LineBatch:
    """Collects the lines of one event, and writes those of an iteration of the event loop together: see `log_each`.

    Args:
        name: the logger's name.
        event: the event's name.
    """

    def __init__(self, name: str, event: str) -> None:
        self._name = name
        self._event = event
        self._contexts: list[EventDict] = []

    def add(self, context: EventDict) -> None:
        """Add a line at level info, with the fields that it has besides the usual ones."""
        if not self._contexts:
            asyncio.get_running_loop().call_soon(self._flush)
        self._contexts.append(context)

    def _flush(self) -> None:
        contexts, self._contexts = self._contexts, []
        log_each(self._name, self._event, contexts)


class LineSample:
    """Writes some lines of an event that strangers can cause as often as they like; metrics count all of them.

    Args:
        name: the logger's name.
        event: the event's name.
        clock: seconds, never set back.
    """

    def __init__(self, name: str, event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines = LineBatch(name, event)
        self._clock = clock
        self._since = -1.0
        self._seen: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def add(self, reason: str, context: EventDict) -> None:
        """Add a line at level info, unless there were enough with this reason in this second.

        The next one says by `left_out` how many were not written before it.
        """
        now = self._clock()
        if now - self._since >= 1.0:
            self._since = now
            self._seen.clear()
        self._seen[reason] += 1
        if self._seen[reason] > SAMPLED_PER_SECOND:
            self._left_out[reason] += 1
            return
        left_out = {"left_out": number} if (number := self._left_out.pop(reason, 0)) else {}
        self._lines.add({"reason": reason, **context, **left_out})


def _write(text: str) -> None:
    # As in the standard library's logging: a full disk or a closed pipe loses lines, and stops nothing else.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


class _Lines:
    """Writes our own lines straight to standard error.

    There is a line for each key, and the standard library's logging would take most of the time that a line costs.

    Args:
        name: the logger's name.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write a line."""
        _write(f"{line}\n")

    debug = info = warning = error = critical = msg


_exceptions = structlog.processors.ExceptionRenderer(_TRACEBACKS)


def _render_exception(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Skip the lines without a traceback, which are nearly all."""
    return _exceptions(logger, name, event) if "exc_info" in event else event


_encoder: Final = msgspec.json.Encoder()


def _ascii_json(encode: Callable[[_T], bytes], value: _T) -> str:
    """Write JSON quickly; empty if msgspec cannot encode the value, or if the text is not printable ASCII.

    A hostile name may hold control characters, which are commands to a terminal: those lines need escapes.
    """
    try:
        text = encode(value)
    except (TypeError, ValueError, OverflowError):
        return ""
    return text.decode() if text.isascii() and b"\x7f" not in text else ""


def _to_json(event: EventDict, **kwargs: Any) -> str:  # noqa: ANN401  what structlog hands to `json.dumps`
    """Write a line as JSON. The standard library takes ten times as long, so it is only for what msgspec cannot do."""
    return _ascii_json(_encoder.encode, event) or json.dumps(event, separators=(",", ":"), **kwargs)


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
        renderers = [_render_exception, structlog.processors.JSONRenderer(_to_json)]
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
