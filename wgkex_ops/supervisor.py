"""Telling the service manager how this process is: systemd's notification protocol, sd_notify(3).

The libraries for it are unmaintained, or need systemd's C headers to be installed. All that it takes is a datagram to
the socket that NOTIFY_SOCKET names, so these lines are our own.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn, Self

import structlog

_log = structlog.get_logger(__name__)

# A manager that does not read, because it is busy itself, must not hold the event loop for long.
_SEND_TIMEOUT: Final = 0.5
# How old the status may be where no watchdog asks for more.
_STATUS_EVERY: Final = 10.0


class Supervisor:
    """The service manager, if there is one; without one, nothing of this does anything.

    Args:
        address: of its datagram socket: a path, or ``@`` and an abstract name; empty without a manager.
        watchdog: seconds without a sign of life after which it ends this process; 0.0 if it does not.

    Attributes:
        stopping: whether the end has begun.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog = watchdog
        self.stopping = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], pid: int) -> Self:
        """Take what systemd has put into the environment of the process with this number, sd_watchdog_enabled(3)."""
        interval = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        watchdog = int(interval) / 1e6 if ours and interval.isascii() and interval.isdecimal() else 0.0
        return cls(environ.get("NOTIFY_SOCKET", ""), watchdog)

    def ready(self) -> None:
        """Tell that the start is over: what waits for this service may go on."""
        self._send("READY=1")

    def stop(self, within: float, status: str) -> None:
        """Tell that the end has begun.

        Args:
            within: seconds until it is over; the manager waits that long even if its own limit is shorter.
            status: what is being done, in a sentence.
        """
        self.stopping = True
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={within * 1e6:.0f}", f"STATUS={status}")

    async def watch(self, problems: Callable[[], Sequence[str]], stuck: Callable[[float], Sequence[str]]) -> NoReturn:
        """Tell for ever how this process is, and that it lives: as long as the event loop and all else get on.

        Args:
            problems: why it is not ready, a sentence each.
            stuck: what has not got on for this many seconds, a sentence each.
        """
        if not self._address:
            await asyncio.get_running_loop().create_future()
        told: Sequence[str] = ()
        while True:
            standing = stuck(self._watchdog) if self._watchdog else ()
            if standing and not told:
                _log.critical("stuck", detail="; ".join(standing))
            told = standing
            lines = [] if standing or not self._watchdog else ["WATCHDOG=1"]
            if not self.stopping:
                troubles = [*standing, *problems()]
                lines.append(f"STATUS={'not ready: ' + '; '.join(troubles) if troubles else 'ready'}")
            self._send(*lines)
            await asyncio.sleep(self._watchdog / 2 or _STATUS_EVERY)

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(_SEND_TIMEOUT)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _log.warning("supervisor_unreachable", error=str(error))
