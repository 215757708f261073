"""Friendly names of peers, from a file that operators edit while the worker runs."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from wgkex_ops.errors import InvalidPublicKeyError
from wgkex_ops.model.keys import PublicKey

_log = structlog.get_logger(__name__)

# A line for each of 20,000 peers needs half of it.
_MAX_BYTES: Final = 4 * 1024 * 1024
_MAX_NAME: Final = 100


class PeerNames:
    """Reads the file anew when it has changed; what cannot be read leaves the names as they were.

    Each line has a public key and, after white space, a name of at most 100 characters; empty lines and what follows a
    "#" at the start of a line are for people.

    Args:
        path: the file; None if there is none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._names: Mapping[bytes, str] = {}
        self._seen: tuple[int, int] | None = None
        self._logged = False
        # Two scrapes at a time run in two threads.
        self._lock = threading.Lock()

    def read(self) -> Mapping[bytes, str]:
        """The names by key (32 bytes). Blocks for as long as the file's disk does."""
        if self._path is not None:
            with self._lock:
                self._refresh(self._path)
        return self._names

    def _refresh(self, path: Path) -> None:
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_size)
            if version == self._seen:
                return
            with path.open("rb") as file:
                text = file.read(_MAX_BYTES).decode("utf-8", errors="replace")
        except OSError as error:
            # Logged once, and read when it can be read again.
            self._seen = None
            if not self._logged:
                _log.warning("peer_names_unreadable", file=str(path), detail=error.strerror)
            self._logged = True
            return
        self._names = self._parse(text)
        self._seen, self._logged = version, False

    def _parse(self, text: str) -> dict[bytes, str]:
        names = {}
        for number, line in enumerate(text.splitlines(), 1):
            key, *name = line.split(maxsplit=1)[:2] or [""]
            if not key or key.startswith("#"):
                continue
            try:
                names[PublicKey.parse(key).raw] = "".join(name).strip()[:_MAX_NAME]
            except InvalidPublicKeyError as error:
                _log.warning("peer_name_skipped", file=str(self._path), line=number, detail=str(error))
        return names
