"""The way in: find the file, read it, and make a configuration of it or tell all its problems."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from wgkex_ops.config.checks import check
from wgkex_ops.config.models import Config
from wgkex_ops.config.yamlfile import Reader
from wgkex_ops.errors import ConfigError

DEFAULT_PATH: Final = Path("/etc/wgkex.yaml")
ENVIRONMENT_VARIABLE: Final = "WGKEX_CONFIG_FILE"

# A thousand domains and workers need less than a tenth of it; more is the wrong file (or /dev/zero).
_MAX_FILE_BYTES: Final = 1024 * 1024


def config_path(argument: Path | None, environ: Mapping[str, str]) -> Path:
    """Find the file: the command line's argument, else ``WGKEX_CONFIG_FILE``, else ``/etc/wgkex.yaml``."""
    if argument is not None:
        return argument
    return Path(environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_PATH)


def load(path: Path) -> Config:
    """Read a file of at most 1 MiB.

    Raises:
        ConfigError: it cannot be read, or `parse` finds problems.
    """
    return parse(_read(path), str(path))


def parse(text: str, source: str) -> Config:
    """Make a configuration of a file's text.

    Args:
        text: YAML.
        source: the file's name, for messages.

    Raises:
        ConfigError: with all problems of the file, in the order of its lines.
    """
    reader = Reader()
    data = reader.read(text)
    problems = reader.problems
    document = None
    if data is not None:
        document, found = check(data)
        problems += [problem for problem in found if problem.path not in reader.unreadable]
    if document is None or problems:
        problems.sort(key=lambda problem: problem.line or 0)
        raise ConfigError([f"{_file_name(source)}: {problem}" for problem in problems])
    return document.to_config()


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except IsADirectoryError:
        problem = "is a directory, not a file"
    except FileNotFoundError:
        problem = f"there is no such file; name one with --config or {ENVIRONMENT_VARIABLE}"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValueError:
        problem = "is not a possible name of a file"
    else:
        if len(data) > _MAX_FILE_BYTES:
            problem = f"is larger than {_MAX_FILE_BYTES} bytes, which no configuration is"
        else:
            try:
                return data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                line = data.count(b"\n", 0, error.start) + 1
                problem = f"line {line}: is not UTF-8; save the file in that encoding"
    raise ConfigError([f"{_file_name(str(path))}: {problem}"])


def _file_name(name: str) -> str:
    """Show the name of a file: whole, so that it can be copied, but on one line."""
    return name if name.isprintable() else repr(name)
