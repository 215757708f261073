"""docs/evening.md on three machines that share a kernel with WireGuard, from the third section on.

test_evening.py runs this, with the disk of machines on which the second section has been typed.
"""

import json
import logging
import os
import re
import signal
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.dashboards import expand, load, targets
from tests.kernel.lab import Namespace, namespaces
from tests.kernel.network import DOMAIN, create_tunnel, eventually, new_key_pair
from tests.package.machine import Machine, booted, checked
from tests.package.tutorial import HOSTS, Block, of_host, sections

_log: Final = logging.getLogger(__name__)
# Addresses of documentation, which are public ones: Alertmanager and brokers treat private ones otherwise.
NETWORK: Final = "192.0.2"
ADDRESSES: Final = {f"{host}.example.net": f"{NETWORK}.{number}" for number, host in enumerate(HOSTS, 11)}
HERE: Final = f"{NETWORK}.1"
ROUTER: Final = f"{NETWORK}.99"
GATEWAYS: Final = ("gw01", "gw02")
API: Final = "--alertmanager.url=http://127.0.0.1:9093"
PROMETHEUS: Final = f"http://{ADDRESSES['server.example.net']}:9090"
# What a shell says of a command that failed; the next one is typed all the same.
_FAILED: Final = "this failed: "
_TRAP: Final = f"""trap 'echo "{_FAILED}$BASH_COMMAND" >&2' ERR\n"""
_PASSWORD: Final = re.compile(r"PASSWORD OF ([\w.-]+)")


@dataclass(frozen=True)
class Typed:
    """What a block has printed, and which of its commands failed."""

    output: str
    failed: tuple[str, ...]


@dataclass
class Evening:
    """Somebody who follows the document.

    Attributes:
        machines: the three hosts.
        passwords: what was printed for each user, and written down.
    """

    machines: dict[str, Machine]
    passwords: dict[str, str] = field(default_factory=dict)

    def does(self, block: Block, host: str) -> Typed:
        """Type a block, or write the file that it is."""
        machine = self.machines[host]
        if block.file:
            text = _PASSWORD.sub(lambda found: self.passwords[found[1]], of_host(block.text, host))
            file = machine.root / block.file.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            return Typed("", ())
        began = time.monotonic()
        done = machine.run("bash", "-c", _TRAP + block.text)
        errors = done.stderr.splitlines()
        failed = tuple(line.removeprefix(_FAILED) for line in errors if line.startswith(_FAILED))
        _log.info("%s, %.0f s\n%s%s%s", host, time.monotonic() - began, block.text, done.stdout, done.stderr)
        return Typed(done.stdout, failed)

    def follows(self, number: int, host: str) -> Typed:
        """All blocks of a section, one after the other."""
        done = [self.does(block, host) for block in sections()[number].blocks]
        return Typed("".join(one.output for one in done), tuple(line for one in done for line in one.failed))


