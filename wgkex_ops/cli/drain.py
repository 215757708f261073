"""`wgkex-ops drain` and `undrain`: take this gateway out of service without anybody noticing, and back."""

import argparse
import re
import time
from pathlib import Path

from wgkex_ops.cli.arguments import Commands, configuration
from wgkex_ops.config import Config
from wgkex_ops.consumer.upkeep.drain_file import (
    FASTEST_RELEASE,
    DrainFileError,
    DrainOrder,
    read_order,
    remove_order,
    write_order,
)
from wgkex_ops.errors import ConfigError

OK = 0


def add_command(commands: Commands, configuration: argparse.ArgumentParser) -> None:
    """Add both commands."""
    drain = commands.add_parser(
        "drain",
        parents=[configuration],
        help="take this gateway out of service: brokers send no new nodes here",
        description=(
            "Take this gateway out of service. Brokers send no new nodes here by version 2 within two seconds. Keys "
            "that arrive are still installed, since nodes of version 1 choose their gateway themselves. It lasts over "
            "restarts, until 'wgkex-ops undrain'."
        ),
    )
    drain.add_argument(
        "--release",
        type=_pace,
        default=0,
        metavar="N/min",
        help="also remove so many peers a minute whose nodes asked by version 2; they are sent elsewhere",
    )
    drain.set_defaults(run=_drain)
    undrain = commands.add_parser(
        "undrain",
        parents=[configuration],
        help="take this gateway back into service",
        description="Take this gateway back into service: brokers send new nodes here again.",
    )
    undrain.set_defaults(run=_undrain)


def _drain(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    folder = _folder(config)
    since = time.time()
    try:
        before = read_order(folder)
        if before is not None:
            # What is changed is the pace.
            since = before.since
    except DrainFileError:
        # It is replaced.
        pass
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        write_order(folder, DrainOrder(since, arguments.release))
    except OSError as error:
        raise _unusable(folder, error) from error
    released = f", and {arguments.release} peers of version 2 are released a minute" if arguments.release else ""
    print(f"{config.worker.name} drains: no new nodes are sent here{released}.")
    print("'wgkex-ops undrain' takes it back into service.")
    return OK


def _undrain(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    folder = _folder(config)
    try:
        drained = remove_order(folder)
    except OSError as error:
        raise _unusable(folder, error) from error
    print(
        f"{config.worker.name} is in service again: new nodes are sent here."
        if drained
        else f"{config.worker.name} did not drain: nothing to do."
    )
    return OK


def _folder(config: Config) -> Path:
    """The worker's state directory, which the worker makes.

    Raises:
        ConfigError: there is none.
    """
    folder = config.worker.state_dir
    if not folder.is_dir():
        raise ConfigError([f"worker.state_dir: {folder} does not exist: has a worker ever run on this host?"])
    return folder


def _unusable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError([f"worker.state_dir: {folder}: {error.strerror}"])


def _pace(text: str) -> int:
    """Read a pace such as 20/min.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    match = re.fullmatch(r"([0-9]{1,4})/min", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= FASTEST_RELEASE:
        raise argparse.ArgumentTypeError(f"should be from 1/min to {FASTEST_RELEASE}/min")
    return int(match[1])
