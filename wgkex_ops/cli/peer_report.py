"""What people see of `wgkex-ops peer`: the verdict first, then what it is based on. Keys are shortened."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Final

from wgkex_ops.cli.terminal import coloured, console, table
from wgkex_ops.model.fleet import Severity
from wgkex_ops.model.inspection import (
    WHY_SILENT,
    Found,
    KeyAtBroker,
    KeyInFleet,
    KeyOnGateway,
    Outcome,
    PeerReport,
    Query,
)
from wgkex_ops.model.words import duration, in_words, iso_time

_SEVERITIES: Final[Mapping[Outcome, Severity]] = {
    "tunnel": Severity.OK,
    "waiting": Severity.WARNING,
    "fault": Severity.CRITICAL,
    "refused": Severity.CRITICAL,
    "unknown": Severity.UNKNOWN,
}
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_WIDTH: Final = 13


def print_keys(query: Query, found: Found, now: float, *, fleet: bool) -> None:
    """Print what was found; now in seconds since the epoch."""
    shown = console()
    if not found.keys:
        kind = "name" if query.is_name else "address"
        where = "no gateway or broker" if fleet else "neither kernel, journal nor key lists"
        shown.print(coloured(f"Unknown: {where} know{'s' if fleet else ''} a key of this {kind}.", Severity.UNKNOWN))
    for number, one in enumerate(found.keys):
        if number:
            shown.print()
        _print_key(one, now, fleet=fleet)
    if incomplete := what_is_missing(found):
        shown.print(coloured(incomplete, Severity.WARNING), soft_wrap=False)


def what_is_missing(found: Found) -> str:
    """What was not found of what there may be, in a sentence; empty if that is nothing."""
    if found.more:
        return f"There are more keys than these {len(found.keys)}."
    if not found.keys and found.unheard:
        return f"Others may know it{found.unheard}."
    return ""


def _print_key(one: KeyInFleet, now: float, *, fleet: bool) -> None:
    shown = console()
    shown.print(_fact("Key", f"{one.key[:10]}… {one.name}", shown.width))
    shown.print(_fact("Address", one.address, shown.width))
    shown.print(coloured(_fact("Verdict", one.verdict.text, shown.width), _SEVERITIES[one.verdict.outcome]))
    if not fleet:
        for about in one.gateways.values():
            for heading, text in _facts(about, now):
                shown.print(_fact(heading, text, shown.width))
        return
    _print_gateways(one, now)
    _print_brokers(one, now)
    for name, problem in one.problems.items():
        shown.print(coloured(f"{name}: {problem}", Severity.CRITICAL), soft_wrap=False)
    if one.silent:
        text = f"No answer from {', '.join(one.silent)}: {WHY_SILENT}."
        shown.print(coloured(text, Severity.WARNING), soft_wrap=False)
    if one.unable:
        shown.print(
            coloured(f"Cannot be asked (an older version, or MQTT 3.1.1): {', '.join(one.unable)}.", Severity.WARNING),
            soft_wrap=False,
        )


def _fact(heading: str, text: str, width: int) -> str:
    """A fact beside its heading, in as many lines as it needs."""
    indent = " " * _WIDTH
    filled = textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return f"{heading:<{_WIDTH}}{filled[_WIDTH:]}".rstrip()


def _facts(about: KeyOnGateway, now: float) -> Iterator[tuple[str, str]]:
    for peer in about.peers:
        yield "", ""
        yield "Domain", f"{peer.domain} ({peer.interface}, UDP {peer.port})"
        yield "Allowed IPs", peer.allowed_ips
        yield (
            "Route",
            {"foreign": "not of this software", "elsewhere": "over another interface"}.get(peer.route, peer.route),
        )
        yield "FDB entry", "yes" if peer.fdb else "missing"
        yield "Endpoint", peer.endpoint or "none: no packet has come"
        yield "Handshake", _handshake(peer, now)
        yield "Traffic", f"{_size(peer.received)} received, {_size(peer.sent)} sent"
    yield "", ""
    if about.journal is not None:
        version = "version 2" if about.journal.version_2 else "version 1, or an unknown one"
        yield "Journal", f"since {duration(now - about.journal.entered_at)} in {about.journal.domain}, by {version}"
    else:
        yield "Journal", "no entry"
    listed = [f"{in_words(reason)} in {domain}" for domain, reason in about.refused.items()]
    yield "Key lists", ", ".join([*listed, *(["protected"] if about.protected else [])]) or "no entry"


def _handshake(peer: PeerReport, now: float) -> str:
    if peer.handshake is None:
        return "never"
    return f"{duration(now - peer.handshake)} ago ({peer.state}), at {iso_time(peer.handshake)}"


def _print_gateways(one: KeyInFleet, now: float) -> None:
    made = table("Gateway", "Domain", "State", "Handshake", "In journal")
    for name, about in one.gateways.items():
        entered = duration(now - about.journal.entered_at) if about.journal is not None else "no"
        for peer in about.peers:
            age = "never" if peer.handshake is None else f"{duration(now - peer.handshake)} ago"
            made.add_row(name, peer.domain, coloured(peer.state, _SEVERITIES[about.verdict.outcome]), age, entered)
        if not about.peers:
            made.add_row(name, "-", coloured("no peer", _SEVERITIES[about.verdict.outcome]), "-", entered)
    if made.row_count:
        console().print()
        console().print(made)
    for name, about in one.gateways.items():
        if about.verdict.outcome in ("fault", "refused"):
            console().print(coloured(f"{name}: {about.verdict.text}", Severity.CRITICAL), soft_wrap=False)


def _print_brokers(one: KeyInFleet, now: float) -> None:
    made = table("Broker", "Asked", "Version", "Sent to", "Receipts")
    requests = [(name, about) for name, all_about in one.brokers.items() for about in all_about]
    for name, about in requests:
        if about.asked_at is None:
            made.add_row(name, "not lately", "-", "-", "-")
        else:
            asked = f"{duration(now - about.asked_at)} ago"
            made.add_row(name, asked, str(about.api_version), about.named or "-", _receipts(about))
    if made.row_count:
        console().print()
        console().print(made)
    for name, about in requests:
        if about.request_id:
            console().print(f"Request {about.request_id} ({name}, {about.domain})")


def _receipts(about: KeyAtBroker) -> str:
    receipts = [
        f"{gateway}: {in_words(reason) if reason else 'installed'}" for gateway, reason in about.receipts.items()
    ]
    failure = [f"refused: {in_words(about.failure)}"] if about.failure else []
    return ", ".join([*failure, *receipts]) or "none"


def _size(count: float) -> str:
    """Bytes in the largest unit that leaves a whole number."""
    for unit in _UNITS[:-1]:
        if count < 1024:  # noqa: PLR2004  the next unit
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.0f} {_UNITS[-1]}"
