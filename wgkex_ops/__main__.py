"""The command line: arguments, signals, exit status, log set-up; nothing else."""

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Collection, Coroutine, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Final, get_args

import structlog

from wgkex_ops.cli import probe as probe_command
from wgkex_ops.cli.arguments import Tool, whole_number
from wgkex_ops.config import Config, LogLevel, config_path, load, load_key_lists, load_web_config, parse, warnings
from wgkex_ops.errors import ConfigError, WgkexError
from wgkex_ops.logs import LogFormat, configure
from wgkex_ops.probe.choice import Choice
from wgkex_ops.supervisor import Supervisor

_log = structlog.get_logger(__name__)

# A public interface: systemd's RestartPreventExitStatus relies on it.
EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1
EXIT_CONFIGURATION: Final = 2

# Seconds for a clean stop: finish what was accepted, publish the status `0`, close the connections.
_STOP_TIMEOUT: Final = 5.0

# What `up` serves when no configuration is given; its MQTT server is the embedded one in any case.
DEMONSTRATION: Final = """
domains: [ffmuc_welt, ffmuc_muc_cty]
domain_prefixes: [ffmuc_]
externalName: gw01.example.net
mqtt: {broker_url: localhost}
log_level: error
"""

# What runs until it is stopped, and the modules of `cli/` with the commands of operators.
_PROGRAMS: Final = frozenset(("broker", "worker", "probe", "up"))
_TOOLS: Final = {
    "status": "status",
    "peer": "peer",
    "doctor": "doctor",
    "drain": "drain",
    "undrain": "drain",
    "keys": "keys",
    "register": "register",
    "simulate": "simulate",
    "interfaces": "interfaces",
    "example-config": "example_config",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `wgkex-ops`, and return its exit status."""
    arguments = _arguments(sys.argv[1:] if argv is None else argv)
    if "run" in arguments:
        return _run_tool(arguments)
    once = arguments.command == "probe" and arguments.once
    path = _config_file(arguments)
    try:
        config = _with_checked_files(_load(path), arguments)
        choice = probe_command.choose(config, arguments) if arguments.command == "probe" else None
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)  # noqa: T201  for the person who typed the command; there are no logs yet
        return probe_command.print_unknown(error.problems[0]) if once else EXIT_CONFIGURATION
    if arguments.check_config:
        for warning in warnings(config, path):
            print(f"warning: {warning}", file=sys.stderr)  # noqa: T201  the same
        print("The configuration is fine.")  # noqa: T201
        return EXIT_OK
    supervisor = Supervisor.from_environment(os.environ, os.getpid())
    command = _command(arguments, config, supervisor, choice)
    if once:
        # What went wrong is in the line. Some monitoring shows standard error as well.
        configure(arguments.log_level or "critical", arguments.log_format)
        return _run(_until_signal(command, supervisor, 0), stopped=probe_command.UNKNOWN, failed=probe_command.UNKNOWN)
    configure(arguments.log_level or config.log_level, arguments.log_format)
    for warning in warnings(config, path):
        _log.warning("configuration_warning", detail=warning)
    delay = config.broker.shutdown_delay if arguments.command == "broker" else 0
    be_responsive()
    return _run(_until_signal(command, supervisor, delay, stop_on=_stopping(arguments.command)))


def _run_tool(arguments: argparse.Namespace) -> int:
    """Run a command for operators, whose exit status is its own; what it cannot do is one line for a person."""
    configure("critical", "auto")
    tool: Tool = arguments.run
    try:
        return tool(arguments)
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)  # noqa: T201  for the person who typed the command
        return EXIT_CONFIGURATION
    except (WgkexError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201  the same
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_FAILURE


def be_responsive() -> None:
    """Keep the pauses of the event loop short."""
    # Imported modules stay to the end. Without them, a full garbage collection takes 5 ms, not 65.
    gc.freeze()
    # A thread that reads thousands of peers yields to the event loop after 1 ms, not 5.
    sys.setswitchinterval(0.001)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    try:
        return parser(argv[0] if argv else "").parse_args(argv)
    except SystemExit as end:
        if end.code != EXIT_CONFIGURATION or "--once" not in argv:
            raise
        # To monitoring, the status 2 is an outage.
        raise SystemExit(probe_command.print_unknown("the command line is wrong; see --help")) from None


def _command(
    arguments: argparse.Namespace, config: Config, supervisor: Supervisor, choice: Choice | None
) -> Coroutine[None, None, int | None]:
    """The main coroutine of a command, which imports only what it needs: a broker has no use for netlink.

    Its result is the exit status; None for a clean stop.
    """
    match arguments.command:
        case "broker":
            from wgkex_ops import broker  # noqa: PLC0415

            return broker.run(config, supervisor)
        case "worker":
            from wgkex_ops import worker  # noqa: PLC0415

            return worker.run(config, supervisor)
    if choice is not None:
        if arguments.once:
            return probe_command.print_once(config, choice)
        from wgkex_ops import canary  # noqa: PLC0415

        return canary.run(config, choice, supervisor)
    from wgkex_ops.demo import up  # noqa: PLC0415

    return up.run(config, arguments.nodes)


def main_broker() -> int:
    """Run `wgkex-broker`, as users of the old tool know it."""
    return main(["broker", *sys.argv[1:]])


def main_worker() -> int:
    """Run `wgkex-worker`, as users of the old tool know it."""
    return main(["worker", *sys.argv[1:]])


class _CommandList(argparse.HelpFormatter):
    """Help with a column that the longest command fits into: argparse forgets that commands are indented."""

    def add_argument(self, action: argparse.Action) -> None:
        self._indent()
        super().add_argument(action)
        self._dedent()


def parser(command: str = "") -> argparse.ArgumentParser:
    """Make the parser of the command line.

    Args:
        command: the first word; of the others, only what is needed for this one is imported, which takes a third of the
            time. By default, and for a word that is no command, it is all.
    """
    configuration = argparse.ArgumentParser(add_help=False)
    configuration.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration; default: $WGKEX_CONFIG_FILE, else /etc/wgkex.yaml, or for 'up' example domains",
    )
    common = argparse.ArgumentParser(add_help=False, parents=[configuration])
    # For `wgkex-broker --version`, too, which is `wgkex-ops broker --version`.
    common.add_argument("--version", action="version", version=f"wgkex-ops {version('wgkex-ops')}")
    common.add_argument("--check-config", action="store_true", help="print all problems of the configuration, and exit")
    common.add_argument("--log-level", choices=get_args(LogLevel), help="default: from the configuration")
    common.add_argument(
        "--log-format", choices=get_args(LogFormat), default="auto", help="auto: console on a terminal, else json"
    )
    # For the programs that have a listener of their own.
    web = argparse.ArgumentParser(add_help=False)
    web.add_argument(
        "--web.config.file",
        dest="web_config_file",
        type=Path,
        metavar="FILE",
        help="TLS and users of the operators' listener; default: metrics_listen.web_config_file of the configuration",
    )
    top = argparse.ArgumentParser(
        prog="wgkex-ops",
        formatter_class=_CommandList,
        description="WireGuard key exchange for community mesh networks.",
        epilog="Exit status: 0 after a clean stop, 2 if the configuration is wrong, 1 for everything else.",
    )
    top.add_argument("--version", action="version", version=f"wgkex-ops {version('wgkex-ops')}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("broker", parents=[common, web], help="take keys from nodes and hand them to the gateways")
    commands.add_parser("worker", parents=[common, web], help="install the keys as WireGuard peers on this gateway")
    probe_command.add_options(
        commands.add_parser(
            "probe",
            parents=[common, web],
            help="find out, as a router would, whether nodes get a tunnel",
            description="The canary: a router in software. Without --once it goes round after round, with /metrics.",
            epilog="Exit status with --once: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.",
        )
    )
    for tool in _tools(command):
        import_module(f"wgkex_ops.cli.{tool}").add_command(commands, configuration)
    up_parser = commands.add_parser(
        "up",
        parents=[common],
        help="try it out: broker, worker and MQTT server in one process",
        description="Run everything in one process.",
    )
    up_parser.add_argument(
        "--nodes",
        type=whole_number(0, 10_000),
        default=0,
        metavar="N",
        help="simulate N routers, which request a tunnel and are switched off and on again; default: 0",
    )
    return top


def _tools(command: str) -> Collection[str]:
    """The modules of `cli/` that a command needs."""
    if command in _PROGRAMS:
        return ()
    return (_TOOLS[command],) if command in _TOOLS else dict.fromkeys(_TOOLS.values())


def _config_file(arguments: argparse.Namespace) -> Path | None:
    """Find the configuration; None for that of the demonstration."""
    if arguments.command == "up" and arguments.config is None and not os.environ.get("WGKEX_CONFIG_FILE"):
        return None
    return config_path(arguments.config, os.environ)


def _load(path: Path | None) -> Config:
    return parse(DEMONSTRATION, "demonstration") if path is None else load(path)


def _with_checked_files(config: Config, arguments: argparse.Namespace) -> Config:
    """Put --web.config.file in the place of the setting, and check the files that the configuration names.

    Raises:
        ConfigError: it has problems.
    """
    command = arguments.command
    if getattr(arguments, "web_config_file", None) is not None:
        section = getattr(config, command)
        listen = section.metrics_listen.model_copy(update={"web_config_file": arguments.web_config_file})
        config = config.model_copy(update={command: section.model_copy(update={"metrics_listen": listen})})
    for name in ("broker", "worker") if command == "up" else (command,):
        path = getattr(config, name).metrics_listen.web_config_file
        if path is not None:
            load_web_config(path).ssl_context(path)
        if name == "broker" and config.broker_listen.tls is not None:
            config.broker_listen.tls.ssl_context("broker_listen.tls")
    if config.key_lists is not None and command != "probe":
        load_key_lists(config.key_lists)
    return config


def _run(
    main_coroutine: Coroutine[None, None, int | None], *, stopped: int = EXIT_OK, failed: int = EXIT_FAILURE
) -> int:
    """Run a command to its end.

    Returns:
        its result, `stopped` if it has none, `failed` if it raised.
    """
    try:
        status = asyncio.run(main_coroutine)
    except KeyboardInterrupt:
        # A further Ctrl-C during the clean stop: do not wait for it.
        return failed
    except BaseException as error:  # noqa: BLE001  the outermost edge of the process
        _log_failure(error)
        return failed
    return stopped if status is None else status


def _stopping(command: str) -> Sequence[signal.Signals]:
    """The signals that stop a command. The demonstration also ends with its terminal, except after nohup."""
    ends_with_terminal = command == "up" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if ends_with_terminal else []))


async def _until_signal(
    main_coroutine: Coroutine[None, None, int | None],
    supervisor: Supervisor,
    delay: float,
    *,
    stop_on: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
) -> int | None:
    """Run until a signal, which cancels. A further one has its default effect, and ends the process at once.

    SIGHUP has files read again, unless it cancels, too.

    Args:
        main_coroutine: what is run.
        supervisor: gets STOPPING=1, and the time that the stop may take.
        delay: seconds from the first signal to the cancellation. If there is a delay, the second signal cuts it short,
            and the third one ends the process.
        stop_on: the signals that cancel.

    Returns:
        the result of the coroutine; None if it was cancelled.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main_coroutine)
    cancelled = False

    def stop() -> None:
        if delay and not supervisor.stopping:
            _log.info("shutdown_delayed", seconds=delay)
            supervisor.stop(delay + _STOP_TIMEOUT, f"not ready, stops in {delay:g} s")
            loop.call_later(delay, cancel)
        else:
            cancel()

    def cancel() -> None:
        nonlocal cancelled
        if cancelled:
            return
        cancelled = True
        supervisor.stop(_STOP_TIMEOUT, "finishes what was accepted")
        for number in stop_on:
            loop.remove_signal_handler(number)
        task.cancel()

    loop.add_signal_handler(signal.SIGHUP, supervisor.reload)
    for number in stop_on:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not cancelled:
            raise
        return None


def _log_failure(error: BaseException) -> None:
    """Log why the process ends: one line for what an operator can repair, a traceback for a bug of ours."""
    leaves = _leaves(error)
    if all(isinstance(leaf, WgkexError | OSError) for leaf in leaves):
        for leaf in leaves:
            _log.critical("stopped", error=str(leaf))
    else:
        _log.critical("crashed", exc_info=error)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


if __name__ == "__main__":
    sys.exit(main())
