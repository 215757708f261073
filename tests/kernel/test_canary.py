"""The canary against the real thing: a broker, a worker, Mosquitto, WireGuard, VXLAN and batman-adv."""

import json
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.kernel.lab import Namespace, namespaces
from tests.kernel.network import (
    DOMAIN,
    GATEWAY_ADDRESS,
    OTHER_DOMAIN,
    TIMEOUT,
    VXLAN_PORT,
    WIREGUARD_PORT,
    Network,
    eventually,
    running,
    running_network,
    wgkex,
)
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.rounds import PHASES
from wgkex_ops.probe.keys import KEYS_LIMIT
from wgkex_ops.probe.tunnel import interface_name

pytestmark = pytest.mark.timeout(1800)

PORT: Final = 9692
DOMAINS: Final = (DOMAIN, OTHER_DOMAIN)
EVERYTHING: Final = "topic readwrite #\n"
# Nobody may read keys any more. Mosquitto grants the workers' subscriptions all the same, and drops the messages.
NO_KEYS: Final = "topic write wireguard/#\ntopic readwrite wireguard-worker/#\ntopic readwrite wireguard-broker/#\n"
# On the gateway, and gone with the table.
FIREWALL: Final = (
    "nft add table inet firewall",
    "nft add chain inet firewall input '{ type filter hook input priority 0; }'",
    f"nft add rule inet firewall input udp dport {WIREGUARD_PORT}-{WIREGUARD_PORT + 1} drop",
)
NO_FIREWALL: Final = ("nft delete table inet firewall",)


@dataclass(frozen=True)
class Lab:
    """The network, and a host on which the canary runs."""

    network: Network
    folder: Path

    @property
    def host(self) -> Namespace:
        return self.network.router

    def probe(self, *options: str) -> list[str]:
        return self.host.command(*wgkex("probe", self.folder, *options))

    def once(self, *options: str, before: Sequence[str] = ()) -> tuple[int, str]:
        """Exit status and line of `--once`; `before` is put in front of the command."""
        command = self.host.command(*before, *wgkex("probe", self.folder, "--once", *options))
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT, check=False)
        [line] = done.stdout.splitlines()
        return done.returncode, line

    def metrics(self) -> dict[str, float]:
        """All samples of the canary; none while it is not there."""
        command = self.host.command("wget", "-qO-", f"http://127.0.0.1:{PORT}/metrics")
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        samples = (line.rpartition(" ") for line in done.stdout.splitlines() if line.startswith("wgkex_probe_"))
        return {series: float(value) for series, _, value in samples}

    def keys(self, domain: Domain) -> set[str]:
        """When each key was made that was last used in a domain."""
        return {path.name.split(".")[1] for path in (self.folder / "state" / "keys").glob(f"{domain}.*.key")}

    def sockets(self) -> int:
        """UDP sockets of this host."""
        return len(self.host.run("ss", "-Huan").splitlines())

    def traces(self) -> tuple[object, ...]:
        """Interfaces, named namespaces, namespaces in use, and UDP sockets of this host."""
        namespaces = json.loads(self.host.run("lsns", "--json", "--type", "net", "--output", "NS"))
        return (
            sorted(self.host.links()),
            self.host.run("ip", "netns", "list"),
            sorted(each["ns"] for each in namespaces["namespaces"]),
            self.sockets(),
        )


