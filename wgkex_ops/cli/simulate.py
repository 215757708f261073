"""`wgkex-ops simulate`: many routers request a tunnel over real HTTP, from one process."""

import argparse
import asyncio
import json
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wgkex_ops.cli.arguments import Commands, configuration, seconds, url, whole_number
from wgkex_ops.cli.terminal import coloured, console, progress, table
from wgkex_ops.model.fleet import Severity
from wgkex_ops.simulation.nodes import BOOT_SECONDS, RETRY_SECONDS, make_nodes, storm
from wgkex_ops.simulation.post import BrokerClient
from wgkex_ops.simulation.report import Report

ALL_ACCEPTED: Final = 0
NOT_ALL: Final = 1

# One process, and the addresses that are for tests.
_MOST_ROUTERS: Final = 100_000
_MOST_TIMES: Final = 1000
_DAY: Final = 86_400.0
_BEHIND: Final = 3
_TRIES: Final = 3
# What is shown of the response times: the part of the responses that took no longer.
_SHARES: Final = {"p50": 0.5, "p99": 0.99, "max": 1.0}
# Seconds from one state of the progress to the next.
_SHOWN_EVERY: Final = 0.2


@dataclass
class _Run:
    """A run, whether it has come to its end or not.

    Attributes:
        report: what became of the requests.
        routers: how many there are until now.
        began: seconds of the monotonic clock.
        seconds: how long it took.
        interrupted: whether it was.
    """

    report: Report = field(default_factory=Report)
    routers: int = 0
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def accepted(self) -> int:
        return self.report.accepted.total()


def add_command(commands: Commands, configuration: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "simulate",
        parents=[configuration],
        help="let many routers request a tunnel at once",
        description="Let N routers boot and request a tunnel over real HTTP, as after a power cut or the reboot of a "
        "gateway. Each has a random key, and asks until it is accepted. Gateways have these peers, which never "
        "connect, until their cleanup removes them.",
        epilog="Exit status: 0 all routers were accepted, 1 some were not, or Ctrl-C ended it, 2 the configuration or "
        "command line is wrong.",
    )
    parser.set_defaults(run=_run)
    parser.add_argument("routers", type=whole_number(1, _MOST_ROUTERS), metavar="N")
    parser.add_argument("--url", type=url, metavar="URL", help="the broker; default: probe.url of the configuration")
    parser.add_argument(
        "--domain", action="append", metavar="NAME", help="a domain; may be repeated; default: all of the configuration"
    )
    duration, times = seconds(_DAY), whole_number(1, _MOST_TIMES)
    for option, kind, default, name, text in (
        ("--within", duration, BOOT_SECONDS, "SECONDS", "each boots at a random moment of this time"),
        ("--behind", times, _BEHIND, "K", "routers that share an address, as behind NAT"),
        ("--retry-after", duration, RETRY_SECONDS, "SECONDS", "from a refusal until the router asks again"),
        ("--tries", times, _TRIES, "TIMES", "how often each router asks at the most"),
    ):
        parser.add_argument(option, type=kind, default=default, metavar=name, help=f"{text}; default: {default:g}")
    parser.add_argument(
        "--for",
        type=duration,
        default=0.0,
        dest="lasts",
        metavar="SECONDS",
        help="until then, N more boot whenever the last ones are through; default: 0, which is once",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def _run(arguments: argparse.Namespace) -> int:
    """Let the routers boot, print what became of them, and return the exit status."""
    if arguments.url and arguments.domain:
        address, domains = arguments.url, arguments.domain
    else:
        config = configuration(arguments)
        address = arguments.url or config.probe_url
        domains = arguments.domain or config.domain_names
    # Each request is a connection.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    run = _Run()
    try:
        with progress() as show:
            asyncio.run(_simulate(run, address, domains, arguments, show))
    except KeyboardInterrupt:
        run.interrupted = True
    run.seconds = time.monotonic() - run.began
    if arguments.json:
        print(json.dumps(_document(run)))
    else:
        _print(run, address)
    return ALL_ACCEPTED if run.accepted == run.routers and not run.interrupted else NOT_ALL


async def _simulate(
    run: _Run,
    address: str,
    domains: Sequence[str],
    arguments: argparse.Namespace,
    show: Callable[[int, int, str], None],
) -> None:
    post = BrokerClient(address)

    async def show_progress() -> None:
        while True:
            show(run.accepted, run.routers, _progress(run))
            await asyncio.sleep(_SHOWN_EVERY)

    async def storms() -> None:
        while not run.routers or time.monotonic() - run.began < arguments.lasts:
            nodes = make_nodes(arguments.routers, domains, post, run.report.note, behind=arguments.behind)
            run.routers += len(nodes)
            await storm(nodes, within=arguments.within, tries=arguments.tries, pause=arguments.retry_after)

    async with asyncio.TaskGroup() as group:
        showing = group.create_task(show_progress())
        await storms()
        showing.cancel()


def _progress(run: _Run) -> str:
    troubles = {"refused": run.report.refused.total(), "without response": run.report.no_response.total()}
    further = "".join(f", {count} {trouble}" for trouble, count in troubles.items() if count)
    return f"{run.accepted} of {run.routers} accepted{further}, {time.monotonic() - run.began:.0f} s"


def _document(run: _Run) -> dict[str, Any]:
    """The summary for programs."""
    report = run.report
    return {
        "routers": run.routers,
        "accepted": _by_version(report.accepted),
        "not_accepted": run.routers - run.accepted,
        "requests": _by_version(report.requests),
        "refused": dict(report.refused),
        "no_response": dict(report.no_response),
        "retries": report.retries,
        "response_seconds": {name: report.response_time(share) for name, share in _SHARES.items()},
        "gateways": dict(report.gateways),
        "seconds": run.seconds,
        "interrupted": run.interrupted,
    }


def _by_version(counts: Counter[int]) -> dict[str, int]:
    return {f"v{version}": counts[version] for version in (1, 2)}


def _print(run: _Run, address: str) -> None:
    """Print the summary for people."""
    report, output = run.report, console()
    if run.interrupted:
        output.print(coloured(f"Interrupted after {run.seconds:.1f} s.", Severity.WARNING))
    severity = Severity.OK if run.accepted == run.routers else Severity.CRITICAL
    accepted = coloured(f"{run.accepted} of {run.routers} routers", severity)
    by_version = f": {report.accepted[2]} by version 2, {report.accepted[1]} by version 1"
    times = [
        f"{name} {taken:.3f} s" for name, share in _SHARES.items() if (taken := report.response_time(share)) is not None
    ]
    for name, *parts in (
        ("Broker", address),
        ("Accepted", accepted, by_version),
        ("Refused", _counts(report.refused, report)),
        ("No response", _counts(report.no_response, report)),
        ("Retries", str(report.retries)),
        ("Responses", ", ".join(times) or "none"),
        ("Duration", f"{run.seconds:.1f} s"),
    ):
        output.print(f"{name:14}", *parts, sep="")
    if report.gateways:
        gateways = table("Gateway", "Routers", right=frozenset({"Routers"}))
        for gateway, count in sorted(report.gateways.items()):
            gateways.add_row(gateway, str(count))
        output.print("", gateways, sep="\n")


def _counts(counts: Counter[str], report: Report) -> str:
    """How many requests, and why, the most frequent reason first."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    return f"{counts.total()} of {report.requests.total()} requests" + (f": {reasons}" if reasons else "")
