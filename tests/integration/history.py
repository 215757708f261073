"""Series of hours or days, as a Prometheus would have them, and a dashboard's queries over them, as Grafana asks."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.dashboards import Json, expand, load, panels
from tests.integration.loopback import run
from tests.integration.servers import Prometheus

# Seconds between samples; each graph has as many points as it has samples.
SCRAPE: Final = 60


@dataclass
class History:
    """Series that end at a point in time, by what they are at each number of seconds before it.

    Attributes:
        end: seconds since the epoch.
    """

    end: int
    _series: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def add(
        self,
        name: str,
        labels: Mapping[str, str],
        value: Callable[[int], float],
        *,
        span: int,
        step: int = SCRAPE,
    ) -> None:
        """Add a series of the last `span` seconds; `value` gets the seconds that are left until the end."""
        text = ",".join(f'{label}="{content}"' for label, content in labels.items())
        samples = [f"{name}{{{text}}} {value(left)} {self.end - left}" for left in range(span, -1, -step)]
        self._series.setdefault(name, {})[text] = samples

    def store(self, folder: Path) -> Path:
        """Write them into a Prometheus's storage."""
        text, storage = folder / "history.om", folder / "history"
        samples = (line for series in self._series.values() for lines in series.values() for line in lines)
        text.write_text("".join(f"{line}\n" for line in (*samples, "# EOF")))
        # A month in blocks of two hours takes minutes.
        blocks = ("--quiet", "--max-block-duration=744h")
        run("promtool", "tsdb", "create-blocks-from", "openmetrics", *blocks, str(text), str(storage))
        return storage


@dataclass(frozen=True)
class Screen:
    """A dashboard in a Grafana that shows the last hours of a history.

    Attributes:
        prometheus: has the history.
        end: of the history.
        shown: seconds that are shown.
    """

    prometheus: Prometheus
    end: int
    shown: int = 3600

    async def numbers(self, name: str, title: str) -> dict[str, float]:
        """Each number of a panel by its legend."""
        found: dict[str, float] = {}
        for target in _panel(name, title)["targets"]:
            query = self._expanded(target)
            data = await self.prometheus.get("query", query=query, time=str(self.end))
            found |= {_legend(target, each["metric"]): float(each["value"][1]) for each in data["result"]}
        return found

    async def colours(self, name: str, title: str) -> dict[str, str]:
        """The colour of each number of a panel by its legend."""
        defaults = _panel(name, title)["fieldConfig"]["defaults"]
        steps = [(step["value"], step["color"]) for step in defaults["thresholds"]["steps"]]
        return {
            legend: [colour for limit, colour in steps if limit is None or number >= limit][-1]
            for legend, number in (await self.numbers(name, title)).items()
        }

    async def lines(self, name: str, title: str) -> dict[str, int]:
        """How many points each line of a graph has, by its legend."""
        found: dict[str, int] = {}
        for target in _panel(name, title)["targets"]:
            data = await self.prometheus.get(
                "query_range",
                query=self._expanded(target),
                start=str(self.end - self.shown),
                end=str(self.end),
                step=str(SCRAPE),
            )
            found |= {_legend(target, each["metric"]): len(each["values"]) for each in data["result"]}
        return found

    async def rows(self, name: str, title: str) -> list[dict[str, str]]:
        """Labels of all series of a table."""
        data = [
            await self.prometheus.get("query", query=self._expanded(target), time=str(self.end))
            for target in _panel(name, title)["targets"]
        ]
        return [each["metric"] for found in data for each in found["result"]]

    def _expanded(self, target: Mapping[str, Any]) -> str:
        # A query with a step of its own has it as scrape interval, too.
        least = {"5m": 300, None: SCRAPE}[target.get("interval")]
        intervals = {
            "__interval": f"{max(SCRAPE, least)}s",
            "__rate_interval": f"{4 * least}s",
            "__range": f"{self.shown}s",
        }
        return expand(target["expr"], {**intervals, "job": ".+", "instance": ".+", "interface": ".+"})


def _panel(name: str, title: str) -> Json:
    """The panel that has queries, by its title."""
    (found,) = (panel for panel in panels(load(name)) if panel["title"] == title and panel.get("targets"))
    return found


def _legend(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    return expand(target["legendFormat"].replace("{{", "${").replace("}}", "}"), labels)


def growing(rate: float, since: int) -> Callable[[int], float]:
    """A counter that stands at 0 until so many seconds before the end, and gains so much per second from then on."""
    return lambda left: round(rate * max(0, since - left))


def constant(number: float) -> Callable[[int], float]:
    """A value that stays."""
    return lambda left: number


def names(labels: Iterable[Mapping[str, str]], label: str) -> set[str]:
    """Values of a label."""
    return {each[label] for each in labels if label in each}
