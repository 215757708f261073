"""A round of the canary: what a node goes through until it has its tunnel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# The phases, in their order, by what ends each of them: the HTTP response with an endpoint, the first handshake, the
# first VXLAN packet from the gateway.
POST: Final = "post"
HANDSHAKE: Final = "handshake"
VXLAN: Final = "vxlan"
PHASES: Final = (POST, HANDSHAKE, VXLAN)

# Seconds. A node has no tunnel unless its key is installed about 10 s after the HTTP response (contract, section 1);
# the same is asked of the other phases, for which it states nothing.
BEARABLE: Final = 10.0
# Seconds that a phase may take; all three are over within a minute, when a node asks again. WireGuard repeats an
# initiation every 5 s, so three of them are in time; batman-adv sends at least every 5 s with the settings in use.
LIMIT: Final = 15.0


@dataclass(frozen=True, slots=True)
class Round:
    """One round in one domain.

    Attributes:
        domain: its name.
        finished_at: seconds since the epoch.
        gateway: the name that the endpoint was given under; empty if none was.
        durations: seconds of each phase that was completed, in order.
        failure: why the phase after these failed, in a sentence; empty if all were completed.
    """

    domain: str
    finished_at: float
    gateway: str = ""
    durations: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""

    @property
    def failed_phase(self) -> str:
        """The first phase that was not completed; empty if all were."""
        return next((phase for phase in PHASES if phase not in self.durations), "")

    @property
    def succeeded(self) -> bool:
        """Whether it reached the end of the last phase."""
        return not self.failed_phase

    @property
    def slow_phases(self) -> list[str]:
        """The completed phases that took longer than a node bears."""
        return [phase for phase, seconds in self.durations.items() if seconds > BEARABLE]
