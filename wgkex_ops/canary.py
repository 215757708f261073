"""The canary, put together: keys, requests, tunnels, rounds, and the listener for operators."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn, Protocol

import structlog
from prometheus_client import CollectorRegistry

from wgkex_ops.bus.session import Session
from wgkex_ops.config import Config, Listen
from wgkex_ops.errors import CannotProbeError
from wgkex_ops.http.operator.access import Access
from wgkex_ops.http.operator.listener import OperatorPages, create_operator_app
from wgkex_ops.http.operator.page.canary import CanaryView
from wgkex_ops.http.server import serve
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.metrics.mqtt import MqttMetrics
from wgkex_ops.metrics.probe import ProbeMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.rounds import HANDSHAKE, LIMIT, PHASES, Round
from wgkex_ops.probe.choice import Choice
from wgkex_ops.probe.keys import KeyRing, PrivateKey
from wgkex_ops.probe.published import PublishedEndpoints, subscriptions
from wgkex_ops.probe.recorder import Recorder
from wgkex_ops.probe.requests import ChosenGateway, GivenEndpoint, NamedGateway, Requests
from wgkex_ops.probe.rounds import OpenTunnel, run_round
from wgkex_ops.probe.tunnel import check_rights, open_tunnel
from wgkex_ops.supervisor import Supervisor

_log = structlog.get_logger(__name__)

# Seconds beyond the interval, or beyond the limits of all phases, after which a round is stuck. An interface is made
# within 5 s, and removed within 5 s.
_STUCK_AFTER: Final = 20.0


class Tunnels(Protocol):
    """How tunnels are opened."""

    def opener(self, domain: Domain, key: PrivateKey) -> OpenTunnel: ...
    async def check(self, domain: Domain) -> None:
        """Find out whether they can be; raises CannotProbeError if not."""


@dataclass(frozen=True, slots=True)
class KernelTunnels:
    """Tunnels of this machine's kernel."""

    own_namespace: bool

    def opener(self, domain: Domain, key: PrivateKey) -> OpenTunnel:
        """Open them with this key."""
        return partial(open_tunnel, domain=domain, private_key=key, own_namespace=self.own_namespace)

    async def check(self, domain: Domain) -> None:
        """Make an interface, and remove it."""
        await check_rights(domain, PrivateKey.generate(), own_namespace=self.own_namespace)


@contextlib.asynccontextmanager
async def _requesting(config: Config, choice: Choice, *, goes_around: bool) -> AsyncIterator[Requests]:
    """Get what submits keys, ready while the context lasts."""
    if not choice.gateway:
        yield ChosenGateway(choice.url, goes_around=goes_around)
        return
    if choice.endpoint is not None:
        yield NamedGateway(choice.url, choice.gateway, GivenEndpoint(choice.endpoint))
        return
    session = Session(
        config.mqtt_of("probe"),
        client_id=f"wgkex-probe-{socket.gethostname()}-{os.getpid()}",
        subscriptions=subscriptions(choice.gateway, choice.domains),
        will=None,
        # The alerts on these metrics are about brokers and workers.
        metrics=MqttMetrics(CollectorRegistry()),
    )
    published = PublishedEndpoints(session, choice.gateway)
    async with session, asyncio.TaskGroup() as group:
        task = group.create_task(published.run(), name="endpoints")
        try:
            yield NamedGateway(choice.url, choice.gateway, published)
        finally:
            task.cancel()


async def run_once(config: Config, choice: Choice, tunnels: Tunnels | None = None) -> list[Round]:
    """One round in each domain, all at the same time.

    Raises:
        CannotProbeError: this host cannot find out.
    """
    keys = KeyRing(choice.keys, [domain.name for domain in choice.domains])
    tunnels = tunnels or KernelTunnels(choice.own_namespace)
    with keys.locked():
        try:
            async with _requesting(config, choice, goes_around=False) as request, asyncio.TaskGroup() as group:
                rounds = [group.create_task(_round(domain, keys, request, tunnels)) for domain in choice.domains]
        except BaseExceptionGroup as errors:
            # What one domain lacks, all lack.
            if errors.split(CannotProbeError)[1] is None:
                raise _first(errors) from errors
            raise
    return [done.result() for done in rounds]


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _round(domain: Domain, keys: KeyRing, request: Requests, tunnels: Tunnels) -> Round:
    key = keys.take(domain.name)
    keep = False
    try:
        done = await run_round(
            domain, partial(request, domain, key.private.public_key()), tunnels.opener(domain, key.private)
        )
        # Without one, gateways may have the key where it was before.
        keep = HANDSHAKE in done.durations
    finally:
        keys.give_back(key, keep=keep)
    return done


