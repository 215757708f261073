"""Make the pictures of the documentation: pages of a small network, with real programs but for the gateways' kernels.

Usage: python -m tests.integration.pictures DIRECTORY
"""

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

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
from tests.integration.servers import Bench, Mosquitto

GATEWAYS: Final = {"gw01.example.net": 2, "gw02.example.net": 2, "gw03.example.net": 1}
BROKER: Final = "broker01.example.net"
ROUTERS: Final = 120
# What a reader sees of a page without scrolling.
WIDTH: Final = 1200
HEIGHT: Final = 900


async def populate(broker: RunningBroker, workers: dict[str, RunningWorker]) -> None:
    """Let routers ask, of which nearly all get a tunnel."""
    for number in range(ROUTERS):
        domain, key = (WELT if number % 3 else CITY), new_key()
        answer = await broker.submit(2, domain.name, key)
        named = answer.json["Endpoint"]["Address"].removesuffix(".example.net")
        if number % 20:
            assert workers[named].dataplane.shake_hands(domain, key)


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
            await populate(broker, workers)
            pages = {"broker": f"http://{broker.pages}/", "gateway": f"http://{workers['gw01.example.net'].pages}/"}
            await asyncio.to_thread(photograph, pages, folder, Path(temporary))


def photograph(pages: dict[str, str], folder: Path, temporary: Path) -> None:
    """Open each page, and keep what is seen."""
    with browser(temporary) as window:
        window.prefer("light")
        window.resize(WIDTH, HEIGHT)
        for name, url in pages.items():
            window.open(url)
            assert window.driver.save_screenshot(str(folder / f"{name}.png"))


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