class Receivers:
    """A web server, to which Alertmanager sends what it would send to people.

    Attributes:
        got: receiver, alert and its state, of each notification.
    """

    def __init__(self) -> None:
        self.got: list[tuple[str, str, str]] = []
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                got.extend((self.path[1:], one["labels"]["alertname"], one["status"]) for one in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((HERE, 0), Handler)
        self.url = f"http://{HERE}:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["Receivers"]:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def put_into(self, file: Path) -> None:
        """Replace the receivers of a configuration of Alertmanager; all the rest of it stays as it is."""
        head, found, tail = file.read_text().partition("\nreceivers:\n")
        names = [one["name"] for one in yaml.safe_load(found + tail)["receivers"]]
        new = [{"name": name, "webhook_configs": [{"url": f"{self.url}/{name}"}]} for name in names]
        file.write_text(f"{head}\n{yaml.safe_dump({'receivers': new})}")


@contextmanager
def machine_of(host: str, base: Path, folder: Path) -> Iterator[Machine]:
    """A host, booted and with a cable to the bridge of this network namespace."""
    (folder / host).mkdir()
    with booted(base, folder / host, "--volatile=overlay", f"--hostname={host}.example.net") as machine:
        name = f"{host}.example.net"
        (machine.root / "etc" / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{address} {known}\n" for known, address in ADDRESSES.items())
        )
        checked(*f"ip link add to-{host} master br0 type veth peer name eth0 netns {machine.leader}".split())
        checked("ip", "link", "set", f"to-{host}", "up")
        machine.output(*f"ip address add {ADDRESSES[name]}/24 dev eth0".split())
        machine.output("ip", "link", "set", "eth0", "up")
        try:
            yield machine
        finally:
            # What is gone anyway need not end in order, which takes a guest long.
            os.kill(machine.leader, signal.SIGKILL)


@pytest.fixture
def evening(tmp_path: Path) -> Iterator[Evening]:
    disk = tmp_path / "disk"
    disk.mkdir()
    here = Namespace()
    here.sh("ip link add br0 type bridge", f"ip address add {HERE}/24 dev br0", "ip link set br0 up")
    # A machine dies with the thread that has booted it: those of the executor have to live as long as this fixture.
    with ThreadPoolExecutor() as executor, ExitStack() as stack:
        checked("mount", "-o", "ro", os.environ["DISK"], str(disk))
        stack.callback(checked, "umount", "--lazy", str(disk))
        began = time.monotonic()
        entered = executor.map(lambda host: stack.enter_context(machine_of(host, disk, tmp_path)), HOSTS)
        machines = dict(zip(HOSTS, entered, strict=True))
        _log.info("booted in %.0f s", time.monotonic() - began)
        yield Evening(machines)


def has_data(query: str) -> bool:
    """Whether Prometheus answers a query with anything."""
    url = f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bool(json.load(answer)["data"]["result"])


def overview() -> dict[str, str]:
    """The queries of *Overview* as Grafana asks them when everything is chosen, but for those of the canary."""
    values = {"__rate_interval": "1m", "__interval": "15s", "__range": "5m"}
    chosen = dict.fromkeys(("job", "instance", "interface"), ".+")
    return {
        f"{panel['title']}: {target['expr']}": expand(target["expr"], values | chosen)
        for panel, target in targets(load("wgkex-overview"))
        if "wgkex_probe_" not in target["expr"]
    }


@contextmanager
def router() -> Iterator[Namespace]:
    """A router that has just booted, on the same network as the hosts."""
    with namespaces() as add:
        router = add("router")
        Namespace().sh(
            f"ip link add to-router master br0 type veth peer name wan0 netns {router.name}",
            "ip link set to-router up",
        )
        router.sh(f"ip address add {ROUTER}/24 dev wan0", "ip link set wan0 up")
        yield router


def posts(router: Namespace, public_key: str) -> dict[str, Any]:
    """Submit a key as a router does; the endpoint."""
    body = json.dumps({"domain": DOMAIN.name, "public_key": public_key})
    url = f"http://{ADDRESSES['server.example.net']}/api/v2/wg/key/exchange"
    endpoint: dict[str, Any] = json.loads(router.run("wget", "-qO-", f"--post-data={body}", url))["Endpoint"]
    return endpoint


def connects(router: Namespace) -> tuple[str, str]:
    """Let a router ask for a tunnel as its firmware does, and set it up.

    Returns:
        its public key, and the name of its gateway.
    """
    private_key, public_key = new_key_pair(router)
    endpoint = posts(router, public_key)
    create_tunnel(router, private_key, public_key, algorithm="BATMAN_V")
    address = endpoint["AllowedIPs"][0]
    router.sh(
        f"wg set {DOMAIN.wg} peer {endpoint['PublicKey']} persistent-keepalive 25"
        f" endpoint {ADDRESSES[endpoint['Address']]}:{endpoint['Port']} allowed-ips {address}/128",
        f"ip -6 route add {address}/128 dev {DOMAIN.wg}",
        f"bridge fdb append 00:00:00:00:00:00 dev {DOMAIN.vx} dst {address} via {DOMAIN.wg}",
    )
    return public_key, endpoint["Address"].partition(".")[0]


def not_green(typed: Typed) -> dict[str, set[str]]:
    """The checks of doctor that are not green, by their severity."""
    found: dict[str, set[str]] = {"warning": set(), "critical": set()}
    for severity, check in re.findall(r"^(warning|critical) +(\w+) ", typed.output, re.MULTILINE):
        found[severity].add(check)
    # These machines have the clock of the host, and keep none themselves.
    found["warning"].discard("clock")
    return found


def test_whoever_follows_the_document_gets_a_mesh_data_and_an_alert(evening: Evening) -> None:
    server = evening.machines["server"]
    typed = evening.follows(3, "server")
    assert typed.failed == ()
    evening.passwords = dict(re.findall(r"^([\w.-]+): (\S{24})$", typed.output, re.MULTILINE))
    assert len(evening.passwords) == 4

    typed = evening.follows(4, "server")
    assert typed.failed == ("wgkex-ops doctor broker",)
    assert not_green(typed) == {"critical": {"gateways"}, "warning": {"mqtt_write", "mqtt_read"}}

    with ThreadPoolExecutor() as executor:
        for typed in executor.map(lambda host: evening.follows(5, host), GATEWAYS):
            assert re.findall(r"^ +\d+ (\S+)", typed.output, re.MULTILINE) == ["wg-welt", "bat-welt", "vx-welt"]
            assert typed.failed == ("wgkex-ops doctor worker",)
            assert not_green(typed) == {"critical": set(), "warning": {"mqtt_read"}}

    typed = evening.follows(6, "server")
    assert typed.failed == ('wgkex-ops peer --fleet "$key"',)
    assert "2 of 2 gateways online" in typed.output
    assert re.search(r"^Endpoint +gw0[12]\.example\.net:40000$", typed.output, re.MULTILINE)
    assert re.findall(r"^(gw0\d)\S+ +ffmuc_welt +never", typed.output, re.MULTILINE) == list(GATEWAYS)

    with router() as node, Receivers().serving() as receivers:
        public_key, gateway = connects(node)
        [link] = json.loads(node.run("ip", "-json", "link", "show", DOMAIN.vx))
        eventually(
            lambda: link["address"] in evening.machines[gateway].output("batctl", "meshif", "bat-welt", "n"),
            "the router as a neighbour of its gateway",
        )
        found = server.output("wgkex-ops", "peer", "--fleet", public_key)
        _log.info("%s", found)
        assert "has a tunnel" in " ".join(found.split())

        prometheus, alertmanager, test_alert = sections()[7].blocks
        assert evening.does(prometheus, "server").failed == ()
        receivers.put_into(server.root / "etc/prometheus/alertmanager.yml")
        assert evening.does(alertmanager, "server").failed == ()
        eventually(lambda: server.run("amtool", API, "alert").returncode == 0, "an Alertmanager that answers")
        assert evening.does(test_alert, "server").failed == ()
        for one in (("pager", "WgkexTest", "firing"), ("dead-mans-switch", "WgkexWatchdog", "firing")):
            eventually(lambda one=one: one in receivers.got, f"{one}")  # type: ignore[misc]

        missing = overview()
        assert len(missing) > 20

        def all_have_data() -> bool:
            # Keys come all the time.
            posts(node, new_key_pair(node)[1])
            for name in [name for name, query in missing.items() if has_data(query)]:
                del missing[name]
            _log.info("without data: %s", sorted({name.partition(":")[0] for name in missing}))
            return not missing

        eventually(all_have_data, "data for each query of the overview")
