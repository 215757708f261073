"""From YAML to plain values that know their lines; the only importer of PyYAML."""

from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from wgkex_ops.config.problems import Place, Problem, kind

# The deepest setting stands at level four, and logging_config is free to nest a little more.
_MAX_DEPTH: Final = 32
# Aliases of aliases make a huge file of a small one ("a billion laughs"). A thousand domains and workers: 4000 values.
_MAX_VALUES: Final = 20_000
# Base 60 integers (1:30:00) of YAML 1.1 take quadratic time, and no number of ours is longer than this.
_MAX_NUMBER_CHARACTERS: Final = 64


class Map(dict[str, Any]):
    """A mapping that knows the lines of its keys."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str | int, int] = {}


class List(list[Any]):
    """A list that knows the lines of its items."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str | int, int] = {}


class _Loader(yaml.SafeLoader):
    """Composes nodes, which have lines, and leaves making values of them to `Reader`."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 -- PyYAML's own
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # its stub has no types
            raise yaml.composer.ComposerError(problem="nested too deeply", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


# What PyYAML's messages mean to the writer of a file. Its own words are never shown: they may quote a password.
_SYNTAX: Final = (
    ("nested too deeply", "is nested too deeply"),
    (r"'\t' that cannot start", "is indented with a tab; YAML wants spaces"),
    ("cannot start any token", "a value cannot start with this character; put it in quotes"),
    ("mapping values are not allowed", "has an unexpected ':'; check the indentation, put text with ': ' in quotes"),
    ("sequence entries are not allowed", "has an unexpected '- '; check the indentation"),
    ("undefined alias", "a value that starts with '*' refers to an anchor, and there is none; put it in quotes"),
    ("alphabetic or numeric", "a value that starts with '*', '&' or '!' means something to YAML; put it in quotes"),
    ("duplicate anchor", "has an anchor ('&') of the same name as an earlier one"),
    ("undefined tag handle", "a value that starts with '!' means something to YAML; put it in quotes"),
    ("single document", "begins a second document ('---'); only one is expected"),
    ("could not find expected ':'", "has a key without ':', or is not indented like its neighbours"),
    ("while scanning a quoted scalar", "begins a text in quotes that are never closed"),
    ("while scanning a double-quoted", "has an unknown escape sequence in its text; put it in single quotes"),
    ("expected <block end>", "is not indented like the lines before it, or has text after a closing quote"),
    ("expected ','", "is not valid in a list or mapping in brackets; a comma or the closing bracket may be missing"),
)


@dataclass(slots=True)
class Reader:
    """Makes plain values of YAML, each node once however many aliases it has.

    Attributes:
        problems: found on the way; the rest of the file is read nevertheless.
        unreadable: the places of those problems that leave nothing to look at; None stands there.
    """

    problems: list[Problem] = field(default_factory=list)
    unreadable: set[Place] = field(default_factory=set)
    _values: dict[yaml.Node, object] = field(default_factory=dict)
    _open: set[yaml.Node] = field(default_factory=set)
    _sizes: dict[yaml.Node, int] = field(default_factory=dict)
    _count: int = 0

    def read(self, text: str) -> Map | None:
        """Read the whole file; None if it is no mapping, which is then among the problems."""
        try:
            root = yaml.compose(text, Loader=_Loader)
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self._add((), line, "has a character that YAML does not allow")
        except yaml.MarkedYAMLError as error:
            self._add_syntax(error)
        except (yaml.YAMLError, ValueError, OverflowError):
            # PyYAML lets some of Python's own errors through, for example for "\U7fffffff".
            self._add((), None, "is not valid YAML")
        else:
            data = self._value(root, ()) if root is not None else None
            if self._count > _MAX_VALUES:
                self._add((), None, f"has more than {_MAX_VALUES} values, each alias counted as what it stands for")
            elif isinstance(data, Map):
                return data
            elif not self.problems:
                what = "is empty" if data is None else f"should be a mapping of settings, not {kind(data)}"
                self._add((), None, f"{what}; start from wgkex.yaml.example")
        return None

    def _add(self, path: Place, line: int | None, sentence: str, column: int | None = None) -> None:
        self.problems.append(Problem(path, line, sentence, column))

    def _add_unreadable(self, path: Place, node: yaml.Node, sentence: str) -> None:
        self._add(path, _line(node), sentence)
        self.unreadable.add(path)

    def _add_syntax(self, error: yaml.MarkedYAMLError) -> None:
        words = f"{error.context} {error.problem}"
        sentence = next((ours for theirs, ours in _SYNTAX if theirs in words), "is not valid YAML")
        # A quote that is never closed is noticed at the end of the file, and to be mended where it opens.
        mark = error.context_mark if "quoted" in words else error.problem_mark
        if mark is None:
            self._add((), None, sentence)
        else:
            self._add((), mark.line + 1, sentence, mark.column + 1)

    def _value(self, node: yaml.Node, path: Place) -> object:
        if node in self._open:
            self._add_unreadable(path, node, "contains itself")
            return None
        if node in self._values:
            self._count += self._sizes[node]
            return self._values[node]
        before = self._count
        self._count += 1
        if self._count > _MAX_VALUES:
            return None
        self._open.add(node)
        self._values[node] = self._new_value(node, path)
        self._sizes[node] = self._count - before
        self._open.remove(node)
        return self._values[node]

    def _new_value(self, node: yaml.Node, path: Place) -> object:
        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                return self._mapping(node, path)
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                return self._list(node, path)
            case yaml.ScalarNode():
                return self._scalar(node, path)
        self._refuse_tag(node, path)
        return None

    def _refuse_tag(self, node: yaml.Node, path: Place) -> None:
        hint = "put a text that starts with '!' in quotes"
        self._add_unreadable(path, node, f"has a YAML tag, which is not allowed; {hint}")

    def _list(self, node: yaml.SequenceNode, path: Place) -> List:
        result = List()
        for index, item in enumerate(node.value):
            result.append(self._value(item, (*path, index)))
            result.lines[index] = _line(item)
        return result

    def _mapping(self, node: yaml.MappingNode, path: Place) -> Map:
        result = Map()
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged.append(value_node)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._add(path, _line(key_node), "has a key that is not text")
                continue
            # As it is written: `42`, `on` and `2024-01-01` are names like any other.
            key: str = key_node.value
            # What stands under `password` by mistake is not even named.
            here = path if path[-1:] == ("password",) else (*path, key)
            if not _is_unicode(key):
                self._add(here, _line(key_node), "has a key with half a character in it")
                continue
            value = self._value(value_node, here)
            if key in result:
                self._add(here, _line(key_node), f"is given twice, first on line {result.lines[key]}; remove one")
                continue
            result[key] = value
            result.lines[key] = _line(key_node)
        for value_node in merged:
            self._merge(result, value_node, path)
        return result

    def _merge(self, target: Map, node: yaml.Node, path: Place) -> None:
        """Do what ``<<`` says: take the keys of one or several mappings that are not there yet."""
        value = self._value(node, path)
        for source in value if isinstance(value, List) else [value]:
            if self._count > _MAX_VALUES:
                return
            if not isinstance(source, Map):
                self._add(path, _line(node), "has a '<<' of something that is not a mapping")
                continue
            for key in source.keys() - target.keys():
                target[key] = source[key]
                target.lines[key] = source.lines[key]

    def _scalar(self, node: yaml.ScalarNode, path: Place) -> object:
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        text: str = node.value
        if not _is_unicode(text):
            self._add_unreadable(path, node, "has half a character in it; write it as it is or as \\U and eight digits")
            return None
        try:
            match tag:
                # Nothing here is a date: it stays what was written.
                case "str" | "timestamp" | "value":
                    return text
                case "null":
                    return None
                case "bool":
                    return yaml.SafeLoader.bool_values[text.lower()]
                case "int" | "float" if len(text) <= _MAX_NUMBER_CHARACTERS:
                    return getattr(yaml.constructor.SafeConstructor(), f"construct_yaml_{tag}")(node)
        except (ValueError, LookupError, OverflowError):
            pass  # of the tags that can get here there is one sentence, below
        if tag in {"bool", "int", "float"}:
            self._add_unreadable(path, node, "cannot be read; if it is a text, put it in quotes")
        else:
            self._refuse_tag(node, path)
        return None


def _is_unicode(text: str) -> bool:
    r"""Tell whether a text has whole characters only: ``"\ud800"`` is half of one, which nothing can send or print."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
