"""How long an operator waits for `status` and `peer` with 20,000 peers on a gateway, compared with `--version`.

Each is a whole process, from the shell to the last line. The worker's peers are in the memory dataplane: reading the
kernel's is what the dump measures. The broker has heard of as many nodes within five minutes as it remembers.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Final

import structlog

from benchmarks.scrape import configuration, fill, servers
from tests.integration.gateways import gateways_known
from tests.integration.inprocess import running_broker, running_worker
from wgkex_ops.model.keys import PublicKey

PEERS: Final = 20_000
ROUNDS: Final = 7


async def seconds(*arguments: str) -> float:
    """How long a command takes."""
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wgkex_ops", *arguments), stdout=asyncio.subprocess.DEVNULL
    )
    await process.wait()
    return time.perf_counter() - started


async def measure() -> None:
    """Measure all commands in each round."""
    with servers() as bench:
        mosquitto = await bench.mosquitto()
        config = configuration(mosquitto.port, bench.folder / "state", per_peer=False)
        async with running_worker(config) as worker, running_broker(config) as broker:
            await gateways_known(broker, config.worker.name)
            await fill(worker.dataplane, config, PEERS)
            key = PublicKey(os.urandom(32))
            await broker.submit(2, config.domains[0].name, key)
            file = Path(bench.folder) / "operator.yaml"
            names = [domain.name for domain in config.domains]
            mqtt = {"broker_url": config.mqtt.host, "broker_port": config.mqtt.port}
            operator = {"username": "wgkex-operator"}
            text = {"domains": names, "domain_prefixes": ["ffmuc_"], "mqtt": mqtt, "operator": operator}
            file.write_text(json.dumps(text))
            with_config = ("--config", str(file))
            commands = {
                "--version": ("--version",),
                "status": ("status", "--broker-url", f"http://{broker.pages}", *with_config),
                "status --mqtt": ("status", "--mqtt", *with_config),
                "peer --fleet KEY": ("peer", "--fleet", str(key), *with_config),
                "peer --fleet ADDRESS": ("peer", "--fleet", str(key.link_local), *with_config),
            }
            taken: dict[str, list[float]] = {name: [] for name in commands}
            for _ in range(ROUNDS):
                for name, arguments in commands.items():
                    taken[name].append(await seconds(*arguments))
            bare = statistics.median(taken["--version"])
            for name, times in taken.items():
                median = statistics.median(times)
                print(f"{name}: {median:.2f} s, at most {max(times):.2f} s; {median / bare:.2f} of --version")


def main() -> None:
    """Print the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    asyncio.run(measure())


if __name__ == "__main__":
    main()
