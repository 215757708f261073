"""Listeners that want the same port of the same host. One file serves both programs, which often run on one host."""

import itertools
import re
from collections.abc import Iterator
from typing import Final

from wgkex_ops.config.model import Config
from wgkex_ops.config.section import Listen

_ALL: Final = "::"
_ALL_IPV4: Final = "0.0.0.0"  # noqa: S104  it is looked for, nobody listens there
_LOCALHOST: Final = frozenset({"127.0.0.1", "::1"})
_IPV4: Final = re.compile(r"[0-9.]+", re.ASCII)


def shared_ports(config: Config) -> Iterator[tuple[str, str, int]]:
    """Find the pairs of listeners of which only one could listen: their settings, and the port.

    The canary's listener is none of them: it usually runs on another host.
    """
    listeners: dict[str, Listen] = {
        "broker_listen": config.broker_listen,
        "broker.metrics_listen": config.broker.metrics_listen,
        "worker.metrics_listen": config.worker.metrics_listen,
    }
    for (name, listen), (other_name, other) in itertools.combinations(listeners.items(), 2):
        # The kernel never chooses a port that is taken.
        if listen.port == other.port != 0 and _meet(listen.host, other.host):
            yield name, other_name, listen.port


def _meet(first: str, second: str) -> bool:
    """Whether two hosts have an address in common, as far as one can tell without asking for names."""
    if _ALL in (first, second):
        return True
    addresses, others = _addresses(first), _addresses(second)
    if _ALL_IPV4 in addresses | others:
        return all(any(map(_IPV4.fullmatch, each)) for each in (addresses, others))
    return bool(addresses & others)


def _addresses(host: str) -> frozenset[str]:
    name = host.lower()
    return _LOCALHOST if name == "localhost" else frozenset({name})
