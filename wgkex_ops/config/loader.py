"""Finds the file, reads it and checks it: a `Config`, or all problems at once, each with its line and its setting."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from wgkex_ops.config import older
from wgkex_ops.config.model import Config, settings
from wgkex_ops.config.ports import shared_ports
from wgkex_ops.config.section import FileContext, Place, Section
from wgkex_ops.errors import ConfigError

DEFAULT_PATH: Final = Path("/etc/wgkex.yaml")
ENVIRONMENT_VARIABLE: Final = "WGKEX_CONFIG_FILE"


class FileLimits(NamedTuple):
    """How large a file may be. A larger one is the wrong one, or hostile.

    Attributes:
        size: in bytes: PyYAML needs seconds for a megabyte.
        values: aliases of aliases ("a billion laughs") make many of a small file.
    """

    size: int
    values: int


# A thousand domains and workers have 80 KB and 4000 values.
_CONFIGURATION: Final = FileLimits(size=128 * 1024, values=10_000)

_TAG: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = frozenset(_TAG + kind for kind in ("str", "int", "float", "timestamp", "value"))

# What a message of PyYAML may quote: names of tokens and single characters with a meaning in YAML. Anything else may be
# a piece of a password.
_QUOTE: Final = re.compile(r"""('<[a-z ]+>'|'[]:,}>!. ]'|'\\t')|['"].*['"]""")

# In place of pydantic's messages that only programmers understand; by its type of error.
_SENTENCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": "is missing",
        "model_type": "should be a mapping of settings",
        "dict_type": "should be a mapping of settings",
        "tuple_type": "should be a list, each item on a line of its own that starts with '- '",
        "string_type": "should be text; put it in quotes",
        "path_type": "should be text; put it in quotes",
        "bool_type": "should be true or false, without quotes",
    }
)

# What stands below one of them by mistake may be the secret.
_SECRETS: Final = frozenset({"password", "broker_signing_key", "api_key"})

# Directly behind one of them, the rest of it: who means a comment, writes a space behind the "#".
_REST: Final = re.compile(r" #[^\s#]")

_Root = TypeVar("_Root", bound=Section)
_Value = TypeVar("_Value")


def config_path(argument: Path | None, environ: Mapping[str, str]) -> Path:
    """Find the file: the command line's argument, else ``WGKEX_CONFIG_FILE``, else ``/etc/wgkex.yaml``."""
    if argument is not None:
        return argument
    return Path(environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_PATH)


def load(path: Path) -> Config:
    """Read a file.

    Raises:
        ConfigError: it cannot be read, or `parse` finds problems.
    """
    return load_as(Config, path, hint=f"; name a file with --config or {ENVIRONMENT_VARIABLE}")


def load_as(section: type[_Root], path: Path, *, limits: FileLimits = _CONFIGURATION, hint: str = "") -> _Root:
    """Read a file of another kind. Its validators get its folder as their context.

    Args:
        section: the kind.
        path: the file.
        limits: how large it may be.
        hint: what to do if it does not exist.

    Raises:
        ConfigError: it cannot be read, or has problems.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limits.size + 1)
        if len(data) <= limits.size:
            return _Document(data.decode("utf-8-sig"), section, limits, path.parent).result(str(path))
        problem = f"is larger than {limits.size} bytes, which no such file is"
    except FileNotFoundError:
        problem = f"does not exist{hint}"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problem = f"line {line}: is not UTF-8; save the file in that encoding"
    raise ConfigError([f"{path}: {problem}"])


def file_version(path: Path) -> object:
    """What is another when a file has changed; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    # With whose it is, and who may read it: one that could not be read perhaps can be now.
    return found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode, found.st_uid, found.st_gid


def parse(text: str, source: str) -> Config:
    """Make a configuration of a file's text.

    Args:
        text: YAML.
        source: the file's name, for messages.

    Raises:
        ConfigError: with all problems of the file, in the order of its lines.
    """
    return parse_as(Config, text, source)


def parse_as(section: type[_Root], text: str, source: str, *, limits: FileLimits = _CONFIGURATION) -> _Root:
    """Read the text of a file of another kind.

    Args:
        section: the kind.
        text: YAML.
        source: the file's name, for messages.
        limits: how large it may be.

    Raises:
        ConfigError: with all problems of the file, in the order of its lines.
    """
    return _Document(text, section, limits).result(source)


