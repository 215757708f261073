"""A broker and a worker under load, watched by a real Prometheus and a real Alertmanager, in which time runs faster."""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from aiohttp import web

from alerts.rules import document
from alerts.settings import Settings, duration_text, milliseconds
from tests.canary import FakeTunnels
from tests.dashboards import expand
from tests.helpers import ROOT, key, post_key
from tests.integration.certificates import make_certificates
from tests.integration.inprocess import (
    RunningBroker,
    RunningWorker,
    configuration,
    new_key,
    running_broker,
    running_worker,
)
from tests.integration.loopback import LOOPBACK, eventually, free_port
from tests.integration.servers import Alertmanager, Bench, Mosquitto, Prometheus
from tests.integration.sessions import tls_settings
from wgkex_ops.canary import Canary
from wgkex_ops.config import Config, Listen
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.probe.choice import Choice

# A minute of the shipped rules is a second here; a window contains some scrapes.
PACE: Final = 1 / 60
INTERVAL: Final = "250ms"
# Processes need some seconds to reconnect to an MQTT server, at any pace.
RULES: Final = Settings(pace=PACE, shortest_window="1s", mqtt_keep="20m")
# An alert comes after its window, its `for`, and what Alertmanager waits; the longest ones here take three quarters
# of a minute.
ALERT_TIMEOUT: Final = 120.0

# A second's worth of load: far from what a broker bears, and enough for every ratio's least number.
_POSTS_PER_SECOND: Final = 25
_NODES: Final = 60


