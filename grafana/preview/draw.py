"""Panels as HTML and SVG."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Final

from grafana.preview.chart import AXIS, Chart
from grafana.preview.config import Panel, colour, legend, meaning, properties, series_colour
from grafana.preview.prometheus import Prometheus, Series, Window
from grafana.preview.units import written

_HEAT: Final = ("#3a2415", "#6b3a12", "#a45410", "#d9741a", "#ff9830", "#ffcb7d")
# Lines further up than that many times the largest value would make all else flat.
_IN_SIGHT: Final = 20
_LEGEND_LINE: Final = 18


def _answers(panel: Panel, server: Prometheus, window: Window) -> list[tuple[str, Series]]:
    return [(legend(target, series), series) for target in panel["targets"] for series in server.ask(target, window)]


def _legend(panel: Panel, found: Sequence[tuple[str, Series]], most: int) -> str:
    rows = []
    for name, series in sorted(found, key=lambda each: each[0])[:most]:
        style = properties(panel, name)
        values = [
            written(value, style["unit"], style.get("decimals")) for value in (series.last, max(series.points.values()))
        ]
        mark = f'<i style="background:{series_colour(style, name)}"></i>'
        rows.append(f"<tr><td>{mark}{escape(name)}</td><td>{values[0]}</td><td>{values[1]}</td></tr>")
    if len(found) > most:
        rows.append(f"<tr><td>… {len(found) - most} more</td><td></td><td></td></tr>")
    return f"<table class=legend><tr><th></th><th>last</th><th>max</th></tr>{''.join(rows)}</table>"


def _lines(panel: Panel, found: Sequence[tuple[str, Series]], window: Window, width: int, height: int) -> str:
    style = panel["fieldConfig"]["defaults"]
    stacked = style["custom"]["stacking"]["mode"] == "normal"
    limits = [step for step in style["thresholds"]["steps"] if step["value"] is not None]
    drawn: list[tuple[str, dict[float, float], dict[float, float]]] = []
    ground: dict[float, float] = {}
    for name, series in found:
        points = {moment: value + ground.get(moment, 0.0) for moment, value in series.points.items()}
        drawn.append((name, points, dict(ground)))
        ground |= points if stacked else {}
    top = max(value for _, points, _ in drawn for value in points.values())
    if style["custom"]["thresholdsStyle"]["mode"] == "off":
        limits = []
    seen = [step["value"] for step in limits if step["value"] < _IN_SIGHT * top]
    top = style.get("max") or max(top, style["custom"].get("axisSoftMax", 0), *seen) * 1.05
    # The legend takes a third, at most, and would scroll then.
    most = height // 3 // _LEGEND_LINE
    rows = 1 + (len(found) if len(found) <= most else most + 1)
    chart = Chart(width, height - _LEGEND_LINE * rows, window, top)
    chart.axis([(top * part, written(top * part, style["unit"])) for part in (0, 0.25, 0.5, 0.75, 1)])
    for name, points, below in drawn:
        own = properties(panel, name)
        chart.line(
            sorted(points.items()),
            series_colour(own, name),
            below=below,
            fill=own["custom.fillOpacity"] / 100,
            dashed="custom.lineStyle" in own,
        )
    for step in limits:
        if step["value"] <= top:
            chart.line([(window.start, step["value"]), (window.end, step["value"])], colour(step["color"]), dashed=True)
    return chart.text() + _legend(panel, found, most)


def _stat(panel: Panel, found: Sequence[tuple[str, Series]], *_: object) -> str:
    cells = []
    for name, series in found:
        text, shade = meaning(properties(panel, name), series.last)
        title = f"<small>{escape(name)}</small> " if len(found) > 1 else ""
        cells.append(f'<div style="color:{shade}">{title}<b>{text}</b></div>')
    return f"<div class=stat>{''.join(cells)}</div>"


def _bound(label: str) -> float:
    return float(label.replace("+Inf", "inf"))


def _heatmap(panel: Panel, found: Sequence[tuple[str, Series]], window: Window, width: int, height: int) -> str:
    rows = sorted(found, key=lambda each: _bound(each[0]))
    chart = Chart(width, height, window, len(rows))
    below: Mapping[float, float] = {}
    cells: dict[tuple[int, float], float] = {}
    for row, (_, series) in enumerate(rows):
        cells |= {(row, moment): value - below.get(moment, 0.0) for moment, value in series.points.items()}
        below = series.points
    most = max(cells.values()) or 1.0
    unit = panel["options"]["yAxis"]["unit"]
    labels = [
        (row + 1, "+Inf" if bound == "+Inf" else written(float(bound), unit)) for row, (bound, _) in enumerate(rows)
    ]
    chart.axis(labels[:: max(1, len(labels) * 16 // height)])
    for (row, moment), value in cells.items():
        if value > 0:
            shade = _HEAT[round((value / most) ** 0.5 * (len(_HEAT) - 1))]
            chart.box(moment, moment + window.step, row, row + 1, shade)
    return chart.text()


def _timeline(panel: Panel, found: Sequence[tuple[str, Series]], window: Window, width: int, height: int) -> str:
    rows = sorted(found, reverse=True)
    chart = Chart(width, height, window, len(rows))
    chart.axis([])
    for row, (name, series) in enumerate(rows):
        for moment, value in series.points.items():
            _, shade = meaning(properties(panel, name) | {"thresholds": {"steps": []}}, value)
            chart.box(moment, moment + window.step, row + 0.1, row + 0.9, shade)
        chart.parts.append(f'<text x="{AXIS + 4}" y="{chart.y(row + 0.4):.0f}" class=on>{escape(name)}</text>')
    return chart.text()


def _table(panel: Panel, server: Prometheus, window: Window) -> str:
    organize = next(each["options"] for each in panel["transformations"] if each["id"] == "organize")
    names = {
        name: organize["renameByName"][name]
        for name in sorted(organize["indexByName"], key=organize["indexByName"].get)
    }
    single = len(panel["targets"]) == 1
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    labels = [name for name in names if not name.startswith("Value")]
    for target in panel["targets"]:
        value = "Value" if single else f"Value #{target['refId']}"
        for series in server.ask(target, window):
            if not set(series.labels) <= set(labels):
                raise ValueError(f"{panel['title']}: a label without a heading among {sorted(series.labels)}")
            rows.setdefault(tuple(series.labels.get(label, "") for label in labels), {})[value] = series.last
    values = [name for name in names if name.startswith("Value")]
    head = "".join(f"<th>{escape(names[name])}</th>" for name in [*labels, *values])
    (sort,) = panel["options"]["sortBy"]

    headings = [names[name] for name in [*labels, *values]]
    place = headings.index(sort["displayName"])

    def key(row: tuple[tuple[str, ...], dict[str, float]]) -> tuple[str, float]:
        if place < len(labels):
            return row[0][place], 0
        return "", row[1].get(values[place - len(labels)], -1)

    body = []
    for found, numbers in sorted(rows.items(), key=key, reverse=sort["desc"])[:30]:
        cells = [escape(text) for text in found]
        for value in values:
            style = properties(panel, names[value])
            text, shade = meaning(style, numbers[value]) if value in numbers else ("", "")
            painted = style.get("custom.cellOptions", {}).get("type") == "color-text"
            cells.append(f'<span style="color:{shade}">{text}</span>' if painted else text)
        body.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table class=table><tr>{head}</tr>{''.join(body)}</table>"


def _alerts(server: Prometheus) -> str:
    found = [
        f"<tr><td>{escape(each['labels']['alertname'])}</td><td>{escape(each['state'])}</td>"
        f"<td>{escape(each['labels'].get('severity', ''))}</td></tr>"
        for each in server.alerts()
        if each["labels"].get("service") == "wgkex" and each["labels"].get("severity") != "none"
    ]
    return f"<table class=table>{''.join(found)}</table>" if found else "<div class=none>nothing fires</div>"


_DRAWN: Final[Mapping[str, Callable[[Panel, Sequence[tuple[str, Series]], Window, int, int], str]]] = {
    "timeseries": _lines,
    "stat": _stat,
    "heatmap": _heatmap,
    "state-timeline": _timeline,
}


def drawn(panel: Panel, server: Prometheus, window: Window, width: int, height: int) -> str:
    """The inside of a panel.

    Raises:
        OSError: Prometheus does not answer, or finds a query wrong.
    """
    if panel["type"] == "alertlist":
        return _alerts(server)
    if panel["type"] == "table":
        return _table(panel, server, window)
    found = _answers(panel, server, window)
    if not found:
        return "<div class=none>no data</div>"
    return _DRAWN[panel["type"]](panel, found, window, width, height)
