"""Draw the dashboards from live data, to look at them where no Grafana is: `python -m grafana.preview --help`.

It is no Grafana: it shows which panels have data, and whether order, units, legends and thresholds make sense.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from grafana.catalogue import dashboards, text
from grafana.preview.draw import drawn
from grafana.preview.prometheus import Prometheus, Window

_COLUMN: Final = 66
_LINE: Final = 38
_GAP: Final = 8
_HEAD: Final = 30
_STYLE: Final = f"""
body {{ background: #111217; color: #ccccdc; font: 12px sans-serif; margin: 8px; width: {24 * _COLUMN}px }}
h1 {{ font-size: 18px; margin: 4px }} p {{ margin: 4px }}
.grid {{ position: relative }}
.panel, .row {{ position: absolute; box-sizing: border-box; overflow: hidden }}
.panel {{ background: #181b1f; border: 1px solid #2c2e33; padding: 4px 6px }}
.row {{ font-size: 15px; padding: 8px 4px }}
.panel h2 {{ font-size: 13px; margin: 0 0 4px }}
.none {{ text-align: center; padding: 20px; color: #888 }}
.stat {{ display: flex; gap: 18px; justify-content: center; white-space: nowrap }}
.stat b {{ font-size: 26px }} .stat small {{ font-size: 15px }}
table {{ border-collapse: collapse }} td, th {{ text-align: left; padding: 1px 10px 1px 0; white-space: nowrap }}
.legend td, .legend th {{ font-size: 11px; line-height: 14px; color: #aaa; font-weight: normal }}
.legend i {{ display: inline-block; width: 10px; height: 3px; margin-right: 6px; vertical-align: middle }}
.table td, .table th {{ padding: 4px 26px 4px 0; border-bottom: 1px solid #2c2e33 }}
svg text {{ fill: #999; font-size: 10px }} svg text.on {{ fill: #000 }}
"""


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m grafana.preview", description="Draw the dashboards as HTML.")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="the directory for the pages")
    parser.add_argument("--minutes", type=float, default=15, help="how much time to show; default: %(default)s")
    parser.add_argument("--scrape-interval", type=float, default=15, help="in seconds; default: %(default)s")
    return parser.parse_args(arguments)


def page(dashboard: Mapping[str, Any], server: Prometheus, window: Window) -> str:
    """A dashboard as a page that needs nothing else.

    Raises:
        OSError: Prometheus does not answer, or finds a query wrong.
    """
    parts = []
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        width, height = place["w"] * _COLUMN - _GAP, place["h"] * _LINE - _GAP
        box = f"left:{place['x'] * _COLUMN}px;top:{place['y'] * _LINE}px;width:{width}px;height:{height}px"
        title = escape(panel["title"])
        if panel["type"] == "row":
            parts.append(f'<div class=row style="{box}">{title}</div>')
            continue
        inside = drawn(panel, server, window, width - 16, height - _HEAD)
        hint = escape(panel["description"])
        parts.append(f'<div class=panel style="{box}" title="{hint}"><h2>{title}</h2>{inside}</div>')
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"]) * _LINE
    title = escape(dashboard["title"])
    return (
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
        "<p>A preview for development, drawn without Grafana; point at a panel to read its description.</p>"
        f'<div class=grid style="height:{bottom}px">{"".join(parts)}</div>'
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a page for each dashboard."""
    given = _arguments(arguments)
    end = time.time()
    window = Window(end - 60 * given.minutes, end, given.scrape_interval)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, dashboard in dashboards().items():
        content = page(json.loads(text(dashboard)), Prometheus(given.prometheus), window)
        (given.out / name).with_suffix(".html").write_text(content)


if __name__ == "__main__":
    main()
