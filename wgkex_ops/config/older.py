"""What the ``parker`` branch of the older wgkex has in the file, and this model has not.

Such a file loads as long as it does not ask for Parker itself. What another setting means as well becomes
that setting; all else is checked, has no effect, and is warned of.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field, SecretStr, StrictBool

from wgkex_ops.config.fields import Integer, Number
from wgkex_ops.config.section import Place, Section, paths_in

_EMPTY: Final = (None, "")


# --- values


def _switch(value: object) -> object:
    match value.lower() if isinstance(value, str) else value:
        case True | "1" | "true":
            raise ValueError(
                "asks for Parker, which wgkex-ops does not have; set false here, and keep the older wgkex for Parker "
                "nodes, with a file of its own"
            )
        case "0":
            return False
    return value


def _switch_or_mapping(value: object) -> object:
    match _switch(value):
        case False:
            return None
        case str():
            raise ValueError("should be true, false or a mapping")
    return value


def _unless_off(value: object) -> object:
    return None if value is False else value


_Seconds = Annotated[Number, Field(gt=0)]
_PrefixLength = Annotated[Integer, Field(ge=0, le=128)]


class _Prefix(Section):
    length: _PrefixLength | None = None
    netbox_filter: Mapping[str, object] = {}
    netbox_additional_data: Mapping[str, object] = {}


class _Ipv4Prefix(_Prefix):
    clat_subnet: str | None = None


class _Prefixes(Section):
    ipv4: _Ipv4Prefix = _Ipv4Prefix()
    ipv6: _Prefix = _Prefix()


class _Parker(Section):
    enabled: Annotated[StrictBool, BeforeValidator(_switch)] = False
    xlat: StrictBool = Field(default=False, alias="464xlat")
    retry_interval: Number | None = None
    wg_keepalive: Number | None = None
    ipam: Literal["json", "netbox"] | None = None
    prefixes: _Prefixes = _Prefixes()


class _Netbox(Section):
    url: str | None = None
    api_key: SecretStr | None = None


# --- keys


class OlderKey(NamedTuple):
    """A key that this model has not.

    Attributes:
        path: as `settings` spells it.
        type: what its value may be, if it has one.
        reason: why it has no effect; empty if it has one.
        same_as: the key beside it that means the same; None if it has no effect.
    """

    path: str
    type: Any
    reason: str = ""
    same_as: str | None = None


KEYS: Final = (
    OlderKey(
        "workers.*.id",
        Annotated[Integer, Field(ge=0, le=0xFFFF_FFFF)],
        "only Parker nodes know gateways by a number",
    ),
    OlderKey("workers.*.pop", object, same_as="location"),
    OlderKey(
        "sticky_worker_tolerance",
        Annotated[Number, Field(ge=0, le=100)],
        "only Parker nodes are kept at a gateway that has more nodes than its share",
    ),
    OlderKey("cleanup.parker_stale_timeout", _Seconds, "there are no peers of Parker nodes"),
    OlderKey("cleanup.legacy_stale_timeout", object, same_as="stale_after"),
    OlderKey("cleanup.initial_handshake_grace", object, same_as="never_after"),
    OlderKey("parker", Annotated[_Parker | None, BeforeValidator(_switch_or_mapping)], "wgkex-ops has no Parker"),
    OlderKey(
        "broker_signing_key",
        Annotated[SecretStr | None, BeforeValidator(_unless_off)],
        "only responses to Parker nodes are signed",
    ),
    OlderKey(
        "netbox",
        Annotated[_Netbox | None, BeforeValidator(_unless_off)],
        "only Parker nodes get addresses from NetBox",
    ),
)

# With those inside, as `settings` spells its own.
PATHS: Final = tuple(path for key in KEYS for path in (key.path, *paths_in(key.type, f"{key.path}.")))


class Found(NamedTuple):
    """One of the keys in a file.

    Attributes:
        key: which one.
        place: where.
        value: null and empty text are None.
        twice: whether the key that means the same has a value, too.
    """

    key: OlderKey
    place: Place
    value: object
    twice: bool


def take(data: dict[str, object]) -> list[Found]:
    """Take the keys out of a file's values. What means the same as another key takes its place."""
    return [found for key in KEYS for found in _take(key, key.path.split("."), data, ())]


def _take(key: OlderKey, path: list[str], section: object, place: Place) -> Iterator[Found]:
    if not isinstance(section, dict):
        return
    name, *rest = path
    if rest:
        for inner in section if name == "*" else [name]:
            yield from _take(key, rest, section.get(inner), (*place, inner))
    elif name in section:
        value = section.pop(name)
        value = None if value in _EMPTY else value
        twice = False
        if key.same_as is not None and value is not None:
            twice = section.get(key.same_as) not in _EMPTY
            if not twice:
                section[key.same_as] = value
        yield Found(key, (*place, name), value, twice)
