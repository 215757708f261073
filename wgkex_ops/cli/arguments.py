"""What several commands have: how one is added, types of arguments, the configuration."""

import argparse
import os
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from wgkex_ops.config import Config, broker_url, config_path, load
from wgkex_ops.errors import ConfigError, InvalidPublicKeyError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.locations import parse_location

# What a command is added to, and what it sets as `run`: from arguments to the exit status.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  its only name
Tool: TypeAlias = Callable[[argparse.Namespace], int]


def configuration(arguments: argparse.Namespace) -> Config:
    """Read the configuration that --config names, or the usual one.

    Raises:
        ConfigError: it has problems.
    """
    return load(config_path(arguments.config, os.environ))


def chosen_domains(config: Config, names: Sequence[str] | None) -> list[Domain]:
    """The domains that --domain names, without repetitions; all of the configuration if it names none.

    Raises:
        ConfigError: some are not in the configuration.
    """
    known = {domain.name: domain for domain in config.domains}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ConfigError([f"--domain: {name!r} is not one of {', '.join(known)}" for name in unknown])
    return [known[name] for name in dict.fromkeys(names or known)]


def public_key(text: str) -> PublicKey:
    """Read a public key as nodes spell it.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return PublicKey.parse(text)
    except InvalidPublicKeyError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def location(text: str) -> str:
    """Read the location of a gateway; see `parse_location`.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    found = parse_location(text)
    if found is None:
        raise argparse.ArgumentTypeError("should be at most 64 letters, digits, '.', '_' and '-'")
    return found


def url(text: str) -> str:
    """Read the URL of a broker; see `broker_url`.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return broker_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Make a reader of whole numbers in a range; it raises argparse.ArgumentTypeError."""

    def read(text: str) -> int:
        if re.fullmatch(f"[0-9]{{1,{len(str(highest))}}}", text) and lowest <= int(text) <= highest:
            return int(text)
        raise argparse.ArgumentTypeError(f"should be from {lowest} to {highest}")

    return read


def seconds(highest: float) -> Callable[[str], float]:
    """Make a reader of seconds, such as 0.5 or 39, up to a highest; it raises argparse.ArgumentTypeError."""

    def read(text: str) -> float:
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) and float(text) <= highest:
            return float(text)
        raise argparse.ArgumentTypeError(f"should be seconds, from 0 to {highest:g}")

    return read
