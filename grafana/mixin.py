"""The list of dashboards that the monitoring mixin imports: jsonnet needs the name of each file."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from grafana.catalogue import DIRECTORY

LIST: Final = Path(__file__).parents[1] / "deploy" / "mixin" / "dashboards.libsonnet"


def dashboards_list(names: Iterable[str]) -> str:
    """The text of the list, from the names of the files."""
    folder = os.path.relpath(DIRECTORY, LIST.parent)
    imports = "".join(f"  '{name}': import '{folder}/{name}',\n" for name in sorted(names))
    return f"// Made by `python -m grafana`; do not edit.\n{{\n{imports}}}\n"
