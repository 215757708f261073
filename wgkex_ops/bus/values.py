"""What connections and sessions have in common: the message that arrives, the last will, the failed attempt."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Message:
    """A message that arrived.

    Attributes:
        topic: its topic; bytes that are not UTF-8 are replaced, so that it matches no topic of ours.
        payload: as it came.
        retained: whether the server had kept it for us.
        properties: MQTT 5 user properties; of several with one name, the last one.
        response_topic: where its sender wants a response (MQTT 5); empty if it wants none.
        correlation: what the response is to carry back (MQTT 5).
        on_acknowledge: acknowledges it to the server; None for a message with QoS 0.
    """

    topic: str
    payload: bytes
    retained: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)
    response_topic: str = ""
    correlation: bytes = b""
    on_acknowledge: Callable[[], None] | None = None

    @property
    def unacknowledged(self) -> bool:
        """Whether the server keeps it until it is acknowledged; never so for a message with QoS 0."""
        return self.on_acknowledge is not None

    def acknowledge(self) -> None:
        """Acknowledge it: the work is done, and the server need not send it again. Repeats do nothing."""
        on_acknowledge, self.on_acknowledge = self.on_acknowledge, None
        if on_acknowledge is not None:
            on_acknowledge()


@dataclass(frozen=True, slots=True)
class Will:
    """What the server publishes for us, retained, when the connection ends without a DISCONNECT."""

    topic: str
    payload: bytes


class ConnectionFailedError(Exception):
    """An attempt to connect failed.

    Attributes:
        reason: one of `metrics.mqtt.FAILURE_REASONS`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
