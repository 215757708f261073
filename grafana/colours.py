"""One colour for one meaning, on every dashboard. The names are those of Grafana's palette."""

from typing import Final

GOOD: Final = "green"
WARNING: Final = "orange"
CRITICAL: Final = "red"
NEUTRAL: Final = "blue"
UNKNOWN: Final = "text"

PEER_STATES: Final = {
    "active": "green",
    "idle": "blue",
    "stale": "orange",
    "never": "#8e8e8e",
}

OUTCOMES: Final = {
    "submitted": "blue",
    "received": "blue",
    "published": "green",
    "installed": "green",
    "completed": "green",
    "merged": "super-light-blue",
    "rejected": "yellow",
    "failed": "red",
}

# Why the cleanup removes a peer: the colours of the states.
REMOVALS: Final = {
    "stale": PEER_STATES["stale"],
    "never_connected": PEER_STATES["never"],
    "denied": "super-light-orange",
    "not_allowed": "semi-dark-orange",
    "released": "light-purple",
}

# A reason has the same colour for brokers and workers.
REASONS: Final = {
    "malformed_json": "light-yellow",
    "malformed_payload": "light-yellow",
    "malformed_topic": "super-light-yellow",
    "missing_field": "yellow",
    "invalid_public_key": "light-orange",
    "small_order_public_key": "dark-orange",
    "unknown_domain": "light-blue",
    "unknown_worker": "dark-blue",
    "worker_mismatch": "semi-dark-orange",
    "retained_key": "semi-dark-yellow",
    "too_large": "light-purple",
    "rate_limited": "dark-yellow",
    "own_key": "dark-purple",
    "static_key": "purple",
    "live_elsewhere": "semi-dark-purple",
    "address_taken": "super-light-purple",
    "table_full": "semi-dark-blue",
    "denied_key": "super-light-orange",
    "not_allowed_key": "semi-dark-orange",
    "mqtt_disconnected": "red",
    "publish_refused": "dark-red",
    "publish_timeout": "light-red",
    "no_worker": "super-light-red",
    "internal": "semi-dark-red",
}

# Nodes, on their way to a tunnel.
NODES: Final = {"ask": "blue", "sent to gateways": "yellow", "sessions begun": "green"}

# Phases of the canary's round.
PHASES: Final = {"post": "blue", "handshake": "green", "vxlan": "orange"}

# Nodes that name a location.
PREFERENCES: Final = {"met": GOOD, "unmet": WARNING}

CONNECTIONS: Final = {"gained": GOOD, "lost": CRITICAL}

QUANTILES: Final = {"p50": "green", "p90": "yellow", "p99": "orange"}

# Regular expressions over status codes.
CODES: Final = {"2..": GOOD, "4..": "yellow", "5..": CRITICAL}
