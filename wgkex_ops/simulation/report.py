"""What became of the requests of many nodes."""

import math
from collections import Counter
from dataclasses import dataclass, field

from wgkex_ops.simulation.nodes import Attempt, Node


@dataclass
class Report:
    """Counts.

    Attributes:
        requests: POSTs by version of the API.
        accepted: nodes by the version that accepted their key.
        refused: responses that were no success, by reason.
        no_response: POSTs without a response, by reason.
        retries: how often nodes asked again after a pause.
        gateways: how often each was named.
        response_times: seconds, one for each response.
    """

    requests: Counter[int] = field(default_factory=Counter)
    accepted: Counter[int] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    no_response: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    gateways: Counter[str] = field(default_factory=Counter)
    response_times: list[float] = field(default_factory=list)

    def note(self, _node: Node, attempt: Attempt) -> None:
        """Count an attempt of a node, which ends with the first that is accepted."""
        self.requests[attempt.api_version] += 1
        # A node that asks again begins with version 2.
        self.retries += attempt.retry and attempt.api_version == 2  # noqa: PLR2004
        if not attempt.status:
            self.no_response[attempt.reason] += 1
            return
        self.response_times.append(attempt.seconds)
        if attempt.accepted:
            self.accepted[attempt.api_version] += 1
        else:
            self.refused[attempt.reason] += 1
        if attempt.gateway:
            self.gateways[attempt.gateway] += 1

    def response_time(self, share: float) -> float | None:
        """Seconds that this share of the responses took at the most; None if there was no response.

        Args:
            share: above 0; 0.5 is the median, 1 the slowest.
        """
        times = sorted(self.response_times)
        return times[math.ceil(share * len(times)) - 1] if times else None
