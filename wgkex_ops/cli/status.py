"""`wgkex-ops status`: the fleet in one table, from a broker or from the MQTT server."""

import argparse
import asyncio
import base64
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from math import inf
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from wgkex_ops.bus.messages import WORKER_EVENTS
from wgkex_ops.bus.values import Message
from wgkex_ops.cli.arguments import Commands, configuration
from wgkex_ops.cli.operator_bus import RetainedFleet, asker_name, operator_connection
from wgkex_ops.cli.own_listener import own_listener
from wgkex_ops.cli.status_report import nagios_line, status_tables
from wgkex_ops.cli.terminal import coloured, console, live
from wgkex_ops.config import Config
from wgkex_ops.errors import ConfigError, WgkexError
from wgkex_ops.http.gateways.fleet import fleet_status
from wgkex_ops.model.fleet import FleetStatus, Severity
from wgkex_ops.model.words import visible

_WATCH_EVERY: Final = 2.0
_TIMEOUT: Final = 5.0
_LARGEST: Final = 4 * 1024 * 1024


class FleetUnknownError(WgkexError):
    """A broker does not tell; the message says why, and what to do."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows none: where they lead, the password would go as well."""

    def redirect_request(self, *_arguments: object) -> None:
        """A redirect is an error."""


def add_command(commands: Commands, configuration: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "status",
        parents=[configuration],
        help="show brokers, gateways and domains in one table",
        description="Show brokers, gateways and domains in one table, as the broker of this host knows them, or "
        "another one (--broker-url), or as the MQTT server has them (--mqtt).",
        epilog="Exit status: 0 all is well, 1 a warning, 2 something is critical, or the configuration or command "
        "line is wrong; 3 if the broker does not know the fleet yet, and with --nagios also if nobody tells.",
    )
    parser.set_defaults(run=_run)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--broker-url",
        type=_broker_url,
        metavar="URL",
        help="a broker's listener for operators, such as https://user:password@broker.example.net:9690; default: "
        "broker.metrics_listen of the configuration, on this host",
    )
    source.add_argument(
        "--mqtt", action="store_true", help="ask the MQTT server; needs operator.username in the configuration"
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="for programs")
    shown.add_argument("--nagios", action="store_true", help="one line, as a plugin for Nagios or Icinga prints it")
    shown.add_argument("--watch", action="store_true", help="show it again and again, until Ctrl-C")


def _broker_url(text: str) -> str:
    """Read the URL of a listener for operators.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        url = urlsplit(text)
        valid = url.scheme in ("http", "https") and url.hostname and url.path in ("", "/") and url.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError("should be http or https, a host, perhaps a user and a port, and no path")
    return text.rstrip("/")


def _run(arguments: argparse.Namespace) -> int:
    """Show it, and return the exit status."""
    try:
        config = configuration(arguments)
        read = _reader(arguments, config)
        if arguments.watch:
            return _watch(read)
        status = read()
    except (WgkexError, OSError) as error:
        if not arguments.nagios:
            if isinstance(error, ConfigError):
                raise
            print(error, file=sys.stderr)
            return Severity.CRITICAL
        print(f"WGKEX UNKNOWN - {str(error).splitlines()[0]}")
        return Severity.UNKNOWN
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(status), indent=2))
    elif arguments.nagios:
        print(nagios_line(status))
    else:
        console().print(status_tables(status, console().width), soft_wrap=False)
    return status.severity


def _watch(read: Callable[[], FleetStatus]) -> int:
    if not sys.stdout.isatty():
        raise ConfigError(["--watch is for a terminal"])
    with live() as show:
        while True:
            try:
                show(status_tables(read(), console().width))
            except ConfigError:
                raise
            except (WgkexError, OSError) as error:
                # The broker is restarted, for example.
                show(coloured(str(error), Severity.UNKNOWN))
            time.sleep(_WATCH_EVERY)


def _reader(arguments: argparse.Namespace, config: Config) -> Callable[[], FleetStatus]:
    """What reads the fleet; it raises a WgkexError."""
    if arguments.mqtt:
        return lambda: asyncio.run(_from_bus(config))
    if arguments.broker_url is not None:
        return lambda: _from_broker(arguments.broker_url, ssl.create_default_context())
    url, context = own_listener(config.broker.metrics_listen)
    return lambda: _from_broker(url, context)


def _from_broker(url: str, context: ssl.SSLContext) -> FleetStatus:
    """Ask a broker's listener for operators.

    Raises:
        FleetUnknownError: it does not tell.
    """
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(f"{parts.scheme}://{place}/status.json")  # noqa: S310  http or https
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    # No proxy of the environment: this is the operators' own network.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirects()
    )
    try:
        with opener.open(request, timeout=_TIMEOUT) as response:
            return msgspec.json.decode(response.read(_LARGEST), type=FleetStatus)
    except urllib.error.HTTPError as error:
        hint = {
            401: "it wants a user and a password: --broker-url https://user:password@…",
            404: "it is no broker, or an older one",
            421: "it does not know this name: broker.metrics_listen.allowed_hosts",
        }.get(error.code, "")
        if target := error.headers.get("Location"):
            hint = f"it redirects to {visible(target)}, which is not followed: --broker-url should name a broker itself"
        raise FleetUnknownError(f"{place}: status {error.code}{f'; {hint}' if hint else ''}") from None
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise FleetUnknownError(
            f"{place} does not answer: {reason}; does a broker run there (systemctl status wgkex-broker)? Else name "
            "one with --broker-url, or ask the MQTT server with --mqtt"
        ) from None


async def _from_bus(config: Config) -> FleetStatus:
    """Take what the MQTT server has retained.

    Raises:
        ConfigError: there is no operators' user.
        BusError: the server cannot be reached.
    """
    fleet = RetainedFleet(config)

    def deliver(message: Message) -> None:
        fleet.take(message)
        message.acknowledge()

    async with operator_connection(config, asker_name(), WORKER_EVENTS, deliver) as bus:
        await bus.while_connected(fleet.known())
    # Since when they are offline, nobody knows here; the nodes of most have another gateway.
    fleet.gateways.mark_absent(inf)
    return fleet_status(
        fleet.gateways,
        source=f"MQTT server {config.mqtt.host}:{config.mqtt.port}",
        domains=[domain.name for domain in config.domains],
        listed=config.workers,
        heard=False,
    )