class _Document(Generic[_Root]):
    """A file's text, read and checked.

    A scalar stays text as it is written, except for null, true and false: its setting decides what it is. So a password
    0123 is not an octal number.
    """

    def __init__(self, text: str, section: type[_Root], limits: FileLimits, folder: Path | None = None) -> None:
        self._section = section
        self._most_values = limits.values
        self._folder = folder
        self._text = text
        self._lines: dict[Place, int] = {}
        self._problems: dict[Place, tuple[int, str]] = {}
        # Where a setting stands in the file, if its key there is an older one.
        self._moved: dict[Place, Place] = {}
        self._cut: dict[Place, int] = {}
        self._value_count = 0
        self._root: _Root | None = None
        data = self._read()
        if isinstance(data, dict):
            self._check(data)

    def result(self, source: str) -> _Root:
        """What is in it; raises ConfigError if there are problems."""
        if self._root is None or self._problems:
            in_order = sorted(self._problems.items(), key=lambda item: item[1][0])
            raise ConfigError([f"{source}: {_place(place, line)}{sentence}" for place, (line, sentence) in in_order])
        return self._root

    def _report(self, place: Place, sentence: str, line: int | None = None) -> None:
        """Note a problem; a place has one at the most, since the first one may be what causes the next one."""
        if line is None:
            known = place
            while known not in self._lines and known:
                known = known[:-1]
            line = self._lines.get(known, 0)
        self._problems.setdefault(place, (line, sentence))

    # --- from text to plain values

    def _read(self) -> object:
        try:
            root = yaml.compose(self._text, Loader=yaml.SafeLoader)
            data = None if root is None else self._value(root, ())
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            self._report((), "has a character that YAML does not allow", line)
        except yaml.MarkedYAMLError as error:
            self._report_syntax(error)
        except RecursionError:
            self._report((), "is nested too deeply, or has an anchor that contains itself")
        except (ValueError, OverflowError):
            # PyYAML lets some of Python's own errors through, for example for "\U7fffffff".
            self._report((), "is not valid YAML")
        else:
            if not isinstance(data, dict):
                what = "is empty" if data is None else "should be a mapping of settings"
                self._report(
                    (), f"{what}; start from what wgkex-ops example-config prints" if self._section is Config else what
                )
            return data
        return None

    def _report_syntax(self, error: yaml.MarkedYAMLError) -> None:
        parts = [_without_quotes(error.problem or "")]
        if error.context and error.context_mark:
            parts.insert(0, f"{_without_quotes(error.context)} (line {error.context_mark.line + 1})")
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        self._report((), f"cannot be read at column {column}: {', '.join(parts)}", line)

    def _value(self, node: yaml.Node, place: Place) -> object:
        self._value_count += 1
        if self._value_count > self._most_values:
            problem = f"there are more than {self._most_values} values, each alias counted as what it stands for"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        match node:
            case yaml.MappingNode() if node.tag == f"{_TAG}map":
                return self._mapping(node, place)
            case yaml.SequenceNode() if node.tag == f"{_TAG}seq":
                return self._list(node, place)
            case yaml.ScalarNode() if node.tag == f"{_TAG}null":
                return None
            case yaml.ScalarNode() if node.tag == f"{_TAG}bool":
                return yaml.SafeLoader.bool_values.get(node.value.lower(), node.value)
            case yaml.ScalarNode() if node.tag in _SCALAR_TAGS:
                return node.value
        self._report(place, "has a YAML tag, which is not allowed; put a text that starts with '!' in quotes")
        return None

    def _list(self, node: yaml.SequenceNode, place: Place) -> list[object]:
        values = []
        for index, item in enumerate(node.value):
            self._lines[*place, index] = _line(item)
            values.append(self._value(item, (*place, index)))
        return values

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, object]:
        result: dict[str, object] = {}
        # First what is merged: the mapping's own keys win.
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                result |= self._merged(value_node, place, _line(key_node))
        own: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(place, "has a key that is not text", _line(key_node))
                continue
            key = key_node.value
            inner = (*place, key)
            if key in own:
                sentence = f"is given twice, first on line {self._lines[inner]}; remove one"
                self._report(inner, sentence, _line(key_node))
                continue
            own.add(key)
            self._lines[inner] = _line(key_node)
            result[key] = self._value(value_node, inner)
            # In quotes, nothing is cut.
            plain = isinstance(value_node, yaml.ScalarNode) and value_node.style is None
            if key in _SECRETS and plain and _REST.match(self._text, value_node.end_mark.index):
                self._cut[inner] = self._lines[inner]
        return result

    def _merged(self, node: yaml.Node, place: Place, line: int) -> dict[str, object]:
        """The keys of the one or several mappings that ``<<`` names; of several the first one wins."""
        result: dict[str, object] = {}
        for source_node in reversed(node.value if isinstance(node, yaml.SequenceNode) else [node]):
            source = self._value(source_node, place)
            if isinstance(source, dict):
                result |= source
            else:
                self._report(place, "has a '<<' of something that is not a mapping", line)
        return result

    # --- from plain values to a configuration

    def _check(self, data: dict[str, object]) -> None:
        found = older.take(data) if self._section is Config else []
        for key, place, value, twice in found:
            if twice:
                self._report(place, f"means the same as {key.same_as}, which is there, too; remove one")
            elif value is not None and key.same_as is not None:
                self._moved[*place[:-1], key.same_as] = place
            elif value is not None:
                self._validated(TypeAdapter(key.type), value, place)
        ignored = tuple(dict.fromkeys(key.path for key, *_ in found if key.same_as is None))
        known = settings(self._section)
        cut = tuple(f"{name} (line {line})" for place, line in self._cut.items() if (name := _dotted(place)) in known)
        context = FileContext(self._folder, ignored, cut)
        self._root = self._validated(TypeAdapter(self._section), data, (), context)
        if isinstance(self._root, Config):
            self._check_ports(self._root)

    def _check_ports(self, config: Config) -> None:
        for name, other, port in shared_ports(config):
            # The one that the file sets: a port by default has no line.
            there = [(*each.split("."), "port") in self._lines for each in (name, other)]
            place, beside = (other, name) if there[1] else (name, other)
            default = "" if all(there) else " by default"
            sentence = f"is {port}, which {beside} has{default}, and one host cannot serve both; choose another one"
            self._report((*place.split("."), "port"), sentence)

    def _validated(
        self, kind: TypeAdapter[_Value], value: object, above: Place, context: FileContext | None = None
    ) -> _Value | None:
        """Check the value of a place; None if there are problems, which are reported."""
        try:
            return kind.validate_python(value, context=context)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False):
                place = (*above, *detail["loc"])
                # What is wrong with a name, as that of a worker, has a place of its own.
                if place[-1:] == ("[key]",) and detail["type"] != "extra_forbidden":
                    place = place[:-1]
                self._report(self._moved.get(place, place), self._sentence(place, detail))
        return None

    def _sentence(self, place: Place, detail: ErrorDetails) -> str:
        match detail["type"]:
            case "value_error":
                return str(detail["ctx"]["error"])
            case "extra_forbidden":
                return _unknown_key(place, settings(self._section), older.PATHS if self._section is Config else ())
            case kind:
                return _SENTENCES.get(kind) or detail["msg"].removeprefix("Input ")


