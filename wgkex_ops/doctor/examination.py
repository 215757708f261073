"""All checks of a host, those that wait at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from wgkex_ops.config import Config
from wgkex_ops.consumer.upkeep.journal_file import FILE
from wgkex_ops.doctor import configuration, gateways, interfaces, ports, state
from wgkex_ops.doctor.bus import check_bus
from wgkex_ops.doctor.clock import check_certificate, check_clock
from wgkex_ops.doctor.findings import Finding, warning
from wgkex_ops.doctor.host import Host
from wgkex_ops.doctor.process import (
    BROKER,
    ROLES,
    WORKER,
    Process,
    check_process,
    check_version,
    look_at,
)
from wgkex_ops.errors import ConfigError, WgkexError

# Seconds for one check. The look at the processes before it has its own limit; together they take less than 15.
CHECK_TIMEOUT: Final = 8.5


class _Check(NamedTuple):
    """A check, the word for it, and the role that it is about."""

    name: str
    role: str
    run: Callable[[], Awaitable[list[Finding]]]


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found on this host.

    Attributes:
        config: the configuration; None if it cannot be read.
        roles: what was examined.
        findings: in the order in which they are shown.
    """

    config: Config | None
    roles: Sequence[str]
    findings: Sequence[Finding]


async def examine(
    path: Path, role: str | None, host: Host | None = None, *, within: float = CHECK_TIMEOUT
) -> Examination:
    """Examine this host.

    Args:
        path: the configuration.
        role: ``broker`` or ``worker``; None for what this host has.
        host: where to look.
        within: seconds for each check; all of them run at the same time.

    Raises:
        ConfigError: it is not clear which role this host has.
    """
    host = host or Host()
    config, findings = await asyncio.to_thread(configuration.read_configuration, path)
    if config is None:
        return Examination(None, [role] if role else [], findings)
    processes = {
        process.role: process
        for process in await asyncio.gather(*(look_at(config, path, name, host) for name in ROLES))
    }
    roles = [role] if role else roles_here(config, processes, host)
    groups = await asyncio.gather(
        *(
            _limited(check, within)
            for check in (
                _Check("clock", "", lambda: check_clock(config, host)),
                *(check for name in roles for check in _checks(config, name, processes, host)),
            )
        )
    )
    return Examination(config, roles, [*findings, *(finding for group in groups for finding in group)])


def roles_here(config: Config, processes: dict[str, Process], host: Host) -> list[str]:
    """The roles that this host has.

    A role is here if its process or unit is; a worker also if its journal is, or an interface of a domain.

    Raises:
        ConfigError: there is no sign of either.
    """
    names = {name for domain in config.domains for name in (domain.wg, domain.vx)}
    interfaces_here = any((host.root / "sys/class/net" / name).exists() for name in names)
    found = {role for role in ROLES if processes[role].runs or host.has_unit(role)}
    if interfaces_here or _exists(config.worker.state_dir / FILE):
        found.add(WORKER)
    if not found:
        raise ConfigError(["is this the host of a broker, or a gateway? Name it: wgkex-ops doctor broker, or worker"])
    return [role for role in ROLES if role in found]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # Python below 3.12 raises it for a folder that this user may not enter.
        return False


def _checks(config: Config, role: str, processes: dict[str, Process], host: Host) -> list[_Check]:
    """The checks of a role, as they are shown."""
    process = processes[role]
    mqtt = config.mqtt_of(role)
    in_use = any(
        other.runs and config.mqtt_of(name).username == mqtt.username
        for name, other in processes.items()
        if name != role
    )

    async def bus() -> list[Finding]:
        found, expiry = await check_bus(config.model_copy(update={"mqtt": mqtt}), process, in_use=in_use)
        return [*found, *check_certificate(expiry)]

    async def at_once() -> list[Finding]:
        return [*check_process(process), *check_version(process)]

    async def files() -> list[Finding]:
        return await asyncio.to_thread(
            lambda: [
                *configuration.check_web_config(config, role),
                *configuration.check_key_lists(config, process),
                *(state.check_state(config, process, host) if role == WORKER else ()),
            ]
        )

    async def kernel() -> list[Finding]:
        return await interfaces.check_interfaces(config, process, host)

    async def network() -> list[Finding]:
        found = [*gateways.check_gateways(process), *gateways.check_proxies(process)]
        return [*await ports.check_ports(config, process, host), *found]

    return [
        _Check("process", role, at_once),
        _Check("mqtt", role, bus),
        _Check("state_dir" if role == WORKER else "key_lists", role, files),
        _Check("port", role, network) if role == BROKER else _Check("interfaces", role, kernel),
    ]


async def _limited(check: _Check, within: float) -> list[Finding]:
    """Run a check for as long as it may take."""
    try:
        async with asyncio.timeout(within):
            found = await check.run()
    except TimeoutError:  # an OSError, too
        text = f"not known within {within:g} s: something hangs"
        found = [warning(check.name, text, "run this again; look at the load of this host")]
    except (OSError, WgkexError) as error:
        # A file or socket that this user may not have, or that goes meanwhile.
        found = [warning(check.name, f"cannot be checked: {error}", "run this again, as root")]
    return [replace(finding, role=check.role) for finding in found]
