"""The whole service in one process, for trying out: embedded MQTT server, broker, worker, and simulated routers."""

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
    """Run everything until cancelled, and say on standard output what runs where.

    Args:
        config: all of it counts but the MQTT server, which is the embedded one.
        node_count: how many routers are simulated.
    """
    reason = "the configuration says so" if config.worker.dataplane == "memory" else probe(config.domains)
    # What is tried out leaves nothing behind.
    with tempfile.TemporaryDirectory(prefix="wgkex-") as folder:
        async with mqtt_server() as mqtt_port:
            config = _for_trying_out(config, mqtt_port, "kernel" if reason is None else "memory", Path(folder))
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
                played = "; their handshakes are played, not real" if node_count and shake_hands else ""
                print(_banner(config, addresses, reason, f"{node_count} simulated{played}"), flush=True)  # noqa: T201
                await simulate(listen, config.domains, node_count, shake_hands)
                await asyncio.get_running_loop().create_future()


def _for_trying_out(config: Config, port: int, dataplane: Literal["kernel", "memory"], folder: Path) -> Config:
    """The same configuration, with the embedded MQTT server, which knows 3.1.1 only, and a dataplane that works.

    Args:
        config: what the user has.
        port: of the MQTT server.
        dataplane: the one that works.
        folder: what takes the place of the state directory.
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
    worker = config.worker.model_copy(update={"dataplane": dataplane, "state_dir": folder})
    return config.model_copy(update={"mqtt": mqtt, "worker": worker})


def _banner(config: Config, addresses: Mapping[str, str], no_kernel: str | None, routers: str) -> str:
    """What runs where, and what to type."""
    dataplane = "kernel" if no_kernel is None else f"memory: NOTHING IS INSTALLED, {no_kernel}"
    submission = json.dumps({"domain": config.domains[0].name, "public_key": _EXAMPLE_KEY})
    url = f"http://{addresses['listen']}/api"
    return f"""
  broker        {url}/v1/wg/key/exchange and {url}/v2/wg/key/exchange
                operators: http://{addresses["broker"]}/  metrics: http://{addresses["broker"]}/metrics
  worker        operators: http://{addresses["worker"]}/  metrics: http://{addresses["worker"]}/metrics
  MQTT server   {addresses["mqtt"]} (embedded)
  domains       {", ".join(domain.name for domain in config.domains)}
  dataplane     {dataplane}
  routers       {routers}
  logs          from level {config.log_level} on; --log-level info shows each key

  Try it:

    wget -qO- --post-data='{submission}' {url}/v1/wg/key/exchange
    wget -qO- --post-data='{submission}' {url}/v2/wg/key/exchange

  Ctrl-C ends it.
"""
