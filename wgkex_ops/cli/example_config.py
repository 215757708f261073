"""`wgkex-ops example-config`: prints the example of the configuration, wherever this is installed."""

import argparse
import importlib.resources

from wgkex_ops.cli.arguments import Commands


def add_command(commands: Commands, _configuration: argparse.ArgumentParser) -> None:
    """Add the command, which reads no configuration."""
    parser = commands.add_parser(
        "example-config",
        help="print an example of the configuration, with every setting",
        description="Print an example of the configuration, with every setting, to start from.",
    )
    parser.set_defaults(run=_run)


def _run(_arguments: argparse.Namespace) -> int:
    # In a checkout, a symbolic link to the one at the top.
    print((importlib.resources.files("wgkex_ops") / "wgkex.yaml.example").read_text("utf-8"), end="")
    return 0
