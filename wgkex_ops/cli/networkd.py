"""The units of systemd-networkd for a gateway's interfaces: their text, and the files."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Final

from wgkex_ops.files import replace_file
from wgkex_ops.model.interfaces import VXLAN_PORT, DomainInterfaces

# The beginning of the first line of each file, by which this command knows its own.
MARK: Final = "# Made by wgkex-ops interfaces"
_HEADER: Final = f"{MARK}, which overwrites it: put changes into a drop-in.\n"

# Below systemd's folder. The numbers are those of Freifunk München's gateways.
UNITS: Final = PurePosixPath("network")
_DROP_IN: Final = PurePosixPath("networkd.conf.d/10-wgkex.conf")

_FILE_MODE: Final = 0o644

# A unit cannot be complete without a key.
_NO_KEY: Final = "# {}= follows from the key, which --output makes"

_ROUTES: Final = """
# Without it, networkd removes the routes that the worker makes for nodes.
[Network]
ManageForeignRoutes=no
"""


class FileState(StrEnum):
    """What becomes of a file."""

    NEW = "new"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


def units(plan: Sequence[DomainInterfaces], key_files: Mapping[str, Path]) -> dict[PurePosixPath, str]:
    """Compose all files.

    Args:
        plan: the interfaces.
        key_files: where the private key is, by the domain's name.

    Returns:
        the text of each, by its path below systemd's folder (/etc/systemd).
    """
    texts = {_DROP_IN: f"{_HEADER}{_ROUTES}"}
    for wanted in plan:
        for name, text in _domain_units(wanted, key_files[wanted.domain.name]):
            texts[UNITS / name] = f"{_HEADER}\n{text}"
    return texts


def _domain_units(wanted: DomainInterfaces, key_file: Path) -> Iterator[tuple[str, str]]:
    wg, vx = wanted.domain.wg, wanted.domain.vx
    address, local = (
        (f"Address={wanted.address}/128", f"Local={wanted.address}")
        if wanted.address
        else (_NO_KEY.format("Address"), _NO_KEY.format("Local"))
    )
    yield (
        f"30-{wg}.netdev",
        f"[NetDev]\nName={wg}\nKind=wireguard\n\n[WireGuard]\nListenPort={wanted.port}\nPrivateKeyFile={key_file}\n",
    )
    yield f"30-{wg}.network", f"{_network(wg, wanted.mtu)}{address}\nVXLAN={vx}\n"
    # Without learning, each frame for one node would go to all of them.
    vxlan = f"VNI={wanted.vni}\n{local}\nDestinationPort={VXLAN_PORT}\nMacLearning=yes\n"
    yield f"40-{vx}.netdev", f"[NetDev]\nName={vx}\nKind=vxlan\n\n[VXLAN]\n{vxlan}"
    yield f"40-{vx}.network", _network(vx, wanted.vxlan_mtu)


def _network(name: str, mtu: int) -> str:
    return (
        f"[Match]\nName={name}\n\n[Link]\nMTUBytes={mtu}\nRequiredForOnline=no\n\n"
        "[Network]\nDHCP=no\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    )


def compare(folder: Path, texts: Mapping[PurePosixPath, str]) -> tuple[dict[Path, FileState], list[Path]]:
    """Compare files with what they should be.

    Returns:
        what would become of each, and which of them somebody else has written.
    """
    states, foreign = {}, []
    for relative, text in texts.items():
        path = folder / relative
        try:
            before = path.read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            states[path] = FileState.NEW
            continue
        states[path] = FileState.UNCHANGED if before == text else FileState.CHANGED
        if before != text and not before.startswith(MARK):
            foreign.append(path)
    return states, foreign


def write(folder: Path, texts: Mapping[PurePosixPath, str], states: Mapping[Path, FileState]) -> None:
    """Write the files that are new or changed."""
    for relative, text in texts.items():
        path = folder / relative
        if states[path] != FileState.UNCHANGED:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, text.encode(), _FILE_MODE)
