"""All files that are made from the rules."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from alerts.kubernetes import manifests
from alerts.mixin import rules
from alerts.rules import document
from alerts.settings import Settings

ALERTS: Final = Path(__file__).parent
DEPLOY: Final = ALERTS.with_name("deploy")


def files(settings: Settings) -> Mapping[Path, str]:
    """The text of each file."""
    return {
        ALERTS / "wgkex.rules.yaml": document(settings),
        DEPLOY / "mixin" / "rules.json": rules(settings),
        **{DEPLOY / "kubernetes" / name: text for name, text in manifests(settings).items()},
    }
