"""`wgkex-ops doctor`: what is wrong on this host, and the remedy. It changes nothing."""

import argparse
import asyncio
import json
import os
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from wgkex_ops.cli.arguments import Commands
from wgkex_ops.cli.terminal import coloured, console
from wgkex_ops.config import config_path
from wgkex_ops.doctor.bundle import write_bundle
from wgkex_ops.doctor.examination import Examination, examine
from wgkex_ops.doctor.findings import Finding, worst
from wgkex_ops.doctor.process import ROLES
from wgkex_ops.errors import ConfigError
from wgkex_ops.model.fleet import Severity

_WIDTH_OF_SEVERITY: Final = len("critical")
# A name server that is away must not hold up all of it (resolv.conf(5)).
_RESOLVER: Final = "timeout:2 attempts:1"


def add_command(commands: Commands, configuration: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "doctor",
        parents=[configuration],
        help="find out what is wrong on this host, and the remedy",
        description="Check configuration, MQTT server, clock, interfaces, rights, ports, disk and the running process. "
        "It changes nothing. Run it as root, or it does not see everything.",
        epilog="Exit status: 0 all is well, 1 there are warnings, 2 something is wrong.",
    )
    parser.set_defaults(run=_run)
    parser.add_argument("role", nargs="?", choices=ROLES, help="default: what this host has")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--bundle", type=Path, metavar="FILE", help="also write all that a bug report needs, without secrets (.tar.gz)"
    )


def _run(arguments: argparse.Namespace) -> int:
    """Examine, print, and return the exit status.

    Raises:
        ConfigError: it is not clear which role this host has, or the bundle cannot be written.
    """
    os.environ.setdefault("RES_OPTIONS", _RESOLVER)
    path = config_path(arguments.config, os.environ)
    found = asyncio.run(examine(path, arguments.role))
    document = _document(found)
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        _print(found)
    if arguments.bundle is not None:
        try:
            write_bundle(arguments.bundle, path, found.config, document)
        except OSError as error:
            raise ConfigError([f"--bundle: {arguments.bundle}: {error.strerror}"]) from error
        if not arguments.json:
            print(f"\n{arguments.bundle} is for a bug report: names of hosts are in it, and no secrets.")
    return worst(found.findings)


def _document(found: Examination) -> dict[str, Any]:
    """What programs get."""
    return {
        "version": version("wgkex-ops"),
        "roles": list(found.roles),
        "status": _word(worst(found.findings)),
        "findings": [
            {
                "check": finding.check,
                "role": finding.role or None,
                "severity": _word(finding.severity),
                "text": finding.text,
                "remedy": finding.remedy or None,
            }
            for finding in found.findings
        ],
    }


def _print(found: Examination) -> None:
    """A finding a line in a pipe; on a terminal, as many lines as it needs."""
    shown = console()
    names = {id(finding): _name(finding, several=len(found.roles) > 1) for finding in found.findings}
    column = max(map(len, names.values()))
    for finding in found.findings:
        text = f"{finding.text}; {finding.remedy}" if finding.remedy else finding.text
        indent = _WIDTH_OF_SEVERITY + column + 4
        if shown.is_terminal:
            text = textwrap.fill(text, max(40, shown.width - indent), break_on_hyphens=False, break_long_words=False)
            text = text.replace("\n", "\n" + " " * indent)
        severity = coloured(f"{_word(finding.severity):<{_WIDTH_OF_SEVERITY}}", finding.severity)
        shown.print(severity, f" {names[id(finding)]:<{column}} ", text)


def _word(severity: Severity) -> str:
    return severity.name.lower()


def _name(finding: Finding, *, several: bool) -> str:
    return f"{finding.role} {finding.check}" if several and finding.role else finding.check
