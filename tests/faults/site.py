"""A small network under watch, in which a minute takes a second: broker, gateways, nodes, Prometheus, Alertmanager."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from alerts.rules import document
from alerts.settings import Settings
from tests.helpers import CITY, WELT, key, post_key
from tests.integration.inprocess import (
    RunningBroker,
    RunningWorker,
    configuration,
    running_broker,
    running_worker,
)
from tests.integration.loopback import LOOPBACK, eventually_answered, free_port
from tests.integration.servers import Bench, Mosquitto, Prometheus
from tests.integration.watched import PACE, Receiver, alertmanager_config, background
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

MINUTE: Final = 60 * PACE
# A busy machine misses some scrapes, which is no outage.
INTERVAL: Final = "500ms"
RULES: Final = Settings(pace=PACE, shortest_window="5s", mqtt_keep="20m")
# The wait for an alert, in minutes of this network; the machine may be busy.
ALERT_WITHIN: Final = 90
NODES: Final = 50
# A node's handshakes, and when it notices that there are none any more.
_HANDSHAKE_EVERY: Final = 2 * MINUTE
_GIVES_UP: Final = 3 * MINUTE
_DOMAINS: Final = (WELT, CITY)


def fast_clock() -> Callable[[], float]:
    """A clock of the day that runs as fast as this network, from now on."""
    start = time.time()
    return lambda: start + (time.time() - start) / PACE


@dataclass(eq=False)
class Gateway:
    """A gateway, and what is broken there.

    Attributes:
        firewalled: no handshake completes.
    """

    name: str
    worker: RunningWorker
    firewalled: bool = False


@dataclass(eq=False)
class Site:
    """All of it.

    Attributes:
        silent: nodes that have been switched off, or whose firmware is broken.
        tries: how often each node asked before it had the tunnel that it has, or is still asking.
    """

    mosquitto: Mosquitto
    broker: RunningBroker
    gateways: dict[str, Gateway]
    prometheus: Prometheus
    receiver: Receiver
    silent: bool = False
    tries: dict[PublicKey, list[str]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def minutes(self) -> float:
        """Minutes of this network since it began."""
        return (time.monotonic() - self.began) / MINUTE

    async def live(self, domain: Domain, node: PublicKey) -> None:
        """Ask for a tunnel by version 2, use it, lose it, and ask again, for ever."""
        await asyncio.sleep(random.uniform(0, MINUTE))
        tries = self.tries[node] = []
        while True:
            gateway = await self._connect(domain, node, tries)
            if gateway is None:
                await asyncio.sleep(MINUTE)
                continue
            while not gateway.firewalled and not self.silent:
                gateway.worker.dataplane.shake_hands(domain, node)
                await asyncio.sleep(_HANDSHAKE_EVERY)
            await asyncio.sleep(_GIVES_UP + random.uniform(0, MINUTE))
            tries = self.tries[node] = []

    async def hurry(self) -> None:
        """Let the workers do each minute what they do each minute of the day, for ever."""
        while True:
            await asyncio.sleep(MINUTE)
            for gateway in self.gateways.values():
                gateway.worker.dataplane.report_links()

    async def _connect(self, domain: Domain, node: PublicKey, tries: list[str]) -> Gateway | None:
        """Ask once; the gateway, if there is a handshake with it."""
        if self.silent:
            return None
        try:
            _, response = await post_key(self.broker.nodes, 2, domain.name, node)
            name = str(response["Endpoint"]["Address"]).partition(".")[0]
        except (OSError, ValueError, KeyError):
            return None
        tries.append(name)
        gateway = self.gateways[name]
        async with asyncio.timeout(10):
            # The kernel of a gateway that has not got the key answers no handshake; WireGuard repeats them.
            while not gateway.firewalled:
                if gateway.worker.dataplane.shake_hands(domain, node):
                    return gateway
                await asyncio.sleep(0.05)
        return None

    async def firing(self) -> set[tuple[str, str]]:
        """The alerts that fire, with their severity."""
        alerts = (await self.prometheus.get("alerts"))["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"]["severity"])
            for alert in alerts
            if alert["state"] == "firing"
        }

    async def fires(self, alert: str, severity: str = "warning") -> float:
        """Wait for an alert; the minutes of this network that it took."""
        since = self.minutes

        async def fires() -> bool:
            return (alert, severity) in await self.firing()

        try:
            await eventually_answered(fires, alert, ALERT_WITHIN * MINUTE)
        except AssertionError:
            raise AssertionError(f"no {alert}; there are {await self.firing()}") from None
        return self.minutes - since

    async def stays_quiet(self, minutes: float) -> None:
        """See that for some time nothing fires but the dead man's switch."""
        end = self.minutes + minutes
        while self.minutes < end:
            firing = await self.firing()
            assert firing <= {("WgkexWatchdog", "none")}, firing
            await asyncio.sleep(MINUTE)


@contextlib.asynccontextmanager
async def running_site(
    bench: Bench,
    names: Sequence[str] = ("gw01", "gw02", "gw03"),
    *,
    nodes: int = NODES,
    mosquitto_settings: Sequence[str] = (),
    users: bool = False,
) -> AsyncIterator[Site]:
    """Run a network until all of its nodes have a tunnel, and while the context lasts.

    Args:
        bench: starts the servers.
        names: of the gateways.
        nodes: how many there are.
        mosquitto_settings: lines of the MQTT server's configuration.
        users: whether each process has a user of its own name there.
    """
    mosquitto = await bench.mosquitto(*mosquitto_settings)
    pages = {name: free_port() for name in ("broker", *names)}

    def user(name: str) -> Mapping[str, str]:
        return {"username": name, "password": name} if users else {}

    async with Receiver().serving() as receiver, contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(
            running_broker(
                configuration(
                    mosquitto.port,
                    "broker",
                    workers={name: {"weight": 1} for name in names},
                    broker={"metrics_listen": {"host": LOOPBACK, "port": pages["broker"]}},
                    mqtt=user("broker"),
                )
            )
        )
        gateways = {}
        for name in names:
            config = configuration(
                mosquitto.port,
                name,
                worker={"metrics_listen": {"host": LOOPBACK, "port": pages[name]}},
                # Otherwise none would be completed within the time of a test, and count as stalled.
                cleanup={"interval": 10},
                mqtt=user(name),
            )
            worker = await stack.enter_async_context(running_worker(config, clock=fast_clock()))
            gateways[name] = Gateway(name, worker)
        alertmanager = await bench.alertmanager(alertmanager_config(receiver.address))
        prometheus = await bench.prometheus(
            {
                RULES.broker_job: f"{LOOPBACK}:{pages['broker']}",
                RULES.worker_job: [f"{LOOPBACK}:{pages[name]}" for name in names],
            },
            interval=INTERVAL,
            rules=document(RULES),
            alertmanager=alertmanager,
        )
        site = Site(mosquitto, broker, gateways, prometheus, receiver)
        async with contextlib.AsyncExitStack() as living:
            await living.enter_async_context(background(site.hurry()))
            for number in range(nodes):
                node = site.live(_DOMAINS[number % len(_DOMAINS)], key(number))
                await living.enter_async_context(background(node))

            async def all_are_active() -> bool:
                active = await prometheus.scalar('sum(wgkex_worker_peers{state="active"})')
                return active is not None and active >= nodes

            await eventually_answered(all_are_active, "tunnels for all nodes", ALERT_WITHIN * MINUTE)
            yield site
