"""The whole service in one process: embedded MQTT server, broker, worker, and simulated nodes."""

import asyncio
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from wgkex_ops.broker import Broker
from wgkex_ops.config import Config
from wgkex_ops.consumer.dataplane.kernel import probe
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane
from wgkex_ops.demo.embedded import mqtt_server
from wgkex_ops.demo.routers import simulate
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.worker import Worker

_EXAMPLE_KEY: Final = "o52Ge+Rpj4CUSitVag9mS7pSXUesNM0ESnvj/wwehkg="


async def run(config: Config, node_count: int) -> None:
    """Run everything until cancelled, and print what runs where.

    Args:
        config: used except for `mqtt` and `worker.state_dir`: the MQTT server is embedded, the journal temporary.
        node_count: how many nodes are simulated.
    """
    reason = "set in the configuration" if config.worker.dataplane == "memory" else probe(config.domains)
    with tempfile.TemporaryDirectory(prefix="wgkex-") as folder:
        async with mqtt_server() as mqtt_port:
            config = _for_demo(config, mqtt_port, "kernel" if reason is None else "memory", Path(folder))
            worker = Worker(config, new_registry("worker"))
            broker = Broker(config, new_registry("broker"))
            async with worker.running() as worker_pages, broker.running() as (listen, broker_pages):
                dataplane = worker.dataplane
                shake_hands = dataplane.shake_hands if isinstance(dataplane, MemoryDataplane) else None
                await broker.connected()
                await worker.announced()
                addresses = {
                    "listen": str(listen),
                    "broker": str(broker_pages),
                    "worker": str(worker_pages),
                    "mqtt": f"127.0.0.1:{mqtt_port}",
                }
                simulated = ", handshakes too" if node_count and shake_hands else ""
                print(_banner(config, addresses, reason, f"{node_count} simulated{simulated}"), flush=True)  # noqa: T201
                await simulate(listen, config.domains, node_count, shake_hands)
                await asyncio.get_running_loop().create_future()


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
    return config.model_copy(update={"mqtt": mqtt, "broker": broker, "worker": worker})


def _banner(config: Config, addresses: Mapping[str, str], no_kernel: str | None, nodes: str) -> str:
    """What runs where, and what to type."""
    indent = "\n" + 16 * " "
    dataplane = "kernel" if no_kernel is None else f"memory: NOTHING IS INSTALLED,{indent}{no_kernel}"
    submission = json.dumps({"domain": config.domains[0].name, "public_key": _EXAMPLE_KEY})
    versions = [f"http://{addresses['listen']}/api/{version}/wg/key/exchange" for version in ("v1", "v2")]
    commands = "\n    ".join(f"wget -qO- --post-data='{submission}' {url}" for url in versions)
    return f"""
  broker API    {indent.join(versions)}
  broker page   http://{addresses["broker"]}/  metrics: http://{addresses["broker"]}/metrics
  worker page   http://{addresses["worker"]}/  metrics: http://{addresses["worker"]}/metrics
  MQTT server   {addresses["mqtt"]} (embedded)
  domains       {", ".join(domain.name for domain in config.domains)}
  dataplane     {dataplane}
  nodes         {nodes}
  logs          level {config.log_level}; --log-level info shows each key

  Try it:

    {commands}

  Ctrl-C ends it.
"""
