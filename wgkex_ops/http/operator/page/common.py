"""What both pages show: counters of the last minutes, the MQTT session, and the process itself."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, Self

from prometheus_client import Counter

from wgkex_ops.http.operator.page.history import MINUTE, History, Window, read_one
from wgkex_ops.http.operator.page.parts import Columns, Notice, Tile, Tone
from wgkex_ops.http.operator.page.rendering import ago, detail, quiet, toned
from wgkex_ops.metrics.build import revision, software_version
from wgkex_ops.metrics.mqtt import MqttMetrics
from wgkex_ops.model.words import count, duration, in_words, things

_LENGTHS: Final = (MINUTE, 5 * MINUTE, 15 * MINUTE)


@dataclass(frozen=True, slots=True)
class Recent:
    """The windows that a page shows.

    Attributes:
        minute: the last minute, or less after the start.
        shown: those that have a column, the shortest first.
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

    def columns(self, heading: str = "") -> Columns:
        """A column for each window."""
        return {f"{heading}, {window.heading}" if heading else window.heading: "count" for window in self.shown}

    def counts(self, counter: Counter, label: str) -> list[str]:
        """By how much a counter has increased for one value of its first label, by window."""
        return [count(window.increases[counter].get(label, 0)) for window in self.shown]

    def row(self, heading: str, counter: Counter, tone: Tone = Tone.PLAIN) -> list[str]:
        """By how much a counter has increased, by window."""
        return [heading, *(toned(tone, window.total(counter)) for window in self.shown)]

    def rows_by_reason(self, heading: str, counter: Counter, tone: Tone = Tone.PLAIN) -> list[list[str]]:
        """The same, and in a row each the reasons that occurred, the most frequent one first."""
        longest = self.shown[-1].increases[counter]
        rows = [self.row(heading, counter, tone)]
        rows += (
            [detail(in_words(reason)), *map(quiet, self.counts(counter, reason))]
            for reason in sorted(longest, key=lambda reason: (-longest[reason], reason))
        )
        return rows

    def tile(self, heading: str, counter: Counter) -> Tile:
        """How many a minute; directly after the start, how many there were."""
        happened = self.minute.total(counter)
        if self.minute.since_start:
            return Tile(heading, count(happened), self.minute.words)
        rate = happened * MINUTE / self.minute.seconds
        text = count(round(rate)) if rate >= 10 or not rate else f"{rate:.1f}"  # noqa: PLR2004  two digits are enough
        return Tile(heading, f"{text}/min", self.minute.words)


class Connection(Protocol):
    """What a session with the MQTT server knows of its connection; `opened_at` is by `time.monotonic`."""

    @property
    def connected(self) -> bool: ...

    @property
    def opened_at(self) -> float: ...


@dataclass(frozen=True, slots=True)
class MqttView:
    """Where what is shown of MQTT comes from.

    Attributes:
        connection: of the session.
        metrics: its instruments.
        server: host and port, as configured.
    """

    connection: Connection
    metrics: MqttMetrics
    server: str

    @property
    def counters(self) -> tuple[Counter, ...]:
        """What the history has to sample."""
        return (self.metrics.connection_failures, self.metrics.messages_dropped)

    def tile(self) -> Tile:
        """Whether it is connected."""
        if not self.connection.connected:
            return Tile("MQTT", "not connected", "no key can arrive or leave", Tone.BAD)
        return Tile("MQTT", "connected", f"for {duration(time.monotonic() - self.connection.opened_at)}", Tone.GOOD)

    def facts(self, recent: Recent, now: float) -> Mapping[str, str]:
        """All that is known of the session; `now` is in seconds since the epoch."""
        received = read_one(self.metrics.last_message_received)
        dropped = read_one(self.metrics.messages_dropped)
        connected = {"State": "not connected"}
        if self.connection.connected:
            connected = {"Connected since": ago(by_wall_clock(self.connection.opened_at, now), now)}
        return {
            "Server": self.server,
            **connected,
            "Reconnects": count(max(0, read_one(self.metrics.connects) - 1)),
            "Failed attempts": f"{reasons(recent.latest, self.metrics.connection_failures)} {recent.latest.words}",
            "Last message": ago(received, now) if received else "none yet",
            **({"Messages dropped, too many at once": count(dropped)} if dropped else {}),
        }

    def notices(self, recent: Recent) -> list[Notice]:
        """What needs an operator; a missing connection is among the problems already."""
        dropped = recent.latest.total(self.metrics.messages_dropped)
        if not dropped:
            return []
        return [Notice(Tone.BAD, f"{things(dropped, 'message')} from MQTT dropped {recent.latest.words}")]


def notices_of_lists(problem: str) -> list[Notice]:
    """What needs an operator of the key lists.

    Args:
        problem: why their file cannot be read; empty if it can.
    """
    text = f"The key lists cannot be read, and those from before count: {problem}"
    return [Notice(Tone.WARN, text)] if problem else []


def reasons(window: Window, counter: Counter) -> str:
    """How often each of a counter's reasons occurred."""
    by_reason = window.increases[counter].items()
    return ", ".join(f"{count(times)} {in_words(reason)}" for reason, times in by_reason) or "none"


def about(history: History, now: float) -> dict[str, str]:
    """What each process shows of itself."""
    return {"Version": f"{software_version()}, revision {revision()}", "Started": ago(now - history.age, now)}


def by_wall_clock(monotonic: float, now: float) -> float:
    """When a moment of `time.monotonic` was, in seconds since the epoch as `now`; never later than that."""
    return now - max(0.0, time.monotonic() - monotonic)
