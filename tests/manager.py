"""A service manager as far as sd_notify(3) goes: a datagram socket, and what came through it."""

import contextlib
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: process, user, group


@dataclass(frozen=True)
class Notice:
    """A datagram.

    Attributes:
        pid: the process that sent it, as the kernel reports it.
        fields: its assignments.
        at: when it was read, by `time.monotonic`.
    """

    pid: int
    fields: dict[str, str]
    at: float


class Manager:
    """Listens at an address of its own: a path in a folder, or an abstract name without one."""

    def __init__(self, folder: Path | None = None) -> None:
        self.address = f"@wgkex-test-{uuid4().hex}" if folder is None else str(folder / "notify")
        self._notices: list[Notice] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0{self.address[1:]}" if folder is None else self.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def notices(self) -> list[Notice]:
        """All that have come so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
                [(_, kind, credentials)] = ancillary
                assert kind == socket.SCM_CREDENTIALS
                pairs = (line.split("=", 1) for line in data.decode().split("\n"))
                fields = {name: value for name, value in pairs}  # noqa: C416  dict() would hide a line without "="
                self._notices.append(Notice(_CREDENTIALS.unpack(credentials)[0], fields, time.monotonic()))
        return self._notices

    def values(self, name: str) -> list[str]:
        """The values of one field, in order."""
        return [notice.fields[name] for notice in self.notices if name in notice.fields]
