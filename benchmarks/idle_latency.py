"""How long an idle gateway takes from a node's POST to the installed peer, and how long the old way takes for less.

Ours is the whole way: HTTP, broker, MQTT server, worker, kernel. It ends when the kernel reports the FDB entry, the
last of the three parts, to `bridge monitor`. The old way is only the end of that: one key installed with
sockets opened for each of the three parts, by the library's own calls, in a process that does nothing else. What the
old worker spends on top of it (HTTP, MQTT, and half a second on average until it reads its queue) is left out.
"""

import ctypes
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from benchmarks.old_way import install_the_old_way
from tests.kernel.lab import Namespace, namespaces
from tests.kernel.network import DOMAIN, GATEWAY_ADDRESS, HTTP_PORT, TIMEOUT, eventually, running_network
from wgkex_ops.model.keys import PublicKey

ROUNDS: Final = 21
_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h


@contextmanager
def inside(host: Namespace) -> Iterator[None]:
    """Move this thread to a host for a while: a process of its own would take longer than what is measured."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as here, Path(f"/run/netns/{host.name}").open("rb") as there:
        assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(here.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def post(key: PublicKey) -> None:
    """Request a tunnel."""
    body = json.dumps({"domain": DOMAIN.name, "public_key": str(key)}).encode()
    with urlopen(f"http://{GATEWAY_ADDRESS}:{HTTP_PORT}/api/v1/wg/key/exchange", body, timeout=TIMEOUT) as response:
        assert json.load(response) == {"Message": "OK"}


def measure(host: Namespace, install: Callable[[PublicKey], None]) -> list[float]:
    """Seconds from the call until the kernel reports the FDB entry, for one key after the other."""
    seen: dict[str, float] = {}
    # Line by line: to a pipe it would write in blocks.
    command = host.command("stdbuf", "-oL", "bridge", "monitor", "fdb")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout is not None
        follower = threading.Thread(target=_follow, args=(monitor.stdout, seen))
        follower.start()
        try:
            # It may take a while until it listens; what it misses meanwhile warms up all the others.
            while not seen:
                with inside(host):
                    install(PublicKey(os.urandom(32)))
                time.sleep(0.5)
            return [_measure_one(host, install, seen) for _ in range(ROUNDS)]
        finally:
            monitor.terminate()
            follower.join()


def _follow(lines: Iterator[str], seen: dict[str, float]) -> None:
    for line in lines:
        words = line.split()
        if "dst" in words:
            seen[words[words.index("dst") + 1]] = time.monotonic()


def _measure_one(host: Namespace, install: Callable[[PublicKey], None], seen: dict[str, float]) -> float:
    key = PublicKey(os.urandom(32))
    address = str(key.link_local)
    with inside(host):
        start = time.monotonic()
        install(key)
    eventually(lambda: address in seen, f"{key} in the FDB")
    return seen[address] - start


def main() -> None:
    with (
        namespaces() as add_namespace,
        tempfile.TemporaryDirectory() as folder,
        running_network(add_namespace, Path(folder)) as network,
    ):
        ours = measure(network.gateway, post)
        old = measure(network.gateway, partial(install_the_old_way, DOMAIN))
    medians = statistics.median(ours), statistics.median(old)
    for name, seconds, median in (("POST to installed peer", ours, medians[0]), ("old install alone", old, medians[1])):
        print(f"{name}: median {median:.3f} s, from {min(seconds):.3f} to {max(seconds):.3f} s, {ROUNDS} keys")
    print(f"ratio: our whole way takes {medians[0] / medians[1]:.2f} of the old install alone")


if __name__ == "__main__":
    main()
