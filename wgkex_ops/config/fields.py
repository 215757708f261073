"""The types of settings: what a value may be. The message of a ValueError is shown behind the setting's name."""

import ipaddress
import logging
import re
import reprlib
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from wgkex_ops.errors import InvalidDomainError, InvalidPublicKeyError
from wgkex_ops.model.domains import find_collisions, parse_domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.locations import parse_location

LogLevel = Literal["debug", "info", "warning", "error", "critical"]

_NAME: Final = re.compile(r"[\w.-]{1,253}", re.ASCII)
# Neither a query nor a fragment, no space, nothing but ASCII.
_NOT_IN_BROKER_URLS: Final = re.compile(r"[^!-~]|[?#]")


def _not_a_boolean(value: object) -> object:
    """Refuse ``port: yes``: to Python, true is 1."""
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")  # noqa: TRY004 -- pydantic expects ValueError
    return value


def _name(value: str) -> str:
    if _NAME.fullmatch(value):
        return value
    raise ValueError(
        "should be at most 253 letters, digits, '.', '_' and '-', because it becomes part of MQTT topics, "
        f"not {reprlib.repr(value)}"
    )


def _location(value: str) -> str:
    location = parse_location(value)
    if location is None:
        raise ValueError(f"should be at most 64 letters, digits, '.', '_' and '-', not {reprlib.repr(value)}")
    return location


def _host(value: str) -> str:
    """Check a host's name or address. What is wrong is not shown: a URL may have a password inside."""
    if _NAME.fullmatch(value):
        return value
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("should be a host's name or address only: no URL, no port, no brackets, no spaces") from None
    return value


def broker_url(value: str) -> str:
    """Check the URL of a broker, and leave out slashes at its end. What is wrong is not shown: it may be a password.

    Raises:
        ValueError: it is none.
    """
    problem = "should be a URL such as https://broker.example.net: http or https, a host, perhaps a port and a path"
    try:
        parts = urlsplit(value)
        # Reading the port raises ValueError for one that is none.
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(problem) from None
    if not valid or "@" in parts.netloc or _NOT_IN_BROKER_URLS.search(value):
        raise ValueError(problem)
    return value.rstrip("/")


def _domain_name(value: str, info: ValidationInfo) -> str:
    # Without valid prefixes there is one problem already.
    if (prefixes := info.data.get("domain_prefixes")) is not None:
        try:
            parse_domain(value, prefixes)
        except InvalidDomainError as error:
            raise ValueError(str(error)) from None
    return value


def _domain_names(names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    if not names:
        raise ValueError("should have at least one item")
    if (prefixes := info.data.get("domain_prefixes")) is not None:
        collisions = [
            f"{first.name!r} and {second.name!r} need the same interfaces, {second.wg} and {second.vx}"
            for first, second in find_collisions(parse_domain(name, prefixes) for name in names)
        ]
        if collisions:
            raise ValueError("; ".join(collisions))
    return names


def _public_key(value: object) -> PublicKey:
    try:
        return value if isinstance(value, PublicKey) else PublicKey.parse(str(value))
    except InvalidPublicKeyError:
        # Not shown: it may be a private key.
        raise ValueError("should be a WireGuard public key (44 characters of base64)") from None


def readable(path: Path) -> Path:
    """Open the file: an operator shall learn of a wrong path or right now, not at the first connection."""
    try:
        # A FIFO is none: opening it would wait for a writer.
        if path.is_file():
            path.open("rb").close()
            return path
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    raise ValueError("should be the path of a file")


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        return ipaddress.ip_network(str(value))
    except ValueError:
        problem = "should be an address or a network such as 192.0.2.0/24, without bits behind the prefix"
        raise ValueError(problem) from None


def _log_level(value: object) -> LogLevel:
    """Take a level as the standard library's logging does: a name in any case, or a number (10 is debug)."""
    levels = logging.getLevelNamesMapping()
    text = str(value).upper()
    number = int(text) if re.fullmatch("[0-9]{1,3}", text) else levels.get(text)
    names: tuple[LogLevel, ...] = get_args(LogLevel)
    if number is None:
        raise ValueError(f"should be one of {', '.join(names)}")
    # A number in between lets through what is above it; NOTSET at the root lets through everything.
    return next((name for name in names if number <= levels[name.upper()]), "critical")


Integer = Annotated[int, BeforeValidator(_not_a_boolean)]
Number = Annotated[float, BeforeValidator(_not_a_boolean)]
Port = Annotated[Integer, Field(ge=0, le=65_535)]
Name = Annotated[str, AfterValidator(_name)]
Location = Annotated[str, AfterValidator(_location)]
Host = Annotated[str, AfterValidator(_host)]
Url = Annotated[str, AfterValidator(broker_url)]
DomainNames = Annotated[tuple[Annotated[str, AfterValidator(_domain_name)], ...], AfterValidator(_domain_names)]
ReadableFile = Annotated[Path, AfterValidator(readable)]
LoggingLevel = Annotated[LogLevel, BeforeValidator(_log_level)]
Key = Annotated[PublicKey, BeforeValidator(_public_key)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
