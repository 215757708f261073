"""Reports to the service manager in systemd's notification protocol, sd_notify(3).

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
# How soon a change of the status is sent, and how often the same one again where there is no watchdog: a datagram may
# have been lost.
_CHECK_EVERY: Final = 1.0
_REPEAT_AFTER: Final = 10.0


class Supervisor:
    """The service manager; where there is none, nothing is sent.

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
        self._reloads: list[Callable[[], None]] = []

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], pid: int) -> Self:
        """Take what systemd has put into the environment of the process with this number, sd_watchdog_enabled(3)."""
        interval = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        watchdog = int(interval) / 1e6 if ours and interval.isascii() and interval.isdecimal() else 0.0
        return cls(environ.get("NOTIFY_SOCKET", ""), watchdog)

    def on_reload(self, reload: Callable[[], None]) -> None:
        """Call something when files should be read again."""
        self._reloads.append(reload)

    def reload(self) -> None:
        """Have files read again, because an operator wishes it (SIGHUP)."""
        for reload in self._reloads:
            reload()

    def ready(self) -> None:
        """Report that the start is over: what waits for this service may start."""
        self._send("READY=1")

    def stop(self, within: float, status: str) -> None:
        """Report that the end has begun.

        Args:
            within: seconds until it is over; the manager waits that long even if its own limit is shorter.
            status: what is being done, in a sentence.
        """
        self.stopping = True
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={within * 1e6:.0f}", f"STATUS={status}")

    async def watch(self, problems: Callable[[], Sequence[str]], stuck: Callable[[float], Sequence[str]]) -> NoReturn:
        """Send signs of life for as long as nothing is stuck, and the status as soon as it changes.

        Args:
            problems: why this process is not ready, a sentence each.
            stuck: what has made no progress for this many seconds, a sentence each.
        """
        loop = asyncio.get_running_loop()
        if not self._address:
            await loop.create_future()
        repeat_after = self._watchdog / 2 or _REPEAT_AFTER
        due, sent, was_stuck = loop.time(), "", False
        while True:
            stuck_now = stuck(self._watchdog) if self._watchdog else ()
            if stuck_now and not was_stuck:
                _log.critical("stuck", detail="; ".join(stuck_now))
            was_stuck = bool(stuck_now)
            reasons = "; ".join([*stuck_now, *problems()])
            status = f"not ready: {reasons}" if reasons else "ready"
            if status != sent or loop.time() >= due:
                due, sent = loop.time() + repeat_after, status
                sign = ["WATCHDOG=1"] if self._watchdog and not stuck_now else []
                # The status that the end has begun with stays.
                self._send(*sign, *([] if self.stopping else [f"STATUS={status}"]))
            await asyncio.sleep(min(_CHECK_EVERY, repeat_after / 2))

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(_SEND_TIMEOUT)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _log.warning("supervisor_unreachable", error=str(error))
