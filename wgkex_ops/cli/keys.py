"""`wgkex-ops keys`: edits the file of the key lists, so that what operators wrote around the entries stays."""

import argparse
import contextlib
import fcntl
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from wgkex_ops.cli.arguments import Commands, configuration, public_key
from wgkex_ops.config import parse_key_lists
from wgkex_ops.errors import ConfigError
from wgkex_ops.model.key_lists import ALLOWED, DENIED, PROTECTED
from wgkex_ops.model.keys import PublicKey

OK: Final = 0
NOT_LISTED: Final = 1

_DETAILS: Final = ("name", "remark", "expires")
# Broker and worker run as another user than the one who edits.
_NEW_FILE_MODE: Final = 0o644


def add_command(commands: Commands, configuration: argparse.ArgumentParser) -> None:
    """Add the command and its actions; each of them has the option of the configuration."""
    parser = commands.add_parser(
        "keys",
        help="deny, allow or protect a router's key",
        description="Edit the file of the key lists (key_lists in the configuration). Broker and worker follow it.",
        epilog="Exit status: 0 done, 1 the key to remove is in no list, 2 the file or the configuration is wrong.",
    )
    parser.set_defaults(run=_run)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    details = argparse.ArgumentParser(add_help=False)
    details.add_argument("--name", metavar="TEXT", help="whose key it is")
    details.add_argument("--remark", metavar="TEXT", help="why it is there")
    details.add_argument("--expires", metavar="WHEN", help="a date (2027-01-01) or a time with its zone")
    for action, description in (
        ("deny", "serve a key nowhere, and remove its peers"),
        ("allow", "allow a key in a domain, where all others are refused then"),
        ("protect", "never remove the peers of a key"),
    ):
        added = actions.add_parser(action, parents=[configuration, details], help=description, description=description)
        if action == "allow":
            added.add_argument("domain", metavar="DOMAIN")
        added.add_argument("key", type=public_key, metavar="KEY")
    removed = actions.add_parser("remove", parents=[configuration], help="take a key out of all lists")
    removed.add_argument("key", type=public_key, metavar="KEY")
    listed = actions.add_parser("list", parents=[configuration], help="show the lists")
    listed.add_argument("--json", action="store_true", help="for programs")


def _run(arguments: argparse.Namespace) -> int:
    """Carry the command out, and return its exit status.

    Raises:
        ConfigError: the file cannot be read or written, or would be wrong afterwards.
    """
    config = configuration(arguments)
    path = config.key_lists
    if path is None:
        raise ConfigError(["key_lists is not set in the configuration: it names the file"])
    try:
        match arguments.action:
            case "list":
                return _print(path, as_json=arguments.json)
            case "remove":
                return _remove(path, arguments.key)
        domain = getattr(arguments, "domain", "")
        if domain and domain not in config.domain_names:
            raise ConfigError([f"{domain!r} is not one of the domains: {', '.join(config.domain_names)}"])
        return _add(path, arguments, domain)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error


def _add(path: Path, arguments: argparse.Namespace, domain: str) -> int:
    name = {"deny": DENIED, "allow": ALLOWED, "protect": PROTECTED}[arguments.action]
    details = {detail: text for detail in _DETAILS if (text := getattr(arguments, detail)) is not None}
    with _locked(path) as resolved:
        before = _valid(resolved) if resolved.exists() else ""
        document = _yaml().load(before) if before else CommentedMap()
        lists = _inner(document, ALLOWED, CommentedMap()) if name == ALLOWED else document
        entries = _inner(lists, domain or name, CommentedSeq())
        entry = next((one for one in entries if _is(one, arguments.key)), None)
        if entry is None:
            entry = CommentedMap(key=str(arguments.key))
            # A comment behind the last entry is mostly about what follows it.
            entries.insert(0, entry)
        for position, (detail, text) in enumerate(details.items(), 1):
            if detail in entry:
                entry[detail] = text
            else:
                entry.insert(position, detail, text)
        written = io.StringIO()
        _yaml().dump(document, written)
        _replace(resolved, written.getvalue())
    print(f"{arguments.key} is in {_shown(name, domain)} now.")
    return OK


