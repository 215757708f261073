"""Records rounds: in metrics, in the log, and for the page. Bounded, whatever gateways a broker names."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from wgkex_ops.metrics.probe import ProbeMetrics
from wgkex_ops.model.names import UNKNOWN
from wgkex_ops.model.rounds import PHASES, Round

_log = structlog.get_logger(__name__)

# As many gateways as a broker accepts without listing them; all others of a domain share a series.
GATEWAYS_LIMIT: Final = 64
# Seconds after which a gateway that was not named any more has no series: it was renamed, or retired.
FORGET_AFTER: Final = 86_400.0


class Recorder:
    """Keeps the last round of each domain.

    Args:
        metrics: where rounds are counted.
        fixed_gateway: the name of the only gateway, with which the series begin; empty if the broker chooses.
        domains: names of the domains.
        clock: seconds, never set back.
    """

    def __init__(
        self,
        metrics: ProbeMetrics,
        domains: Iterable[str],
        fixed_gateway: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._last: dict[str, Round] = {}
        # When each gateway was last named, by domain and gateway.
        self._named_at: dict[str, dict[str, float]] = {}
        for domain in domains:
            self._named_at[domain] = {}
            if fixed_gateway:
                self._label(domain, fixed_gateway)
                metrics.last_success.labels(domain, fixed_gateway)

    @property
    def last(self) -> Mapping[str, Round]:
        """The last round by domain; a domain without one is missing."""
        return self._last

    def record(self, done: Round) -> None:
        """Take in a round."""
        self._last[done.domain] = done
        _log_round(done)
        metrics = self._metrics
        metrics.rounds.labels(done.domain).inc()
        metrics.success.labels(done.domain).set(done.succeeded)
        if done.failed_phase:
            metrics.failures.labels(done.domain, done.failed_phase).inc()
        for phase in PHASES:
            if phase in done.durations:
                metrics.duration.labels(done.domain, phase).set(done.durations[phase])
            else:
                metrics.duration.remove(done.domain, phase)
        self._forget(done.domain)
        if done.gateway:
            series = metrics.last_success.labels(done.domain, self._label(done.domain, done.gateway))
            if done.succeeded:
                series.set(done.finished_at)

    def _label(self, domain: str, gateway: str) -> str:
        """The label of a gateway that is named now."""
        named_at = self._named_at[domain]
        label = gateway if gateway in named_at or len(named_at) < GATEWAYS_LIMIT else UNKNOWN
        named_at[label] = self._clock()
        return label

    def _forget(self, domain: str) -> None:
        named_at = self._named_at[domain]
        before = self._clock() - FORGET_AFTER
        for gateway in [gateway for gateway, at in named_at.items() if at < before]:
            del named_at[gateway]
            self._metrics.last_success.remove(domain, gateway)


def _log_round(done: Round) -> None:
    durations = {f"{phase}_seconds": round(seconds, 3) for phase, seconds in done.durations.items()}
    if done.succeeded:
        _log.info("probe_succeeded", domain=done.domain, gateway=done.gateway, **durations)
    else:
        _log.warning(
            "probe_failed",
            domain=done.domain,
            gateway=done.gateway,
            phase=done.failed_phase,
            detail=done.failure,
            **durations,
        )
