"""`wgkex-ops peer`: why has this router no tunnel? By this gateway's kernel, or by all gateways and brokers."""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from typing import Final

import msgspec
from msgspec import structs

from wgkex_ops.bus.asking import Asker
from wgkex_ops.bus.messages import WORKER_EVENTS
from wgkex_ops.bus.questions import answers_subscription, is_answer
from wgkex_ops.bus.values import Message
from wgkex_ops.cli.arguments import Commands, configuration
from wgkex_ops.cli.operator_bus import RetainedFleet, asker_name, operator_connection
from wgkex_ops.cli.peer_report import print_keys, what_is_missing
from wgkex_ops.config import Config, load_key_lists
from wgkex_ops.errors import CannotConfigureError, ConfigError, InvalidMessageError
from wgkex_ops.key_lists import ProtectedKeys
from wgkex_ops.model.fleet_verdicts import in_fleet
from wgkex_ops.model.inspection import LONGEST_QUERY, MOST_KEYS, Answers, Found, Query
from wgkex_ops.model.key_lists import KeyLists
from wgkex_ops.model.keys import PublicKey

HAS_TUNNEL: Final = 0
HAS_NONE: Final = 1


def add_command(commands: Commands, configuration: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "peer",
        parents=[configuration],
        help="find out why a router has no tunnel",
        description="Show what this gateway has of a router's key, and what that means: kernel, journal and key "
        "lists. With --fleet, ask all gateways and brokers.",
        epilog="Exit status: 0 there is a live session, 1 there is none, 2 the configuration or command line is wrong.",
    )
    parser.set_defaults(run=_run)
    parser.add_argument("query", type=_query, metavar="KEY|NAME|ADDRESS")
    parser.add_argument(
        "--fleet",
        action="store_true",
        help="ask all gateways and brokers; needs operator.username in the configuration",
    )
    parser.add_argument("--json", action="store_true", help="for programs; with the keys in full")


def _query(text: str) -> Query:
    """Read what is asked for.

    Raises:
        argparse.ArgumentTypeError: it is too long, or nothing.
    """
    query = Query(text)
    if not 0 < len(query.text) <= LONGEST_QUERY or not query.text.isprintable():
        raise argparse.ArgumentTypeError(f"should be a key, a name or an address of up to {LONGEST_QUERY} characters")
    return query


def _run(arguments: argparse.Namespace) -> int:
    """Find out, print it, and return the exit status."""
    config = configuration(arguments)
    query: Query = arguments.query
    found = asyncio.run(_ask(config, query) if arguments.fleet else _look(config, query))
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(found.keys), indent=2))
        if incomplete := what_is_missing(found):
            print(incomplete, file=sys.stderr)
    else:
        print_keys(query, found, time.time(), fleet=arguments.fleet)
    return HAS_TUNNEL if any(one.verdict.outcome == "tunnel" for one in found.keys) else HAS_NONE


async def _look(config: Config, query: Query) -> Found:
    """Read the kernel, journal and key lists of this host. The worker need not run.

    Raises:
        ConfigError: the worker installs nothing, or the key lists cannot be used.
        CannotConfigureError: this host cannot be read.
    """
    # Only a gateway has netlink.
    from wgkex_ops.consumer.dataplane.kernel import read_once  # noqa: PLC0415
    from wgkex_ops.consumer.inspection import Inspector  # noqa: PLC0415
    from wgkex_ops.consumer.peer_names import PeerNames  # noqa: PLC0415
    from wgkex_ops.consumer.upkeep.journal_file import JournalUnavailableError, read_journal  # noqa: PLC0415

    if config.worker.dataplane == "memory":
        raise ConfigError(["worker.dataplane is memory: this worker installs nothing"])
    lists = load_key_lists(config.key_lists) if config.key_lists is not None else KeyLists()
    try:
        rows = {row.key: row for row in read_journal(config.worker.state_dir)}
    except JournalUnavailableError as error:
        raise CannotConfigureError(f"worker.state_dir: {error}{_as_root()}") from None
    names = {**PeerNames(config.metrics.peer_names).read(), **lists.names}
    inspector = Inspector(
        gateway=config.worker.name,
        domains=config.domains,
        read=lambda: read_once(config.domains, config.worker.route_protocol),
        rows=lambda: rows,
        lists=lambda: lists,
        names=lambda: names,
        protected=ProtectedKeys([key.raw for key in config.cleanup.protected_keys], lambda: lists),
        stale_after=config.cleanup.stale_after,
    )
    answer = await inspector.inspect(query)
    if answer.problem:
        raise CannotConfigureError(f"{answer.problem}{_as_root()}")
    # Of brokers and other gateways, nothing is known.
    keys = [
        structs.replace(in_fleet(Answers((answer,)), PublicKey.parse(about.key), time.time()), verdict=about.verdict)
        for about in answer.keys
    ]
    return Found(tuple(keys[:MOST_KEYS]), more=len(keys) > MOST_KEYS)


def _as_root() -> str:
    """What to do about missing rights, where they may be what is missing."""
    return "; run it as root" if os.geteuid() else ""


async def _ask(config: Config, query: Query) -> Found:
    """Ask all gateways and brokers.

    Raises:
        ConfigError: there is no operators' user, or the protocol has no answers.
        BusError: the MQTT server cannot be reached, or does not let that user ask.
    """
    if config.mqtt.version != "5":
        raise ConfigError([f"mqtt.version is {config.mqtt.version}: only MQTT 5 has questions and answers"])
    fleet, name = RetainedFleet(config), asker_name()

    def deliver(message: Message) -> None:
        if is_answer(message.topic):
            with contextlib.suppress(InvalidMessageError):
                asker.take(message)
        else:
            fleet.take(message)
        message.acknowledge()

    async with operator_connection(config, name, [answers_subscription(name), *WORKER_EVENTS], deliver) as bus:
        asker = Asker(name, bus.publish, fleet.gateways, known=fleet.known)
        return await bus.while_connected(asker.about(query))
