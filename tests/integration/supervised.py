"""Our processes as systemd starts them, with one part that breaks if a test asks for it."""

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.integration.loopback import Answer, eventually, request
from tests.integration.servers import Bench, Program
from tests.manager import Manager, Notice
from wgkex_ops.config import Listen

# Seconds; short enough to wait for, and long enough for a machine that is busy with other things.
WATCHDOG: Final = 2.0
# Longer than any test: one that waits for it has failed.
VERY_LONG: Final = 300

# As systemd starts a process: the number in WATCHDOG_PID is its own.
_SUPERVISED: Final = 'export NOTIFY_SOCKET="$1" WATCHDOG_USEC="$2" WATCHDOG_PID=$$; shift 2; exec "$@"'

# The product's own entry point, with one part that breaks.
_FAULTY: Final = """
import asyncio, sys, time
from wgkex_ops import __main__
from wgkex_ops.bus import session
from wgkex_ops.consumer.dataplane.memory import MemoryDataplane
from wgkex_ops.model.changes import Operation
from wgkex_ops.errors import DataplaneError
from wgkex_ops.http.gateways.registry import Gateways

FAULT

sys.exit(__main__.main(sys.argv[1:]))
"""


class Supervised:
    """Starts processes under a service manager.

    Args:
        bench: starts them.
        manager: gets their reports.
    """

    def __init__(self, bench: Bench, manager: Manager) -> None:
        self.bench = bench
        self.manager = manager

    def wgkex(self, command: str, document: Mapping[str, Any], fault: str = "") -> Program:
        if not fault:
            return self.bench.wgkex(command, document)
        config = self.bench.folder / "faulty.yaml"
        config.write_text(json.dumps(document))
        script = _FAULTY.replace("FAULT", fault)
        process = self.bench.start(f"faulty-{command}", sys.executable, "-c", script, command, "--config", str(config))
        return Program(process)

    async def gets(self, name: str, pattern: str) -> Notice:
        """Wait until a field has had a value, and return the first such notice."""

        def find() -> Notice | None:
            found = (notice for notice in self.manager.notices if re.search(pattern, notice.fields.get(name, "")))
            return next(found, None)

        return await eventually(find, f"{name}={pattern}")

    async def gets_no_sign_of_life(self, since: float) -> None:
        """Wait until there has been no sign of life for so long that systemd would have ended the process."""

        def silence() -> bool:
            signs = [notice.at for notice in self.manager.notices if "WATCHDOG" in notice.fields]
            return time.monotonic() - max(signs, default=since) > 1.5 * WATCHDOG

        await eventually(silence, "no sign of life")


@contextlib.contextmanager
def under(manager: Manager, folder: Path) -> Iterator[Supervised]:
    prefix = ("sh", "-c", _SUPERVISED, "sh", manager.address, f"{WATCHDOG * 1e6:.0f}")
    with manager, Bench(folder, prefix) as bench:
        yield Supervised(bench, manager)


async def started(program: Program) -> dict[str, Listen]:
    """Where it listens."""
    command = program.process.command[program.process.command.index("--config") - 1]
    line = await program.logs(f"{command}_started")
    addresses = {name: line[name].rpartition(":") for name in ("listen", "metrics") if name in line}
    return {name: Listen(host=host, port=int(port)) for name, (host, _, port) in addresses.items()}


async def readiness(pages: Listen) -> Answer:
    return await request(f"http://{pages}/-/ready")


async def shutting_down(pages: Listen) -> bool:
    return await readiness_is(pages, 503, "shutting down")


async def readiness_is(pages: Listen, status: int, text: str) -> bool:
    response = await readiness(pages)
    return response.status == status and text in response.text
