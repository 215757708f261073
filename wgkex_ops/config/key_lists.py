"""The file of the key lists, which operators edit while broker and worker run."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from math import inf
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from wgkex_ops.config.fields import Key
from wgkex_ops.config.loader import FileLimits, load_as, parse_as
from wgkex_ops.config.section import Section
from wgkex_ops.model.key_lists import KeyList, KeyLists, ListedKey
from wgkex_ops.model.keys import PublicKey

# Some times of the keys of the largest networks, with name, remark and expiry.
_LIMITS: Final = FileLimits(size=2 * 1024 * 1024, values=120_000)
# Names stand in log lines and in metrics.
_LONGEST_NAME: Final = 100


def _printable(value: str) -> str:
    if value.isprintable():
        return value
    raise ValueError("should be one line of printable characters")


def _moment(value: object) -> datetime:
    """A time with its zone, or a date, which is its first second (UTC)."""
    text = str(value)
    try:
        if len(text) == len("2027-01-01"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("should be a date such as 2027-01-01, or a time with its zone such as 2027-01-01T12:00:00Z")
    return moment


class Entry(Section):
    """An entry of a list; see `ListedKey`."""

    key: Key
    name: Annotated[str, Field(max_length=_LONGEST_NAME), AfterValidator(_printable)] = ""
    remark: str = ""
    expires: Annotated[datetime | None, BeforeValidator(_moment)] = None

    def listed(self) -> ListedKey:
        """What the entry says of its key."""
        return ListedKey(self.name, self.remark, self.expires.timestamp() if self.expires is not None else inf)


class KeyListFile(Section):
    """The whole file; see `KeyLists`."""

    denied: tuple[Entry, ...] = ()
    allowed: Mapping[str, tuple[Entry, ...]] = {}
    protected: tuple[Entry, ...] = ()

    @model_validator(mode="after")
    def _lists_fit(self) -> Self:
        lists = {"denied": self.denied, "protected": self.protected}
        lists |= {f"allowed.{domain}": entries for domain, entries in self.allowed.items()}
        problems = [
            f"{name} has {key} {count} times; leave one"
            for name, entries in lists.items()
            for key, count in Counter(entry.key for entry in entries).items()
            if count > 1
        ]
        denied = set(_keys(self.denied))
        problems += [
            f"{key} is in denied and in {name}; leave it in one of them"
            for name, entries in lists.items()
            if name != "denied"
            for key in _keys(entries)
            if key in denied
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def key_lists(self) -> KeyLists:
        """The lists as programs need them."""
        allowed = {domain: _by_key(entries) for domain, entries in self.allowed.items()}
        return KeyLists(_by_key(self.denied), allowed, _by_key(self.protected))


def load_key_lists(path: Path) -> KeyLists:
    """Read a file of key lists.

    Raises:
        ConfigError: it cannot be read, or has problems.
    """
    return load_as(KeyListFile, path, limits=_LIMITS).key_lists()


def parse_key_lists(text: str, source: str) -> KeyListFile:
    """Read the text of such a file.

    Args:
        text: YAML.
        source: the file's name, for messages.

    Raises:
        ConfigError: it has problems.
    """
    return parse_as(KeyListFile, text, source, limits=_LIMITS)


def _keys(entries: Iterable[Entry]) -> Iterable[PublicKey]:
    return (entry.key for entry in entries)


def _by_key(entries: Iterable[Entry]) -> KeyList:
    return {entry.key.raw: entry.listed() for entry in entries}
