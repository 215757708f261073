"""`wgkex-ops doctor` on a gateway with a real kernel: healthy, and with each part of it broken."""

import asyncio
import json
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import CITY, WELT
from tests.integration.inprocess import client, new_key, settings
from tests.integration.loopback import LOOPBACK, eventually, free_port
from tests.integration.servers import Bench
from tests.kernel.dataplane import STATIC_ADDRESS, STATIC_KEY
from tests.kernel.lab import Namespace
from wgkex_ops.__main__ import main
from wgkex_ops.config import parse
from wgkex_ops.doctor.bundle import write_bundle
from wgkex_ops.doctor.examination import examine
from wgkex_ops.doctor.findings import Finding
from wgkex_ops.doctor.host import Host
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.model.fleet import Severity
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.worker import Worker

VNIS: Final = (f"{WELT}=4831583", f"{CITY}=3836090")

_ATTEMPTS: Final = 6


@dataclass
class Gateway:
    """A gateway and its files."""

    here: Namespace
    file: Path
    keys: Path
    port: int

    def make_interfaces(self) -> None:
        arguments = ("--config", str(self.file), "--key-directory", str(self.keys), "--vni", *VNIS)
        assert main(["interfaces", "--apply", *arguments]) == 0

    async def examine(self) -> list[Finding]:
        """Without a limit: an emulated processor takes many times as long."""
        host = Host(root=self.file.parent / "root", synchronized=lambda: True)
        return list((await examine(self.file, "worker", host, within=300)).findings)

    async def examine_until(self, *checks: str) -> list[Finding]:
        """Examine until these are not green: on an emulated processor, the worker may respond too late now and then."""
        findings = await self.examine()
        for _ in range(_ATTEMPTS):
            if {finding.check for finding in findings if finding.severity != Severity.OK} == set(checks):
                break
            findings = await self.examine()
        return findings

    async def problems(self, *checks: str) -> dict[str, list[Finding]]:
        """What is not green, by check: these ones."""
        bad = [finding for finding in await self.examine_until(*checks) if finding.severity != Severity.OK]
        assert {finding.check for finding in bad} == set(checks), bad
        assert all(finding.remedy for finding in bad)
        return {check: [finding for finding in bad if finding.check == check] for check in checks}

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """A worker that has installed a key."""
        registry = new_registry("worker")
        worker = Worker(parse(self.file.read_text(), "test"), registry)
        async with worker.running(), client(self.port) as bus:
            await worker.announced()
            await bus.publish(f"wireguard/{WELT}/all", str(new_key()).encode())
            labels = {"domain": WELT.name}
            await eventually(
                lambda: registry.get_sample_value("wgkex_worker_peers_installed_total", labels), "a peer", 600
            )
            yield


def the_only(findings: Sequence[Finding], severity: Severity, text: str, remedy: str) -> None:
    [finding] = findings
    assert finding.severity is severity
    assert text in finding.text
    assert remedy in finding.remedy


async def assert_nothing_personal_is_in_a_bundle(gateway: Gateway) -> None:
    here, file = gateway.here, gateway.file.with_name("bundle.tar.gz")
    here.sh(
        f"wg set {WELT.wg} peer {STATIC_KEY} endpoint 192.0.2.77:4001 allowed-ips {STATIC_ADDRESS}/128",
        f"ip address add 2001:db8::77/64 dev {WELT.wg}",
        f"ip -6 route add 2001:db8:77::/64 dev {WELT.wg}",
    )
    await asyncio.to_thread(write_bundle, file, gateway.file, parse(gateway.file.read_text(), "test"), {})
    with tarfile.open(file) as archive:
        parts = {Path(one.name).name: reader.read() for one in archive if (reader := archive.extractfile(one))}
    everything = b"".join(parts.values())
    private_keys = [path.read_text().strip() for path in gateway.keys.iterdir()]
    for text in (*private_keys, "192.0.2.77", "2001:db8", STATIC_KEY, *here.wg(WELT.wg).peers):
        assert text.encode() not in everything
    links = {link["ifname"]: link for link in json.loads(parts["links.json"])}
    assert (links[WELT.wg]["kind"], links[WELT.vx]["vxlan"]["id"]) == ("wireguard", 4831583)
    [address] = [PublicKey.parse(key).link_local for key in here.wg(WELT.wg).peers if key != STATIC_KEY]
    assert str(address) in {route["dst"] for route in json.loads(parts["routes.json"])}
    assert str(address) in {entry["dst"] for entry in json.loads(parts["fdb.json"])}
    here.sh(f"wg set {WELT.wg} peer {STATIC_KEY} remove", f"ip address delete 2001:db8::77/64 dev {WELT.wg}")


@pytest.fixture
async def gateway(here: Namespace) -> AsyncIterator[Gateway]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        here.run("ip", "link", "set", "lo", "up")
        with Bench(folder) as bench:
            mosquitto = await bench.mosquitto()
            document = settings(mosquitto.port, worker={"dataplane": "kernel"})
            document["worker"]["metrics_listen"] = {"host": LOOPBACK, "port": free_port()}
            document["worker"]["state_dir"] = str(folder / "state")
            file = folder / "wgkex.yaml"
            file.write_text(json.dumps(document))
            gateway = Gateway(here, file, folder / "keys", mosquitto.port)
            gateway.make_interfaces()
            yield gateway


