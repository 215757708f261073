"""The base of all sections of the configuration, and the one that several have."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

from wgkex_ops.config.fields import Host, Port

# What listens on all addresses is also on loopback.
_LOOPBACK_OF: Final[Mapping[str, str]] = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  it is compared only

# Of a value in a file: the keys above it, and its own.
Place = tuple[str | int, ...]


class FileContext(NamedTuple):
    """What validators may know of a file.

    Attributes:
        folder: where it is; None if it is a text.
        ignored_keys: keys of the older wgkex that it has, and that have no effect.
        cut_secrets: settings, each with its line, behind whose value is a comment that may be the rest of a password.
    """

    folder: Path | None = None
    ignored_keys: tuple[str, ...] = ()
    cut_secrets: tuple[str, ...] = ()


class Section(BaseModel):
    """A mapping of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def fields_by_key(cls) -> dict[str, FieldInfo]:
        """Return the fields by the names that they have in the file."""
        return {info.alias or name: info for name, info in cls.model_fields.items()}

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: object) -> object:
        """Take ``port:`` and ``port: ""`` for no port; an unknown key stays, to be refused."""
        if data is None:
            return {}
        if not isinstance(data, Mapping):
            return data
        known = cls.fields_by_key()
        return {key: value for key, value in data.items() if key not in known or value not in (None, "")}


class Listen(Section):
    """Where to listen for TCP connections.

    Attributes:
        host: an address, or a name that has one; ``::`` is all addresses, ``0.0.0.0`` those of IPv4.
        port: 0 lets the kernel choose a free one.
    """

    host: Host = "127.0.0.1"
    port: Port

    @property
    def on_this_host(self) -> "Listen":
        """Where a program on this host finds it."""
        return Listen(host=_LOOPBACK_OF.get(self.host, self.host), port=self.port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def paths_in(annotation: object, prefix: str) -> Iterator[str]:
    """List the keys of the sections in a type, and those of the sections inside, as dotted paths.

    Args:
        annotation: the type.
        prefix: what each path begins with.
    """
    for section in _sections_in(annotation):
        for key, info in section.fields_by_key().items():
            yield prefix + key
            any_name = ".*" if get_origin(info.annotation) is Mapping else ""
            yield from paths_in(info.annotation, f"{prefix}{key}{any_name}.")


def _sections_in(annotation: object) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections_in(argument)]
