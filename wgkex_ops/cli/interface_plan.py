"""What the interfaces of a gateway should be: options, configuration, key files and what is there, put together."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wgkex_ops.cli.arguments import chosen_domains
from wgkex_ops.cli.key_files import read_key
from wgkex_ops.config import Config
from wgkex_ops.consumer.interfaces import Present
from wgkex_ops.errors import ConfigError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.interfaces import (
    FIRST_PORT,
    LARGEST_MTU,
    LARGEST_VNI,
    SMALLEST_MTU,
    WIREGUARD_MTU,
    DomainInterfaces,
    vni_of_seed,
)
from wgkex_ops.probe.keys import PrivateKey

_LARGEST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Planned:
    """The interfaces of a domain, and the key of the WireGuard interface.

    Attributes:
        interfaces: what they should be.
        key_file: where the private key is, or will be.
        key: the private key; None if there is none yet, and none is to be made.
        key_is_new: whether it is not in the file yet.
    """

    interfaces: DomainInterfaces
    key_file: Path
    key: PrivateKey | None
    key_is_new: bool


def add_options(parser: argparse.ArgumentParser, key_directory: Path) -> None:
    """Add the options that say what the interfaces should be."""
    parser.add_argument(
        "--domain", action="append", metavar="NAME", help="a domain; may be repeated; default: all of the configuration"
    )
    ports = f"UDP port of WireGuard; default: {FIRST_PORT} for the first domain, and so on"
    for option, value, dest, convert, text in (
        ("--vni", "VNI", "vni", _vni, "the VXLAN network identifier that the nodes of a domain use"),
        (
            "--domain-seed",
            "SEED",
            "vni",
            _seed,
            "domain_seed of the nodes' site configuration; the VNI follows from it",
        ),
        ("--port", "PORT", "port", _port, ports),
    ):
        parser.add_argument(
            option, dest=dest, nargs="+", action="extend", type=convert, metavar=f"DOMAIN={value}", help=text
        )
    parser.set_defaults(vni=[], port=[])
    parser.add_argument(
        "--mtu", type=_mtu, metavar="N", help=f"of WireGuard, in bytes; default: {WIREGUARD_MTU}; VXLAN gets 70 less"
    )
    parser.add_argument(
        "--key-directory",
        type=Path,
        default=key_directory,
        metavar="DIRECTORY",
        help=f"where the private keys are; default: {key_directory}",
    )


def plan(
    config: Config, arguments: argparse.Namespace, present: Callable[[Domain], Present], *, make_keys: bool
) -> list[Planned]:
    """Plan the interfaces of the domains.

    Args:
        config: has the domains.
        arguments: of `add_options`.
        present: reads what the interfaces of a domain have. What no option and no file says stays as it is.
        make_keys: whether a domain without a key gets one.

    Raises:
        ConfigError: all that does not fit.
        OSError: a key file cannot be read.
    """
    domains = chosen_domains(config, arguments.domain)
    ports, vnis = dict(arguments.port), dict(arguments.vni)
    problems = [
        f"{name!r} is not one of the domains: {', '.join(config.domain_names)}"
        for name in dict.fromkeys([*vnis, *ports])
        if name not in config.domain_names
    ]
    if problems:
        raise ConfigError(problems)
    planned = []
    for domain in domains:
        there = present(domain)
        vni = vnis.get(domain.name) or there.vni
        if vni is None:
            problems.append(f"{domain}: which VNI do its nodes use? Name it with --domain-seed or --vni")
            continue
        port = ports.get(domain.name) or there.port or FIRST_PORT + config.domains.index(domain)
        path = arguments.key_directory.absolute() / f"{domain.wg}.key"
        in_file = read_key(path)
        key = in_file or (PrivateKey(there.private_key) if there.private_key else None)
        if key is None and make_keys:
            key = PrivateKey.generate()
        mtu = arguments.mtu or there.mtu or WIREGUARD_MTU
        interfaces = DomainInterfaces(domain, port, vni, mtu, key.public_key() if key else None)
        planned.append(Planned(interfaces, path, key, key_is_new=in_file is None))
    problems += _shared_ports([one.interfaces for one in planned])
    if problems:
        raise ConfigError(problems)
    return planned


def _shared_ports(planned: Sequence[DomainInterfaces]) -> list[str]:
    owners: dict[int, DomainInterfaces] = {}
    return [
        f"{owner.domain} and {one.domain} would both have the UDP port {one.port}: name another one with --port"
        for one in planned
        if (owner := owners.setdefault(one.port, one)) is not one
    ]


def _vni(text: str) -> tuple[str, int]:
    return _assignment(text, lambda value: _number(value, 1, LARGEST_VNI))


def _seed(text: str) -> tuple[str, int]:
    def convert(value: str) -> int:
        if re.fullmatch("[0-9A-Fa-f]{64}", value) is None:
            raise argparse.ArgumentTypeError("a domain_seed has 64 hexadecimal digits")
        return vni_of_seed(value)

    return _assignment(text, convert)


def _port(text: str) -> tuple[str, int]:
    return _assignment(text, lambda value: _number(value, 1, _LARGEST_PORT))


def _mtu(text: str) -> int:
    return _number(text, SMALLEST_MTU, LARGEST_MTU)


def _assignment(text: str, convert: Callable[[str], int]) -> tuple[str, int]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} should be a domain, '=' and a value")
    return name, convert(value)


def _number(text: str, smallest: int, largest: int) -> int:
    if re.fullmatch("[0-9]{1,8}", text, re.ASCII) and smallest <= int(text) <= largest:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} should be from {smallest} to {largest}")
