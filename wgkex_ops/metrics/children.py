"""Instruments that are used for each request, without the cost of looking up a child or of an exemplar each time."""

from typing import Final, TypeVar

from prometheus_client.metrics import MetricWrapperBase

_T = TypeVar("_T", bound=MetricWrapperBase)

_EXEMPLARS_LAST: Final = 1.0


class Children(dict[tuple[str, ...], _T]):
    """The children of an instrument by the values of their labels; each is looked up in the instrument once.

    Where there is one for each request, `labels()` would cost more than to count. The instrument itself keeps as many
    children as there are here: their values must come from a limited set, as everywhere.
    """

    def __init__(self, instrument: _T) -> None:
        super().__init__()
        self._instrument = instrument

    def __missing__(self, labels: tuple[str, ...]) -> _T:
        child = self[labels] = self._instrument.labels(*labels)
        return child


class Exemplars:
    """Chooses the observations that get an exemplar: those slower than all others of the last second or so.

    Prometheus reads only the latest exemplar of a bucket, and one costs more than the observation.
    """

    def __init__(self) -> None:
        self._slowest = 0.0
        self._until = 0.0

    def choose(self, seconds: float, request_id: str, now: float) -> dict[str, str] | None:
        """Return the exemplar of an observation, or None.

        Args:
            seconds: what is observed.
            request_id: of the request.
            now: seconds of one clock.
        """
        if seconds < self._slowest and now < self._until:
            return None
        self._slowest = seconds
        self._until = now + _EXEMPLARS_LAST
        return {"request_id": request_id}
