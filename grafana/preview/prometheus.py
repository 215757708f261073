"""What a Prometheus answers to the queries of a dashboard."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

from grafana.queries import ALL, expand

_POINTS: Final = 240
_TIMEOUT: Final = 30.0


@dataclass(frozen=True)
class Series:
    """Labels, and values by point in time (Unix seconds)."""

    labels: Mapping[str, str]
    points: Mapping[float, float]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[max(self.points)]


@dataclass(frozen=True)
class Window:
    """The time that is shown.

    Args:
        start: Unix seconds.
        end: Unix seconds.
        scrape: how often Prometheus scrapes, in seconds.
    """

    start: float
    end: float
    scrape: float

    @property
    def step(self) -> float:
        """Seconds between two points, as many as fit."""
        return max(1.0, round((self.end - self.start) / _POINTS))

    def values(self) -> dict[str, str]:
        """What the variables stand for: everything chosen, and the windows as Grafana computes them."""
        rate = max(self.step + self.scrape, 4 * self.scrape)
        return {
            "job": ALL,
            "instance": ALL,
            "interface": ALL,
            "__rate_interval": f"{rate:.0f}s",
            "__range": f"{self.end - self.start:.0f}s",
        }


class Prometheus:
    """One server, by its address."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")

    def ask(self, target: Mapping[str, Any], window: Window) -> list[Series]:
        """The series of a query: one value each if it is an instant one.

        Raises:
            OSError: no answer, or an error.
        """
        query = {"query": expand(target["expr"], window.values())}
        if target["instant"]:
            found = self._get("query", {**query, "time": window.end})["result"]
            return _known([_series(each["metric"], [each["value"]]) for each in found])
        limits = {"start": window.start, "end": window.end, "step": window.step}
        found = self._get("query_range", {**query, **limits})["result"]
        return _known([_series(each["metric"], each["values"]) for each in found])

    def alerts(self) -> list[Mapping[str, Any]]:
        """Alerts that fire or are about to.

        Raises:
            OSError: no answer, or an error.
        """
        found: list[Mapping[str, Any]] = self._get("alerts", {})["alerts"]
        return found

    def _get(self, path: str, parameters: Mapping[str, object]) -> dict[str, Any]:
        address = f"{self._address}/api/v1/{path}?{urlencode(parameters)}"
        with urlopen(address, timeout=_TIMEOUT) as answer:  # noqa: S310  the operator's own address
            data: dict[str, Any] = json.load(answer)["data"]
        return data


def _known(found: list[Series]) -> list[Series]:
    """Without those that are not a number at any time."""
    return [series for series in found if series.points]


def _series(labels: Mapping[str, str], values: list[tuple[float, str]]) -> Series:
    points = {float(moment): float(value) for moment, value in values}
    return Series(labels, {moment: value for moment, value in points.items() if not math.isnan(value)})
