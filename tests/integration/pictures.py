"""Make the pictures of the documentation: pages of a small network, with real programs but for the gateways' kernels.

Usage: python -m tests.integration.pictures DIRECTORY
"""

import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tests.helpers import CITY, WELT
from tests.integration.browser import browser
from tests.integration.gateways import gateways_known
from tests.integration.inprocess import (
    RunningBroker,
    RunningWorker,
    configuration,
    new_key,
    running_broker,
    running_worker,
)
from tests.integration.loopback import request
from tests.integration.servers import Bench, Mosquitto
from wgkex_ops.model.keys import PublicKey

GATEWAYS: Final = {"gw01.example.net": 2, "gw02.example.net": 2, "gw03.example.net": 1}
BROKER: Final = "broker01.example.net"
ROUTERS: Final = 120
# What a reader sees of a page without scrolling.
WIDTH: Final = 1200
HEIGHT: Final = 900


async def populate(broker: RunningBroker, workers: dict[str, RunningWorker]) -> PublicKey:
    """Let routers ask, of which nearly all get a tunnel; return the key of one that has none."""
    without = new_key()
    for number in range(ROUTERS):
        domain, key = (WELT if number % 3 else CITY), (new_key() if number % 20 else without)
        body = json.dumps({"domain": domain.name, "public_key": str(key)}).encode()
        url = f"http://{broker.nodes}/api/v2/wg/key/exchange"
        answer = await request(url, body, {"X-Forwarded-For": f"198.51.100.{number}"})
        named = answer.json["Endpoint"]["Address"].removesuffix(".example.net")
        if key != without:
            assert workers[named].dataplane.shake_hands(domain, key)
    return without


async def make(folder: Path) -> None:
    """Start the network, and photograph its pages."""
    with tempfile.TemporaryDirectory() as temporary, Bench(Path(temporary)) as bench:
        mosquitto: Mosquitto = await bench.mosquitto()
        listed = {name: {"weight": weight} for name, weight in GATEWAYS.items()}
        async with AsyncExitStack() as stack:
            workers = {
                name: await stack.enter_async_context(running_worker(configuration(mosquitto.port, name)))
                for name in GATEWAYS
            }
            config = configuration(mosquitto.port, BROKER, workers=listed)
            broker = await stack.enter_async_context(running_broker(config))
            await gateways_known(broker, *GATEWAYS)
            key = await populate(broker, workers)
            pages = {"broker": f"http://{broker.pages}/", "peer": f"http://{broker.pages}/peer?q={quote(str(key))}"}
            await asyncio.to_thread(photograph, pages, folder, Path(temporary))


def photograph(pages: dict[str, str], folder: Path, temporary: Path) -> None:
    """Open each page, and keep what is seen."""
    with browser(temporary) as window:
        window.prefer("light")
        window.resize(WIDTH, HEIGHT)
        for name, url in pages.items():
            window.open(url)
            window.run("document.documentElement.style.overflow = 'hidden'")
            assert window.driver.save_screenshot(str(folder / f"{name}.png"))


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
