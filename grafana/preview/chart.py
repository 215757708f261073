"""A picture with the time along one axis and values along the other."""

import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from grafana.preview.prometheus import Window

# Pixels for what is written beside the axes.
AXIS: Final = 62
_ROOM: Final = 16


class Chart:
    """Where values lie on a picture of `width` by `height` pixels.

    Args:
        width: pixels.
        height: pixels.
        window: the time along the horizontal axis.
        top: the largest value of the vertical axis.
    """

    def __init__(self, width: int, height: int, window: Window, top: float) -> None:
        self.width, self.height, self._window, self._top = width, height, window, top or 1.0
        self.parts: list[str] = []

    def x(self, moment: float) -> float:
        """Pixels from the left."""
        share = (moment - self._window.start) / (self._window.end - self._window.start)
        return AXIS + share * (self.width - AXIS - 4)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return (self.height - _ROOM) * (1 - value / self._top) + 4

    def axis(self, labels: Sequence[tuple[float, str]]) -> None:
        """Marks on the vertical axis, and the time on the other one."""
        for value, label in labels:
            y = self.y(value)
            self.parts.append(f'<line x1="{AXIS}" x2="{self.width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#333"/>')
            self.parts.append(f'<text x="{AXIS - 4}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>')
        for part in (0.1, 0.5, 0.9):
            moment = self._window.start + part * (self._window.end - self._window.start)
            text = time.strftime("%H:%M", time.gmtime(moment))
            self.parts.append(f'<text x="{self.x(moment):.0f}" y="{self.height}" text-anchor="middle">{text}</text>')

    def line(
        self,
        points: Sequence[tuple[float, float]],
        stroke: str,
        *,
        below: Mapping[float, float] | None = None,
        fill: float = 0,
        dashed: bool = False,
    ) -> None:
        """A line through points; `fill` is the opacity of what lies between it and `below`, which is 0 if not said."""
        if not points:
            return
        path = " ".join(f"{self.x(moment):.1f},{self.y(value):.1f}" for moment, value in points)
        if fill:
            back = [(moment, (below or {}).get(moment, 0.0)) for moment, _ in reversed(points)]
            area = path + " " + " ".join(f"{self.x(moment):.1f},{self.y(value):.1f}" for moment, value in back)
            self.parts.append(f'<polygon points="{area}" fill="{stroke}" opacity="{fill}"/>')
        dash = ' stroke-dasharray="8 6"' if dashed else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="1.3"{dash}/>')

    def box(self, start: float, end: float, bottom: float, top: float, fill: str) -> None:
        """A filled rectangle."""
        x, y = self.x(start), self.y(top)
        # A little wider, so that no stripes show between neighbours.
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{self.x(end) - x + 0.6:.1f}"'
            f' height="{max(0.5, self.y(bottom) - y - 0.5):.1f}" fill="{fill}"/>'
        )

    def text(self) -> str:
        """The picture."""
        return f'<svg width="{self.width}" height="{self.height}">{"".join(self.parts)}</svg>'
