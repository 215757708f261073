"""The broker, put together: public listener, operator listener, session, and the state of the gateways."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final, NoReturn

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from wgkex_ops.bus.messages import (
    WORKER_EVENTS,
    Origin,
    WorkerStatus,
    broker_status_topic,
    key_topic,
    origin_properties,
    parse_receipt,
    parse_worker_event,
    receipt_topic,
    split_correlation,
    status_payload,
)
from wgkex_ops.bus.session import Message, Session, Will
from wgkex_ops.config import Config, Listen
from wgkex_ops.errors import BusError, InvalidMessageError
from wgkex_ops.http.gateways.choice import Assigner
from wgkex_ops.http.gateways.confirmations import Outstanding
from wgkex_ops.http.gateways.registry import Gateways, UnknownOriginError
from wgkex_ops.http.gateways.resending import Republisher
from wgkex_ops.http.operator.listener import OperatorPages, create_operator_app
from wgkex_ops.http.operator.page.broker import BrokerView
from wgkex_ops.http.operator.page.parts import MqttView
from wgkex_ops.http.public.app import HANDLERS, create_app
from wgkex_ops.http.public.exchange import KeyExchange
from wgkex_ops.http.public.submission import Submission
from wgkex_ops.http.server import serve
from wgkex_ops.metrics.broker import GatewayMetrics, HttpMetrics, KeyMetrics, ReceiptMetrics
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.metrics.mqtt import MqttMetrics
from wgkex_ops.model.names import ALL_WORKERS, UNKNOWN
from wgkex_ops.supervisor import Supervisor

_log = structlog.get_logger(__name__)

# A clean end takes 5 s at the most: first the requests in progress, then the goodbye. aiohttp takes this time twice: it
# waits for a request, tells it to stop, and waits again.
_SHUTDOWN_TIMEOUT: Final = 1.25
_GOODBYE_TIMEOUT: Final = 1.0
# Longer than a load balancer keeps an idle connection, and no reason to hold one for an hour.
_KEEPALIVE_TIMEOUT: Final = 75.0
# How long the server may take to tell all that it has kept; a gateway that is not among it is not there.
_RETAINED_WITHIN: Final = 5.0
_ANNOUNCE_AGAIN_AFTER: Final = 5.0


class Broker:
    """What turns a node's submission into a message on the bus, and knows which gateway is best.

    Args:
        config: the whole configuration.
        registry: where the instruments live.
        supervisor: knows whether the end has begun.
    """

    def __init__(self, config: Config, registry: CollectorRegistry, supervisor: Supervisor | None = None) -> None:
        names = tuple(domain.name for domain in config.domains)
        self._config = config
        self._supervisor = supervisor or Supervisor()
        self._key_metrics = KeyMetrics(registry, names)
        self._http_metrics = HttpMetrics(registry, HANDLERS)
        self._gateway_metrics = GatewayMetrics(registry, config.workers, names)
        self._receipt_metrics = ReceiptMetrics(registry, config.workers)
        self._gateways = Gateways(config.workers, names)
        # MQTT 3.1.1 has no way to ask for an answer.
        self._receipt_topic = receipt_topic(config.broker.name) if config.mqtt.version == "5" else ""
        self._outstanding = Outstanding(
            self._gateways, topic=self._receipt_topic, metrics=self._receipt_metrics, label=self._label
        )
        self._status_topic = broker_status_topic(config.broker.name)
        mqtt_metrics = MqttMetrics(registry)
        self._session = Session(
            config.mqtt,
            client_id=f"wgkex-broker-{config.broker.name}",
            subscriptions=WORKER_EVENTS,
            # A server whose rules know nothing of receipts is no reason to serve nobody.
            optional_subscriptions=(self._receipt_topic,) if self._receipt_topic else (),
            will=Will(self._status_topic, status_payload(online=False)),
            metrics=mqtt_metrics,
        )
        self._republisher = Republisher(self._outstanding, connection=self._session, publish=self._publish)
        self._view = BrokerView(
            name=config.broker.name,
            domains=names,
            listed=config.workers,
            gateways=self._gateways,
            keys=self._key_metrics,
            gateway_metrics=self._gateway_metrics,
            mqtt=MqttView(self._session, mqtt_metrics, f"{config.mqtt.host}:{config.mqtt.port}"),
            problems=self.problems,
        )
        self._pages = OperatorPages(
            registry=registry, problems=self.problems, page=self._view.page, refresh=self._refresh_gateway_metrics
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Listen, Listen]]:
        """Serve while the context lasts.

        Yields:
            where it listens for nodes and for operators.
        """
        assigner = Assigner(
            self._gateways,
            confirm_timeout=self._config.broker.confirm_timeout,
            assignments=self._gateway_metrics.assignments,
            timeouts=self._receipt_metrics.timeouts,
            label=self._label,
        )
        exchange = KeyExchange(
            domains={domain.name: domain for domain in self._config.domains},
            publish=self._publish,
            outstanding=self._outstanding,
            assign=assigner.assign,
            metrics=self._key_metrics,
        )
        operator_app = create_operator_app(self._pages)
        app = create_app(exchange, self._http_metrics)
        app.on_response_prepare.append(self._let_go)
        # The listener for operators comes first: a second process, started by mistake, fails on it before it takes the
        # place of the first one on the bus.
        async with (
            serve(operator_app, self._config.broker.metrics_listen, shutdown_timeout=0.0) as metrics_listen,
            self._session,
            self._farewell(),
            asyncio.TaskGroup() as group,
            self._working(group),
            serve(
                app,
                self._config.broker_listen,
                shutdown_timeout=_SHUTDOWN_TIMEOUT,
                keepalive_timeout=_KEEPALIVE_TIMEOUT,
            ) as listen,
        ):
            _log.info("broker_started", listen=str(listen), metrics=str(metrics_listen), name=self._config.broker.name)
            try:
                yield listen, metrics_listen
            finally:
                _log.info("broker_stopping")

    @contextlib.asynccontextmanager
    async def _working(self, group: asyncio.TaskGroup) -> AsyncIterator[None]:
        """Do what is not a request; to the end of the last one of those, which may wait for a receipt."""
        tasks = [
            group.create_task(self._announce(), name="announce"),
            group.create_task(self._forget_the_lost(), name="forget-the-lost"),
            group.create_task(self._follow_gateways(), name="follow-gateways"),
            group.create_task(self._republisher.run(), name="republisher"),
            group.create_task(self._view.history.run(), name="history"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def connected(self) -> None:
        """Wait until keys can be handed over."""
        await self._session.connection_after(0)

    async def _publish(self, submission: Submission, origin: Origin, target: str = ALL_WORKERS) -> None:
        await self._session.publish(
            key_topic(submission.domain.name, target),
            str(submission.key).encode(),
            timeout=self._config.broker.publish_timeout,
            properties=origin_properties(origin),
            response_topic=origin.receipt_to.topic if origin.receipt_to else "",
            correlation=origin.receipt_to.correlation if origin.receipt_to else b"",
        )

    async def _announce(self) -> NoReturn:
        """Say on each connection that this broker is online."""
        seen = 0
        while True:
            seen = await self._session.connection_after(seen)
            await self._say_online()

    async def _forget_the_lost(self) -> NoReturn:
        """Drop, after each connection, the gateways that are no longer heard of."""
        seen = 0
        while True:
            seen = await self._session.connection_after(seen)
            opened_at = self._session.opened_at
            await asyncio.sleep(_RETAINED_WITHIN)
            self._gateways.forget_before(opened_at)

    async def _say_online(self) -> None:
        while self._session.connected:
            try:
                await self._session.publish(
                    self._status_topic,
                    status_payload(online=True),
                    timeout=self._config.broker.publish_timeout,
                    retain=True,
                )
            except BusError as error:
                _log.warning("announcement_failed", reason=error.reason, detail=str(error))
                await asyncio.sleep(_ANNOUNCE_AGAIN_AFTER)
            else:
                return

    @contextlib.asynccontextmanager
    async def _farewell(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with contextlib.suppress(BusError):
                await self._session.publish(
                    self._status_topic, status_payload(online=False), timeout=_GOODBYE_TIMEOUT, retain=True
                )

    async def _follow_gateways(self) -> None:
        async for message in self._session.messages():
            try:
                if message.topic == self._receipt_topic:
                    self._take_receipt(message)
                else:
                    self._take_event(message)
            except (InvalidMessageError, UnknownOriginError) as error:
                self._gateway_metrics.messages_rejected.labels(error.reason).inc()
                _log.warning("message_rejected", reason=error.reason, topic=message.topic[:200])
            message.acknowledge()

    def _take_event(self, message: Message) -> None:
        event = parse_worker_event(message.topic, message.payload)
        self._gateways.update(event, time.monotonic())
        if isinstance(event, WorkerStatus) and event.online and not message.retained:
            self._republisher.came(event.worker)

    def _take_receipt(self, message: Message) -> None:
        receipt = parse_receipt(message.payload)
        found = map(self._outstanding.find, split_correlation(message.correlation))
        # Nothing is wrong with others: a key that was sent twice is confirmed twice, and some receipts come late.
        handovers = [handover for handover in found if handover is not None]
        # Nobody can make us keep the receipts of any number of workers.
        if handovers and receipt.worker not in self._gateways.workers:
            raise UnknownOriginError("unknown_worker")
        for handover in handovers:
            self._outstanding.take(handover, receipt)

    async def _refresh_gateway_metrics(self) -> None:
        """Bring the gateways' gauges up to date; of unlisted workers under one label, the sums."""
        metrics = self._gateway_metrics
        metrics.brokers_online.set(self._gateways.brokers_online)
        self._receipt_metrics.awaiting.set(self._outstanding.awaiting)
        offset = time.time() - time.monotonic()
        targets = self._gateways.targets()
        groups: dict[str, list[str]] = {}
        for worker in self._gateways.workers:
            groups.setdefault(self._label(worker), []).append(worker)
        for label, workers in groups.items():
            gateways = [self._gateways.workers[worker] for worker in workers]
            metrics.add_worker(label)
            self._receipt_metrics.add_worker(label)
            metrics.online.labels(label).set(sum(gateway.online for gateway in gateways))
            metrics.target_peers.labels(label).set(sum(targets[worker] for worker in workers))
            seen = [gateway.last_seen + offset for gateway in gateways if gateway.last_seen is not None]
            metrics.last_seen.labels(label).set(max(seen, default=0))
            for domain in self._config.domains:
                peers = sum(gateway.peers_in(domain.name) for gateway in gateways)
                metrics.peers.labels(label, domain.name).set(peers)

    def _label(self, worker: str) -> str:
        """A worker's name as a label. Where workers are listed, nobody on the bus can make a new series."""
        return worker if worker in self._config.workers or not self._config.workers else UNKNOWN

    def problems(self) -> list[str]:
        """Why it should get no requests now, a sentence each."""
        problems = []
        if not self._session.connected:
            problems.append("there is no connection with the MQTT server")
        elif not self._knows_gateways:
            problems.append("it is not known yet which gateways there are")
        return ["shutting down", *problems] if self._supervisor.stopping else problems

    @property
    def _knows_gateways(self) -> bool:
        """Whether the server has told what it keeps: it does so before it tells our own word, if that is allowed."""
        heard = self._config.broker.name in self._gateways.brokers
        return heard or time.monotonic() - self._session.opened_at > _RETAINED_WITHIN

    def stuck(self, _limit: float) -> list[str]:
        """What has not got on for too long, a sentence each: the event loop, which would not even ask, is the rest."""
        return ["the MQTT session is stuck"] if self._session.stuck else []

    async def _let_go(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Towards the end each answer is the last one on its connection: none is then sent into a closing one."""
        if self._supervisor.stopping:
            response.headers["Connection"] = "close"
            response.force_close()


async def run(config: Config, supervisor: Supervisor) -> None:
    """Run a broker until cancelled."""
    broker = Broker(config, new_registry("broker"), supervisor)
    async with broker.running():
        supervisor.ready()
        await supervisor.watch(broker.problems, broker.stuck)
