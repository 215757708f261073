"""Every error that crosses a module of this package.

::

    WgkexError
    ├── ConfigError                 the configuration has problems (all of them, at once)
    ├── InvalidPublicKeyError       not a WireGuard public key
    │   └── SmallOrderKeyError      well-formed, but no handshake can ever complete with it
    ├── InvalidDomainError          a name that cannot be a domain here
    ├── InvalidMessageError         a topic or payload from the bus that follows no contract
    ├── ListenError                 a listener could not be opened
    ├── BusError                    something could not be handed to the MQTT server
    │   ├── NotConnectedError       no session, or it broke before the acknowledgement
    │   ├── PublishRefusedError     the server answered with a failure code
    │   ├── NoSubscribersError      the server took it, and no client has subscribed
    │   └── PublishTimeoutError     no answer in time
    ├── DataplaneError              the kernel could not do something
    │   └── InterfaceMissingError   because the interface is not there
    ├── CannotConfigureError        this host's interfaces cannot be read or changed: rights, kernel
    └── CanaryError                 the canary's round did not reach its end
        ├── RoundFailedError        because a node would get no tunnel
        └── CannotProbeError        because this host cannot find out: rights, kernel, files
"""

from collections.abc import Sequence


class WgkexError(Exception):
    """The root: to catch it is to catch only what this package raises."""


class ConfigError(WgkexError):
    """The configuration cannot be used.

    Attributes:
        problems: one sentence each, with place and, where there is one, a hint.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class InvalidPublicKeyError(WgkexError):
    """Not a WireGuard public key in canonical base64 (contract, section 2).

    Attributes:
        reason: slug for error objects and metric labels.
    """

    reason = "invalid_public_key"


class SmallOrderKeyError(InvalidPublicKeyError):
    """A point of small order on Curve25519: WireGuard refuses its shared secret, which is always zero."""

    reason = "small_order_public_key"


class InvalidDomainError(WgkexError):
    """A domain's name that the contract forbids; the message says why."""


class InvalidMessageError(WgkexError):
    """A message from the bus that follows no contract.

    Attributes:
        reason: slug for metric labels.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ListenError(WgkexError):
    """A listener could not be opened; the message says where, why, and which setting to change."""


class BusError(WgkexError):
    """A message could not be handed over to the MQTT server.

    Attributes:
        reason: slug for error objects and metric labels.
    """

    reason = "internal"


class NotConnectedError(BusError):
    """There is no session with the MQTT server, or it broke before the acknowledgement came."""

    reason = "mqtt_disconnected"


class PublishRefusedError(BusError):
    """The MQTT server refused the message.

    Attributes:
        code: reason code of the PUBACK (MQTT 5, section 3.4.2.1), 0x80 and above.
    """

    reason = "publish_refused"

    def __init__(self, code: int) -> None:
        super().__init__(f"the MQTT server refused the message with reason code 0x{code:02x}")
        self.code = code


class NoSubscribersError(BusError):
    """The MQTT server took the message, but no client has subscribed to its topic (PUBACK 0x10)."""

    reason = "no_worker"


class PublishTimeoutError(BusError):
    """The MQTT server did not acknowledge in time."""

    reason = "publish_timeout"


class DataplaneError(WgkexError):
    """An operation on the dataplane failed.

    Attributes:
        operation: one of `dataplane.Operation`, for metric labels.
        error: the kernel's name of it (``ENODEV``), for metric labels.
    """

    def __init__(self, operation: str, error: str, detail: str = "") -> None:
        super().__init__(f"{operation}: {error}{': ' + detail if detail else ''}")
        self.operation = operation
        self.error = error


class InterfaceMissingError(DataplaneError):
    """The WireGuard or VXLAN interface is not there.

    Attributes:
        interface: its name.
    """

    def __init__(self, operation: str, interface: str) -> None:
        super().__init__(operation, "ENODEV", f"there is no interface {interface}")
        self.interface = interface


class CannotConfigureError(WgkexError):
    """The interfaces of this host cannot be read or changed: a right or a part of the kernel is missing."""


class CanaryError(WgkexError):
    """A round of the canary did not reach its end; the message is for the operator."""


class RoundFailedError(CanaryError):
    """A node would get no tunnel now: something in the service does not do its part."""


class CannotProbeError(CanaryError):
    """The host of the canary cannot find out: a right, a part of the kernel or a usable file is missing there."""