def _unknown_key(place: Place, settings: Sequence[str], older_keys: Sequence[str]) -> str:
    """Name the few places that have this very key, or the closest key of this section, perhaps an older one."""
    # Items of lists have no names.
    *parents, key = (part for part in place if isinstance(part, str))
    elsewhere = [setting for setting in settings if setting.split(".")[-1] == key]
    here = _keys_under(parents, settings)
    older_here = _keys_under(parents, older_keys)
    close = difflib.get_close_matches(key, [*here, *older_here], n=1)
    guesses = elsewhere if len(elsewhere) in {1, 2, 3} else close
    hint = f"did you mean {' or '.join(guesses)}?" if guesses else f"known here: {', '.join(here or older_here)}"
    return f"unknown key; {hint}"


def _keys_under(parents: Sequence[str], settings: Sequence[str]) -> list[str]:
    paths = [setting.split(".") for setting in settings]
    return [key for *above, key in paths if _is_under(above, parents)]


def _is_under(pattern: Sequence[str], parents: Sequence[str]) -> bool:
    """Whether the keys above a setting are these; "*" is any name."""
    return len(pattern) == len(parents) and all(part in ("*", key) for part, key in zip(pattern, parents, strict=True))


def _place(place: Place, line: int) -> str:
    """The beginning of a message: ``mqtt.broker_port (line 5): ``."""
    secret = next((index for index, part in enumerate(place) if part in _SECRETS), len(place))
    place = place[: secret + 1]
    setting = ".".join(part if part.isprintable() else repr(part) for part in map(str, place))
    if not setting:
        return f"line {line}: " if line else ""
    return f"{setting} (line {line}): " if line else f"{setting}: "


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))


def _without_quotes(message: str) -> str:
    return _QUOTE.sub(lambda match: match[1] or "…", message)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
