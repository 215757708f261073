"""Logging set-up: one line an event with a fixed name, for people on a terminal and as JSON for everything else."""

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, TypeVar

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["auto", "console", "json"]

_T = TypeVar("_T")

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


def tell_each(name: str, event: str, contexts: Iterable[EventDict]) -> None:
    """Tell the same of many keys, at level info. What their lines have in common is put together once.

    Args:
        name: of the logger.
        event: of each line.
        contexts: what each line tells besides.
    """
    if not structlog.get_logger().is_enabled_for(logging.INFO):
        return
    *describe, render = structlog.get_config()["processors"]
    logger, common = _Lines(name), {"event": event}
    for processor in describe:
        common = processor(logger, "info", common)
    events = [{**context, **common} for context in contexts]
    if isinstance(render, structlog.processors.JSONRenderer) and (text := _plain(_encoder.encode_lines, events)):
        _write(text)
        return
    lines: list[str] = []
    for one in events:
        with contextlib.suppress(structlog.DropEvent):
            lines.append(f"{render(logger, 'info', one)}\n")
    _write("".join(lines))


def _write(text: str) -> None:
    # Trouble with standard error is nobody's trouble here, as in the standard library's logging: nothing stops because
    # a line cannot be told.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


class _Lines:
    """Writes our own lines to standard error, without a way through the standard library's logging.

    There is a line for each key: that way takes longer than all else that a line costs.

    Args:
        name: of the logger.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write a line."""
        _write(f"{line}\n")

    debug = info = warning = error = critical = msg


_exceptions = structlog.processors.ExceptionRenderer(_TRACEBACKS)


def _render_exception(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Most lines have none, and need not be looked through for one."""
    return _exceptions(logger, name, event) if "exc_info" in event else event


_encoder: Final = msgspec.json.Encoder()


def _plain(encode: Callable[[_T], bytes], what: _T) -> str:
    """Write JSON quickly; empty if it cannot be done so, or is not safe to look at.

    Nothing but printable ASCII leaves here: some of what hostile names are made of would be commands to a terminal.
    """
    try:
        text = encode(what)
    except (TypeError, ValueError, OverflowError):
        return ""
    return text.decode() if text.isascii() and b"\x7f" not in text else ""


def _to_json(event: EventDict, **kwargs: Any) -> str:  # noqa: ANN401  what structlog hands to `json.dumps`
    """Write what a line tells; the standard library takes ten times as long, and is for what is rare."""
    return _plain(_encoder.encode, event) or json.dumps(event, separators=(",", ":"), **kwargs)


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
