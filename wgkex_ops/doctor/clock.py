"""The clocks: of this host, and of the certificate that runs out."""

import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

from wgkex_ops.config import Config
from wgkex_ops.doctor.findings import Finding, critical, ok, warning
from wgkex_ops.doctor.host import Host

# Seconds. The header has whole ones, and a proxy may take its time.
_SUSPICIOUS: Final = 5.0
_WRONG: Final = 60.0
_TIMEOUT: Final = 4.0
_DAY: Final = 86_400.0
_RENEW_WITHIN: Final = 14 * _DAY

_REMEDY: Final = "switch on NTP: timedatectl set-ntp true, or install chrony; timedatectl shows whether it works"


async def date_of(url: str) -> float | None:
    """The time by the header `Date` of a broker, in seconds since the epoch; None if it has none.

    Raises:
        OSError: it cannot be reached (TimeoutError is one).
    """
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as client,
            client.get(f"{url}/api", allow_redirects=False) as response,
        ):
            return parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return None
    except aiohttp.ClientError as error:
        raise OSError(str(error)) from error


async def check_clock(
    config: Config, host: Host, date: Callable[[str], Awaitable[float | None]] = date_of
) -> list[Finding]:
    """Compare the clock with that of the broker that `probe.url` names, and ask the kernel whether NTP keeps it."""
    synchronized = host.synchronized()
    url, difference = config.probe.url, None
    unreachable: list[Finding] = []
    if url is not None:
        before = time.time()
        try:
            theirs = await date(url)
        except OSError as error:
            remedy = "check probe.url, DNS, firewalls, and whether that broker or its load balancer runs"
            unreachable = [warning("clock", f"no response of the broker at {url} to compare clocks: {error}", remedy)]
        else:
            # Its fraction of a second is cut off; so it is between this and a second more.
            difference = None if theirs is None else _distance(theirs, theirs + 1, before, time.time())
    if difference is not None and abs(difference) > _SUSPICIOUS:
        word = "ahead of" if difference > 0 else "behind"
        text = f"the clock of this host is {_duration(abs(difference))} {word} that of the broker at {url}"
        return [(critical if abs(difference) > _WRONG else warning)("clock", text, f"{_REMEDY}; look there, too")]
    if synchronized is False:
        return [*unreachable, warning("clock", "nothing such as NTP keeps the clock of this host", _REMEDY)]
    compared = f", and agrees with the broker at {url}" if difference is not None else ""
    return unreachable or [ok("clock", f"the kernel's clock is synchronized{compared}")]


def check_certificate(expiry: float | None) -> list[Finding]:
    """When the certificate of the MQTT server ends.

    Args:
        expiry: seconds since the epoch; None if there is none.
    """
    if expiry is None:
        return []
    left = expiry - time.time()
    remedy = "renew it on the MQTT server, and reload that"
    if left <= 0:
        text = "the certificate of the MQTT server has expired: no process can connect again"
        return [critical("mqtt_certificate", text, remedy)]
    text = f"the certificate of the MQTT server is valid for {_duration(left)}"
    return [warning("mqtt_certificate", text, remedy) if left < _RENEW_WITHIN else ok("mqtt_certificate", text)]


def _distance(low: float, high: float, before: float, after: float) -> float:
    """How far our time, between two moments, is ahead of an interval; 0 if they overlap."""
    if before > high:
        return before - high
    return min(0.0, after - low)


def _duration(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004  two minutes
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} hours" if seconds < 2 * _DAY else f"{seconds / _DAY:.0f} days"
