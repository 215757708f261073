"""The whole service in one process: embedded MQTT server, broker, worker, and simulated routers."""

import asyncio
import json
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

from wgkex_ops.broker import Broker
from wgkex_ops.cli.terminal import changing_line
from wgkex_ops.config import Config, Listen
from wgkex_ops.consumer.dataplane.kernel import probe
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane
from wgkex_ops.demo.embedded import mqtt_server
from wgkex_ops.demo.figures import Figures
from wgkex_ops.demo.routers import Routers
from wgkex_ops.http.listening import is_taken
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.simulation.post import BrokerClient
from wgkex_ops.worker import Worker

_EXAMPLE_KEY: Final = "o52Ge+Rpj4CUSitVag9mS7pSXUesNM0ESnvj/wwehkg="

# Lets the kernel choose one that is free.
_ANY_PORT: Final = {"port": 0}

# A terminal has at least so many.
_COLUMNS: Final = 80
# Of the names in front.
_NAMES: Final = 16


async def run(config: Config, node_count: int) -> None:
    """Run everything until cancelled, and print what runs where, and then what moves.

    Args:
        config: used except for `mqtt`, `worker.state_dir` and `broker_listen.tls`: the MQTT server is embedded, the
            journal temporary, and no router knows a certificate for this host. A port that another program uses is
            replaced by a free one.
        node_count: how many routers are simulated.
    """
    reason = "set in the configuration" if config.worker.dataplane == "memory" else probe(config.domains)
    with tempfile.TemporaryDirectory(prefix="wgkex-") as folder:
        async with mqtt_server() as mqtt_port:
            wanted = _for_demo(config, mqtt_port, "kernel" if reason is None else "memory", Path(folder))
            config = await _on_free_ports(wanted)
            worker_registry, broker_registry = new_registry("worker"), new_registry("broker")
            worker = Worker(config, worker_registry)
            broker = Broker(config, broker_registry)
            async with worker.running() as worker_pages, broker.running() as (listen, broker_pages):
                _print("", _row("broker page", f"http://{broker_pages}/ and /metrics"))
                _print(
                    _row("worker page", f"http://{worker_pages}/ and /metrics"),
                    *_moved(wanted, config, (listen, broker_pages, worker_pages)),
                )
                await broker.connected()
                await worker.announced()
                dataplane = worker.dataplane
                shake_hands = dataplane.shake_hands if isinstance(dataplane, MemoryDataplane) else None
                routers = Routers(BrokerClient(f"http://{listen}"), config.domains, node_count, shake_hands)
                _print(*_banner(config, listen, reason, routers))
                figures = Figures(routers, broker_registry, worker_registry, worker.refresh)
                with changing_line() as show:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(routers.run(), name="routers")
                        group.create_task(figures.show(show), name="figures")


def _for_demo(config: Config, port: int, dataplane: Literal["kernel", "memory"], folder: Path) -> Config:
    """The same configuration with the embedded MQTT server, which supports only 3.1.1.

    Args:
        config: the user's.
        port: of the embedded MQTT server.
        dataplane: the one that works on this machine.
        folder: the state directory.
    """
    mqtt = config.mqtt.model_copy(
        update={
            "host": "127.0.0.1",
            "port": port,
            "username": None,
            "password": None,
            "tls": None,
            "version": "3.1.1",
        }
    )
    nobody = {"username": None, "password": None}
    broker = config.broker.model_copy(update=nobody)
    worker = config.worker.model_copy(update={**nobody, "dataplane": dataplane, "state_dir": folder})
    listen = config.broker_listen.model_copy(update={"tls": None})
    return config.model_copy(update={"mqtt": mqtt, "broker_listen": listen, "broker": broker, "worker": worker})


async def _on_free_ports(config: Config) -> Config:
    """The same configuration; where a port is taken, the kernel chooses a free one."""
    listen, broker, worker = config.broker_listen, config.broker, config.worker
    if await is_taken(listen, reuse_port=listen.reuse_port):
        listen = listen.model_copy(update=_ANY_PORT)
    if await is_taken(broker.metrics_listen):
        broker = broker.model_copy(update={"metrics_listen": broker.metrics_listen.model_copy(update=_ANY_PORT)})
    if await is_taken(worker.metrics_listen):
        worker = worker.model_copy(update={"metrics_listen": worker.metrics_listen.model_copy(update=_ANY_PORT)})
    return config.model_copy(update={"broker_listen": listen, "broker": broker, "worker": worker})


def _moved(wanted: Config, used: Config, found: Sequence[Listen]) -> list[str]:
    """Which ports are others than those that were wanted, a sentence each."""
    settings = ("broker_listen", "broker.metrics_listen", "worker.metrics_listen")
    return [
        _row("port", f"another program has {before.port}: {setting} has {now.port}")
        for setting, before, after, now in zip(settings, _listeners(wanted), _listeners(used), found, strict=True)
        if before.port != after.port
    ]


def _listeners(config: Config) -> tuple[Listen, Listen, Listen]:
    return config.broker_listen, config.broker.metrics_listen, config.worker.metrics_listen


def _banner(config: Config, listen: Listen, no_kernel: str | None, routers: Routers) -> Iterable[str]:
    """What else runs where, and what to type; at most 80 columns, unless a name is longer."""
    yield _row("broker API", f"http://{listen}/api/v1/wg/key/exchange and /api/v2/…")
    yield _row("MQTT server", f"{config.mqtt.host}:{config.mqtt.port} (embedded)")
    yield _row("domains", ", ".join(domain.name for domain in config.domains))
    yield _row("dataplane", "kernel" if no_kernel is None else f"memory: NOTHING IS INSTALLED, {no_kernel}")
    if routers and no_kernel is None:
        yield _row("routers", f"{len(routers)} simulated, without private keys: the kernel sees no handshake of theirs")
    elif routers:
        yield _row(
            "routers",
            f"{len(routers)} simulated, handshakes too; now and then one is switched off and on again, which its "
            "gateway notices three minutes after the last handshake",
        )
    yield _row("logs", f"level {config.log_level}; --log-level info shows each key")
    yield f"""
  Ask for a tunnel as a router does:

    wget -qO- --post-data='{{"domain": {json.dumps(config.domains[0].name)},
      "public_key": "{_EXAMPLE_KEY}"}}' \\
      http://{listen}/api/v2/wg/key/exchange

  Ctrl-C ends it.
"""


def _row(name: str, text: str) -> str:
    """A name, and what is behind it, in as many lines as it needs."""
    return textwrap.fill(
        text,
        width=_COLUMNS - 1,
        initial_indent=f"  {name}".ljust(_NAMES),
        subsequent_indent=_NAMES * " ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _print(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)  # noqa: T201  for the person who typed the command
