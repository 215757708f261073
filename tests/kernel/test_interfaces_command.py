"""`wgkex-ops interfaces --apply` on a real kernel; iproute2, bridge and wg show what it did."""

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Recorder
from tests.kernel.dataplane import STATIC_ADDRESS, STATIC_KEY, install, new_keys
from tests.kernel.lab import Namespace
from tests.kernel.network import (
    DOMAIN,
    GATEWAY_ADDRESS,
    OTHER_DOMAIN,
    ROUTER_ADDRESS,
    WIREGUARD_PORT,
    create_tunnel,
    eventually,
    new_key_pair,
)
from wgkex_ops.__main__ import main
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

# That of ffmuc_welt, and the VNI that its nodes have.
SEED = "1f0b31cecdf980317f453b162ac476ee09cf9997b03e684d4f2f484e75d9cd26"
VNI = 4831583


class Command:
    """The command, in the namespace of this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config, self.keys = folder / "wgkex.yaml", folder / "keys"
        self.configure(DOMAIN)
        self._capsys = capsys

    def configure(self, *domains: Domain) -> None:
        names = ", ".join(map(str, domains))
        self.config.write_text(f"domains: [{names}]\ndomain_prefixes: [ffmuc_]\nmqtt: {{broker_url: localhost}}\n")

    def arguments(self, *options: str) -> list[str]:
        return ["interfaces", "--config", str(self.config), "--key-directory", str(self.keys), *options]

    def apply(self, *options: str) -> tuple[int, list[str]]:
        """Exit status and lines of what it says of the interfaces."""
        status = main(self.arguments("--apply", *options))
        out, err = self._capsys.readouterr()
        assert err == ""
        return status, [line for line in out.splitlines() if not line.startswith(str(self.keys))]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


def settings(here: Namespace, name: str) -> dict[str, Any]:
    """Everything that iproute2 shows of an interface and its addresses."""
    [link] = json.loads(here.run("ip", "-json", "-details", "address", "show", "dev", name))
    return dict(link)


def addresses(here: Namespace, name: str) -> list[str]:
    return [f"{address['local']}/{address['prefixlen']}" for address in settings(here, name)["addr_info"]]


def vxlan(here: Namespace) -> dict[str, Any]:
    return dict(settings(here, DOMAIN.vx)["linkinfo"]["info_data"])


def assert_as_planned(here: Namespace, port: int, mtu: int) -> None:
    """The interfaces are what nodes of the domain expect."""
    wg, vx, device = settings(here, DOMAIN.wg), settings(here, DOMAIN.vx), here.wg(DOMAIN.wg)
    address = str(PublicKey.parse(device.public_key).link_local)
    assert device.listen_port == port
    assert (wg["mtu"], vx["mtu"]) == (mtu, mtu - 70)
    assert "UP" in wg["flags"]
    assert "UP" in vx["flags"]
    assert f"{address}/128" in addresses(here, DOMAIN.wg)
    data = vxlan(here)
    assert (data["id"], data["port"], data["link"], data["local6"]) == (VNI, 8472, DOMAIN.wg, address)
    assert data["learning"]


@pytest.mark.timeout(1800)
async def test_a_node_reaches_the_mesh_through_interfaces_that_the_command_made(
    here: Namespace, add_namespace: Callable[[str], Namespace], recorder: Recorder, command: Command
) -> None:
    router = add_namespace("router")
    here.run(*f"ip link add gw0 type veth peer wan0 netns {router.name}".split())
    here.sh(f"ip address add {GATEWAY_ADDRESS}/24 dev gw0", "ip link set gw0 up")
    router.sh(f"ip address add {ROUTER_ADDRESS}/24 dev wan0", "ip link set wan0 up")
    options = ("--domain-seed", f"{DOMAIN}={SEED}", "--port", f"{DOMAIN}={WIREGUARD_PORT}")
    assert command.apply(*options) == (0, ["wg-welt  created", "vx-welt  created"])
    assert_as_planned(here, WIREGUARD_PORT, 1420)
    gateway = here.wg(DOMAIN.wg)
    assert addresses(here, DOMAIN.vx) == []
    assert here.run("wg", "pubkey", stdin=(command.keys / "wg-welt.key").read_text()).strip() == gateway.public_key

    here.sh("ip link add bat0 type batadv", f"ip link set {DOMAIN.vx} master bat0", "ip link set bat0 up")
    private_key, public_key = new_key_pair(router)
    async with KernelDataplane([DOMAIN], recorder) as dataplane:
        assert await dataplane.apply(install(DOMAIN, [PublicKey.parse(public_key)])) == [None]
        # What a worker announces, and so what a node is told.
        state = (await dataplane.snapshot()).domains[DOMAIN.name]
    create_tunnel(router, private_key, public_key)
    router.sh(
        f"wg set {DOMAIN.wg} peer {gateway.public_key} persistent-keepalive 25"
        f" endpoint {GATEWAY_ADDRESS}:{state.listen_port} allowed-ips {state.link_address}/128",
        f"ip -6 route add {state.link_address}/128 dev {DOMAIN.wg}",
        f"bridge fdb append 00:00:00:00:00:00 dev {DOMAIN.vx} dst {state.link_address} via {DOMAIN.wg}",
    )
    mac = settings(here, DOMAIN.vx)["address"]
    eventually(lambda: mac in router.run("batctl", "meshif", "bat0", "n"), "the gateway among the neighbours")
    # It learns where a node is: what is for one node goes to no other one.
    learned = (settings(router, DOMAIN.vx)["address"], str(PublicKey.parse(public_key).link_local))
    entries = json.loads(here.run("bridge", "-json", "fdb", "show", "dev", DOMAIN.vx))
    assert learned in {(entry["mac"], entry["dst"]) for entry in entries}

    before = settings(here, DOMAIN.wg), settings(here, DOMAIN.vx), here.fdb(DOMAIN.vx), here.routes(DOMAIN.wg)
    assert command.apply() == (0, ["wg-welt  unchanged", "vx-welt  unchanged"])
    after = settings(here, DOMAIN.wg), settings(here, DOMAIN.vx), here.fdb(DOMAIN.vx), here.routes(DOMAIN.wg)
    assert after == before
    assert here.wg(DOMAIN.wg).peers[public_key].handshake


async def test_interfaces_that_are_there_are_changed_and_keep_their_peers(
    here: Namespace, recorder: Recorder, command: Command
) -> None:
    # A /64, no learning, other numbers than those of the options.
    private_key, public_key = new_key_pair(here)
    address = PublicKey.parse(public_key).link_local
    here.run(
        "sh",
        "-ec",
        f"""
        ip link add {DOMAIN.wg} type wireguard
        wg set {DOMAIN.wg} private-key /dev/stdin listen-port 51820
        ip link add {DOMAIN.vx} type vxlan id {VNI} local fe80::9 dev {DOMAIN.wg} dstport 8472 nolearning
        ip link set {DOMAIN.wg} mtu 1500 up
        wg set {DOMAIN.wg} peer {STATIC_KEY} allowed-ips {STATIC_ADDRESS}/128
        """,
        stdin=private_key,
    )
    keys = new_keys(2)
    async with KernelDataplane([DOMAIN], recorder) as dataplane:
        assert await dataplane.apply(install(DOMAIN, keys)) == [None, None]
    peers, fdb, routes = here.wg(DOMAIN.wg).peers, here.fdb(DOMAIN.vx), here.routes(DOMAIN.wg, 158)
    assert len(peers) == 3

    # Without an option, what nodes know stays: key, port, VNI.
    assert command.apply() == (
        0,
        [
            f"wg-welt  changed  address {address}",
            f"vx-welt  changed  address {address}; learning; MTU 1430, was 1350; up",
        ],
    )
    assert (command.keys / "wg-welt.key").read_text() == f"{private_key}\n"
    assert_as_planned(here, 51820, 1500)

    assert command.apply("--port", f"{DOMAIN}=40011", "--mtu", "1406") == (
        0,
        ["wg-welt  changed  port 40011, was 51820; MTU 1406, was 1500", "vx-welt  changed  MTU 1336, was 1430"],
    )
    assert_as_planned(here, 40011, 1406)
    assert (here.wg(DOMAIN.wg).peers, here.fdb(DOMAIN.vx), here.routes(DOMAIN.wg, 158)) == (peers, fdb, routes)

    # Another key has another address; the lower one of two would be announced.
    lower = next(key for key in iter(lambda: new_key_pair(here), None) if PublicKey.parse(key[1]).link_local > address)
    (command.keys / "wg-welt.key").write_text(lower[0])
    other = PublicKey.parse(lower[1]).link_local
    status, lines = command.apply()
    assert (status, lines[0], lines[2]) == (
        1,
        "wg-welt  failed  key; address " + str(other),
        f"vx-welt  changed  address {other}",
    )
    assert lines[1].endswith(f"remove it: ip address delete {address} dev wg-welt")
    here.run(*lines[1].partition("remove it: ")[2].split())
    assert command.apply() == (0, ["wg-welt  unchanged", "vx-welt  unchanged"])
    assert_as_planned(here, 40011, 1406)
    assert (here.wg(DOMAIN.wg).peers, here.fdb(DOMAIN.vx), here.routes(DOMAIN.wg, 158)) == (peers, fdb, routes)


def test_what_cannot_be_changed_is_named_with_the_remedy(here: Namespace, command: Command) -> None:
    here.sh(
        f"ip link add {DOMAIN.wg} type wireguard",
        f"ip link add {DOMAIN.vx} type vxlan id 7 remote 192.0.2.1 dstport 4789",
    )
    before = vxlan(here)
    status, lines = command.apply("--vni", f"{DOMAIN}={VNI}")
    assert (status, lines[:2]) == (
        1,
        [
            "wg-welt  changed  key; port 40000, was 0; up; address "
            + addresses(here, DOMAIN.wg)[0].removesuffix("/128"),
            "vx-welt  failed",
        ],
    )
    assert [line.partition(" which cannot")[0] for line in lines[2:]] == [
        "vx-welt  has the VNI 7, not 4831583,",
        "vx-welt  has the UDP port 4789, not 8472,",
        "vx-welt  has the lower interface none, not wg-welt,",
    ]
    assert all(line.endswith("make it anew: ip link delete vx-welt, and this command again") for line in lines[2:])
    assert vxlan(here) == before

    here.run("ip", "link", "delete", DOMAIN.vx)
    assert command.apply("--vni", f"{DOMAIN}={VNI}") == (0, ["wg-welt  unchanged", "vx-welt  created"])
    assert_as_planned(here, 40000, 1420)


def test_a_vni_a_port_and_a_name_that_are_taken(here: Namespace, command: Command) -> None:
    here.sh(
        f"ip link add {DOMAIN.wg} type wireguard",
        f"ip link add other type vxlan id {VNI} local fe80::9 dev {DOMAIN.wg} dstport 8472",
        "ip link add wg9 type wireguard",
        "wg set wg9 listen-port 40000",
        "ip link set wg9 up",
    )
    command.configure(DOMAIN, OTHER_DOMAIN)
    status, lines = command.apply("--vni", f"{DOMAIN}={VNI}", f"{OTHER_DOMAIN}=9")
    assert status == 1
    assert lines == [
        "wg-welt  failed  key; port 40000, was 0",
        "wg-welt  cannot have UDP port 40000: another interface or program on this host has it",
        "vx-welt  failed",
        f"vx-welt  cannot be made: other has the VNI {VNI}; remove that one, or name another VNI",
        # The others are not kept from theirs.
        "wg-city  created",
        "vx-city  created",
    ]
    command.configure(DOMAIN)
    here.remove_links("other", "wg9", DOMAIN.wg)
    here.run("ip", "link", "add", DOMAIN.wg, "type", "dummy")
    assert command.apply("--vni", f"{DOMAIN}={VNI}") == (
        1,
        [
            "wg-welt  failed",
            "wg-welt  is no wireguard interface (dummy): rename or remove it",
            "vx-welt  failed",
            "vx-welt  needs wg-welt",
        ],
    )


def test_a_key_with_bits_that_the_kernel_clears(here: Namespace, command: Command) -> None:
    command.keys.mkdir()
    key_file = command.keys / "wg-welt.key"
    key_file.write_text(base64.b64encode(bytes([255] * 32)).decode())
    key_file.chmod(0o600)
    assert command.apply("--vni", f"{DOMAIN}={VNI}") == (0, ["wg-welt  created", "vx-welt  created"])
    assert here.wg(DOMAIN.wg).public_key == here.run("wg", "pubkey", stdin=key_file.read_text()).strip()
    assert command.apply() == (0, ["wg-welt  unchanged", "vx-welt  unchanged"])


def test_without_the_capability_one_sentence_says_so(here: Namespace, command: Command) -> None:
    # Root all the same, who may read the folders of the tests.
    none = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
    program = f"import sys; from wgkex_ops.__main__ import main; sys.exit(main({command.arguments('--apply')}) != 1)"
    output = here.run("sh", "-ec", '"$@" 2>&1', "sh", *none, sys.executable, "-c", program)
    assert output == "network interfaces can only be made and changed with CAP_NET_ADMIN: run this as root\n"
    assert not command.keys.exists()


def test_the_private_key_is_printed_nowhere(
    here: Namespace, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--vni", f"{DOMAIN}={VNI}", "--apply", "--output", str(command.keys.parent / "systemd"), "--json")
    assert main(command.arguments(*options)) == 0
    out, err = capsys.readouterr()
    key = (command.keys / "wg-welt.key").read_text().strip()
    units = "".join(path.read_text() for path in (command.keys.parent / "systemd").rglob("*") if path.is_file())
    for text in (out, err, units):
        assert key not in text
        assert base64.b64decode(key).hex() not in text
    assert [(one["interface"], one["state"]) for one in json.loads(out)["interfaces"]] == [
        ("wg-welt", "created"),
        ("vx-welt", "created"),
    ]
