"""How many requests a second a broker serves, as parts of what a bare aiohttp handler serves in the same round.

Real processes on loopback: Mosquitto without persistence, the broker with log level info, metrics and limits,
and either a plain subscriber in place of the workers ("alone") or a worker with its memory dataplane, which shares the
processors. wrk sends prepared requests with random keys over 32 connections, and shares them, too. It says that it
forwards for as many clients as there are keys, and the limits of the broker and of a domain are out of reach: so no
limit but the one that is measured has an effect.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.gateway import listening, responding, running
from tests import wrk
from tests.integration.loopback import free_port
from tests.kernel.network import eventually
from wgkex_ops.model.keys import PublicKey

ROUNDS: Final = 5
SECONDS: Final = 4
CONNECTIONS: Final = 32
REQUESTS: Final = 40_000

_DOMAIN: Final = "ffmuc_welt"
_V1: Final = "/api/v1/wg/key/exchange"
V2: Final = "/api/v2/wg/key/exchange"

_CONFIG: Final = """
domains: [ffmuc_welt]
domain_prefixes: [ffmuc_]
externalName: gw01.example.net
mqtt: {{broker_url: 127.0.0.1, broker_port: {mqtt}}}
broker_listen: {{host: 127.0.0.1, port: {broker}}}
broker: {{name: broker01, publish_timeout: 30, metrics_listen: {{port: {broker_pages}}}}}
worker:
  name: gw01
  dataplane: memory
  max_peers: 1000000
  state_dir: {folder}/state
  metrics_listen: {{port: {worker_pages}}}
limits: {{broker: {{burst: 1000000000, per_minute: 1000000000}}, new_keys: {{burst: 1000000000}}}}
"""
_MOSQUITTO: Final = """
listener {mqtt} 127.0.0.1
allow_anonymous true
user root
max_queued_messages 100000
max_inflight_messages 0
set_tcp_nodelay true
"""


@dataclass(frozen=True)
class Case:
    """What is asked of a broker.

    Attributes:
        path: of the version.
        bodies: a file of requests: client and body, a line each.
        refused: whether no request may be accepted, or none refused.
        with_worker: beside a worker, in place of a plain subscriber.
    """

    name: str
    path: str
    bodies: str
    refused: bool = False
    with_worker: bool = False


CASES: Final = (
    Case("v1 alone", _V1, "valid"),
    Case("rejected alone", _V1, "invalid", refused=True),
    Case("limited alone", _V1, "flood", refused=True),
    Case("v2 with worker", V2, "valid", with_worker=True),
)


def prepare(folder: Path) -> None:
    """Prepare requests, each of a client of its own; those of the flood have one in common."""
    first = IPv4Address("198.18.0.0")  # RFC 2544: for benchmarks
    bodies = [json.dumps({"domain": _DOMAIN, "public_key": str(PublicKey(os.urandom(32)))}) for _ in range(REQUESTS)]
    wrk.write_requests(folder / "valid", ((str(first + number), body) for number, body in enumerate(bodies)))
    wrk.write_requests(
        folder / "invalid", ((str(first + number), f'{body[:-4]}"}}') for number, body in enumerate(bodies))
    )
    wrk.write_requests(folder / "flood", ((str(first), body) for body in bodies))


def load(port: int, path: str, requests: Path, connection: str) -> wrk.Result:
    """Send requests for some seconds."""
    url = f"http://127.0.0.1:{port}{path}"
    command = wrk.command(url, requests, connections=CONNECTIONS, seconds=SECONDS, connection=connection)
    result = wrk.parse(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert not result.broken, result
    return result


class Servers(NamedTuple):
    """Processes that serve.

    Attributes:
        bare: port of the bare handler.
        broker: port of the broker.
        pids: of broker and worker, by name.
    """

    bare: int
    broker: int
    pids: Mapping[str, int]


@contextmanager
def servers(folder: Path, *, with_worker: bool) -> Iterator[Servers]:
    """All processes, ready to serve."""
    bare, mqtt, broker, broker_pages, worker_pages = (free_port() for _ in range(5))
    names = {"mqtt": mqtt, "broker": broker, "broker_pages": broker_pages, "worker_pages": worker_pages}
    (folder / "wgkex.yaml").write_text(_CONFIG.format(folder=folder, **names))
    (folder / "mosquitto.conf").write_text(_MOSQUITTO.format(mqtt=mqtt))
    ours = [sys.executable, "-m", "wgkex_ops"]
    config = ["--config", str(folder / "wgkex.yaml")]
    with ExitStack() as stack:
        pids: dict[str, int] = {}

        def start(name: str, *command: str) -> None:
            pids[name] = stack.enter_context(running(list(command), folder / f"{name}.log"))

        start("mosquitto", "mosquitto", "-c", str(folder / "mosquitto.conf"))
        start("bare", sys.executable, "-m", "benchmarks.bare_http", str(bare))
        eventually(listening(mqtt), "Mosquitto listens")
        if with_worker:
            start("worker", *ours, "worker", *config)
            eventually(responding(f"http://127.0.0.1:{worker_pages}/-/ready"), "the worker is ready")
        else:
            start("subscriber", "mosquitto_sub", "-p", str(mqtt), "-q", "1", "-t", "wireguard/#", "-F", "%t")
        start("broker", *ours, "broker", *config)
        eventually(responding(f"http://127.0.0.1:{broker_pages}/-/ready"), "the broker is ready")
        eventually(listening(bare), "the bare handler listens")
        yield Servers(bare, broker, pids)


@dataclass(frozen=True)
class Place:
    """Where to measure: the folder with the requests, and the ports of the bare handler and of the broker."""

    folder: Path
    bare: int
    broker: int


def measure(cases: Sequence[Case], rounds: int) -> None:
    """Print the medians of each case."""
    for with_worker in (False, True):
        chosen = [case for case in cases if case.with_worker == with_worker]
        if not chosen:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            prepare(folder)
            with servers(folder, with_worker=with_worker) as (bare, broker, _):
                for case in chosen:
                    for connection in ("keep-alive", "close"):
                        _measure(case, connection, rounds, Place(folder, bare, broker))


def _measure(case: Case, connection: str, rounds: int, place: Place) -> None:
    ratios, results, limits = [], [], []
    # The first round warms up.
    for number in range(rounds + 1):
        limit = load(place.bare, _V1, place.folder / "valid", connection)
        result = load(place.broker, case.path, place.folder / case.bodies, connection)
        # A bucket lets some through before it is empty.
        assert (result.refused > 0.9 * result.requests) if case.refused else not result.refused, result
        if number:
            limits.append(limit.rate)
            ratios.append(result.rate / limit.rate)
            results.append(result)
    print(
        f"{case.name}, {connection}: {statistics.median(ratios):.2f} of bare ({min(ratios):.2f} to {max(ratios):.2f}): "
        f"{statistics.median(one.rate for one in results):.0f}/s of {statistics.median(limits):.0f}/s, "
        f"p50 {statistics.median(one.p50 for one in results):.1f} ms, "
        f"p99 {statistics.median(one.p99 for one in results):.1f} ms",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("cases", nargs="*", help="a part of the name of what is measured; default: all")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if any(part in case.name for part in arguments.cases or [""])]
    measure(chosen, arguments.rounds)


if __name__ == "__main__":
    main()
