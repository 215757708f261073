"""`wgkex-ops register`: submits a key as a router does, for people and scripts, and shows what a router would get."""

import argparse
import asyncio
import json
from typing import Any, Final

from wgkex_ops.cli.arguments import Commands, configuration, location, public_key, url
from wgkex_ops.errors import RoundFailedError
from wgkex_ops.probe.post import parse_version_1, parse_version_2, post_key

ACCEPTED: Final = 0
REFUSED: Final = 1


def add_command(commands: Commands, configuration: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "register",
        parents=[configuration],
        help="submit a key as a router does",
        description="Submit a key as a router does, and show what a router would get.",
        epilog="Exit status: 0 the key was accepted, 1 it was not, 2 the configuration or command line is wrong.",
    )
    parser.set_defaults(run=_run)
    parser.add_argument("domain", metavar="DOMAIN")
    parser.add_argument("key", type=public_key, metavar="KEY")
    parser.add_argument("--url", type=url, metavar="URL", help="the broker; default: probe.url of the configuration")
    parser.add_argument(
        "--api-version", type=int, choices=(1, 2), default=2, help="1: all gateways get the key; 2: one is named, too"
    )
    parser.add_argument(
        "--location", type=location, metavar="NAME", help="by version 2, prefer a gateway there; default: any"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def _run(arguments: argparse.Namespace) -> int:
    """Submit the key, print what came of it, and return the exit status."""
    url = arguments.url or configuration(arguments).probe_url
    try:
        body = asyncio.run(
            post_key(
                url,
                arguments.api_version,
                arguments.domain,
                arguments.key,
                canary=False,
                location=arguments.location,
            )
        )
        if arguments.api_version == 1:
            parse_version_1(body)
            endpoint = None
        else:
            endpoint = parse_version_2(body)
    except RoundFailedError as error:
        print(json.dumps({"accepted": False, "error": str(error)}) if arguments.json else error)
        return REFUSED
    if endpoint is None:
        found: dict[str, Any] = {}
        text = f"The key is on its way to all gateways of {arguments.domain}."
    else:
        found = {
            "address": endpoint.address,
            "port": endpoint.port,
            "public_key": endpoint.public_key,
            "allowed_ips": f"{endpoint.link_address}/128",
        }
        address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        text = (
            f"Endpoint     {address}:{endpoint.port}\n"
            f"Public key   {endpoint.public_key}\n"
            f"Allowed IPs  {endpoint.link_address}/128"
        )
    print(json.dumps({"accepted": True, "endpoint": found or None}) if arguments.json else text)
    return ACCEPTED
