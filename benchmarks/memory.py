"""How much memory a worker takes that has 20,000 peers, against the same worker with none.

A real process with the kernel's dataplane, log lines to a file. The keys come over MQTT as fast as they can be
published. Then it is scraped some times, and its reconciler scans everything, as it does once a minute.
"""

import base64
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.gateway import DOMAIN, MQTT_PORT, WORKER_PAGES, fetch, gateway, metric
from benchmarks.installing import seconds
from tests.helpers import megabytes
from tests.kernel.network import eventually

PEERS: Final = 20_000
_SCRAPES: Final = 5
# Seconds: more than from one scan of the reconciler to the next.
_SCAN: Final = 70


def report(peers: int, pid: int) -> None:
    scrapes = [seconds(fetch, f"{WORKER_PAGES}/metrics") for _ in range(_SCRAPES)]
    time.sleep(_SCAN)
    resident, peak = megabytes(pid)
    print(
        f"{peers} peers: {resident:.0f} MB resident, {peak:.0f} MB at the peak; "
        f"a scrape takes {min(scrapes):.2f} to {max(scrapes):.2f} s",
        flush=True,
    )


def publish(count: int) -> None:
    """Publish new keys, a line each."""
    lines = "".join(f"{base64.b64encode(os.urandom(32)).decode()}\n" for _ in range(count))
    topic = f"wireguard/{DOMAIN.name}/all"
    command = ["mosquitto_pub", "-V", "5", "-h", "127.0.0.1", "-p", str(MQTT_PORT), "-q", "1", "-t", topic, "-l"]
    subprocess.run(command, input=lines, text=True, check=True)


def installed(count: int) -> Callable[[], bool]:
    series = f'wgkex_worker_peers_installed_total{{domain="{DOMAIN}"}}'

    def all_of_them() -> bool:
        # Not too often: each scrape reads all peers.
        time.sleep(3)
        return metric(series) == count

    return all_of_them


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, gateway(with_broker=False, folder=Path(folder)) as running:
        pid = running.pids["worker"]
        report(0, pid)
        started = time.monotonic()
        publish(PEERS)
        eventually(installed(PEERS), f"{PEERS} peers")
        print(
            f"{PEERS} keys over MQTT, with the journal: {PEERS / (time.monotonic() - started):.0f} keys/s", flush=True
        )
        report(PEERS, pid)


if __name__ == "__main__":
    main()
