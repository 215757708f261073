"""What a single setting may be: types that check, and say what is wrong as the end of a sentence ("should be …")."""

import contextlib
import ipaddress
import logging
import math
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, SecretStr

from wgkex_ops.config.problems import show
from wgkex_ops.errors import InvalidPublicKeyError, SmallOrderKeyError
from wgkex_ops.model.keys import PublicKey

_MAX_PORT: Final = 65535
_MAX_KEEPALIVE_S: Final = 65535  # two bytes on the wire: MQTT 5, section 3.1.2.10
_MAX_SESSION_EXPIRY_S: Final = 0xFFFF_FFFF  # four bytes on the wire, and that means for ever: section 3.1.2.11.2
_MAX_PUBLISH_TIMEOUT_S: Final = 30.0  # nodes have given up long before
_MAX_CONFIRM_TIMEOUT_S: Final = 10  # a node needs its key within that
_MAX_SHUTDOWN_DELAY_S: Final = 300  # a load balancer looks many times in that
_MAX_WEIGHT: Final = 1_000_000  # far from where sums of floats overflow
_MAX_PER_PEER_LIMIT: Final = 100_000
_MIN_CLEANUP_INTERVAL_S: Final = 10
_MAX_CLEANUP_INTERVAL_S: Final = 3600  # three of them are missed before an alert fires
_MIN_STALE_S: Final = 600  # a live peer has a handshake every two minutes, and may miss some
_MAX_STALE_S: Final = 7 * 86_400  # the journal forgets them after that
_MIN_NEVER_S: Final = 60  # a node asks again after that
_MAX_NEVER_S: Final = 86_400

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
_LOG_LEVELS: Final[Mapping[int, LogLevel]] = MappingProxyType(
    {
        logging.DEBUG: "debug",
        logging.INFO: "info",
        logging.WARNING: "warning",
        logging.ERROR: "error",
        logging.CRITICAL: "critical",
    }
)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    hint = "" if value is None or isinstance(value, Mapping | list) else "; put it in quotes"
    raise ValueError(f"should be text, not {show(value)}{hint}")


def _username(value: object) -> str | None:
    return None if value is None else _text(value) or None


def _password(value: object) -> object:
    """Take text only: of ``0123`` and ``1e5`` YAML would leave numbers from which the password cannot be restored."""
    if value is None or isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("should be text; put the password in quotes")  # noqa: TRY004 -- pydantic expects ValueError
    return value or None


def _whole_number(value: object) -> int:
    """Take whole numbers, and text made of digits as the old tool did; ``true`` is none although Python counts it."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"should be a whole number, not {show(value)}")


def _number(value: object) -> int | float:
    """Take finite numbers, and text that is one as the old tool did."""
    with contextlib.suppress(ValueError):
        return _whole_number(value)
    # To YAML 1.1 `1e3` is text.
    if isinstance(value, str | float):
        with contextlib.suppress(ValueError):
            number = float(value)
            if math.isfinite(number):
                return number
    raise ValueError(f"should be a number, not {show(value)}")


def _at_least_and_most(low: float, high: float, what: str = "", hint: str = "") -> AfterValidator:
    def check(value: float) -> float:
        if low <= value <= high:
            return value
        raise ValueError(f"should be {what}from {low} to {high}, not {show(value)}{hint}")

    return AfterValidator(check)


def _publish_timeout(value: float) -> float:
    if 0 < value <= _MAX_PUBLISH_TIMEOUT_S:
        return value
    raise ValueError(f"should be more than 0 and at most {_MAX_PUBLISH_TIMEOUT_S:g} seconds, not {value:g}")


def _listen_port(value: int) -> int:
    if 0 <= value <= _MAX_PORT:
        return value
    raise ValueError(f"should be a port from 1 to {_MAX_PORT}, not {show(value)}")


def _host(value: str) -> str:
    """Take a host's name or address. What is wrong is not shown: a URL may have a password inside."""
    if re.fullmatch(r"[\w.-]{1,253}", value, re.ASCII):
        return value
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(
            "should be a host's name or address and nothing else (no URL, no port, no brackets, no spaces)"
        ) from None
    return value


def _external_name(value: object) -> object:
    return None if value == "" else value


def _name(value: str) -> str:
    """Names become levels of MQTT topics, and addresses where no other one is given: those of hosts (RFC 1035)."""
    if re.fullmatch(r"[\w.-]{1,253}", value, re.ASCII):
        return value
    raise ValueError(
        f"should be a name of at most 253 letters, digits, '.', '_' and '-', since it becomes part of MQTT topics, "
        f"not {show(value)}"
    )