@pytest.fixture(scope="module")
def one_lab(own_namespace: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One for all tests: its programs take long to start in a guest."""
    folder = tmp_path_factory.mktemp("canary")
    (folder / "acl").write_text(EVERYTHING)
    with namespaces() as add, running_network(add, folder, f"acl_file {folder / 'acl'}\n") as network:
        yield Lab(network, folder)


@pytest.fixture
def lab(one_lab: Lab) -> Iterator[Lab]:
    before = one_lab.traces()
    yield one_lab
    # Wherever a test ends, nothing is left behind.
    one_lab.network.gateway.run("nft", "flush", "ruleset")
    eventually(lambda: one_lab.traces() == before, f"{before}, and no more: {one_lab.traces()}")


def series(name: str, domain: Domain, **labels: str) -> str:
    text = ",".join(f'{label}="{value}"' for label, value in {"domain": domain.name, **labels}.items())
    return f"wgkex_probe_{name}{{{text}}}"


def rounds(metrics: dict[str, float]) -> list[float]:
    return [metrics.get(series("rounds_total", domain), 0.0) for domain in DOMAINS]


def succeeds(lab: Lab) -> None:
    """Wait until a later round than the last one has succeeded in each domain."""
    before = rounds(lab.metrics())

    def all_succeed() -> bool:
        metrics = lab.metrics()
        later = all(new > old for new, old in zip(rounds(metrics), before, strict=True))
        return later and all(metrics[series("success", domain)] == 1 for domain in DOMAINS)

    eventually(all_succeed, "success")


def fails(lab: Lab, phase: str, breaks: Callable[[], object], within: int = 2) -> None:
    """Break something; the round after the one that goes on shows it, in both domains, by its phase."""
    before = lab.metrics()
    assert all(before[series("success", domain)] == 1 for domain in DOMAINS)
    breaks()
    failed: dict[Domain, float] = {}

    def all_fail() -> bool:
        metrics = lab.metrics()
        for domain in DOMAINS:
            if metrics.get(series("success", domain)) == 0:
                failed.setdefault(domain, metrics[series("rounds_total", domain)])
        return failed.keys() == set(DOMAINS)

    eventually(all_fail, f"a failure of {phase}")
    after = lab.metrics()
    for domain in DOMAINS:
        assert failed[domain] - before[series("rounds_total", domain)] <= within
        counts = [
            after[series("failures_total", domain, phase=each)] - before[series("failures_total", domain, phase=each)]
            for each in PHASES
        ]
        assert [count > 0 for count in counts] == [each == phase for each in PHASES]


def test_once_reaches_all_phases_and_leaves_nothing_behind(lab: Lab) -> None:
    before = lab.traces()
    for options in ((), ("--no-namespace",)):
        status, line = lab.once("--domain", DOMAIN.name, *options)
        numbers = " ".join(rf"{phase}=\d+\.\d{{3}}s;10;15;0" for phase in PHASES)
        text = rf"WGKEX OK - {DOMAIN} through {re.escape(GATEWAY_ADDRESS)}: a tunnel after [\d.]+ s \| {numbers}"
        assert re.fullmatch(text, line), line
        assert status == 0
        assert lab.traces() == before
    # It was a real peer, and the cleanup will remove it like any other.
    assert any(peer.handshake for peer in lab.network.gateway.wg(DOMAIN.wg).peers.values())

    # One gateway, from what its worker has published, and from what an operator knows.
    device = lab.network.gateway.wg(DOMAIN.wg)
    endpoint = ("--endpoint", f"{GATEWAY_ADDRESS}:{WIREGUARD_PORT}", "--gateway-key", device.public_key)
    address = str(PublicKey.parse(device.public_key).link_local)
    for given in ((), (*endpoint, "--link-address", address)):
        status, line = lab.once("--domain", DOMAIN.name, "--gateway", "gw01", *given)
        assert status == 0, line
        assert line.startswith(f"WGKEX OK - {DOMAIN} through gw01: a tunnel after")
    status, line = lab.once("--domain", DOMAIN.name, "--gateway", "gw02")
    assert status == 2
    assert "post failed: the worker gw02 has published no endpoint" in line
    assert lab.traces() == before


def test_rights_that_are_missing_are_named(lab: Lab) -> None:
    before = lab.traces()
    everything = ("net_admin", "net_raw", "sys_admin")
    unprivileged = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")
    for missing, options, expected in (
        ("", (), f"WGKEX OK - {DOMAIN} through"),
        ("sys_admin", ("--no-namespace",), f"WGKEX OK - {DOMAIN} through"),
        (
            "sys_admin",
            (),
            "UNKNOWN - a network namespace cannot be made (without one: --no-namespace): CAP_SYS_ADMIN is",
        ),
        ("net_raw", (), "UNKNOWN - packets cannot be read: CAP_NET_RAW is needed"),
        ("net_admin", (), f"UNKNOWN - the interface {interface_name(DOMAIN)} cannot be made: CAP_NET_ADMIN is needed"),
    ):
        rights = ",".join(["-all", *(f"+{right}" for right in everything if right != missing)])
        capabilities = (f"--inh-caps={rights}", f"--ambient-caps={rights}", f"--bounding-set={rights}")
        # Where a user without rights can read the configuration, and make its keys.
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o777)
            shutil.copy(lab.folder / "wgkex.yaml", folder)
            status, line = Lab(lab.network, folder).once(
                *("--domain", DOMAIN.name, "--keys", str(folder / "keys"), *options),
                before=(*unprivileged, *capabilities),
            )
        assert expected in line
        assert status == (0 if "OK" in expected else 3)
        assert lab.traces() == before


def test_whatever_ends_it_nothing_is_left_behind_for_long(lab: Lab) -> None:
    before = lab.traces()
    # Nothing comes through: each round waits for its handshake.
    lab.network.gateway.sh(*FIREWALL)
    for options, ends in (((), (signal.SIGTERM, signal.SIGKILL)), (("--no-namespace",), (signal.SIGTERM,))):
        for end in ends:
            with running(lab.probe(*options)) as process:
                eventually(lambda: lab.traces() != before and lab.sockets() > 0, "an interface with a UDP socket")
                process.send_signal(end)
                status = process.wait(TIMEOUT)
            assert status == (0 if end == signal.SIGTERM else -signal.SIGKILL)
            # The kernel removes a namespace a moment after its last process.
            eventually(lambda: lab.traces() == before, f"{before}, and no more: {lab.traces()}")

    # In the namespace of the host, a killed canary leaves its interfaces; the next one removes them.
    names = {interface_name(domain) for domain in DOMAINS}
    with running(lab.probe("--no-namespace")) as process:
        eventually(lambda: lab.host.links().keys() >= names, "the interfaces")
        process.kill()
        process.wait(TIMEOUT)
    assert lab.host.links().keys() >= names
    status, line = lab.once("--no-namespace")
    assert (status, "handshake failed" in line) == (2, True), line
    assert lab.traces() == before

    # What somebody else has made under this name stays.
    lab.host.sh(f"ip link add {interface_name(DOMAIN)} type dummy")
    status, line = lab.once("--no-namespace", "--domain", DOMAIN.name)
    assert (status, "is not the canary's" in line) == (3, True), line
    lab.host.remove_links(interface_name(DOMAIN))


def test_it_reports_each_story_within_two_rounds_and_its_end(lab: Lab) -> None:
    gateway = lab.network.gateway

    def set_rights(rules: str) -> None:
        (lab.folder / "acl").write_text(rules)
        assert lab.network.mosquitto is not None
        lab.network.mosquitto.send_signal(signal.SIGHUP)

    def leave_mesh() -> None:
        gateway.sh(f"ip link set {DOMAIN.vx} nomaster", f"ip link set {OTHER_DOMAIN.vx} nomaster")

    def join_mesh() -> None:
        gateway.sh(f"ip link set {DOMAIN.vx} master bat0", f"ip link set {OTHER_DOMAIN.vx} master bat1")

    def drop_vxlan() -> None:
        gateway.sh(
            "nft add table inet tunnel",
            "nft add chain inet tunnel output '{ type filter hook output priority 0; }'",
            f"nft add rule inet tunnel output udp dport {VXLAN_PORT} drop",
        )

    def pass_vxlan() -> None:
        gateway.sh("nft delete table inet tunnel")

    with running(lab.probe()) as process:
        succeeds(lab)
        fails(lab, "handshake", lambda: gateway.sh(*FIREWALL))
        gateway.sh(*NO_FIREWALL)
        succeeds(lab)
        for breaks, repairs in ((leave_mesh, join_mesh), (drop_vxlan, pass_vxlan)):
            fails(lab, "vxlan", breaks)
            # As far as the gateway knows, all is well.
            assert gateway.fdb(DOMAIN.vx)
            repairs()
            succeeds(lab)

        # Once their sessions are over, keys move: from then on, each is installed already, in the other domain.
        here = lab.keys(DOMAIN)
        eventually(lambda: lab.keys(OTHER_DOMAIN) & here, "a key that has moved")
        succeeds(lab)
        # With a round every ten seconds, keys have no time to rest: several of the next ones may still be here.
        fails(lab, "handshake", lambda: set_rights(NO_KEYS), within=KEYS_LIMIT)
        set_rights(EVERYTHING)
        succeeds(lab)

        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
