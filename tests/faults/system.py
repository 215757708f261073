"""Broker and worker as programs that can be killed and started again in the same place, and what they have counted."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from tests.helpers import CITY, WELT
from tests.integration.inprocess import settings
from tests.integration.loopback import LOOPBACK, eventually_answered, free_port, request
from tests.integration.servers import Bench, Program
from wgkex_ops.config import Listen
from wgkex_ops.model.keys import PublicKey

DOMAINS: Final = (WELT, CITY)
# Everything that was accepted has to be installed by then.
SETTLED_WITHIN: Final = 60.0

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


@dataclass
class Place:
    """Where one program runs: it may die there, and come back.

    Attributes:
        command: `broker` or `worker`.
        settings: its configuration.
        pages: where it serves operators.
        descriptors: how many file descriptors it may have; None for as many as these tests.
    """

    bench: Bench
    command: str
    settings: Mapping[str, Any]
    pages: Listen
    descriptors: int | None = None
    program: Program = field(init=False)

    async def start(self) -> None:
        self.program = self.bench.wgkex(self.command, self.settings, descriptors=self.descriptors)
        await self.program.logs(f"{self.command}_started")

    async def is_ready(self) -> bool:
        """Whether it is ready by its own check, as a load balancer sees it."""
        try:
            return (await request(f"http://{self.pages}/-/ready")).status == 200
        except OSError:
            return False

    async def ready(self) -> None:
        """Wait until it is ready by its own check."""
        await eventually_answered(self.is_ready, f"a {self.command} that is ready")

    async def restart(self, number: signal.Signals) -> None:
        await self.program.stop(number)
        await self.start()

    async def samples(self) -> Samples:
        """What it shows at /metrics: values by labels, by name."""
        found: Samples = {}
        for family in text_string_to_metric_families((await request(f"http://{self.pages}/metrics")).text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        return found

    async def total(self, *names: str) -> float:
        """The sum over all series of some metrics."""
        samples = await self.samples()
        return sum(sum(samples[name].values()) for name in names)


class Brokers(Place):
    """A broker's place."""

    @property
    def nodes(self) -> Listen:
        """Where it serves nodes."""
        return Listen(**self.settings["broker_listen"])

    async def counts_add_up(self) -> bool:
        """Whether requests = published + rejections + failures."""
        return await self.total("wgkex_broker_key_requests_total") == await self.total(
            "wgkex_broker_keys_published_total", "wgkex_broker_key_rejections_total", "wgkex_broker_key_failures_total"
        )


class Workers(Place):
    """A worker's place, with the dataplane in memory and each peer at /metrics."""

    async def installed(self) -> dict[str, list[str]]:
        """Public keys of the peers by WireGuard interface, as often as they are shown."""
        found: dict[str, list[str]] = {domain.wg: [] for domain in DOMAINS}
        for labels in (await self.samples()).get("wireguard_peer_info", {}):
            named = dict(labels)
            found[named["interface"]].append(named["public_key"])
        return found

    async def has_all(self, accepted: Mapping[str, set[PublicKey]]) -> None:
        """Wait until every accepted key is installed; and see that none is twice there."""
        wanted = {domain.wg: {str(key) for key in accepted.get(domain.name, ())} for domain in DOMAINS}
        missing: dict[str, int] = {}

        async def installed() -> bool:
            seen = await self.installed()
            missing.update({wg: len(keys - set(seen[wg])) for wg, keys in wanted.items()})
            for keys in seen.values():
                assert len(keys) == len(set(keys))
            return not any(missing.values())

        try:
            await eventually_answered(installed, "all accepted keys", SETTLED_WITHIN)
        except AssertionError:
            assert missing == {}, "accepted keys that are not installed"


def place_settings(mqtt_port: int, name: str, state: Path, **changes: object) -> dict[str, Any]:
    """A configuration for a broker and a worker of one name, on ports that stay theirs."""
    document = settings(
        mqtt_port,
        name,
        broker_listen={"host": LOOPBACK, "port": free_port()},
        broker={"metrics_listen": {"host": LOOPBACK, "port": free_port()}},
        worker={"metrics_listen": {"host": LOOPBACK, "port": free_port()}, "state_dir": str(state / name)},
        metrics={"per_peer": True, "per_peer_limit": 100_000},
        log_level="info",
    )
    for section, content in changes.items():
        known = document.get(section, {})
        document[section] = {**known, **content} if isinstance(content, Mapping) else content
    return document


def broker_place(bench: Bench, document: Mapping[str, Any]) -> Brokers:
    pages = Listen(**document["broker"]["metrics_listen"])
    return Brokers(bench, "broker", document, pages)


def worker_place(bench: Bench, document: Mapping[str, Any]) -> Workers:
    return Workers(bench, "worker", document, Listen(**document["worker"]["metrics_listen"]))


async def running_places(
    bench: Bench, document: Mapping[str, Any], *, descriptors: int | None = None
) -> tuple[Brokers, Workers]:
    """A broker, perhaps with fewer file descriptors than usual, and a worker that run, and know of each other."""
    broker, worker = broker_place(bench, document), worker_place(bench, document)
    broker.descriptors = descriptors
    await worker.start()
    await broker.start()
    await worker.program.logs("worker_announced")
    await broker.ready()
    return broker, worker
