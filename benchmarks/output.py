"""Log lines, as a service writes them, into a file."""

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from wgkex_ops import logs


@contextmanager
def logging_to(path: Path, level: str) -> Iterator[None]:
    """Log from a level on, in JSON."""
    with path.open("w") as file, redirect_stderr(file):
        logs.configure(level, "json")
        yield
