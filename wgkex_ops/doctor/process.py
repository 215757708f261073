"""What the running broker or worker says of itself on its operators' listener, and whether it runs at all."""

import asyncio
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from importlib.metadata import version
from pathlib import Path
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from wgkex_ops.config import Config, Listen
from wgkex_ops.doctor.findings import Finding, critical, ok, warning
from wgkex_ops.doctor.host import Host

BROKER: Final = "broker"
WORKER: Final = "worker"
ROLES: Final = (BROKER, WORKER)

# Seconds for a response of a process on this host: to read 20,000 peers takes some.
_TIMEOUT: Final = 5.0

_HANGS: Final = "does not respond"
# Why a listener does not tell what it knows, by the HTTP status.
_CLOSED: Final[Mapping[int, str]] = {401: "wants a password (web_config_file)", 421: "does not serve this name"}


class Presence(Enum):
    """Who is behind the operators' listener."""

    ABSENT = auto()
    OURS = auto()
    OTHER = auto()
    UNREADABLE = auto()


@dataclass(frozen=True, slots=True)
class Metrics:
    """Samples by name and labels."""

    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Metrics":
        """Read the text format.

        Raises:
            ValueError: it is another format.
        """
        families = text_string_to_metric_families(text)
        return cls(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in families
                for sample in family.samples
            }
        )

    def get(self, name: str, **labels: str) -> float | None:
        """One sample; None if it is not there."""
        return self.samples.get((name, frozenset(labels.items())))

    def total(self, name: str) -> float:
        """The sum over all labels."""
        return sum(value for (other, _), value in self.samples.items() if other == name)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Values by a label."""
        return {dict(labels)[label]: value for (other, labels), value in self.samples.items() if other == name}

    def labels(self, name: str) -> dict[str, str]:
        """The labels of the first sample with a name; empty if there is none."""
        return next((dict(labels) for other, labels in self.samples if other == name), {})


@dataclass(frozen=True, slots=True)
class Process:
    """A broker or worker, as seen from outside.

    Attributes:
        role: what should be there.
        listen: its operators' listener by the configuration.
        presence: who is there.
        detail: why it is unreadable, or who the other one is.
        pids: processes of this host that have the role, or hold the listener.
        problems: why it is not ready.
        metrics: its metrics.
        page: its page, as HTML.
    """

    role: str
    listen: Listen
    presence: Presence
    detail: str = ""
    pids: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()
    metrics: Metrics = field(default_factory=Metrics)
    page: str = ""

    @property
    def runs(self) -> bool:
        """Whether there may be one."""
        return self.presence in (Presence.OURS, Presence.UNREADABLE) or bool(self.pids)

    @property
    def pid(self) -> int | None:
        """The process itself, if this user may know."""
        return self.pids[0] if self.pids else None


async def look_at(config: Config, path: Path, role: str, host: Host) -> Process:
    """Find out whether a broker or worker runs here, and what it says."""
    section = config.broker if role == BROKER else config.worker
    listen, tls = section.metrics_listen, section.metrics_listen.web_config_file is not None
    pids = tuple(await asyncio.to_thread(host.pids_of, role, path))
    found = await _ask(role, listen, "https" if tls else "http")
    if tls and found.presence is not Presence.OURS and not found.detail.startswith(_HANGS):
        # The file may have users only.
        plain = await _ask(role, listen, "http")
        found = plain if plain.presence in (Presence.OURS, Presence.UNREADABLE) else found
    holder = await asyncio.to_thread(host.holder, listen.port) if found.presence is not Presence.ABSENT else None
    if found.presence is Presence.OURS and holder is not None and holder[0]:
        pids = (holder[0],)
    elif found.presence is Presence.OTHER and holder is not None and holder[1]:
        found = Process(role, listen, Presence.OTHER, f"{holder[1]} (process {holder[0]})")
    return Process(role, listen, found.presence, found.detail, pids, found.problems, found.metrics, found.page)


async def _ask(role: str, listen: Listen, scheme: str) -> Process:
    url = f"{scheme}://{listen.on_this_host}"
    try:
        async with asyncio.timeout(_TIMEOUT):
            return await _interview(role, listen, url)
    except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
        return Process(role, listen, *_who(error))


def _who(error: Exception) -> tuple[Presence, str]:
    """Who is there, if not a process that tells."""
    match error:
        case TimeoutError():
            return Presence.UNREADABLE, f"{_HANGS} within {_TIMEOUT:g} s: it hangs"
        case aiohttp.ClientConnectorSSLError():
            return Presence.UNREADABLE, "knows no TLS, or wants a certificate"
        case aiohttp.ClientConnectorError():
            return Presence.ABSENT, ""
    return Presence.OTHER, "another program"


async def _interview(role: str, listen: Listen, url: str) -> Process:
    """Read all that is known there.

    Raises:
        aiohttp.ClientError, OSError, ValueError: it is no broker or worker.
    """
    # It is this host, and gets no secret.
    connector = aiohttp.TCPConnector(ssl=False)
    async with aiohttp.ClientSession(connector=connector) as client:
        status, text = await _get(client, f"{url}/metrics")
        if status in _CLOSED:
            return Process(role, listen, Presence.UNREADABLE, _CLOSED[status])
        metrics = Metrics.parse(text)
        if (component := metrics.labels("wgkex_build_info").get("component")) != role:
            return Process(role, listen, Presence.OTHER, f"a {component}" if component else "another program")
        _, ready = await _get(client, f"{url}/-/ready")
        _, page = await _get(client, f"{url}/")
    problems = tuple(re.findall(r"^not ready: (.*)$", ready, re.MULTILINE))
    return Process(role, listen, Presence.OURS, "", (), problems, metrics, page)


async def _get(client: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    async with client.get(url, allow_redirects=False) as response:
        return response.status, await response.text()


# --- checks


def check_process(process: Process) -> list[Finding]:
    """Whether it runs, and is ready."""
    role, listen, setting = process.role, process.listen, f"{process.role}.metrics_listen"
    log = f"journalctl -u wgkex-{role} -n 50"
    match process.presence:
        case Presence.OURS if process.problems:
            text = f"the {role} runs and is not ready: {'; '.join(process.problems)}"
            return [critical("process", text, f"what is red below names the cause; else look at {log}")]
        case Presence.OURS:
            return [ok("process", f"the {role} runs and is ready")]
        case Presence.OTHER:
            text = f"{setting}: {process.detail} listens on {listen}, and no {role}"
            return [critical("process", text, f"end that program, or set another port in {setting}")]
        case Presence.UNREADABLE:
            text = f"what listens on {listen} {process.detail}: what the {role} knows is missing here"
            return [
                warning("process", text, f"look at its page at {listen} yourself; if it hangs, restart wgkex-{role}")
            ]
        case Presence.ABSENT if process.pids:
            text = f"a {role} runs (process {process.pids[0]}), and does not listen on {listen}"
            remedy = f"it starts, hangs, is of the older wgkex, or was started before {setting} changed: see {log}"
            return [critical("process", text, remedy)]
        case Presence.ABSENT:
            pass
    remedy = f"systemctl start wgkex-{role}; if it ends again, {log} says why"
    return [critical("process", f"no {role} runs on this host: nobody listens on {listen}", remedy)]


def check_version(process: Process) -> list[Finding]:
    """Whether what runs is what is installed."""
    if process.presence is not Presence.OURS:
        return []
    labels = process.metrics.labels("wgkex_build_info")
    running = (labels.get("version", ""), labels.get("revision", ""))
    installed = (version("wgkex-ops"), _installed_revision() or running[1])
    if running == installed:
        return [ok("version", f"version {running[0]}, revision {running[1]}")]
    text = f"version {' '.join(running)} runs, and {' '.join(installed)} is installed"
    return [warning("version", text, f"systemctl restart wgkex-{process.role}")]


def _installed_revision() -> str:
    """The revision that the installation of deploy/README.md has noted; empty if it has not."""
    try:
        text = (Path(sys.prefix) / "revision").read_text()
    except OSError:
        return ""
    match = re.fullmatch(r"WGKEX_REVISION=(\S+)\s*", text)
    return match[1] if match else ""
