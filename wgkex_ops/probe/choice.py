"""What the canary tries: the configuration, and what the command line puts in its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wgkex_ops.bus.messages import Endpoint
from wgkex_ops.model.domains import Domain


@dataclass(frozen=True, slots=True)
class Choice:
    """What the canary tries.

    Attributes:
        url: of the broker.
        keys: the folder of its keys.
        domains: one or more.
        gateway: the name of the only gateway; empty if the broker chooses.
        endpoint: of that gateway; None if its worker publishes it.
        own_namespace: whether interfaces get a network namespace of their own.
        interval: seconds from the begin of a round to that of the next one.
    """

    url: str
    keys: Path
    domains: Sequence[Domain]
    gateway: str = ""
    endpoint: Endpoint | None = None
    own_namespace: bool = True
    interval: float = 60.0
