"""Which files and functions of the package one version 2 key passes: `python -m benchmarks.key_path`.

A broker and a worker run in this process, with the dataplane in memory and a real Mosquitto between them. The trace
begins right before the POST and ends with the response, which comes after the gateway's receipt. A timer may fire
meanwhile, but not for every key: what counts is what each of several keys has passed, and this leaves out what only the
first one needs, too.
"""

import asyncio
import io
import json
import random
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Final

import wgkex_ops
from tests.helpers import WELT
from tests.integration.inprocess import configuration, new_key, running_broker, running_worker
from tests.integration.loopback import Answer, eventually_answered, request
from tests.integration.servers import Bench

KEYS: Final = 5
_PACKAGE: Final = Path(wgkex_ops.__file__).parent
# The end of the way there; all that follows is the way back, and what is noted on it.
_DATAPLANE: Final = "consumer/dataplane/memory.py"

# File and qualified name.
Function = tuple[str, str]


class Tracer:
    """Records which functions of the package are entered or resumed, in all threads, in the order of the first time."""

    def __init__(self) -> None:
        self._visited: dict[Function, None] | None = None
        # Threads that exist already would not be traced.
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    @contextmanager
    def recording(self) -> Iterator[dict[Function, None]]:
        visited = self._visited = {}
        try:
            yield visited
        finally:
            self._visited = None

    def _profile(self, frame: FrameType, event: str, _argument: object) -> None:
        if event != "call" or self._visited is None:
            return
        code = frame.f_code
        path = Path(code.co_filename)
        # Lambdas and generator expressions are parts of the function around them.
        if path.is_relative_to(_PACKAGE) and not code.co_name.startswith("<"):
            self._visited[path.relative_to(_PACKAGE).as_posix(), code.co_qualname] = None


async def trace(tracer: Tracer) -> list[Function]:
    """Send some keys, one after the other, and return what each of them has passed, in the order of the last one."""
    with tempfile.TemporaryDirectory() as folder, Bench(Path(folder)) as bench:
        mosquitto = await bench.mosquitto()
        config = configuration(mosquitto.port, broker={"confirm_timeout": 10})
        async with running_worker(config), running_broker(config) as broker:
            url = f"http://{broker.nodes}/api/v2/wg/key/exchange"

            async def gateway_is_known() -> bool:
                return (await request(url, submission())).status == 200

            await eventually_answered(gateway_is_known, "a broker that knows the gateway")
            return await _common_path(tracer, url)


async def _common_path(tracer: Tracer, url: str) -> list[Function]:
    paths = []
    for _ in range(KEYS):
        # No timer keeps step with this.
        await asyncio.sleep(random.uniform(0.2, 0.8))
        body = submission()
        with tracer.recording() as visited:
            response: Answer = await request(url, body)
        assert response.status == 200, response.text
        paths.append(visited)
    return [function for function in paths[-1] if all(function in path for path in paths)]


def submission() -> bytes:
    """The body of a request, with a new key."""
    return json.dumps({"domain": WELT.name, "public_key": str(new_key())}).encode()


def files_of(functions: Sequence[Function]) -> list[str]:
    """Their files, in the order of the first visit."""
    return list(dict.fromkeys(file for file, _ in functions))


def main() -> None:
    # The bench shows the server's log when it ends, and both programs log each key.
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        functions = asyncio.run(trace(Tracer()))
    files = files_of(functions)
    for number, file in enumerate(files, 1):
        print(f"{number:2} {file}")
        for name in (name for visited, name in functions if visited == file):
            print(f"     {name}")
    packages = Counter(file.partition("/")[0] for file in files)
    print(", ".join(f"{package} {count}" for package, count in packages.most_common()))
    there = files.index(_DATAPLANE) + 1
    print(f"{len(files)} files, {len(functions)} functions; the dataplane is file {there}")


if __name__ == "__main__":
    main()
