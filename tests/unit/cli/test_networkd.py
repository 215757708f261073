"""The units of systemd-networkd: their text to the letter, and which files are written."""

import re
import stat
from pathlib import Path, PurePosixPath

import pytest

from tests.helpers import CITY, KEY, WELT
from wgkex_ops.cli import networkd
from wgkex_ops.cli.networkd import MARK, FileState
from wgkex_ops.model.interfaces import DomainInterfaces
from wgkex_ops.model.keys import PublicKey

HEADER = "# Made by wgkex-ops interfaces, which overwrites it: put changes into a drop-in.\n\n"
ADDRESS = str(PublicKey.parse(KEY).link_local)
PLAN = DomainInterfaces(WELT, port=40011, vni=4831583, mtu=1406, public_key=PublicKey.parse(KEY))
NO_KEY = DomainInterfaces(CITY, port=40002, vni=7, mtu=1420, public_key=None)
KEY_FILES = {WELT.name: Path("/etc/systemd/network/wg-welt.key"), CITY.name: Path("/keys/wg-muc_cty.key")}

TEXTS = {
    "networkd.conf.d/10-wgkex.conf": """\
# Without it, networkd removes the routes that the worker makes for nodes.
[Network]
ManageForeignRoutes=no
""",
    "network/30-wg-welt.netdev": """\
[NetDev]
Name=wg-welt
Kind=wireguard

[WireGuard]
ListenPort=40011
PrivateKeyFile=/etc/systemd/network/wg-welt.key
""",
    "network/30-wg-welt.network": f"""\
[Match]
Name=wg-welt

[Link]
MTUBytes=1406
RequiredForOnline=no

[Network]
DHCP=no
LinkLocalAddressing=no
IPv6AcceptRA=no
Address={ADDRESS}/128
VXLAN=vx-welt
""",
    "network/40-vx-welt.netdev": f"""\
[NetDev]
Name=vx-welt
Kind=vxlan

[VXLAN]
VNI=4831583
Local={ADDRESS}
DestinationPort=8472
MacLearning=yes
""",
    "network/40-vx-welt.network": """\
[Match]
Name=vx-welt

[Link]
MTUBytes=1336
RequiredForOnline=no

[Network]
DHCP=no
LinkLocalAddressing=no
IPv6AcceptRA=no
""",
}


def texts(*plan: DomainInterfaces) -> dict[PurePosixPath, str]:
    return networkd.units(plan, KEY_FILES)


def test_the_units_of_a_domain() -> None:
    assert texts(PLAN) == {PurePosixPath(path): f"{HEADER}{text}" for path, text in TEXTS.items()}


def test_each_domain_has_its_own_and_the_drop_in_is_for_all() -> None:
    both = texts(PLAN, NO_KEY)
    assert len(both) == 1 + 4 + 4
    assert both.items() >= texts(PLAN).items()


def test_units_without_a_key_say_what_is_missing() -> None:
    found = texts(NO_KEY)
    network, netdev = (
        found[PurePosixPath("network") / name] for name in ("30-wg-muc_cty.network", "40-vx-muc_cty.netdev")
    )
    assert "\n# Address= follows from the key, which --output makes\nVXLAN=vx-muc_cty\n" in network
    assert "\n# Local= follows from the key, which --output makes\n" in netdev
    assert not re.search("^(Address|Local)=", network + netdev, re.MULTILINE)


def test_files_are_written_once(tmp_path: Path) -> None:
    def run(*plan: DomainInterfaces) -> dict[str, FileState]:
        states, foreign = networkd.compare(tmp_path, texts(*plan))
        assert foreign == []
        networkd.write(tmp_path, texts(*plan), states)
        return {str(path.relative_to(tmp_path)): state for path, state in states.items()}

    assert run(PLAN) == dict.fromkeys(TEXTS, FileState.NEW)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert {str(path.relative_to(tmp_path)) for path in written} == set(TEXTS)
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o644}
    assert run(PLAN) == dict.fromkeys(TEXTS, FileState.UNCHANGED)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    other_port = DomainInterfaces(WELT, port=1, vni=4831583, mtu=1406, public_key=PublicKey.parse(KEY))
    assert run(other_port) == {
        **dict.fromkeys(TEXTS, FileState.UNCHANGED),
        "network/30-wg-welt.netdev": FileState.CHANGED,
    }
    assert "ListenPort=1\n" in (tmp_path / "network/30-wg-welt.netdev").read_text()


@pytest.mark.parametrize("text", [b"[NetDev]\nName=wg-welt\n", b"", b"\xff\n", f"[NetDev]\n{MARK}\n".encode()])
def test_files_of_others_are_named(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "network" / "30-wg-welt.netdev"
    path.parent.mkdir()
    path.write_bytes(text)
    states, foreign = networkd.compare(tmp_path, texts(PLAN))
    assert foreign == [path]
    assert states[path] == FileState.CHANGED