@dataclass
class Receiver:
    """Where Alertmanager's notifications end, by receiver."""

    address: str = ""
    # Receiver, alert, and its state: `firing` or `resolved`.
    notifications: list[tuple[str, str, str]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Receiver"]:
        app = web.Application()
        app.router.add_post("/{receiver}", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, LOOPBACK, 0).start()
            self.address = f"{LOOPBACK}:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        receiver = request.match_info["receiver"]
        for alert in (await request.json())["alerts"]:
            self.notifications.append((receiver, alert["labels"]["alertname"], alert["status"]))
        return web.Response()

    async def gets(self, receiver: str, alert: str, state: str) -> None:
        """Wait for a notification."""
        wanted = (receiver, alert, state)
        await eventually(lambda: wanted in self.notifications, f"{wanted} among {self.notifications}", ALERT_TIMEOUT)

    def alerts(self) -> set[str]:
        """Names of all alerts that have ever fired."""
        return {alert for _, alert, state in self.notifications if state == "firing"}


@dataclass
class Watched:
    """The whole system."""

    config: Config
    mosquitto: Mosquitto
    broker: RunningBroker
    worker: RunningWorker
    prometheus: Prometheus
    alertmanager: Alertmanager
    receiver: Receiver
    _worker_stack: contextlib.AsyncExitStack

    async def start_worker(self) -> None:
        """Run a worker, by the same name and at the same place as the last one."""
        self.worker = await self._worker_stack.enter_async_context(running_worker(self.config, announced=False))

    async def stop_worker(self) -> None:
        await self._worker_stack.aclose()

    async def firing(self) -> set[str]:
        """Names of the alerts that Prometheus has firing."""
        alerts = (await self.prometheus.get("alerts"))["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def post(self, version: int, domain: str, public_key: Any) -> int:  # noqa: ANN401  anything can be posted
        """POST as a node does, whatever comes of it; the status, 0 if there was no answer."""
        try:
            status, _ = await post_key(self.broker.nodes, version, domain, public_key)
        except (OSError, ValueError):
            return 0
        return status


async def load(watched: Watched) -> None:
    """Nodes that boot, return and have handshakes, among them some that send nonsense; for ever."""
    domains = watched.config.domains
    for number in itertools.count():
        # Old nodes ask again and again by version 1. By version 2 each node asks once: it gets its tunnel.
        version, index = (1, number // 2 % _NODES) if number % 2 else (2, _NODES + number // 2)
        domain, node = domains[index % len(domains)], key(index)
        await watched.post(version, domain.name, node)
        if number % 10:
            watched.worker.dataplane.shake_hands(domain, node)
        if number % 25 == 0:
            await watched.post(1, domain.name, "nonsense")
        await asyncio.sleep(random.uniform(0.5, 1.5) / _POSTS_PER_SECOND)


async def scans(worker: Callable[[], RunningWorker]) -> None:
    """A worker looks at its gateway once a minute, which is a second here; for ever."""
    while True:
        worker().dataplane.report_links()
        await asyncio.sleep(60 * PACE)


async def flood(watched: Watched) -> None:
    """A client that sends nonsense, ten times as much as all the nodes; for ever."""
    while True:
        await asyncio.gather(*(watched.post(1, "ffmuc_welt", f"{new_key()}x") for _ in range(20)))
        await asyncio.sleep(2 / _POSTS_PER_SECOND)


def alertmanager_config(receiver: str) -> dict[str, Any]:
    """The shipped example: its receivers replaced, its waits shortened, everything else as it is."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "alerts" / "alertmanager.yaml.example").read_text())
    config["receivers"] = [
        {"name": each["name"], "webhook_configs": [{"url": f"http://{receiver}/{each['name']}"}]}
        for each in config["receivers"]
    ]

    def shorten(route: dict[str, Any]) -> None:
        for name in ("group_wait", "group_interval", "repeat_interval"):
            if name in route:
                # Never shorter than some evaluations: what belongs together has to arrive together.
                route[name] = duration_text(max(1000, round(milliseconds(route[name]) * PACE)))
        for inner in route.get("routes", ()):
            shorten(inner)

    shorten(config["route"])
    config.get("global", {}).pop("resolve_timeout", None)
    return config


def write_names(file: Path) -> None:
    """Give half of the nodes friendly names."""
    file.write_text("".join(f"{key(number)} node {number}\n" for number in range(_NODES // 2)))


@contextlib.asynccontextmanager
async def watched_system(bench: Bench, names: Path, *, canary: bool = False) -> AsyncIterator[Watched]:
    """Run all of it, under load.

    Args:
        bench: starts the servers.
        names: a file with the nodes' friendly names.
        canary: with a canary, whose tunnels need no kernel.
    """
    # Everything that is ours uses TLS, so that there is a certificate to watch; strangers may do without.
    certificates = make_certificates(bench.folder)
    tls_port = free_port()
    mosquitto = await bench.mosquitto(f"listener {tls_port} {LOOPBACK}", *tls_settings(certificates))
    broker_pages, worker_pages, canary_pages = free_port(), free_port(), free_port()
    key_lists = bench.folder / "keys.yaml"
    key_lists.write_text("denied: []\n")
    config = configuration(
        tls_port,
        mqtt={"tls": {"ca_file": str(certificates.authority)}},
        workers={"gw01": {"weight": 1}},
        broker={"metrics_listen": {"host": LOOPBACK, "port": broker_pages}},
        worker={"metrics_listen": {"host": LOOPBACK, "port": worker_pages}},
        probe={"metrics_listen": {"host": LOOPBACK, "port": canary_pages}},
        # Otherwise no cleanup would be completed within the time of a test, and count as stalled.
        key_lists=str(key_lists),
        cleanup={"interval": 10},
        metrics={"per_peer": True, "per_peer_limit": _NODES // 2 + 5, "peer_names": str(names)},
    )
    async with (
        Receiver().serving() as receiver,
        contextlib.AsyncExitStack() as worker_stack,
        running_broker(config) as broker,
    ):
        worker = await worker_stack.enter_async_context(running_worker(config))
        targets = {RULES.broker_job: f"{LOOPBACK}:{broker_pages}", RULES.worker_job: f"{LOOPBACK}:{worker_pages}"}
        if canary:
            await worker_stack.enter_async_context(_canary(config, broker.nodes, bench.folder / "canary").running())
            targets["wgkex-probe"] = f"{LOOPBACK}:{canary_pages}"
        alertmanager = await bench.alertmanager(alertmanager_config(receiver.address))
        prometheus = await bench.prometheus(
            targets,
            interval=INTERVAL,
            rules=document(RULES),
            alertmanager=alertmanager,
        )
        watched = Watched(config, mosquitto, broker, worker, prometheus, alertmanager, receiver, worker_stack)
        async with background(scans(lambda: watched.worker)), background(load(watched)):
            yield watched


def _canary(config: Config, nodes: Listen, keys: Path) -> Canary:
    """A canary that asks this broker once a second in each domain, and gets every tunnel that it is given."""
    choice = Choice(url=f"http://{nodes}", keys=keys, domains=config.domains, interval=1.0)
    return Canary(config, choice, new_registry("probe"), FakeTunnels())


@contextlib.asynccontextmanager
async def background(work: Any) -> AsyncIterator[None]:  # noqa: ANN401  a coroutine of any kind
    """Let something go on meanwhile; if it fails, so does the test."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def queries(dashboard: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All queries of a dashboard as Grafana asks them when everything is chosen, with the titles of their panels."""
    chosen = {variable["name"]: ".+" for variable in dashboard["templating"]["list"]}
    values = {"__rate_interval": "4s", "__interval": "1s", "__range": "30s", **chosen}
    panels = [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", ()))]
    return [(panel["title"], expand(target["expr"], values)) for panel in panels for target in panel.get("targets", ())]


def dashboards() -> dict[str, Mapping[str, Any]]:
    """The shipped dashboards by name of file."""
    return {
        path.name: json.loads(path.read_text()) for path in sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
    }
