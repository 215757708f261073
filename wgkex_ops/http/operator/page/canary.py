"""The canary's page: the last round of each domain."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from wgkex_ops.http.operator.page.common import about
from wgkex_ops.http.operator.page.history import History
from wgkex_ops.http.operator.page.parts import Notice, Page, Table, Tile, Tone
from wgkex_ops.http.operator.page.rendering import ago, name, quiet, state
from wgkex_ops.model.rounds import PHASES, Round
from wgkex_ops.model.words import count


@dataclass(kw_only=True, eq=False)
class CanaryView:
    """Makes the page.

    Attributes:
        name: of the host.
        broker: the URL that keys are submitted to.
        domains: names of the domains.
        last: the last round by domain; a domain without one is missing.
        problems: why this process is not ready, a sentence each.
    """

    name: str
    broker: str
    domains: Sequence[str]
    last: Mapping[str, Round]
    problems: Callable[[], Sequence[str]]

    def __post_init__(self) -> None:
        self._history = History(())

    async def page(self) -> Page:
        """Make the page of this moment."""
        now = time.time()
        failed = [done for done in self.last.values() if not done.succeeded]
        tone = Tone.BAD if failed else Tone.GOOD if self.last else Tone.PLAIN
        return Page(
            component="canary",
            name=self.name,
            now=now,
            problems=self.problems(),
            notices=[
                Notice(Tone.BAD, f"In phase {done.failed_phase}: {done.failure}", [done.domain]) for done in failed
            ],
            tiles=[
                Tile(
                    "Domains with a tunnel",
                    f"{count(len(self.last) - len(failed))} of {count(len(self.domains))}",
                    "in the last round",
                    tone,
                )
            ],
            tables=[self._table(now)],
            facts={"This canary": {**about(self._history, now), "Broker": name(self.broker)}},
        )

    def _table(self, now: float) -> Table:
        return Table(
            "Domains",
            "The last round of each domain, and how long its phases took",
            {"Domain": "", "State": "", "Gateway": "", **dict.fromkeys(PHASES, "count"), "When": ""},
            [[name(domain), *self._cells(self.last.get(domain), now)] for domain in self.domains],
        )

    def _cells(self, done: Round | None, now: float) -> list[str]:
        if done is None:
            return [quiet("no round yet"), *[""] * (len(PHASES) + 2)]
        shown = state(Tone.GOOD, "tunnel") if done.succeeded else state(Tone.BAD, f"{done.failed_phase} failed")
        times = [f"{done.durations[phase]:.2f} s" if phase in done.durations else quiet("-") for phase in PHASES]
        return [shown, name(done.gateway) if done.gateway else quiet("none"), *times, ago(done.finished_at, now)]
