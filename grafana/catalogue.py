"""All dashboards, and their text."""

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import broker, overview, peers, runtime, worker

DIRECTORY: Final = Path(__file__).parent / "dashboards"


def dashboards() -> dict[str, Dashboard]:
    """The dashboards by the name of their file."""
    built = (module.build() for module in (overview, broker, worker, runtime, peers))
    return {f"{dashboard.uid}.json": dashboard for dashboard in built}


def text(dashboard: Dashboard) -> str:
    """Sorted as Grafana exports it, so that a change shows as a small difference."""
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
