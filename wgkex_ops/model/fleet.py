"""The fleet at one moment: brokers, gateways and domains, and what is wrong with them. Pure.

The structs are also the JSON of `/status.json` and of `wgkex-ops status --json`: a member that goes breaks programs.
"""

from enum import IntEnum
from typing import Literal

import msgspec


class Severity(IntEnum):
    """How bad something is. The numbers are the exit statuses of a monitoring plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


# "unheard": listed in the configuration, and nothing has come from it. "silent": it confirms no keys.
GatewayState = Literal["online", "draining", "partly", "silent", "offline", "unheard"]


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway.

    Attributes:
        name: the worker's.
        state: ``partly``: it takes no nodes of some domains.
        peers: with a live session, over all domains, with those that were sent there since it said so.
        target: how many its weight asks for.
        confirming: whether it sends receipts.
        listed: whether the configuration lists it under ``workers``, or lists none.
        version: of its software; empty if it is not known.
        last_heard: seconds since the epoch; None if never, or if that is not known.
        refused: the domains whose nodes are not sent there.
    """

    name: str
    state: GatewayState
    peers: int
    target: float
    confirming: bool
    listed: bool
    version: str
    last_heard: float | None
    refused: tuple[str, ...]


class BrokerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A broker; its version is empty if it is not known."""

    name: str
    online: bool
    version: str


class DomainStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A domain: how many gateways take its nodes, and the peers of all of them."""

    name: str
    gateways: int
    peers: int


class Problem(msgspec.Struct, frozen=True):
    """Something that is wrong, in a sentence; 1 is a warning, 2 is critical, 3 says that the fleet is not known."""

    severity: int
    text: str


class FleetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        source: the broker that tells it, or ``MQTT server …``.
        at: seconds since the epoch.
        severity: that of the worst problem; 0 without any, and 3 if the fleet is not known (yet).
        problems: the worst ones first.
    """

    source: str
    at: float
    severity: int
    problems: tuple[Problem, ...]
    brokers: tuple[BrokerStatus, ...]
    gateways: tuple[GatewayStatus, ...]
    domains: tuple[DomainStatus, ...]


def find_problems(gateways: tuple[GatewayStatus, ...], domains: tuple[DomainStatus, ...]) -> list[Problem]:
    """What is wrong with gateways and domains. A gateway that drains is what an operator wanted, and no problem."""
    problems = []
    if not any(gateway.state not in ("offline", "unheard") for gateway in gateways):
        problems.append(Problem(Severity.CRITICAL, "no gateway is online: nodes cannot be sent to any"))
    else:
        problems += [
            Problem(Severity.CRITICAL, f"{domain.name} has no gateway: its nodes get no tunnel")
            for domain in domains
            if not domain.gateways
        ]
    for gateway in gateways:
        match gateway.state:
            case "offline":
                text = "is offline: 'systemctl status wgkex-worker' there"
            case "unheard":
                text = "is listed under workers, and was not heard of"
            case "silent":
                text = "confirms no keys: its user's access rules, or a worker that hangs ('wgkex-ops doctor' there)"
            case "partly":
                text = f"takes no nodes of {', '.join(gateway.refused)} ('wgkex-ops doctor' there)"
            case _ if not gateway.listed:
                text = "is not listed under workers, so it weighs 1"
            case _:
                continue
        problems.append(Problem(Severity.WARNING, f"{gateway.name} {text}"))
    return problems
