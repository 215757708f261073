"""Names that mean something to more than one part of the package."""

from typing import Final

# The target of a key's topic that means every worker of the domain; no worker can have this name.
ALL_WORKERS: Final = "all"

# The value of a metric's label for whatever the configuration does not list.
UNKNOWN: Final = "unknown"
