"""The text of the rules file."""

from collections.abc import Mapping
from typing import Final

import yaml

from alerts.alerting import alerting_groups
from alerts.recording import recording_groups
from alerts.settings import Settings

_HEAD: Final = """\
# Made by `python -m alerts` from alerts/*.py; do not edit. Thresholds, windows and selectors are in alerts/settings.py.
"""
# Longer texts are folded. An address has no space to fold at, and is shorter.
_LONG: Final = 105


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines and long ones as blocks, and indents lists."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002  the base's call
        super().increase_indent(flow, indentless=False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else ">" if len(text) > _LONG else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def groups(settings: Settings) -> list[Mapping[str, object]]:
    """All groups of rules, as Prometheus reads them."""
    return [*recording_groups(settings), *alerting_groups(settings)]


def document(settings: Settings) -> str:
    """The rules file."""
    text = yaml.dump({"groups": groups(settings)}, Dumper=_Dumper, sort_keys=False, width=_LONG, allow_unicode=True)
    lines = text.splitlines()
    spaced = [
        f"\n{line}"
        if line.startswith(("  - name:", "      - ")) and not before.endswith(("groups:", "rules:"))
        else line
        for before, line in zip(["", *lines], lines, strict=False)
    ]
    return _HEAD + "\n".join(spaced) + "\n"
