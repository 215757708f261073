"""Gateways that promise receipts and send none. No I/O."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from wgkex_ops.http.gateways.registry import Gateways

_log = structlog.get_logger(__name__)

# So many keys without a receipt, for so many seconds, are no accident: receipts take a second, and by then the keys
# have been sent again three times.
SILENT_KEYS: Final = 5
SILENT_AFTER: Final = 60.0

# What makes a gateway silent although it is online. For the page and the log.
LIKELY_CAUSES: Final = (
    "the access rules of the MQTT server may keep the keys from its user, or its receipts from this broker; or its"
    " worker hangs"
)


@dataclass(frozen=True, slots=True)
class Silence:
    """What a gateway has left without a receipt.

    Attributes:
        worker: its name.
        domain: the keys' domain, by its name.
        keys: how many keys were accepted since its last receipt.
        seconds: for how long the first of them waits, while the gateway was online.
    """

    worker: str
    domain: str
    keys: int
    seconds: float


class Silences:
    """Which gateways have confirmed none of the latest keys of a domain.

    To be used on the event loop only, whose clock it goes by.

    Args:
        gateways: which of them are online.
    """

    def __init__(self, gateways: Gateways) -> None:
        self._gateways = gateways
        # Keys since the last receipt, and when the first of them was accepted, by worker and domain.
        self._waiting: dict[tuple[str, str], tuple[int, float]] = {}
        self._silent: defaultdict[str, set[str]] = defaultdict(set)

    def silent_in(self, domain: str) -> Collection[str]:
        """The workers that version 2 should pass over in a domain."""
        return self._silent.get(domain, ())

    @property
    def silent(self) -> frozenset[str]:
        """The workers that are silent in any domain."""
        return frozenset[str]().union(*self._silent.values())

    def accept(self, workers: Iterable[str], domain: str) -> None:
        """Note that a key was accepted, and that the receipts of some workers are awaited."""
        now = asyncio.get_running_loop().time()
        for worker in workers:
            keys, since = self._waiting.get((worker, domain), (0, now))
            self._waiting[worker, domain] = (keys + 1, since)

    def end(self, worker: str, domain: str) -> None:
        """Note that a receipt has come, whatever it reports."""
        self._waiting.pop((worker, domain), None)
        if worker in self._silent.get(domain, ()):
            self._silent[domain].discard(worker)
            _log.info("worker_confirms_again", worker=worker, domain=domain)

    def check(self) -> None:
        """Bring up to date which workers are silent; to be called every second or so."""
        for silence in self.waiting(SILENT_AFTER):
            if silence.worker not in self._silent[silence.domain]:
                self._silent[silence.domain].add(silence.worker)
                _log.warning(
                    "worker_confirms_nothing",
                    worker=silence.worker,
                    domain=silence.domain,
                    keys=silence.keys,
                    seconds=round(silence.seconds),
                    detail=LIKELY_CAUSES,
                )

    def waiting(self, seconds: float) -> Iterator[Silence]:
        """The gateways that are online and have left SILENT_KEYS or more without a receipt for some seconds."""
        now = asyncio.get_running_loop().time()
        for (worker, domain), (keys, since) in self._waiting.items():
            gateway = self._gateways.workers.get(worker)
            if keys < SILENT_KEYS or gateway is None or not gateway.online:
                continue
            # It gets again what it missed while it was away.
            waited = now - max(since, gateway.status_since)
            if waited >= seconds:
                yield Silence(worker, domain, keys, waited)