def _remove(path: Path, key: PublicKey) -> int:
    with _locked(path) as resolved:
        text = _valid(resolved)
        removed = [name for name, _, _, entries in _lists(text) if any(_is(entry, key) for entry in entries)]
        closed = [name for name in removed if name.startswith(f"{ALLOWED}.")]
        for _ in removed:
            text = _without(text, key)
        if removed:
            _replace(resolved, text)
        left = {name for name, _, _, _ in _lists(text)}
    if not removed:
        print(f"{key} is in no list.")
        return NOT_LISTED
    print(f"{key} is not in {', '.join(removed)} any more.")
    for name in closed:
        if name not in left:
            print(f"{name} is empty: no key is allowed there. Delete it from the file to allow all.")
    return OK


def _print(path: Path, *, as_json: bool) -> int:
    found = parse_key_lists(_text(path), str(path))
    lists = {DENIED: found.denied, **{_shown(ALLOWED, domain): keys for domain, keys in found.allowed.items()}}
    lists[PROTECTED] = found.protected
    rows = [
        {
            "list": name,
            "key": str(entry.key),
            "name": entry.name,
            "remark": entry.remark,
            "expires": entry.expires.isoformat() if entry.expires is not None else None,
        }
        for name, entries in lists.items()
        for entry in entries
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return OK
    for row in rows:
        further = [row["name"], row["remark"], row["expires"] and f"until {row['expires']}"]
        print("  ".join(filter(None, (row["list"], row["key"], *further))))
    return OK


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """Keep others from editing the file; it yields where a link leads to, since that is replaced, and not the link."""
    path = path.resolve()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield path
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8"]) from error


def _valid(path: Path) -> str:
    """The text of a file that has no problems."""
    text = _text(path)
    parse_key_lists(text, str(path))
    return text


def _replace(path: Path, text: str) -> None:
    """Replace a file, if the text is valid, so that each reader finds the old one or the new one.

    The owner and the mode stay.
    """
    parse_key_lists(text, str(path))
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        written = Path(file.name)
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            if path.exists():
                status = path.stat()
                written.chmod(status.st_mode)
                # Only root may give a file away, and only root's edits would take it from its owner.
                with contextlib.suppress(PermissionError):
                    os.chown(written, status.st_uid, status.st_gid)
            else:
                written.chmod(_NEW_FILE_MODE)
            written.replace(path)
        except BaseException:
            written.unlink(missing_ok=True)
            raise


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml


def _inner(document: CommentedMap, key: str, empty: Any) -> Any:  # noqa: ANN401  YAML can be anything
    """What stands under a key, made if it is missing or null."""
    if document.get(key) is None:
        document[key] = empty
    return document[key]


def _lists(text: str) -> Iterator[tuple[str, CommentedMap, str, CommentedSeq]]:
    """The lists that are not empty: the name for people, what it is in, under which key, and the list itself."""
    document = _yaml().load(text)
    allowed = document.get(ALLOWED) or CommentedMap()
    for shown, parent, key in (
        (DENIED, document, DENIED),
        *((_shown(ALLOWED, domain), allowed, domain) for domain in allowed),
        (PROTECTED, document, PROTECTED),
    ):
        if parent.get(key):
            yield shown, parent, key, parent[key]


def _without(text: str, key: PublicKey) -> str:
    """Take a key out of the first list that has it; ruamel.yaml itself would take the comments behind it as well."""
    for _, parent, name, entries in _lists(text):
        index = next((index for index, entry in enumerate(entries) if _is(entry, key)), None)
        if index is None:
            continue
        lines = text.splitlines(keepends=True)
        first, column = entries.lc.item(index)
        dash = lines[first].find("-")
        if not 0 <= dash < column or lines[first][:dash].strip():
            # In braces, on a line with others.
            raise ConfigError(["an entry that shares its line with others has to be removed by hand"])
        end = first + 1
        while end < len(lines) and lines[end].strip() and len(lines[end]) - len(lines[end].lstrip()) > dash:
            end += 1
        del lines[first:end]
        if len(entries) == 1:
            # An empty list of allowed keys allows nobody, and none allows everybody.
            line = parent.lc.key(name)[0]
            lines[line] = lines[line].replace(":", ": []", 1)
        return "".join(lines)
    return text


def _is(entry: Mapping[str, Any], key: PublicKey) -> bool:
    return str(entry["key"]) == str(key)


def _shown(name: str, domain: str) -> str:
    return f"{name}.{domain}" if domain else name
