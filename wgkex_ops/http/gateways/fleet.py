"""The fleet as a broker sees it, or whoever listens to the same topics."""

import time
from collections.abc import Collection, Iterable, Sequence

from wgkex_ops.http.gateways.registry import Gateway, Gateways
from wgkex_ops.model.fleet import (
    BrokerStatus,
    DomainStatus,
    FleetStatus,
    GatewayState,
    GatewayStatus,
    Problem,
    find_problems,
)


def fleet_status(
    gateways: Gateways,
    *,
    source: str,
    domains: Sequence[str],
    listed: Collection[str],
    silent: Collection[str] = (),
    problems: Iterable[Problem] = (),
    heard: bool = True,
    complete: bool = True,
) -> FleetStatus:
    """Put together the fleet of this moment.

    Args:
        gateways: what is known of workers and brokers.
        source: who tells it.
        domains: names of the configured domains.
        listed: names of the configured workers; empty if any worker is accepted.
        silent: workers that confirm no keys.
        problems: what else is wrong.
        heard: whether it is known when the workers were last heard: not by retained messages alone.
        complete: whether all that are there were heard: until then, nothing follows from those that were not.
    """
    now, ticks = time.time(), time.monotonic()
    targets = gateways.targets()
    found = tuple(
        GatewayStatus(
            name=name,
            state=_state(gateway, refused := _refused(gateway, domains), listed=name in listed, silent=name in silent),
            peers=gateway.peers,
            target=round(targets[name], 1),
            confirming=gateway.confirming,
            listed=not listed or name in listed,
            version=gateway.version,
            last_heard=now - (ticks - gateway.last_seen) if heard and gateway.last_seen is not None else None,
            refused=refused,
        )
        for name, gateway in sorted(gateways.workers.items())
    )
    by_domain = tuple(
        DomainStatus(
            name=domain,
            gateways=sum(
                gateway.takes_nodes_of(domain) and gateways.wants_nodes(name)
                for name, gateway in gateways.workers.items()
            ),
            peers=sum(gateway.peers_in(domain) for gateway in gateways.workers.values()),
        )
        for domain in domains
    )
    online = gateways.brokers
    brokers = tuple(
        BrokerStatus(name=name, online=name in online, version=version)
        for name, version in sorted(gateways.broker_versions.items())
    )
    concluded = find_problems(found, by_domain) if complete else []
    wrong = sorted([*problems, *concluded], key=lambda problem: -problem.severity)
    return FleetStatus(
        source=source,
        at=now,
        severity=max((problem.severity for problem in wrong), default=0),
        problems=tuple(wrong),
        brokers=brokers,
        gateways=found,
        domains=by_domain,
    )


def _refused(gateway: Gateway, domains: Sequence[str]) -> tuple[str, ...]:
    return tuple(domain for domain in domains if not gateway.takes_nodes_of(domain))


def _state(gateway: Gateway, refused: tuple[str, ...], *, listed: bool, silent: bool) -> GatewayState:
    # One that is not listed is known since it was heard, before the latest connection with the MQTT server.
    if gateway.last_seen is None and listed:
        return "unheard"
    if not gateway.online:
        return "offline"
    if silent:
        return "silent"
    if gateway.draining:
        return "draining"
    return "partly" if refused else "online"
