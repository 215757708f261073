"""The file by which an operator takes a gateway out of service; in the state directory, so it outlives restarts."""

from pathlib import Path
from typing import Final

import msgspec

from wgkex_ops.files import replace_file, sync_folder

FILE: Final = "drain.json"
# A minute's work at the most: more would be a storm, which is what a slow release is to avoid.
FASTEST_RELEASE: Final = 600
# The worker runs as another user than the operator.
_FILE_MODE: Final = 0o644


class DrainOrder(msgspec.Struct, frozen=True):
    """What the file says.

    Attributes:
        since: when the operator gave it, in seconds since the epoch.
        release_per_minute: how many peers of version 2 are removed a minute; 0 for none.
    """

    since: float
    release_per_minute: int = 0


class DrainFileError(Exception):
    """The file is there and says nothing usable."""


def read_order(folder: Path) -> DrainOrder | None:
    """Read the order; None if there is none.

    Raises:
        DrainFileError: it is damaged.
        OSError: it cannot be read.
    """
    try:
        content = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        order = msgspec.json.decode(content, type=DrainOrder)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DrainFileError(f"{folder / FILE} is not valid: {error}") from None
    if not 0 <= order.release_per_minute <= FASTEST_RELEASE:
        raise DrainFileError(f"{folder / FILE}: release_per_minute should be from 0 to {FASTEST_RELEASE}")
    return order


def write_order(folder: Path, order: DrainOrder) -> None:
    """Give the order: a worker finds the old file or the new one.

    Raises:
        OSError: it cannot be written.
    """
    replace_file(folder / FILE, msgspec.json.encode(order), _FILE_MODE)


def remove_order(folder: Path) -> bool:
    """Take the order back, and return whether there was one.

    Raises:
        OSError: it cannot be removed.
    """
    try:
        (folder / FILE).unlink()
    except FileNotFoundError:
        return False
    # After a power cut, the gateway would drain again.
    sync_folder(folder)
    return True
