"""Names that mean something to more than one part of the package."""

from typing import Final

# The target of a key's topic that means every worker of the domain; no worker can have this name.
ALL_WORKERS: Final = "all"

# The value of a metric's label for whatever the configuration does not list.
UNKNOWN: Final = "unknown"

# Why a worker refuses a key by a rule (wire contract, section 3). They are reasons of receipts, and labels of a metric.
OWN_KEY: Final = "own_key"
STATIC_KEY: Final = "static_key"
LIVE_ELSEWHERE: Final = "live_elsewhere"
ADDRESS_TAKEN: Final = "address_taken"
# Why brokers and workers refuse one because of the operators' lists.
DENIED_KEY: Final = "denied_key"
NOT_ALLOWED_KEY: Final = "not_allowed_key"
KEY_REFUSALS: Final = frozenset((OWN_KEY, STATIC_KEY, LIVE_ELSEWHERE, ADDRESS_TAKEN, DENIED_KEY, NOT_ALLOWED_KEY))
# Why a worker refuses one that it would take if there were room.
TABLE_FULL: Final = "table_full"
