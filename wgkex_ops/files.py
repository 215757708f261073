"""Files that are there as a whole, also after a power cut: states, keys, units."""

import contextlib
import os
import tempfile
from pathlib import Path


def replace_file(path: Path, content: bytes, mode: int, group: int | None = None) -> None:
    """Write a file so that each reader finds all of it or what was there before, and durably.

    Args:
        path: of the file; its folder is there.
        content: what it gets.
        mode: its permissions.
        group: id of the group that it is given to. If that is not allowed, the group gets no permissions.

    Raises:
        OSError: it cannot be written.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".wgkex-", delete=False) as file:
        written = Path(file.name)
        try:
            file.write(content)
            file.flush()
            # By the descriptor: others may have the right to put another file into this place.
            if group is None:
                os.fchmod(file.fileno(), mode)
            else:
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), -1, group)
                    os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            written.replace(path)
        except BaseException:
            written.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk: a file's own fsync does not write its name.

    Raises:
        OSError: it failed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
