"""What this host runs: processes, who has a port, the state of the clock. From /proc, and changes nothing."""

import contextlib
import ctypes
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wgkex_ops.config import config_path

# linux/timex.h: the kernel's clock follows no source of time.
_STA_UNSYNC: Final = 0x40
# struct timex on 64-bit Linux: modes, and four longs before the status; it has 208 bytes.
_TIMEX_BYTES: Final = 256
_STATUS_AT: Final = 40
# linux/capability.h
CAP_NET_ADMIN: Final = 12
# net/tcp_states.h, as /proc/net/tcp has it.
_LISTENING: Final = "0A"


def clock_is_synchronized() -> bool | None:
    """Whether something such as NTP keeps the kernel's clock; None if the kernel does not tell."""
    timex = (ctypes.c_byte * _TIMEX_BYTES)()
    # Without modes it only reads.
    if ctypes.CDLL(None).adjtimex(timex) < 0:
        return None
    status = int.from_bytes(bytes(timex[_STATUS_AT : _STATUS_AT + 4]), "little")
    return not status & _STA_UNSYNC


@dataclass(frozen=True, slots=True)
class Host:
    """Where to look.

    Attributes:
        proc: the file system of processes.
        root: what paths such as /etc/systemd start from.
        synchronized: see `clock_is_synchronized`.
    """

    proc: Path = Path("/proc")
    root: Path = Path("/")
    synchronized: Callable[[], bool | None] = clock_is_synchronized

    def pids_of(self, role: str, config: Path) -> list[int]:
        """Processes of a role, the older wgkex's as well, but for those that surely have another configuration."""
        return [pid for pid, words in self._commands() if _is_of(role, words) and self._may_have(pid, words, config)]

    def has_unit(self, role: str) -> bool:
        """Whether a role's unit is in /etc/systemd/system, or is enabled: the Debian package has those of all roles."""
        folder = self.root / "etc/systemd/system"
        return any(
            # What is enabled is a link, which leads out of another root.
            os.path.lexists(place / f"wgkex-{role}.service")
            for place in (folder, folder / "multi-user.target.wants")
        )

    def runs(self, name: str) -> bool:
        """Whether a program runs, by the name that the kernel shows (15 characters)."""
        return any(self._name(pid) == name[:15] for pid in self._pids())

    def holder(self, port: int, protocol: str = "tcp") -> tuple[int, str] | None:
        """Process id and name of who listens on a port; 0 and an empty name if that is hidden from this user.

        Args:
            port: of any address of this host.
            protocol: ``tcp`` or ``udp``.
        """
        inodes = set(self._sockets(port, protocol))
        if not inodes:
            return None
        for pid in self._pids():
            if any(link in inodes for link in self._open_sockets(pid)):
                return pid, self._name(pid)
        return 0, ""

    def status(self, pid: int) -> dict[str, str]:
        """The fields of a process's status; empty if it is gone."""
        try:
            lines = (self.proc / str(pid) / "status").read_text().splitlines()
        except OSError:
            return {}
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def has_net_admin(self, pid: int) -> bool | None:
        """Whether a process has CAP_NET_ADMIN; None if it is gone."""
        effective = self.status(pid).get("CapEff")
        return None if effective is None else bool(int(effective, 16) >> CAP_NET_ADMIN & 1)

    def _may_have(self, pid: int, words: list[str], config: Path) -> bool:
        """Whether a process may have a configuration file: what it uses is that one, or is hidden from this user."""
        folder = self.proc / str(pid)
        try:
            entries = (folder / "environ").read_text(errors="replace").split("\0")
            environ = dict(entry.split("=", 1) for entry in entries if "=" in entry)
            argument = _argument(words)
            used = config_path(Path(argument) if argument else None, environ)
            # Its paths start from its own folder.
            return (folder / "cwd").readlink().joinpath(used).samefile(config)
        except FileNotFoundError:
            # Its file is gone; or it is gone itself.
            return False
        except OSError:
            return True

    def _pids(self) -> list[int]:
        return sorted(int(entry.name) for entry in self.proc.iterdir() if entry.name.isdecimal())

    def _name(self, pid: int) -> str:
        try:
            return (self.proc / str(pid) / "comm").read_text().strip()
        except OSError:
            return ""

    def _commands(self) -> Iterator[tuple[int, list[str]]]:
        for pid in self._pids():
            try:
                line = (self.proc / str(pid) / "cmdline").read_bytes()
            except OSError:
                continue
            if pid != os.getpid():
                yield pid, line.decode(errors="replace").split("\0")[:-1]

    def _sockets(self, port: int, protocol: str) -> Iterator[str]:
        for name in (protocol, f"{protocol}6"):
            try:
                lines = (self.proc / "net" / name).read_text().splitlines()[1:]
            except OSError:
                # A kernel without IPv6.
                continue
            for fields in map(str.split, lines):
                if int(fields[1].rpartition(":")[2], 16) == port and (protocol == "udp" or fields[3] == _LISTENING):
                    yield f"socket:[{fields[9]}]"

    def _open_sockets(self, pid: int) -> Iterator[str]:
        folder = self.proc / str(pid) / "fd"
        try:
            links = list(folder.iterdir())
        except OSError:
            # Gone, or another user's.
            return
        for link in links:
            with contextlib.suppress(OSError):
                yield str(link.readlink())


def _is_of(role: str, words: list[str]) -> bool:
    """Whether a command line is that of a broker or worker, ours or the older wgkex's."""
    # A program that only looks after it, such as journalctl, may name it, too.
    interpreted = bool(words) and Path(words[0]).name.startswith("python")
    for place, word in enumerate(words[: 4 if interpreted else 1]):
        following = words[place + 1 : place + 2]
        name = Path(word).name
        if name == f"wgkex-{role}" or (name in ("wgkex-ops", "wgkex_ops") and following == [role]):
            return True
        if re.search(rf"(^|[/.])wgkex[/.]{role}[/.]app(\.py)?$", word):
            return True
    return False


def _argument(words: list[str]) -> str:
    """The file that a command line names with --config; empty if it names none."""
    for place, word in enumerate(words):
        if word == "--config" and words[place + 1 :]:
            return words[place + 1]
        if word.startswith("--config="):
            return word.partition("=")[2]
    return ""
