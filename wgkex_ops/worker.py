"""The worker, put together: session, intake, installer, announcer, upkeep, and the dataplane underneath."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry

from wgkex_ops.bus.answering import Answerer
from wgkex_ops.bus.messages import key_subscription, status_payload, worker_status_topic
from wgkex_ops.bus.questions import ASK
from wgkex_ops.bus.session import Session, Will
from wgkex_ops.config import Config, Listen
from wgkex_ops.consumer.admission import Admission, Requests
from wgkex_ops.consumer.announcer import Announcer
from wgkex_ops.consumer.dataplane.base import Dataplane, OperationObserver
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane
from wgkex_ops.consumer.dataplane.scans import SerializedDataplane
from wgkex_ops.consumer.dataplane.shared import SharedSnapshots
from wgkex_ops.consumer.inspection import Inspector
from wgkex_ops.consumer.installer import CAPACITY, Installer
from wgkex_ops.consumer.intake import Intake
from wgkex_ops.consumer.peer_names import PeerNames
from wgkex_ops.consumer.receipts import ReceiptSender
from wgkex_ops.consumer.table import Table
from wgkex_ops.consumer.upkeep.cleanup import Cleanup
from wgkex_ops.consumer.upkeep.connectivity import Connectivity
from wgkex_ops.consumer.upkeep.drain import Drain
from wgkex_ops.consumer.upkeep.journal import Journal
from wgkex_ops.consumer.upkeep.reconciler import Reconciler
from wgkex_ops.consumer.upkeep.refused_peers import RefusedPeers
from wgkex_ops.errors import BusError
from wgkex_ops.http.operator.access import Access
from wgkex_ops.http.operator.listener import OperatorPages, create_operator_app
from wgkex_ops.http.operator.page.common import MqttView
from wgkex_ops.http.operator.page.worker import WorkerView
from wgkex_ops.http.server import serve
from wgkex_ops.key_lists import ProtectedKeys, WatchedKeyLists
from wgkex_ops.metrics.build import ProcessMetrics, new_registry
from wgkex_ops.metrics.cleanup import CleanupMetrics
from wgkex_ops.metrics.drain import DrainMetrics
from wgkex_ops.metrics.journal import JournalMetrics, RepairMetrics
from wgkex_ops.metrics.mqtt import MqttMetrics
from wgkex_ops.metrics.peers import PeerSeries
from wgkex_ops.metrics.wireguard import WireGuardCollector
from wgkex_ops.metrics.worker import ConsumerMetrics, NetlinkMetrics, ReceiptMetrics, SessionMetrics
from wgkex_ops.supervisor import Supervisor

_log = structlog.get_logger(__name__)

# A clean end takes 5 s at the most: first brokers hear of it, so that they send no node here any more, then what has
# arrived is finished.
_SIGN_OFF_TIMEOUT: Final = 1.5
_FINISH_TIMEOUT: Final = 1.0
_RECEIPTS_TIMEOUT: Final = 0.5
_UNSUBSCRIBE_TIMEOUT: Final = 5.0
# How long restoring peers may hold up the start: 20,000 take a few seconds.
_RESTORE_TIMEOUT: Final = 60.0


class MakeDataplane(Protocol):
    """Makes the dataplane that a worker works on; it reports its operations to the observer."""

    def __call__(self, config: Config, observer: OperationObserver) -> Dataplane: ...


def configured_dataplane(config: Config, observer: OperationObserver) -> Dataplane:
    """The configured dataplane."""
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
        self._process_metrics = ProcessMetrics(registry, "worker", worker)
        self.dataplane = make_dataplane(config, NetlinkMetrics(registry))
        self._snapshots = SharedSnapshots(self.dataplane)
        metrics = ConsumerMetrics(registry, names, CAPACITY, config.worker.max_peers)
        mqtt_metrics = MqttMetrics(registry)
        self._session = Session(
            config.mqtt_of("worker"),
            client_id=f"wgkex-worker-{worker}",
            subscriptions=[key_subscription(name) for name in names],
            # A server whose access rules do not know of questions is no reason to install no keys.
            urgent=(ASK,) if config.mqtt.version == "5" else (),
            will=Will(worker_status_topic(worker), status_payload(online=False)),
            metrics=mqtt_metrics,
            session_expiry=config.mqtt.session_expiry,
        )
        self._receipts = ReceiptSender(self._session, worker, ReceiptMetrics(registry))
        self._announcer = Announcer(
            session=self._session,
            read=self._snapshots.read,
            domains=config.domains,
            worker=worker,
            address=config.external_name or worker,
            # A message of MQTT 3.1.1 has no place for where a receipt is wanted.
            receipts=config.mqtt.version == "5",
            draining=lambda: self._drain.order is not None,
        )
        serialized = SerializedDataplane(self.dataplane)
        requests = Requests()
        journal_metrics = JournalMetrics(registry)
        self._journal = Journal(config.worker.state_dir, journal_metrics)
        self._key_lists = WatchedKeyLists(config.key_lists, names, registry)
        lists = self._key_lists.current
        protected = ProtectedKeys([key.raw for key in config.cleanup.protected_keys], lists)
        table = Table(config.worker.max_peers, rows=lambda: self._journal.rows, protected=protected)
        admission = Admission(config.domains, requests, self._snapshots.read, table=table, lists=lists)
        session_metrics = SessionMetrics(registry, names)
        connectivity = Connectivity(config.domains, session_metrics)
        cleanup_metrics = CleanupMetrics(registry, names)
        self._reconciler = Reconciler(
            serialized,
            self._journal,
            admission,
            requests,
            config.domains,
            refused=RefusedPeers(config.domains, self._journal, lists, cleanup_metrics),
            connectivity=connectivity,
            metrics=RepairMetrics(registry, names),
        )
        self._key_lists.on_change = self._reconciler.trigger
        self._cleanup = Cleanup(
            serialized,
            self._journal,
            requests,
            config.domains,
            protected=protected,
            lists=lists,
            settings=config.cleanup,
            metrics=cleanup_metrics,
        )
        self._drain = Drain(
            config.worker.state_dir,
            serialized,
            self._snapshots.read,
            self._journal,
            config.domains,
            protected=protected,
            lists=lists,
            metrics=DrainMetrics(registry),
            removed=cleanup_metrics.removed,
        )
        self._drain.on_change = self._announcer.trigger
        self._installer = Installer(
            serialized, admission, self._journal, metrics, lists=lists, send_receipts=self._receipts.send
        )
        peer_names = PeerNames(config.metrics.peer_names)

        def names_of_peers() -> dict[bytes, str]:
            return {**peer_names.read(), **lists().names}

        inspector = Inspector(
            gateway=worker,
            domains=config.domains,
            read=self._snapshots.read,
            rows=lambda: self._journal.rows,
            lists=lists,
            names=names_of_peers,
            protected=protected,
            stale_after=config.cleanup.stale_after,
        )
        self._answerer = Answerer(self._session, worker, inspector.inspect)
        self._intake = Intake(
            worker=worker,
            domains={domain.name: domain for domain in config.domains},
            ready=admission.ready,
            installer=self._installer,
            take_question=self._answerer.take,
            send_receipts=self._receipts.send,
            unsubscribe=self._unsubscribe,
            metrics=metrics,
        )
        peer_series = None
        if config.metrics.per_peer:
            peer_series = PeerSeries(config.metrics.per_peer_limit, names_of_peers)
        self._collector = WireGuardCollector(
            self._snapshots.read, config.domains, stale_after=config.cleanup.stale_after, peer_series=peer_series
        )
        registry.register(self._collector)
        self._view = WorkerView(
            name=worker,
            domains=config.domains,
            stale_after=config.cleanup.stale_after,
            installs_nothing=isinstance(self.dataplane, MemoryDataplane),
            max_peers=config.worker.max_peers,
            read=self._snapshots.read,
            keys=metrics,
            sessions=session_metrics,
            vxlan_silent=connectivity.vxlan_silent,
            cleanup=cleanup_metrics,
            journal=journal_metrics,
            mqtt=MqttView(self._session, mqtt_metrics, f"{config.mqtt.host}:{config.mqtt.port}"),
            draining_since=lambda: order.since if (order := self._drain.order) is not None else None,
            lists_problem=lambda: self._key_lists.problem,
            problems=self.problems,
        )
        self._access = Access(
            config.worker.metrics_listen,
            setting="worker.metrics_listen",
            names=[worker, config.external_name or worker],
        )
        self._pages = OperatorPages(
            registry=registry, problems=self.problems, page=self._view.page, refresh=self.refresh
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Listen]:
        """Work while the context lasts.

        Yields:
            where it listens for operators.
        """
        operator_app = create_operator_app(self._pages, self._access)
        async with self.dataplane:
            # Before anything is announced.
            await self._drain.follow()
            await self._announcer.refresh()
            # The listener comes first: a second process, started by mistake, fails on it before it takes the place of
            # the first one in the journal and on the bus.
            async with (
                serve(
                    operator_app,
                    self._config.worker.metrics_listen,
                    setting="worker.metrics_listen",
                    ssl_context=self._access.ssl_context,
                ) as metrics_listen,
                self._journal,
            ):
                # Before any node is sent here.
                await self._reconciler.restore(_RESTORE_TIMEOUT)
                async with self._session, asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(self._installer.run(), name="installer"),
                        group.create_task(self._intake.run(self._session.messages()), name="intake"),
                        group.create_task(
                            self._intake.take_questions(self._session.urgent_messages()), name="questions"
                        ),
                        group.create_task(self._receipts.run(), name="receipts"),
                        group.create_task(self._reconciler.run(), name="reconciler"),
                        group.create_task(self._cleanup.run(), name="cleanup"),
                        group.create_task(self._drain.run(), name="drain"),
                        group.create_task(self._answerer.run(), name="answerer"),
                        group.create_task(self._key_lists.run(), name="key-lists"),
                        group.create_task(self._follow_links(), name="links"),
                        group.create_task(self._view.history.run(), name="history"),
                    ]
                    announcing = group.create_task(self._announcer.run(), name="announcer")
                    _log.info("worker_started", metrics=str(metrics_listen), name=self._config.worker.name)
                    for problem in self._announcer.problems():
                        _log.warning("interface_problem", detail=problem)
                    try:
                        yield metrics_listen
                    finally:
                        _log.info("worker_stopping")
                        announcing.cancel()
                        await self._announcer.sign_off(_SIGN_OFF_TIMEOUT)
                        await self._installer.finish(_FINISH_TIMEOUT)
                        await self._receipts.flush(_RECEIPTS_TIMEOUT)
                        for task in tasks:
                            task.cancel()

    async def refresh(self) -> None:
        """Bring the metrics that are read from the dataplane up to date."""
        self._process_metrics.refresh()
        await self._collector.refresh()

    async def announced(self) -> None:
        """Wait until brokers could know this gateway."""
        await self._announcer.announced.wait()

    async def _follow_links(self) -> None:
        """When an interface comes, its peers and waiting keys are due; when one goes, brokers should know."""
        async for event in self.dataplane.events():
            _log.info("link_changed", interface=event.interface, present=event.present, up=event.up)
            if event.present or not event.interface:
                self._installer.retry_now(
                    domain
                    for domain in self._config.domains
                    if not event.interface or event.interface in (domain.wg, domain.vx)
                )
            self._reconciler.trigger()
            self._announcer.trigger()

    async def _unsubscribe(self, topic_filter: str) -> None:
        """Give up what the server has kept of an older configuration: to brokers it looks like a worker."""
        try:
            await self._session.unsubscribe(topic_filter, timeout=_UNSUBSCRIBE_TIMEOUT)
        except BusError as error:
            # The next message on it is another occasion.
            _log.warning("unsubscribe_failed", subscription=topic_filter, reason=error.reason, detail=str(error))
        else:
            _log.info("unsubscribed", subscription=topic_filter)

    def reload(self) -> None:
        """Read the key lists again."""
        self._key_lists.reload()

    def problems(self) -> list[str]:
        """Why nodes should not be sent here now, a sentence each."""
        problems = self._announcer.problems()
        if not self._session.connected:
            problems.append("there is no connection with the MQTT server")
        elif not self._announcer.announced.is_set():
            problems.append("this gateway has not been announced to the brokers yet")
        return problems

    def stuck(self, limit: float) -> list[str]:
        """What makes no progress (the installer: for these seconds), a sentence each."""
        stuck = []
        if self._installer.busy_for() > limit:
            stuck.append("the installer is stuck")
        if self._session.stuck:
            stuck.append("the MQTT session is stuck")
        return stuck


async def run(config: Config, supervisor: Supervisor) -> None:
    """Run a worker until cancelled."""
    worker = Worker(config, new_registry("worker"))
    supervisor.on_reload(worker.reload)
    async with worker.running():
        supervisor.ready()
        await supervisor.watch(worker.problems, worker.stuck)
