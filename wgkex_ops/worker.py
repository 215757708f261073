"""The worker, put together: session, intake, installer, reporter, and the dataplane underneath."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry

from wgkex_ops.config import Config, Listen
from wgkex_ops.consumer.installer import CAPACITY, Installer
from wgkex_ops.consumer.intake import Intake
from wgkex_ops.consumer.memory import MemoryDataplane
from wgkex_ops.consumer.names import PeerNames
from wgkex_ops.consumer.netlink import KernelDataplane
from wgkex_ops.consumer.reporter import Reporter
from wgkex_ops.consumer.snapshots import SharedSnapshots
from wgkex_ops.dataplane import Dataplane, OperationObserver
from wgkex_ops.http.listener import serve
from wgkex_ops.http.operator import OperatorPages, create_operator_app
from wgkex_ops.http.page.parts import MqttView
from wgkex_ops.http.page.worker import WorkerView
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.metrics.mqtt import MqttMetrics
from wgkex_ops.metrics.peers import PeerSeries
from wgkex_ops.metrics.wireguard import WireGuardCollector
from wgkex_ops.metrics.worker import ConsumerMetrics, NetlinkMetrics
from wgkex_ops.mqtt import Session, Will
from wgkex_ops.topics import key_subscription, status_payload, worker_status_topic

_log = structlog.get_logger(__name__)

# A clean end takes 5 s at the most: first the goodbye, so that no node is sent here any more, then what has arrived.
_GOODBYE_TIMEOUT: Final = 1.5
_DRAIN_TIMEOUT: Final = 1.0


class MakeDataplane(Protocol):
    """Makes the dataplane that a worker works on; it reports its operations to the observer."""

    def __call__(self, config: Config, observer: OperationObserver) -> Dataplane: ...


def configured_dataplane(config: Config, observer: OperationObserver) -> Dataplane:
    """The dataplane that the configuration asks for."""
    if config.worker.dataplane == "memory":
        return MemoryDataplane(config.domains, observer)
    return KernelDataplane(config.domains, observer, config.worker.route_protocol)


class Worker:
    """What turns a message on the bus into a peer of this gateway.

    Args:
        config: the whole configuration.
        registry: where the instruments live.
        make_dataplane: where peers are installed.

    Attributes:
        dataplane: what that has made.
    """

    def __init__(
        self, config: Config, registry: CollectorRegistry, make_dataplane: MakeDataplane = configured_dataplane
    ) -> None:
        names = tuple(domain.name for domain in config.domains)
        worker = config.worker.name
        self._config = config
        self.dataplane = make_dataplane(config, NetlinkMetrics(registry))
        self._snapshots = SharedSnapshots(self.dataplane)
        metrics = ConsumerMetrics(registry, names, CAPACITY)
        mqtt_metrics = MqttMetrics(registry)
        self._session = Session(
            config.mqtt,
            client_id=f"wgkex-worker-{worker}",
            subscriptions=[key_subscription(name) for name in names],
            will=Will(worker_status_topic(worker), status_payload(online=False)),
            metrics=mqtt_metrics,
        )
        self._reporter = Reporter(
            session=self._session,
            read=self._snapshots.read,
            domains=config.domains,
            worker=worker,
            address=config.external_name or worker,
        )
        self._installer = Installer(self.dataplane, metrics)
        self._intake = Intake(
            worker=worker,
            domains={domain.name: domain for domain in config.domains},
            own_key=self._reporter.own_key,
            static_keys=self._reporter.static_keys,
            installer=self._installer,
            metrics=metrics,
        )
        peer_series = None
        if config.metrics.per_peer:
            peer_series = PeerSeries(config.metrics.per_peer_limit, PeerNames(config.metrics.peer_names).read)
        self._collector = WireGuardCollector(self._snapshots.read, config.domains, peer_series)
        registry.register(self._collector)
        self._view = WorkerView(
            name=worker,
            domains=config.domains,
            installs_nothing=isinstance(self.dataplane, MemoryDataplane),
            read=self._snapshots.read,
            keys=metrics,
            mqtt=MqttView(self._session, mqtt_metrics, f"{config.mqtt.host}:{config.mqtt.port}"),
            problems=self._problems,
        )
        self._pages = OperatorPages(
            registry=registry, problems=self._problems, page=self._view.page, refresh=self.refresh
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Listen]:
        """Work while the context lasts.

        Yields:
            where it listens for operators.
        """
        operator_app = create_operator_app(self._pages)
        async with self.dataplane:
            await self._reporter.look()
            # The listener comes first: a second process, started by mistake, fails on it before it takes the place of
            # the first one on the bus.
            async with (
                serve(operator_app, self._config.worker.metrics_listen, shutdown_timeout=0.0) as metrics_listen,
                self._session,
                asyncio.TaskGroup() as group,
            ):
                tasks = [
                    group.create_task(self._installer.run(), name="installer"),
                    group.create_task(self._intake.run(self._session.messages()), name="intake"),
                    group.create_task(self._follow_links(), name="links"),
                    group.create_task(self._view.history.run(), name="history"),
                ]
                reporting = group.create_task(self._reporter.run(), name="reporter")
                _log.info("worker_started", metrics=str(metrics_listen), name=self._config.worker.name)
                for problem in self._reporter.problems():
                    _log.warning("interface_problem", detail=problem)
                try:
                    yield metrics_listen
                finally:
                    _log.info("worker_stopping")
                    reporting.cancel()
                    await self._reporter.say_goodbye(_GOODBYE_TIMEOUT)
                    await self._installer.drain(_DRAIN_TIMEOUT)
                    for task in tasks:
                        task.cancel()

    async def refresh(self) -> None:
        """Bring the metrics that are read from the dataplane up to date."""
        await self._collector.refresh()

    async def announced(self) -> None:
        """Wait until brokers could know this gateway."""
        await self._reporter.announced.wait()

    async def _follow_links(self) -> None:
        """When an interface comes, its waiting keys are due; when one goes, brokers should know."""
        async for event in self.dataplane.events():
            _log.info("link_changed", interface=event.interface, present=event.present, up=event.up)
            if event.present or not event.interface:
                self._installer.retry_now(
                    domain
                    for domain in self._config.domains
                    if not event.interface or event.interface in (domain.wg, domain.vx)
                )
            self._reporter.hurry()

    def _problems(self) -> list[str]:
        problems = self._reporter.problems()
        if not self._session.connected:
            problems.append("there is no connection with the MQTT server")
        return problems


async def run(config: Config) -> None:
    """Run a worker until cancelled."""
    async with Worker(config, new_registry("worker")).running():
        await asyncio.get_running_loop().create_future()
