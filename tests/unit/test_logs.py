"""Log lines as they leave a process: JSON for programs, text on a terminal, and no noise from libraries."""

import asyncio
import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from wgkex_ops.logs import SAMPLED_PER_SECOND, LineSample, log_each

PREAMBLE = """
import logging, sys
import structlog
from wgkex_ops.logs import configure
log = structlog.get_logger("wgkex_ops.test")
"""


def run(script: str) -> str:
    """Run a script in a fresh interpreter, as logging is set up for all of a process; return its standard error."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr


def logged(script: str) -> list[dict[str, Any]]:
    """The lines as JSON; each line has to be an object of its own."""
    return [json.loads(line) for line in run(script).splitlines()]


def on_terminal(script: str) -> str:
    """What a person sees."""
    leader, follower = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", PREAMBLE + textwrap.dedent(script)], stderr=follower, check=True)
    finally:
        os.close(follower)
    output = b""
    # Linux reports the end of a terminal as an error.
    with os.fdopen(leader, "rb", buffering=0) as screen, contextlib.suppress(OSError):
        while piece := screen.read(65_536):
            output += piece
    return output.decode()


def test_events_are_json_lines_with_fixed_fields_when_not_on_a_terminal() -> None:
    (event,) = logged("""
        configure("info", "auto")
        log.info("key_accepted", domain="ffmuc_welt", public_key="o52G", number=3, text='"ä\\n')
    """)
    moment = datetime.fromisoformat(event.pop("timestamp"))
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert event == {
        "event": "key_accepted",
        "level": "info",
        "logger": "wgkex_ops.test",
        "domain": "ffmuc_welt",
        "public_key": "o52G",
        "number": 3,
        "text": '"ä\n',
    }


def test_libraries_write_the_same_lines() -> None:
    (event,) = logged("""
        configure("info", "json")
        logging.getLogger("some.library").warning("%d things", 3, extra={"colour": "red"})
    """)
    del event["timestamp"]
    assert event == {"event": "3 things", "level": "warning", "logger": "some.library", "colour": "red"}


def test_request_id_is_in_every_line_while_it_is_bound() -> None:
    events = logged("""
        configure("info", "json")
        with structlog.contextvars.bound_contextvars(request_id="4711"):
            log.info("first")
            logging.getLogger("some.library").warning("second")
        log.info("third")
    """)
    assert [(event["event"], event.get("request_id")) for event in events] == [
        ("first", "4711"),
        ("second", "4711"),
        ("third", None),
    ]


@pytest.mark.parametrize("logger", ["log", "logging.getLogger('some.library')"], ids=("ours", "a library"))
def test_traceback_is_structured_and_shows_no_values(logger: str) -> None:
    (event,) = logged(f"""
        configure("info", "json")
        def fail():
            password = "hunter" + "2"
            raise ZeroDivisionError("no wonder")
        try:
            fail()
        except ZeroDivisionError:
            {logger}.exception("crashed")
    """)
    (exception,) = event["exception"]
    assert (exception["exc_type"], exception["exc_value"]) == ("ZeroDivisionError", "no wonder")
    assert [frame["name"] for frame in exception["frames"]] == ["<module>", "fail"]
    assert "hunter2" not in json.dumps(event)


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_level_is_the_lowest_that_is_shown(level: str) -> None:
    levels = ["debug", "info", "warning", "error", "critical"]
    events = logged(f"""
        configure({level!r}, "json")
        for level in {levels!r}:
            getattr(log, level)("ours")
            getattr(logging.getLogger("some.library"), level)("theirs")
    """)
    assert [(event["event"], event["level"]) for event in events] == [
        (name, shown) for shown in levels[levels.index(level) :] for name in ("ours", "theirs")
    ]


@pytest.mark.parametrize(
    ("library", "shown"),
    [
        ("gmqtt", []),
        ("gmqtt.client", []),
        ("pyroute2.netlink", []),
        ("aiohttp.access", []),
        ("amqtt.broker", ["error"]),
        ("transitions.core", ["error"]),
        ("asyncio", ["warning", "error"]),
    ],
)
def test_noisy_libraries_are_quiet_except_at_debug(library: str, shown: list[str]) -> None:
    script = f"""
        for level in ("debug", "info", "warning", "error"):
            getattr(logging.getLogger({library!r}), level)("x")
    """
    at_info = logged('\n        configure("info", "json")' + script)
    at_debug = logged('\n        configure("debug", "json")' + script)
    assert [event["level"] for event in at_info] == shown
    assert [event["level"] for event in at_debug] == ["debug", "info", "warning", "error"]


def test_loggers_that_are_older_than_the_configuration_follow_it() -> None:
    events = logged("""
        early = structlog.get_logger("wgkex_ops.early")
        configure("error", "json")
        early.warning("hidden")
        configure("info", "json")
        early.info("shown")
    """)
    assert [event["event"] for event in events] == ["shown"]


def test_configuring_twice_does_not_double_the_lines() -> None:
    script = 'configure("info", "json")\nconfigure("info", "json")\nlog.info("once")'
    assert len(logged(script)) == 1


def test_person_on_a_terminal_gets_text_in_colours() -> None:
    output = on_terminal("""
        configure("info", "auto")
        log.info("key_accepted", domain="ffmuc_welt")
    """)
    assert "key_accepted" in output
    assert "ffmuc_welt" in output
    assert "\x1b[" in output
    assert not output.startswith("{")


def test_traceback_on_a_terminal_is_pythons_own_and_shows_no_values() -> None:
    output = on_terminal("""
        configure("info", "console")
        password = "hunter" + "2"
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("crashed")
    """)
    assert "Traceback (most recent call last):" in output
    assert "ZeroDivisionError" in output
    assert "hunter2" not in output


def test_format_can_be_forced() -> None:
    assert "\x1b[" not in run('configure("info", "console")\nlog.info("x")')
    line = on_terminal('configure("info", "json")\nlog.info("x")')
    assert json.loads(line)["event"] == "x"


@pytest.mark.parametrize("trouble", ["os.close(2)", "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"])
def test_a_line_that_cannot_be_written_stops_nothing(trouble: str) -> None:
    """The disk is full, or the reader of the pipe has exited."""
    script = f"""
        import os
        configure("info", "json")
        {trouble}
        log.info("ours")
        logging.getLogger("some.library").warning("theirs")
        os._exit(7)
    """
    done = subprocess.run([sys.executable, "-c", PREAMBLE + textwrap.dedent(script)], check=False)
    assert done.returncode == 7


def test_lines_of_many_keys_are_written_at_once_and_look_like_single_lines() -> None:
    script = """
        from wgkex_ops.logs import SAMPLED_PER_SECOND, LineSample, log_each
        configure("info", "json")
        written = []
        sys.stderr.write = lambda text: (written.append(text), sys.__stdout__)[0]
        with structlog.contextvars.bound_contextvars(request_id="4711"):
            for number in (1, 2):
                log.info("seen", number=number)
            log_each("wgkex_ops.test", "seen", ({"number": number} for number in (1, 2)))
            log_each("wgkex_ops.test", "seen", [])
        del sys.stderr.write
        sys.stderr.write("".join(written))
        log.info("writes", count=len([text for text in written if text]))
    """
    *events, writes = logged(script)
    assert writes["count"] == 3
    for event in events:
        del event["timestamp"]
    assert events[:2] == events[2:]


def test_lines_of_many_keys_respect_the_level() -> None:
    script = """
        from wgkex_ops.logs import SAMPLED_PER_SECOND, LineSample, log_each
        configure("warning", "json")
        log_each("wgkex_ops.test", "seen", [{"number": 1}])
    """
    assert run(script) == ""


def test_lines_of_many_keys_are_text_on_a_terminal() -> None:
    script = """
        from wgkex_ops.logs import SAMPLED_PER_SECOND, LineSample, log_each
        configure("info", "auto")
        log_each("wgkex_ops.test", "seen", [{"number": 1}, {"number": 2}])
    """
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in on_terminal(script).splitlines()]
    assert [line.split()[-1] for line in lines] == ["number=1", "number=2"]
    assert all("seen" in line for line in lines)


def test_captured_logs_have_the_lines_of_many_keys() -> None:
    with structlog.testing.capture_logs() as events:
        log_each("wgkex_ops.test", "seen", ({"number": number} for number in (1, 2)))
    assert events == [{"event": "seen", "log_level": "info", "number": number} for number in (1, 2)]


@pytest.mark.parametrize("name", ["\udc80", "\x9b2J", "\u202e", "\x7f", "ä"], ids=ascii)
def test_names_of_others_leave_as_ascii(name: str) -> None:
    line = run(f"""
        configure("info", "json")
        log.info("seen", name={name!r}, thing=object())
        log.info("seen", name={name!r})
    """)
    assert line.replace("\n", "").isprintable()
    assert line.isascii()
    assert '": ' not in line, "one spelling, so that grep finds it"
    assert [json.loads(one)["name"] for one in line.splitlines()] == [name, name]


async def test_what_strangers_can_cause_is_written_in_part(capfd: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    sample = LineSample("wgkex_ops.test", "key_rejected", lambda: now)
    for _ in range(1000):
        sample.add("malformed_json", {"request_id": "a"})
    sample.add("unknown_domain", {"request_id": "b"})
    now += 1
    sample.add("malformed_json", {"request_id": "c"})
    await asyncio.sleep(0)
    written = capfd.readouterr().err
    assert written.count("malformed_json") == SAMPLED_PER_SECOND + 1
    assert written.count("unknown_domain") == 1
    assert str(1000 - SAMPLED_PER_SECOND) in written.splitlines()[-1]
