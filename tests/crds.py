"""Checks an object against the schema of its custom resource definition, as `kubectl --validate=strict` does."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tests.helpers import TESTDATA

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
}
# How the server merges changes, what it fills in, what a text means.
_NO_CONSTRAINT: Final = frozenset(("default", "format", "x-kubernetes-list-type", "x-kubernetes-map-type"))


def _fits(value: object, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


# What a value must fulfil, by keyword of the schema: value and the keyword's own value.
_CONSTRAINTS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "enum": lambda value, known: value in known,
    # Go sets a flag within the pattern, Python before it.
    "pattern": lambda value, pattern: re.search(pattern.replace("^(?i)", "(?i)^"), value) is not None,
    "minLength": lambda value, least: len(value) >= least,
    "minItems": lambda value, least: len(value) >= least,
    "minimum": lambda value, least: value >= least,
    "required": lambda value, names: set(names) <= set(value),
    "anyOf": lambda value, schemas: not all(list(_breaks(value, schema, "")) for schema in schemas),
    "x-kubernetes-int-or-string": lambda value, _: _fits(value, "integer") or _fits(value, "string"),
    "x-kubernetes-list-map-keys": lambda value, keys: (
        len({tuple(item[key] for key in keys) for item in value}) == len(value)
    ),
}
_INNER: Final = frozenset(("type", "properties", "additionalProperties", "items"))


def _breaks(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:  # noqa: ANN401  JSON can be anything
    """Each constraint that a value breaks, with the path to it.

    Raises:
        KeyError: the schema has a keyword that this does not know; none is ignored.
    """
    if "type" in schema and not _fits(value, schema["type"]):
        yield f"{path}: type"
        return
    for keyword in schema.keys() - _INNER - _NO_CONSTRAINT:
        if not _CONSTRAINTS[keyword](value, schema[keyword]):
            yield f"{path}: {keyword}"
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _breaks(item, schema["items"], f"{path}[{number}]")
    if isinstance(value, dict) and ("properties" in schema or "additionalProperties" in schema):
        for name, item in value.items():
            known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if known is None:
                yield f"{path}.{name}: unknown"
            else:
                yield from _breaks(item, known, f"{path}.{name}")


def problems(manifest: Mapping[str, Any]) -> list[str]:
    """What is wrong with a manifest, with where."""
    definition = json.loads((TESTDATA / "crds" / f"{manifest['kind']}.json").read_text())
    wrong_version = [] if manifest["apiVersion"] == definition["apiVersion"] else [f"not {definition['apiVersion']}"]
    return [*wrong_version, *_breaks(manifest, definition["schema"], "")]