class Canary:
    """Goes round after round, in each domain on its own.

    Args:
        config: the whole configuration.
        choice: what it tries.
        registry: where the instruments live.
        tunnels: how tunnels are opened; those of the kernel by default.
    """

    def __init__(
        self, config: Config, choice: Choice, registry: CollectorRegistry, tunnels: Tunnels | None = None
    ) -> None:
        names = [domain.name for domain in choice.domains]
        self._config = config
        self._choice = choice
        self._tunnels = tunnels or KernelTunnels(choice.own_namespace)
        self._recorder = Recorder(ProbeMetrics(registry, names), names, choice.gateway)
        self._progress: dict[str, float] = {}
        self._view = CanaryView(
            name=socket.gethostname(),
            broker=choice.url,
            domains=names,
            last=self._recorder.last,
            problems=self.problems,
        )
        self._access = Access(config.probe.metrics_listen, setting="probe.metrics_listen")
        self._operator_app = create_operator_app(
            OperatorPages(registry=registry, problems=self.problems, page=self._view.page), self._access
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Listen]:
        """Go round after round while the context lasts.

        Yields:
            where it listens for operators.

        Raises:
            CannotProbeError: this host cannot find out.
        """
        choice = self._choice
        keys = KeyRing(choice.keys, [domain.name for domain in choice.domains])
        with keys.locked():
            # What is missing here shall not look like an outage of the service.
            keys.check()
            await self._tunnels.check(choice.domains[0])
            async with (
                serve(
                    self._operator_app,
                    self._config.probe.metrics_listen,
                    setting="probe.metrics_listen",
                    ssl_context=self._access.ssl_context,
                ) as metrics_listen,
                _requesting(self._config, choice, goes_around=True) as request,
                asyncio.TaskGroup() as group,
            ):
                tasks = [
                    group.create_task(self._go_on(domain, keys, request), name=f"rounds-{domain}")
                    for domain in choice.domains
                ]
                _log.info("probe_started", metrics=str(metrics_listen), broker=choice.url, domains=len(tasks))
                try:
                    yield metrics_listen
                finally:
                    _log.info("probe_stopping")
                    for task in tasks:
                        task.cancel()

    async def _go_on(self, domain: Domain, keys: KeyRing, request: Requests) -> NoReturn:
        loop = asyncio.get_running_loop()
        while True:
            began = self._progress[domain.name] = loop.time()
            self._recorder.record(await _round(domain, keys, request, self._tunnels))
            await asyncio.sleep(max(0.0, began + self._choice.interval - loop.time()))

    def problems(self) -> list[str]:
        """Why its metrics show nothing yet, a sentence each."""
        missing = [domain.name for domain in self._choice.domains if domain.name not in self._recorder.last]
        return [f"no round is complete yet in {', '.join(missing)}"] if missing else []

    def stuck(self, _limit: float) -> list[str]:
        """What has made no progress for too long, a sentence each."""
        longest = max(self._choice.interval, LIMIT * len(PHASES)) + _STUCK_AFTER
        now = asyncio.get_running_loop().time()
        return [f"the rounds in {name} are stuck" for name, began in self._progress.items() if now - began > longest]


async def run(config: Config, choice: Choice, supervisor: Supervisor, tunnels: Tunnels | None = None) -> None:
    """Run a canary until cancelled."""
    canary = Canary(config, choice, new_registry("probe"), tunnels)
    async with canary.running():
        supervisor.ready()
        await supervisor.watch(canary.problems, canary.stuck)
