"""`wgkex-ops interfaces`: the interfaces of a gateway, as units of systemd-networkd or right now."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from wgkex_ops.cli import interface_plan, networkd
from wgkex_ops.cli.arguments import Commands, configuration
from wgkex_ops.cli.interface_plan import Planned
from wgkex_ops.cli.key_files import write_key
from wgkex_ops.cli.networkd import FileState
from wgkex_ops.cli.terminal import coloured, console
from wgkex_ops.consumer.interfaces import Interfaces
from wgkex_ops.errors import CannotConfigureError
from wgkex_ops.model.fleet import Severity
from wgkex_ops.model.interfaces import VXLAN_PORT, InterfaceOutcome, InterfaceState

OK: Final = 0
FAILED: Final = 1

_SYSTEMD: Final = Path("/etc/systemd")
# Not /etc/wireguard: Debian lets nobody but root into that, and networkd is another user.
_KEYS: Final = _SYSTEMD / networkd.UNITS


def add_command(commands: Commands, configuration: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "interfaces",
        parents=[configuration],
        help="make the WireGuard and VXLAN interfaces of this gateway",
        description="Print units of systemd-networkd for the interfaces of each domain, write them (--output), or make "
        "the interfaces right now (--apply). On interfaces that are there, what no option names stays as it is.",
        epilog="Exit status: 0 done, 1 something is not as it should be, 2 the configuration or command line is wrong.",
    )
    parser.set_defaults(run=_run)
    interface_plan.add_options(parser, _KEYS)
    parser.add_argument(
        "--output", type=Path, metavar="DIRECTORY", help=f"write the units below this directory, such as {_SYSTEMD}"
    )
    parser.add_argument("--force", action="store_true", help="with --output: overwrite the files of others, too")
    parser.add_argument("--apply", action="store_true", help="make or change the interfaces now; needs CAP_NET_ADMIN")
    parser.add_argument("--json", action="store_true", help="for programs")


def _run(arguments: argparse.Namespace) -> int:
    """Print, write or apply, and return the exit status.

    Raises:
        ConfigError: options and configuration do not fit.
        CannotConfigureError: the interfaces cannot be read or changed here, or units are somebody else's.
    """
    config = configuration(arguments)
    acts = arguments.output is not None or arguments.apply
    files: dict[Path, FileState] = {}
    outcomes: list[InterfaceOutcome] = []
    with closing(Interfaces()) as interfaces:
        if arguments.apply:
            interfaces.check_rights()
        planned = interface_plan.plan(config, arguments, interfaces.present, make_keys=acts)
        texts = networkd.units(
            [one.interfaces for one in planned], {one.interfaces.domain.name: one.key_file for one in planned}
        )
        if arguments.output is not None:
            files, foreign = networkd.compare(arguments.output, texts)
            if foreign and not arguments.force:
                raise CannotConfigureError(
                    "\n".join(f"{path} was not made by this command: move it away, or use --force" for path in foreign)
                )
        if acts:
            files |= _write_keys(planned)
        if arguments.output is not None:
            networkd.write(arguments.output, texts, files)
        if arguments.apply:
            outcomes = [
                outcome for one in planned if one.key for outcome in interfaces.apply(one.interfaces, one.key.raw)
            ]
    if arguments.json:
        print(json.dumps(_document(planned, files, outcomes), indent=2))
    elif acts:
        _print_done(files, outcomes)
    else:
        print("\n".join(f"# {_SYSTEMD / path}\n{text}" for path, text in texts.items()), end="")
    return FAILED if any(outcome.problems for outcome in outcomes) else OK


def _write_keys(planned: Iterable[Planned]) -> dict[Path, FileState]:
    """Write the keys that are in no file yet."""
    states = {}
    for one in planned:
        if one.key is not None and one.key_is_new:
            write_key(one.key_file, one.key)
        states[one.key_file] = FileState.NEW if one.key_is_new else FileState.UNCHANGED
    return states


def _print_done(files: Mapping[Path, FileState], outcomes: Sequence[InterfaceOutcome]) -> None:
    shown = console()
    width = max((len(str(path)) for path in files), default=0)
    for path, file_state in files.items():
        shown.print(f"{path!s:<{width}}  {file_state}")
    width = max((len(outcome.interface) for outcome in outcomes), default=0)
    for outcome in outcomes:
        name, state = f"{outcome.interface:<{width}}", outcome.state
        severity = Severity.CRITICAL if state == InterfaceState.FAILED else Severity.OK
        shown.print(
            f"{name} ", coloured(state, severity), *(["", "; ".join(outcome.changes)] if outcome.changes else [])
        )
        for problem in outcome.problems:
            shown.print(f"{name}  {problem}")


def _document(
    planned: Iterable[Planned], files: Mapping[Path, FileState], outcomes: Iterable[InterfaceOutcome]
) -> dict[str, Any]:
    """What programs get."""
    return {
        "domains": [_domain(one) for one in planned],
        "files": [{"path": str(path), "state": state} for path, state in files.items()],
        "interfaces": [
            {
                "interface": outcome.interface,
                "state": outcome.state,
                "changes": list(outcome.changes),
                "problems": list(outcome.problems),
            }
            for outcome in outcomes
        ],
    }


def _domain(one: Planned) -> dict[str, Any]:
    interfaces = one.interfaces
    address = str(interfaces.address) if interfaces.address else None
    return {
        "domain": interfaces.domain.name,
        "wireguard": {
            "interface": interfaces.domain.wg,
            "port": interfaces.port,
            "mtu": interfaces.mtu,
            "address": address,
            "public_key": str(interfaces.public_key) if interfaces.public_key else None,
            "key_file": str(one.key_file),
        },
        "vxlan": {
            "interface": interfaces.domain.vx,
            "vni": interfaces.vni,
            "port": VXLAN_PORT,
            "mtu": interfaces.vxlan_mtu,
            "local": address,
        },
    }
