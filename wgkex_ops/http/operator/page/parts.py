"""What both pages are made of: plain values, ready to be shown. Nothing in here is escaped yet."""

import functools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from typing import ClassVar, Final, Protocol, Self

from prometheus_client import Counter

from wgkex_ops.http.operator.page.history import History, Window, read_one
from wgkex_ops.http.operator.page.words import count, duration
from wgkex_ops.metrics.mqtt import MqttMetrics

_MINUTE: Final = 60.0
_LENGTHS: Final = (_MINUTE, 300.0, 900.0)
# A list of names that is longer helps nobody.
_NAMES_SHOWN: Final = 5


class Tone(StrEnum):
    """How good something is. It colours what the words say already."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time.

    Attributes:
        at: seconds since the epoch.
        age: seconds that have passed since then.
    """

    at: float
    age: float

    @classmethod
    def before(cls, now: float, at: float) -> Self:
        """A moment as seen from now (both in seconds since the epoch). Clocks that disagree make no negative age."""
        return cls(at, max(0.0, now - at))

    @classmethod
    def by_monotonic_clock(cls, now: float, at: float) -> Self:
        """The same, but of a moment by `time.monotonic`."""
        age = max(0.0, time.monotonic() - at)
        return cls(now - age, age)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that an operator should look at.

    Attributes:
        text: what it is.
        names: whom it is about.
        more: how many names were left out.
    """

    tone: Tone
    text: str
    names: tuple[str, ...] = ()
    more: int = 0

    @classmethod
    def about(cls, tone: Tone, text: str, names: Sequence[str]) -> list[Self]:
        """A notice about some names, or none if there are none."""
        shown = tuple(names[:_NAMES_SHOWN])
        return [cls(tone, text, shown, len(names) - len(shown))] if shown else []


@dataclass(frozen=True, slots=True)
class Tile:
    """A number that one looks at first."""

    heading: str
    value: str
    note: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Fact:
    """A line about the process itself; of `text` and `moment` one is there, or both."""

    heading: str
    text: str = ""
    moment: Moment | None = None


@dataclass(frozen=True, slots=True)
class CountRow:
    """A line of the table of keys: how many, by window.

    Attributes:
        detail: whether it is a part of the line above.
    """

    heading: str
    counts: tuple[int, ...]
    tone: Tone = Tone.PLAIN
    detail: bool = False


@dataclass(frozen=True, slots=True)
class Recent:
    """The windows that a page shows.

    Attributes:
        minute: the last minute, or less after the start.
        shown: those that have a column.
    """

    minute: Window
    shown: tuple[Window, ...]

    @classmethod
    def of(cls, history: History) -> Self:
        """The last minute, 5 minutes and 15 minutes, as far as there are any."""
        minute, *shown = history.windows(_LENGTHS)
        return cls(minute, tuple(shown) or (minute,))

    @property
    def latest(self) -> Window:
        """The shortest one that has a column."""
        return self.shown[0]

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings of the columns."""
        return tuple(map(_heading_of, self.shown))

    def rows(self, heading: str, tone: Tone, *counters: Counter) -> list[CountRow]:
        """One line, the sum of some counters. The tone is only for what is not 0."""
        counts = tuple(window.total(*counters) for window in self.shown)
        return [CountRow(heading, counts, tone if any(counts) else Tone.PLAIN)]

    def rows_with_reasons(self, heading: str, tone: Tone, counter: Counter) -> list[CountRow]:
        """One line for a counter, and one for each of its reasons that occurred, the most frequent one first."""
        longest = self.shown[-1].by_label(counter)
        reasons = sorted(longest, key=lambda reason: (-longest[reason], reason))
        return self.rows(heading, tone, counter) + [
            CountRow(
                in_words(reason),
                tuple(window.by_label(counter).get(reason, 0) for window in self.shown),
                detail=True,
            )
            for reason in reasons
        ]

    def tile(self, heading: str, counter: Counter) -> Tile:
        """How many a minute; directly after the start, how many there were."""
        happened = self.minute.total(counter)
        if self.minute.since_start:
            return Tile(heading, count(happened), name_of(self.minute))
        rate = happened * _MINUTE / self.minute.seconds
        text = count(round(rate)) if rate >= 10 or not rate else f"{rate:.1f}"  # noqa: PLR2004  two digits are enough
        return Tile(heading, f"{text}/min", name_of(self.minute))