@pytest.mark.timeout(3600)
async def test_a_healthy_gateway_is_all_green_and_each_broken_interface_is_named(gateway: Gateway) -> None:
    here, wg, vx = gateway.here, WELT.wg, WELT.vx
    address = str(PublicKey.parse(here.wg(wg).public_key).link_local)
    critical, warning = Severity.CRITICAL, Severity.WARNING
    async with gateway.worker():
        healthy = await gateway.examine_until()
        assert {finding.severity for finding in healthy} == {Severity.OK}, healthy
        assert {"rights", "interfaces", "peers", "state_dir", "mqtt_read"} <= {finding.check for finding in healthy}

        await assert_nothing_personal_is_in_a_bundle(gateway)

        # The other way round, the kernel refuses it.
        here.run("ip", "link", "set", wg, "mtu", "1320")
        found = await gateway.problems("interfaces")
        the_only(found["interfaces"], critical, "MTU of vx-welt is 1350, and wg-welt carries 1250", f"{vx} mtu 1250")
        here.run("ip", "link", "set", wg, "mtu", "1420")

        here.run("ip", "address", "add", "fe80::1/128", "dev", wg)
        found = await gateway.problems("interfaces")
        the_only(
            found["interfaces"], warning, f"announced with fe80::1, and its key derives {address}", "delete fe80::1"
        )
        here.run("ip", "address", "delete", "fe80::1/128", "dev", wg)

        here.run("ip", "link", "set", vx, "down")
        found = await gateway.problems("interfaces", "process")
        the_only(found["interfaces"], critical, "vx-welt is down", "ip link set vx-welt up")
        here.run("ip", "link", "set", vx, "up")

        here.run("ip", "link", "delete", CITY.vx)
        found = await gateway.problems("interfaces", "process")
        the_only(found["interfaces"], critical, "vx-muc_cty is missing", "wgkex-ops interfaces --apply")

        here.sh(
            f"ip link add {CITY.vx} type vxlan id 4831583 local fe80::9 dev {CITY.wg} dstport 8472",
            f"ip link set {CITY.vx} mtu 1350 up",
        )
        found = await gateway.problems("interfaces")
        assert [finding.severity for finding in found["interfaces"]] == [critical, critical]
        assert "sends from fe80::9, which wg-muc_cty does not have" in found["interfaces"][0].text
        assert "vx-welt and vx-muc_cty both have the VNI 4831583" in found["interfaces"][1].text
        assert "--domain-seed" in found["interfaces"][1].remedy

        here.sh(
            f"ip link delete {CITY.vx}",
            f"ip link add {CITY.vx} type vxlan id 3836090 local {address} dev {wg} dstport 8472",
            f"ip link set {CITY.vx} mtu 1350 up",
        )
        found = await gateway.problems("interfaces")
        assert "vx-muc_cty sends over wg-welt, not over wg-muc_cty" in found["interfaces"][0].text
        assert "ip link delete vx-muc_cty" in found["interfaces"][0].remedy

        here.sh(f"ip link delete {CITY.vx}", f"ip link delete {CITY.wg}", f"ip link add {CITY.wg} type dummy")
        found = await gateway.problems("interfaces", "process")
        assert "wg-muc_cty is no WireGuard interface (dummy)" in found["interfaces"][0].text
        assert "vx-muc_cty is missing" in found["interfaces"][1].text


@pytest.mark.timeout(3600)
async def test_peers_without_route_or_fdb_entry_and_those_that_only_the_journal_has(gateway: Gateway) -> None:
    here = gateway.here
    async with gateway.worker():
        pass
    [key] = here.wg(WELT.wg).peers
    address = str(PublicKey.parse(key).link_local)
    await gateway.problems("process", "mqtt_read")
    here.run("ip", "-6", "route", "delete", f"{address}/128", "dev", WELT.wg)
    found = await gateway.problems("process", "mqtt_read", "peers")
    the_only(found["peers"], Severity.CRITICAL, "ffmuc_welt: missing in the kernel: 1 routes;", "start wgkex-worker")
    fdb = f"bridge fdb delete 00:00:00:00:00:00 dev {WELT.vx} dst {address} via {WELT.wg}"
    here.sh(f"ip -6 route add {address}/128 dev {WELT.wg} protocol 158", fdb)
    found = await gateway.problems("process", "mqtt_read", "peers")
    the_only(found["peers"], Severity.CRITICAL, "ffmuc_welt: missing in the kernel: 1 FDB entries;", "restores them")
    here.sh(f"ip -6 route delete {address}/128 dev {WELT.wg}", f"wg set {WELT.wg} peer {key} remove")
    found = await gateway.problems("process", "mqtt_read", "peers")
    the_only(found["peers"], Severity.CRITICAL, "missing in the kernel: 1 peers of the journal;", "start wgkex-worker")

    # Root all the same, who may read the folders of the tests.
    none = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
    command = (sys.executable, "-m", "wgkex_ops", "doctor", "worker", "--json", "--config", str(gateway.file))
    output = here.run("sh", "-c", '"$@"; test $? = 2', "sh", *none, *command)
    by_check = {one["check"]: one for one in json.loads(output)["findings"]}
    assert "CAP_NET_ADMIN is needed" in by_check["interfaces"]["text"]
    assert by_check["interfaces"]["remedy"] == "run this as root"
    assert here.links()
