"""A broker's gateways and unconfirmed keys, by a clock that needs no waiting."""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry

from tests.helpers import DOMAINS, KEY, WELT, key, moved, samples
from wgkex_ops.bus.messages import ConnectedPeers, Endpoint, Receipt, WorkerData, WorkerStatus
from wgkex_ops.http.gateways.choice import choose
from wgkex_ops.http.gateways.confirmations import UnconfirmedKey, UnconfirmedKeys
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.gateways.silence import Silences
from wgkex_ops.metrics.broker import ReceiptMetrics
from wgkex_ops.model.domains import Domain

RECEIPT_TOPIC: Final = "wgkex/receipts/b1"
LISTED: Final = ("gw01", "gw02", "old")

_numbers = itertools.count()


def endpoint(worker: str, *, receipts: bool = False) -> Endpoint:
    return Endpoint(f"{worker}.example.net", 40011, KEY, "fe80::1", receipts)


def come_online(gateways: Gateways, peers: Mapping[str, int | None], domain: str = WELT.name, now: float = 0.0) -> None:
    """Workers publish all that makes them candidates, and their numbers of peers."""
    for worker, count in peers.items():
        gateways.update(WorkerData(worker, domain, endpoint(worker)), now)
        gateways.update(ConnectedPeers(worker, domain, count), now)
        gateways.update(WorkerStatus(worker, online=True), now)


def gateways_of(weights: Mapping[str, float], peers: Mapping[str, int | None]) -> Gateways:
    """Gateways that are online in WELT."""
    gateways = Gateways(weights, DOMAINS)
    come_online(gateways, peers)
    return gateways


def send_node(gateways: Gateways, domain: str = WELT.name) -> str | None:
    """Send a node, another one each time, to the best gateway."""
    choice = choose(gateways, domain)
    if choice is None:
        return None
    gateways.assign(choice.worker, domain, key(next(_numbers)))
    return choice.worker


class Fleet:
    """Gateways that are online: gw01 and gw02 send receipts, old does not.

    Args:
        workers: the gateways that are online.
        receipt_topic: where receipts arrive; empty for a broker that speaks MQTT 3.1.1.
    """

    def __init__(self, *workers: str, receipt_topic: str = RECEIPT_TOPIC) -> None:
        self.registry = CollectorRegistry()
        self.gateways = Gateways(dict.fromkeys(LISTED, 1), DOMAINS)
        self.silences = Silences(self.gateways)
        self.metrics = ReceiptMetrics(self.registry, LISTED, DOMAINS)
        self.keys = UnconfirmedKeys(self.gateways, self.silences, receipt_topic=receipt_topic, metrics=self.metrics)
        for worker in workers or LISTED:
            self.come(worker)
        self._before = samples(self.registry)

    def come(
        self, worker: str, *, domain: Domain = WELT, receipts: bool | None = None, heard_at: float | None = None
    ) -> None:
        """A gateway comes online, now or at another moment."""
        heard_at = asyncio.get_running_loop().time() if heard_at is None else heard_at
        receipts = worker != "old" if receipts is None else receipts
        self.gateways.update(WorkerData(worker, domain.name, endpoint(worker, receipts=receipts)), heard_at)
        self.gateways.update(ConnectedPeers(worker, domain.name, 0), heard_at)
        self.gateways.update(WorkerStatus(worker, online=True), heard_at)

    def go(self, worker: str) -> None:
        self.gateways.update(WorkerStatus(worker, online=False), asyncio.get_running_loop().time())

    def add(self, number: int = 1, domain: Domain = WELT) -> UnconfirmedKey:
        return self.keys.add(domain, key(number), f"request-{number}", 1_700_000_000.0)

    def accept(self, number: int = 1, domain: Domain = WELT) -> UnconfirmedKey:
        added = self.add(number, domain)
        self.keys.accept(added)
        return added

    def confirm(self, added: UnconfirmedKey, *workers: str, reason: str = "") -> None:
        """Receipts arrive."""
        for worker in workers:
            found = self.keys.find(added.correlation)
            assert found in (added, None)
            if found is not None:
                self.keys.confirm(found, Receipt(worker, reason))

    def has(self, added: UnconfirmedKey) -> bool:
        return self.keys.find(added.correlation) is added

    def resent(self, opened_at: float = 0.0) -> list[str]:
        """The gateways that a key is due for, to each of which it is sent."""
        due = self.keys.due(opened_at)
        for added, worker in due:
            self.keys.sent(added, worker)
        return [worker for _, worker in due]

    async def resent_until(self, end: int, opened_at: float = 0.0) -> list[tuple[int, str]]:
        """Which gateway gets a key again in which second, up to one."""
        found: list[tuple[int, str]] = []
        now = asyncio.get_running_loop().time
        while now() < end:
            found += [(round(now()), worker) for worker in self.resent(opened_at)]
            await asyncio.sleep(1)
            self.keys.expire()
        return found

    def moved(self) -> dict[str, float]:
        changes = moved(self._before, samples(self.registry))
        return {name: value for name, value in changes.items() if "_bucket" not in name and "_sum" not in name}


def nowhere(domain: Domain = WELT) -> str:
    return f'wgkex_broker_keys_confirmed_nowhere_total{{domain="{domain.name}"}}'


def installs(worker: str) -> str:
    return f'wgkex_broker_key_install_duration_seconds_count{{worker="{worker}"}}'


def count(name: str, worker: str) -> str:
    return f'wgkex_broker_{name}_total{{worker="{worker}"}}'