class Link(Protocol):
    """What a session with the MQTT server tells of itself; `opened_at` is by `time.monotonic`."""

    @property
    def connected(self) -> bool: ...

    @property
    def opened_at(self) -> float: ...


@dataclass(frozen=True, slots=True)
class MqttView:
    """Where the numbers about MQTT come from.

    Attributes:
        link: the session.
        metrics: its instruments.
        server: host and port, as configured.
    """

    link: Link
    metrics: MqttMetrics
    server: str

    @property
    def counters(self) -> tuple[Counter, ...]:
        """What the history has to look at."""
        return (self.metrics.connection_failures, self.metrics.messages_dropped)

    def tile(self) -> Tile:
        """Whether it is connected."""
        if self.link.connected:
            since = duration(time.monotonic() - self.link.opened_at)
            return Tile("MQTT", "connected", f"for {since}", Tone.GOOD)
        return Tile("MQTT", "not connected", "keys can neither come nor go", Tone.BAD)

    def facts(self, recent: Recent, now: float) -> list[Fact]:
        """All that is known of the session; `now` is in seconds since the epoch."""
        connects = read_one(self.metrics.connects)
        received = read_one(self.metrics.last_message_received)
        failures = recent.latest.by_label(self.metrics.connection_failures)
        failed = ", ".join(f"{count(times)} {in_words(reason)}" for reason, times in failures.items()) or "none"
        dropped = read_one(self.metrics.messages_dropped)
        connected = Fact("State", "not connected")
        if self.link.connected:
            connected = Fact("Connected since", moment=Moment.by_monotonic_clock(now, self.link.opened_at))
        return [
            Fact("Server", self.server),
            connected,
            Fact("Reconnects", count(max(0, connects - 1))),
            Fact("Failed attempts", f"{failed} {name_of(recent.latest)}"),
            Fact("Last message", "" if received else "none yet", Moment.before(now, received) if received else None),
            *([Fact("Messages dropped, too many at once", count(dropped))] if dropped else []),
        ]

    def notices(self, recent: Recent) -> list[Notice]:
        """What an operator should know of it; that there is no connection is told as a problem already."""
        dropped = recent.latest.total(self.metrics.messages_dropped)
        if not dropped:
            return []
        return [Notice(Tone.BAD, f"{count(dropped)} messages from MQTT were dropped {name_of(recent.latest)}")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What both pages have.

    Attributes:
        component: ``broker`` or ``worker``.
        name: of the process.
        now: seconds since the epoch; when the numbers were read.
        problems: why it is not ready; empty if it is.
        notices: what else an operator should look at, the worst first.
        tiles: what one looks at first.
        columns: headings of the windows.
        keys: what became of the keys.
        mqtt: the session.
        about: the process.
    """

    template: ClassVar[str]

    component: str
    name: str
    now: float
    problems: tuple[str, ...]
    notices: tuple[Notice, ...]
    tiles: tuple[Tile, ...]
    columns: tuple[str, ...]
    keys: tuple[CountRow, ...]
    mqtt: tuple[Fact, ...]
    about: tuple[Fact, ...]


def about(now: float, history: History, facts: Iterable[Fact] = ()) -> tuple[Fact, ...]:
    """What a process tells of itself."""
    return (
        Fact("Version", _version()),
        Fact("Started", moment=Moment(now - history.age, history.age)),
        *facts,
    )


@functools.cache
def _version() -> str:
    """The version of this package; looked up in its files, but only once."""
    return version("wgkex-ops")


def name_of(window: Window) -> str:
    """A window in words."""
    if window.since_start:
        return f"since the start, {duration(window.seconds)} ago"
    return f"in the last {_length_of(window)}"


def _heading_of(window: Window) -> str:
    """The same, but shorter."""
    return f"since start ({duration(window.seconds)})" if window.since_start else f"last {_length_of(window)}"


def _length_of(window: Window) -> str:
    # Looks are some seconds apart: 307 s are 5 minutes.
    return duration(window.seconds // _MINUTE * _MINUTE)


def in_words(reason: str) -> str:
    """The value of a metric's label as words."""
    return reason.replace("_", " ")


def sorted_notices(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """The worst first."""
    return tuple(sorted(notices, key=lambda notice: notice.tone is not Tone.BAD))
