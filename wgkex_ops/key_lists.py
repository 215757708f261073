"""The key lists in force: read again when their file changes, while broker and worker run."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, NoReturn

import structlog
from prometheus_client import CollectorRegistry

from wgkex_ops.config import file_version, load_key_lists
from wgkex_ops.errors import ConfigError
from wgkex_ops.metrics.key_lists import KeyListMetrics
from wgkex_ops.model.key_lists import KeyLists

_log = structlog.get_logger(__name__)

# Seconds. An entry that an operator adds counts within ten.
_CHECK_EVERY: Final = 2.0


class WatchedKeyLists:
    """Reads the file anew when it has changed. What cannot be read leaves the lists as they were.

    Args:
        path: the file; None if there is none.
        domains: names of the configured domains.
        registry: where the instruments live.

    Attributes:
        on_change: called when there are new lists.
        problem: why the file could not be read the last time; empty if it could.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, path: Path | None, domains: Collection[str], registry: CollectorRegistry) -> None:
        self._path = path
        self._domains = domains
        self._lists = KeyLists()
        self.problem = ""
        self.on_change: Callable[[], None] = lambda: None
        self._triggered = asyncio.Event()
        self._metrics = KeyListMetrics(registry, lambda name: self._lists.in_force(name, time.time()))
        self._seen = file_version(path) if path is not None else None
        if path is not None:
            self._take(load_key_lists(path))

    def current(self) -> KeyLists:
        """The lists in force."""
        return self._lists

    def reload(self) -> None:
        """Read the file soon, whether or not it looks changed."""
        self._triggered.set()

    async def run(self) -> NoReturn:
        """Follow the file for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_EVERY):
                    await self._triggered.wait()
            wished = self._triggered.is_set()
            self._triggered.clear()
            if self._path is not None:
                await self._refresh(self._path, wished=wished)

    async def _refresh(self, path: Path, *, wished: bool) -> None:
        version = await asyncio.to_thread(file_version, path)
        if version == self._seen and not wished:
            return
        # The version comes first: what changes while it is read is read again.
        self._seen = version
        try:
            # Thousands of keys take a second.
            self._take(await asyncio.to_thread(load_key_lists, path))
        except ConfigError as error:
            self.problem = error.problems[0]
            self._metrics.successful.set(0)
            _log.error("key_lists_rejected", problems=list(error.problems), detail="the lists before count")
        else:
            self.on_change()

    def _take(self, lists: KeyLists) -> None:
        self._lists = lists
        self.problem = ""
        self._metrics.successful.set(1)
        self._metrics.success_time.set_to_current_time()
        _log.info(
            "key_lists_read",
            denied=len(lists.denied),
            allowed=sum(map(len, lists.allowed.values())),
            protected=len(lists.protected),
        )
        if unknown := sorted(lists.allowed.keys() - set(self._domains)):
            _log.warning("key_list_of_unknown_domain", domains=unknown, detail="it has no effect here")


class ProtectedKeys:
    """The keys (32 bytes) whose peers are never removed, as a container.

    Args:
        configured: those of ``cleanup.protected_keys``, which is the older spelling.
        lists: the key lists in force.
    """

    def __init__(self, configured: Collection[bytes], lists: Callable[[], KeyLists]) -> None:
        self._configured = frozenset(configured)
        self._lists = lists

    def __contains__(self, key: object) -> bool:
        return key in self._configured or (isinstance(key, bytes) and self._lists().protects(key, time.time()))