def _version(value: object) -> object:
    # Unquoted, 5 is a number.
    return "5" if value == 5 and isinstance(value, int) else value  # noqa: PLR2004 -- the 5 of MQTT 5


def _readable(path: Path) -> Path:
    """Open the file: a path that was mistyped shall be told now and not at the first connection."""
    try:
        # A FIFO would block when opened, so that what it is comes first.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"{str(path)!r} is not a file")
        path.open("rb").close()
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    return path


def _path_of(kind: str) -> BeforeValidator:
    def check(value: object) -> Path:
        text = str(value) if isinstance(value, Path) else _text(value)
        if not text or "\0" in text:
            raise ValueError(f"should be the path of a {kind}, not {show(text)}")
        return Path(text)

    return BeforeValidator(check)


def _public_key(value: object) -> PublicKey:
    if isinstance(value, PublicKey):
        return value
    try:
        return PublicKey.parse(_text(value))
    except (InvalidPublicKeyError, SmallOrderKeyError):
        raise ValueError(f"should be a WireGuard public key (44 characters of base64), not {show(value)}") from None


def _log_level(value: object) -> LogLevel:
    """Take a level as the standard library's logging does: a name in any case, or a number (10 is debug)."""
    number = logging.getLevelNamesMapping().get(value.upper()) if isinstance(value, str) else value
    if isinstance(number, int) and not isinstance(number, bool):
        # A number in between lets through what is above it; NOTSET at the root lets through everything.
        return next((name for level, name in _LOG_LEVELS.items() if number <= level), "critical")
    raise ValueError(f"should be one of {', '.join(_LOG_LEVELS.values())}, not {show(value)}")


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[Text, AfterValidator(_name)]
Host = Annotated[Text, AfterValidator(_host)]
ExternalName = Annotated[Host | None, BeforeValidator(_external_name)]
Username = Annotated[str | None, BeforeValidator(_username)]
Password = Annotated[SecretStr | None, BeforeValidator(_password)]
FilePath = Annotated[Path, _path_of("file")]
DirectoryPath = Annotated[Path, _path_of("directory")]
ReadableFile = Annotated[FilePath, AfterValidator(_readable)]
ProtocolVersion = Annotated[Literal["5", "3.1.1"], BeforeValidator(_version)]
# In the words of the standard library's logging; a LogLevel when read.
LoggingLevel = Annotated[LogLevel | None, BeforeValidator(_log_level)]

_WholeNumber = Annotated[int, BeforeValidator(_whole_number)]
_Number = Annotated[int | float, BeforeValidator(_number)]

ListenPort = Annotated[_WholeNumber, AfterValidator(_listen_port)]
ServerPort = Annotated[_WholeNumber, _at_least_and_most(1, _MAX_PORT, "a port ")]
Keepalive = Annotated[_WholeNumber, _at_least_and_most(0, _MAX_KEEPALIVE_S)]
SessionExpiry = Annotated[_WholeNumber, _at_least_and_most(0, _MAX_SESSION_EXPIRY_S)]
PublishTimeout = Annotated[float, BeforeValidator(_number), AfterValidator(_publish_timeout)]
ConfirmTimeout = Annotated[_Number, _at_least_and_most(0, _MAX_CONFIRM_TIMEOUT_S)]
ShutdownDelay = Annotated[_Number, _at_least_and_most(0, _MAX_SHUTDOWN_DELAY_S)]
CleanupInterval = Annotated[_Number, _at_least_and_most(_MIN_CLEANUP_INTERVAL_S, _MAX_CLEANUP_INTERVAL_S)]
StaleAfter = Annotated[_Number, _at_least_and_most(_MIN_STALE_S, _MAX_STALE_S)]
NeverAfter = Annotated[_Number, _at_least_and_most(_MIN_NEVER_S, _MAX_NEVER_S)]
ListedKey = Annotated[PublicKey, BeforeValidator(_public_key)]
Weight = Annotated[_Number, _at_least_and_most(0, _MAX_WEIGHT)]
PerPeerLimit = Annotated[_WholeNumber, _at_least_and_most(0, _MAX_PER_PEER_LIMIT)]
RouteProtocol = Annotated[
    _WholeNumber, _at_least_and_most(5, 255, hint="; 0 to 4 belong to the kernel (linux/rtnetlink.h)")
]
