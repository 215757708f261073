"""Private keys of a gateway's WireGuard interfaces, each in a file as `wg genkey` writes it."""

import grp
import os
import stat
from pathlib import Path
from typing import Final

from wgkex_ops.errors import ConfigError
from wgkex_ops.files import replace_file
from wgkex_ops.probe.keys import PrivateKey

# The user of systemd-networkd has it, and reads the key.
READERS: Final = "systemd-network"
_SHARED_MODE: Final = 0o640
_OWN_MODE: Final = 0o600


def read_key(path: Path) -> PrivateKey | None:
    """Read a private key; None if there is no file.

    Raises:
        ConfigError: everybody on this host may read it, or it is not a key.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            line = file.read(1000)
    except FileNotFoundError:
        return None
    if mode & stat.S_IRWXO:
        raise ConfigError([f"{path}: other users may use the key (mode {mode:04o}): chmod o= {path}"])
    key = PrivateKey.parse(line)
    if key is None:
        raise ConfigError([f"{path}: is not a WireGuard private key as `wg genkey` prints it"])
    return key


def write_key(path: Path, key: PrivateKey, readers: str = READERS) -> None:
    """Write a private key.

    Args:
        path: of its file.
        key: what it gets.
        readers: a group that may read it, if this host has it.
    """
    content = f"{key.base64}\n".encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        group = grp.getgrnam(readers).gr_gid
    except KeyError:
        replace_file(path, content, _OWN_MODE)
    else:
        replace_file(path, content, _SHARED_MODE, group)
