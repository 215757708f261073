"""`wgkex-ops probe`: its options, and what `--once` prints: a line and an exit status, as monitoring plugins have them.

The conventions are those of https://nagios-plugins.org/doc/guidelines.html.
"""

import argparse
import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from wgkex_ops.bus.messages import Endpoint, is_usable
from wgkex_ops.cli.arguments import chosen_domains, url
from wgkex_ops.config import Config
from wgkex_ops.errors import CannotProbeError, ConfigError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.rounds import BEARABLE, LIMIT, Round
from wgkex_ops.probe.choice import Choice

OK: Final = 0
WARNING: Final = 1
CRITICAL: Final = 2
UNKNOWN: Final = 3
_WORDS: Final[Mapping[int, str]] = MappingProxyType(
    {OK: "OK", WARNING: "WARNING", CRITICAL: "CRITICAL", UNKNOWN: "UNKNOWN"}
)

_NAME: Final = re.compile(r"[\w.-]{1,253}", re.ASCII)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("--once", action="store_true", help="one round, one line, and the exit status of a plugin")
    parser.add_argument(
        "--domain", action="append", metavar="NAME", help="a domain; may be repeated; default: all of the configuration"
    )
    parser.add_argument("--url", type=url, metavar="URL", help="the broker; default: probe.url")
    parser.add_argument("--keys", type=Path, metavar="DIRECTORY", help="where the keys are; default: probe.keys")
    parser.add_argument(
        "--no-namespace", action="store_true", help="make the interfaces in the network namespace of this process"
    )
    parser.add_argument("--gateway", type=_name, metavar="NAME", help="go to this gateway, whatever a broker chooses")
    endpoint = parser.add_argument_group("where the gateway of --gateway is; default: what its worker has published")
    endpoint.add_argument("--endpoint", metavar="HOST:PORT", help="its address and UDP port")
    endpoint.add_argument("--gateway-key", metavar="KEY", help="its WireGuard public key")
    endpoint.add_argument("--link-address", metavar="ADDRESS", help="its link-local address inside the tunnel")


def choose(config: Config, arguments: argparse.Namespace) -> Choice:
    """Put options and configuration together.

    Raises:
        ConfigError: they do not fit.
    """
    domains = chosen_domains(config, arguments.domain)
    return Choice(
        url=arguments.url or config.probe_url,
        keys=arguments.keys or config.probe_keys,
        domains=domains,
        gateway=arguments.gateway or "",
        endpoint=_endpoint(arguments, domains),
        own_namespace=not arguments.no_namespace,
        interval=config.probe.interval,
    )


async def print_once(config: Config, choice: Choice) -> int:
    """Go one round in each domain, print the line, and return the exit status."""
    # Only this command has a use for netlink and the like.
    from wgkex_ops.canary import run_once  # noqa: PLC0415

    try:
        rounds = await run_once(config, choice)
    except CannotProbeError as error:
        return print_unknown(str(error))
    except asyncio.CancelledError:
        print_unknown("interrupted before the end of the round")
        raise
    except BaseException:
        print_unknown("the probe crashed; standard error has the traceback")
        raise
    status, line = summary(rounds)
    print(line)
    return status


def print_unknown(why: str) -> int:
    """Print the line of a command that cannot find out, and return its exit status."""
    print(_line(UNKNOWN, why))
    return UNKNOWN


def summary(rounds: Sequence[Round]) -> tuple[int, str]:
    """Exit status and line of one round in each domain: those of the worst one."""
    status = max(map(_status, rounds))
    worst = [done for done in rounds if _status(done) == status]
    text = "; ".join(map(_describe, worst)) if status or len(rounds) == 1 else _describe_all(rounds)
    if len(worst) < len(rounds):
        text = f"{len(worst)} of {len(rounds)} domains: {text}"
    measured = " ".join(
        f"{f'{done.domain}_' if len(rounds) > 1 else ''}{phase}={seconds:.3f}s;{BEARABLE:g};{LIMIT:g};0"
        for done in rounds
        for phase, seconds in done.durations.items()
    )
    return status, _line(status, text) + (f" | {measured}" if measured else "")


def _status(done: Round) -> int:
    if not done.succeeded:
        return CRITICAL
    return WARNING if done.slow_phases else OK


def _describe(done: Round) -> str:
    if not done.succeeded:
        return f"{done.domain}: {done.failed_phase} failed: {done.failure}"
    through = f"{done.domain} through {done.gateway}"
    if done.slow_phases:
        slow = ", ".join(f"{phase} took {done.durations[phase]:.1f} s" for phase in done.slow_phases)
        return f"{through}: {slow}, where a node bears {BEARABLE:g} s"
    return f"{through}: a tunnel after {sum(done.durations.values()):.1f} s"


def _describe_all(rounds: Sequence[Round]) -> str:
    longest = max(sum(done.durations.values()) for done in rounds)
    return f"{len(rounds)} domains: tunnels after {longest:.1f} s at the most"


def _line(status: int, text: str) -> str:
    # Behind the first "|", a plugin's line has numbers only.
    return f"WGKEX {_WORDS[status]} - {' '.join(text.split()).replace('|', '/')}"


def _endpoint(arguments: argparse.Namespace, domains: Sequence[Domain]) -> Endpoint | None:
    given = {"--endpoint": arguments.endpoint, "--gateway-key": arguments.gateway_key}
    given["--link-address"] = arguments.link_address
    missing = [option for option, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if missing or not arguments.gateway:
        raise ConfigError([f"{', '.join(given)} and --gateway are needed together"])
    if len(domains) > 1:
        raise ConfigError(["--endpoint is the endpoint of one domain: name it with --domain"])
    host, _, port = arguments.endpoint.rpartition(":")
    number = int(port) if re.fullmatch("[0-9]{1,5}", port, re.ASCII) else 0
    endpoint = Endpoint(host.removeprefix("[").removesuffix("]"), number, arguments.gateway_key, arguments.link_address)
    if not is_usable(endpoint):
        raise ConfigError(
            ["--endpoint should be HOST:PORT, --gateway-key a WireGuard public key, --link-address an IPv6 address"]
        )
    return endpoint


def _name(text: str) -> str:
    if _NAME.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError("should be letters, digits, '.', '_' and '-'")
