"""The text of the rules file."""

from collections.abc import Mapping
from typing import Final

from alerts.alerting import alerting_groups
from alerts.recording import recording_groups
from alerts.recording_hosts import host_recording_groups
from alerts.recording_nodes import node_recording_groups
from alerts.settings import Settings
from alerts.text import as_yaml, spaced

_HEAD: Final = """\
# Made by `python -m alerts` from alerts/*.py; do not edit. Thresholds, windows and selectors are in alerts/settings.py.
"""


def groups(settings: Settings) -> list[Mapping[str, object]]:
    """All groups of rules, as Prometheus reads them."""
    return [
        *recording_groups(settings),
        *node_recording_groups(settings),
        *host_recording_groups(settings),
        *alerting_groups(settings),
    ]


def document(settings: Settings) -> str:
    """The rules file."""
    return _HEAD + spaced(as_yaml({"groups": groups(settings)}))
