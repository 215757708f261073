"""The broker, put together: public listener, operator listener, MQTT session, and what is known of the gateways."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from wgkex_ops.bus.answering import Answerer
from wgkex_ops.bus.asking import Asker
from wgkex_ops.bus.messages import WORKER_EVENTS, broker_status_topic, receipt_topic, status_payload
from wgkex_ops.bus.questions import ASK, answers_subscription
from wgkex_ops.bus.session import Session, Will
from wgkex_ops.config import Config, Listen
from wgkex_ops.http.clients import TrustedProxies
from wgkex_ops.http.connections import Connections
from wgkex_ops.http.gateways.announcer import Announcer
from wgkex_ops.http.gateways.choice import Assigner, Locations
from wgkex_ops.http.gateways.confirmations import UnconfirmedKeys
from wgkex_ops.http.gateways.fleet import fleet_status
from wgkex_ops.http.gateways.gauges import GatewayGauges
from wgkex_ops.http.gateways.inspection import BrokerInspector
from wgkex_ops.http.gateways.intake import GatewayIntake
from wgkex_ops.http.gateways.nodes import RecentNodes
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.gateways.requests import RecentRequests
from wgkex_ops.http.gateways.sender import KeySender
from wgkex_ops.http.gateways.silence import Silences
from wgkex_ops.http.listening import most_connections
from wgkex_ops.http.operator.access import Access
from wgkex_ops.http.operator.listener import OperatorPages, create_operator_app
from wgkex_ops.http.operator.page.broker import BrokerView
from wgkex_ops.http.operator.page.common import MqttView
from wgkex_ops.http.operator.page.peer import PeerView
from wgkex_ops.http.public.app import HANDLERS, PublicApp
from wgkex_ops.http.public.exchange import KeyExchange
from wgkex_ops.http.public.limits import Limits
from wgkex_ops.http.server import serve
from wgkex_ops.http.tls import Certificate
from wgkex_ops.key_lists import WatchedKeyLists
from wgkex_ops.metrics.broker import (
    ConnectionMetrics,
    GatewayMetrics,
    HttpMetrics,
    KeyMetrics,
    NodeMetrics,
    ReceiptMetrics,
)
from wgkex_ops.metrics.build import ProcessMetrics, new_registry
from wgkex_ops.metrics.locations import LocationMetrics
from wgkex_ops.metrics.mqtt import MqttMetrics
from wgkex_ops.model.fleet import FleetStatus, Problem, Severity
from wgkex_ops.supervisor import Supervisor

_log = structlog.get_logger(__name__)

# A stop takes 5 s at the most: first the requests in progress are finished, then the broker's status is published.
# aiohttp takes this time twice: it waits for a request, cancels it, and waits again.
_SHUTDOWN_TIMEOUT: Final = 1.25
# Bounds of a request's head, far above what a node and a load balancer send.
_LONGEST_LINE: Final = 1024
_MOST_HEADERS: Final = 32


class Broker:
    """Turns each node's submission into a message on the bus, and knows which gateway is best.

    Args:
        config: the whole configuration.
        registry: where the instruments live.
        supervisor: knows whether the process is about to stop.
    """

    def __init__(self, config: Config, registry: CollectorRegistry, supervisor: Supervisor | None = None) -> None:
        self._config = config
        self._supervisor = supervisor or Supervisor()
        name, publish_timeout = config.broker.name, config.broker.publish_timeout
        domains = {domain.name: domain for domain in config.domains}
        # MQTT 3.1.1 has no response topics.
        receipts = receipt_topic(name) if config.mqtt.version == "5" else ""
        status_topic = broker_status_topic(name)

        self._process_metrics = ProcessMetrics(registry, "broker", name)
        mqtt_metrics = MqttMetrics(registry)
        key_metrics = KeyMetrics(registry, domains)
        gateway_metrics = GatewayMetrics(registry, config.workers, domains)
        receipt_metrics = ReceiptMetrics(registry, config.workers, domains)
        node_metrics = NodeMetrics(registry, config.workers, domains)

        self._session = Session(
            config.mqtt_of("broker"),
            client_id=f"wgkex-broker-{name}",
            subscriptions=WORKER_EVENTS,
            # A server whose access rules do not know of receipts is no reason to serve no keys.
            # Workers of earlier revisions leave their name out of the topic.
            optional_subscriptions=(receipts, f"{receipts}/+", ASK, answers_subscription(name)) if receipts else (),
            will=Will(status_topic, status_payload(online=False)),
            metrics=mqtt_metrics,
        )
        self._announcer = Announcer(self._session, status_topic=status_topic, publish_timeout=publish_timeout)
        gateways = self._gateways = Gateways(config.workers, domains, only_listed=config.broker.workers_only_listed)
        silences = self._silences = Silences(gateways)
        unconfirmed = UnconfirmedKeys(gateways, silences, receipt_topic=receipts, metrics=receipt_metrics)
        nodes = RecentNodes(gateways, node_metrics)
        self._key_lists = WatchedKeyLists(config.key_lists, domains, registry)
        requests = RecentRequests(domains)
        inspector = BrokerInspector(
            broker=name,
            domains=tuple(domains),
            requests=requests,
            confirming=gateways.confirming,
            lists=self._key_lists.current,
        )
        self._answerer = Answerer(self._session, name, inspector.inspect)
        asker = Asker(name, partial(self._session.publish, timeout=publish_timeout), gateways)
        self._intake = GatewayIntake(
            self._session,
            gateways,
            unconfirmed,
            silences,
            broker=name,
            take_question=self._answerer.take,
            take_answer=asker.take,
            rejections=gateway_metrics.messages_rejected,
        )
        self._sender = KeySender(unconfirmed, self._session, publish_timeout=publish_timeout)
        assigner = Assigner(
            gateways,
            nodes,
            silences,
            locations=Locations(config.locations, config.broker.location_tolerance),
            confirm_timeout=config.broker.confirm_timeout,
            assignments=gateway_metrics.assignments,
            timeouts=receipt_metrics.timeouts,
            preferences=LocationMetrics(registry),
        )
        self._proxies = TrustedProxies(config.broker.trusted_proxies)
        exchange = KeyExchange(
            domains=domains,
            proxies=self._proxies,
            lists=self._key_lists.current,
            limits=Limits(config.limits),
            nodes=nodes,
            requests=requests,
            unconfirmed=unconfirmed,
            send=self._sender.send,
            assign=assigner.assign,
            metrics=key_metrics,
        )
        http_metrics = HttpMetrics(registry, HANDLERS)
        self._app = PublicApp(exchange, http_metrics, self.problems, lambda: self._supervisor.stopping)
        self._tls = Certificate(listen.tls, "broker_listen.tls") if (listen := config.broker_listen).tls else None
        connection_metrics = ConnectionMetrics(registry)
        self._connections = Connections(
            most_connections(config.limits.connections), lambda reason: connection_metrics.refused.labels(reason).inc()
        )
        connection_metrics.open.set_function(lambda: len(self._connections))

        self._view = BrokerView(
            name=name,
            domains=tuple(domains),
            listed=config.workers,
            gateways=gateways,
            silences=silences,
            keys=key_metrics,
            gateway_metrics=gateway_metrics,
            receipt_metrics=receipt_metrics,
            node_metrics=node_metrics,
            forwarding=exchange.forwarding,
            mqtt=MqttView(self._session, mqtt_metrics, f"{config.mqtt.host}:{config.mqtt.port}"),
            searchable=bool(receipts),
            lists_problem=lambda: self._key_lists.problem,
            problems=self.problems,
        )
        self._gauges = GatewayGauges(
            gateways,
            unconfirmed,
            silences,
            domains=domains,
            gateway_metrics=gateway_metrics,
            receipt_metrics=receipt_metrics,
            node_metrics=node_metrics,
        )
        self._access = Access(config.broker.metrics_listen, setting="broker.metrics_listen", names=[name])
        self._operator_app = create_operator_app(
            OperatorPages(
                registry=registry,
                problems=self.problems,
                page=self._view.page,
                refresh=self.refresh,
                status=self.status,
                search=PeerView(name, asker.about, self.problems).page if receipts else None,
            ),
            self._access,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Listen, Listen]]:
        """Serve while the context lasts.

        Yields:
            where it listens for nodes and for operators.
        """
        config = self._config.broker
        # The listener for operators comes first: a second process, started by mistake, fails on it before it takes the
        # place of the first one on the bus.
        async with (
            serve(
                self._operator_app,
                config.metrics_listen,
                setting="broker.metrics_listen",
                ssl_context=self._access.ssl_context,
            ) as metrics_listen,
            self._session,
            self._announcer.goodbye(),
            asyncio.TaskGroup() as group,
            self._background(group),
            serve(
                self._app,
                self._config.broker_listen,
                setting="broker_listen",
                ssl_context=self._tls.context if self._tls is not None else None,
                connections=self._connections,
                network_of=self._proxies.network_of_connection,
                reuse_port=self._config.broker_listen.reuse_port,
                shutdown_timeout=_SHUTDOWN_TIMEOUT,
                max_line_size=_LONGEST_LINE,
                max_field_size=_LONGEST_LINE,
                max_headers=_MOST_HEADERS,
            ) as listen,
        ):
            _log.info("broker_started", listen=str(listen), metrics=str(metrics_listen), name=config.name)
            try:
                yield listen, metrics_listen
            finally:
                _log.info("broker_stopping")

    @contextlib.asynccontextmanager
    async def _background(self, group: asyncio.TaskGroup) -> AsyncIterator[None]:
        """Run all that is not a request until the last request, which may wait for a receipt, is over."""
        tasks = [
            group.create_task(self._announcer.run(), name="announcer"),
            group.create_task(self._intake.run(), name="intake"),
            group.create_task(self._intake.forget_lost(), name="forget-lost"),
            group.create_task(self._intake.watch_gateways(), name="watch-gateways"),
            group.create_task(self._sender.resend(), name="resend"),
            group.create_task(self._answerer.run(), name="answerer"),
            group.create_task(self._view.history.run(), name="history"),
            group.create_task(self._key_lists.run(), name="key-lists"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def refresh(self) -> None:
        """Bring the metrics that are read at a scrape up to date."""
        self._process_metrics.refresh()
        await self._gauges.refresh()

    def status(self) -> FleetStatus:
        """What this broker knows of the fleet."""
        complete = self._intake.complete
        # Until then, it is one of these problems that nothing is known.
        severity = Severity.WARNING if complete else Severity.UNKNOWN
        return fleet_status(
            self._gateways,
            source=self._config.broker.name,
            domains=[domain.name for domain in self._config.domains],
            listed=self._config.workers,
            silent=self._silences.silent,
            problems=[Problem(severity, f"this broker: {problem}") for problem in self.problems()],
            complete=complete,
        )

    def reload(self) -> None:
        """Read the key lists again."""
        self._key_lists.reload()

    async def connected(self) -> None:
        """Wait until keys can be handed over."""
        await self._session.connection_after(0)

    def problems(self) -> list[str]:
        """Why it should get no requests now, a sentence each."""
        problems = []
        if not self._session.connected:
            problems.append("there is no connection with the MQTT server")
        elif not self._intake.complete:
            problems.append("it is not known yet which gateways there are")
        return ["shutting down", *problems] if self._supervisor.stopping else problems

    def stuck(self, _limit: float) -> list[str]:
        """What has made no progress for too long, a sentence each, apart from the event loop itself."""
        return ["the MQTT session is stuck"] if self._session.stuck else []


async def run(config: Config, supervisor: Supervisor) -> None:
    """Run a broker until cancelled."""
    broker = Broker(config, new_registry("broker"), supervisor)
    supervisor.on_reload(broker.reload)
    async with broker.running():
        supervisor.ready()
        await supervisor.watch(broker.problems, broker.stuck)
