"""The worker's state directory and its journal."""

import contextlib
import os
import pwd
import sqlite3
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

from wgkex_ops.config import Config
from wgkex_ops.consumer.upkeep.journal_file import FILE, open_to_read
from wgkex_ops.doctor.findings import Finding, critical, ok, warning
from wgkex_ops.doctor.host import Host
from wgkex_ops.doctor.process import Presence, Process

_CHECK: Final = "state_dir"
# Bytes. A journal of 25,000 peers has 3 MB, and a write-ahead log of about the same size beside it.
_NEEDED: Final = 16 << 20
_COMFORTABLE: Final = 256 << 20
_SERVICE_USER: Final = "wgkex"
# https://www.sqlite.org/rescode.html
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def check_state(config: Config, process: Process, host: Host) -> list[Finding]:
    """Whether the journal can be written, and is whole."""
    folder = config.worker.state_dir
    try:
        found = folder.stat()
    except FileNotFoundError:
        return [_missing(folder, process)]
    except OSError as error:
        return [_run_as_root(f"worker.state_dir: {folder}: {error.strerror}")]
    uid, groups, user = _user(process, host)
    if not _may_write(found, uid, groups):
        text = f"worker.state_dir: {user} may not write in {folder}: no peer outlives a reboot"
        remedy = f"chown -R {user} {folder}; another folder than the unit's also needs ReadWritePaths= there"
        return [critical(_CHECK, text, remedy)]
    return [_room(folder) or _unwritten(folder, process) or _journal(folder / FILE)]


def _missing(folder: Path, process: Process) -> Finding:
    if not process.runs and folder.parent.is_dir():
        return ok(_CHECK, f"{folder} will be made by the worker")
    text = f"worker.state_dir: {folder} does not exist"
    return critical(_CHECK, text, f"make it, owned by {_SERVICE_USER}, or set StateDirectory=wgkex in the unit")


def _unwritten(folder: Path, process: Process) -> Finding | None:
    """What the worker itself says; None if it can write, or does not tell."""
    if process.presence is not Presence.OURS or process.metrics.get("wgkex_worker_journal_up") != 0:
        return None
    text = f"the worker cannot write its journal in {folder}: no peer outlives a reboot"
    return critical(_CHECK, text, "journalctl -u wgkex-worker | grep journal says why; the disk has room")


def _user(process: Process, host: Host) -> tuple[int, Collection[int], str]:
    """Whom the worker runs as, or would run as: user id, group ids, and a name."""
    status = host.status(process.pid) if process.pid is not None else {}
    if status:
        uid = int(status["Uid"].split()[1])
        groups = {int(status["Gid"].split()[1]), *map(int, status.get("Groups", "").split())}
        with contextlib.suppress(KeyError):
            return uid, groups, pwd.getpwuid(uid).pw_name
        return uid, groups, str(uid)
    if host.has_unit("worker"):
        with contextlib.suppress(KeyError):
            known = pwd.getpwnam(_SERVICE_USER)
            return known.pw_uid, os.getgrouplist(_SERVICE_USER, known.pw_gid), _SERVICE_USER
    return os.geteuid(), {os.getegid(), *os.getgroups()}, "this user"


def _may_write(found: os.stat_result, uid: int, groups: Collection[int]) -> bool:
    if uid == 0:
        return True
    if found.st_uid == uid:
        return bool(found.st_mode & stat.S_IWUSR)
    return bool(found.st_mode & (stat.S_IWGRP if found.st_gid in groups else stat.S_IWOTH))


def _room(folder: Path) -> Finding | None:
    """What is wrong with the disk; None if it can be written, and there is room."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    remedy = f"make room: df -h {folder}, and du -xh / | sort -h | tail; journalctl --vacuum-size=500M often helps"
    if disk.f_flag & os.ST_RDONLY:
        # What the kernel does after an error of the disk, too.
        text = f"the file system of {folder} is read-only: no peer outlives a reboot"
        remedy = f"look for errors of the disk with dmesg, then mount -o remount,rw what findmnt -T {folder} shows"
        return critical(_CHECK, text, remedy)
    # Some file systems do not count files.
    if disk.f_files and not disk.f_favail:
        return critical(_CHECK, f"the disk of {folder} has no room for another file (inodes)", remedy)
    if free < _NEEDED:
        return critical(_CHECK, f"the disk of {folder} is full: {_size(free)} free", remedy)
    if free < _COMFORTABLE:
        return warning(_CHECK, f"the disk of {folder} is nearly full: {_size(free)} free", remedy)
    return None


def _journal(path: Path) -> Finding:
    if not path.exists():
        return ok(_CHECK, f"{path.parent} can be written; there is no journal yet")
    try:
        with open_to_read(path) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (peers,) = connection.execute("SELECT count(*) FROM peers").fetchone()
    except UnicodeDecodeError as error:
        # A damaged schema, which SQLite's messages quote.
        return _damaged(path, str(error))
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in _DAMAGED:
            return _damaged(path, str(error))
        # Locked, without the right to read, or just being begun.
        return warning(_CHECK, f"the journal {path} cannot be read now: {error}", "run this again, as root")
    return ok(_CHECK, f"{path} has {peers} peers") if verdict == "ok" else _damaged(path, verdict)


def _damaged(path: Path, why: str) -> Finding:
    remedy = f"systemctl restart wgkex-worker: it renames {path.name}, and adopts its peers from the kernel"
    return critical(_CHECK, f"the journal {path} is damaged: {why}", remedy)


def _run_as_root(text: str) -> Finding:
    return warning(_CHECK, text, "run this as root")


def _size(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
