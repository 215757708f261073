"""The base of all sections of the configuration, and the one that several have."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

from wgkex_ops.config.fields import Host, Port


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
        host: an address, or a name that has one; ``0.0.0.0`` and ``::`` are all addresses.
        port: 0 lets the kernel choose a free one.
    """

    host: Host = "127.0.0.1"
    port: Port

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
