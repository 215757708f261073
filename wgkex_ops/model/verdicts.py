"""What is wrong with a key, in one sentence with its remedy, from what gateways and brokers know of it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from wgkex_ops.model.inspection import (
    Answer,
    BrokerAnswer,
    JournalEntry,
    KeyAtBroker,
    KeyInFleet,
    KeyOnGateway,
    Outcome,
    PeerReport,
    Verdict,
)
from wgkex_ops.model.key_lists import DENIED
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.words import duration, in_words

_WORKER: Final = "does it run? (systemctl status wgkex-worker)"
# What helps most comes first.
_ORDER: Final[tuple[Outcome, ...]] = ("tunnel", "refused", "fault", "waiting", "unknown")


def on_gateway(
    peers: Sequence[PeerReport],
    journal: JournalEntry | None,
    refused: Mapping[str, str],
    interface_problems: Mapping[str, str],
    now: float,
) -> Verdict:
    """What a gateway says of a key.

    Args:
        peers: where it is a peer.
        journal: its row.
        refused: which lists keep it out, by domain.
        interface_problems: what is wrong with a domain's interfaces, by the domain's name; only those that have any.
        now: seconds since the epoch.
    """
    verdicts = [_of_peer(peer, refused, interface_problems, now) for peer in peers]
    if not verdicts:
        verdicts = [_of_absent_peer(journal, refused, interface_problems)]
    return min(verdicts, key=lambda verdict: _ORDER.index(verdict.outcome))


def _of_peer(
    peer: PeerReport, refused: Mapping[str, str], interface_problems: Mapping[str, str], now: float
) -> Verdict:
    if peer.domain in refused:
        return Verdict("refused", f"{_refusal(peer.domain, refused)}; its peer is about to be removed")
    if fault := interface_problems.get(peer.domain) or _missing_part(peer):
        return Verdict("fault", fault)
    if peer.route == "elsewhere":
        return Verdict("waiting", f"a peer left behind in {peer.domain}: its route leads to another domain")
    if peer.handshake is None:
        return Verdict(
            "waiting",
            f"installed, never a handshake: the router's packets do not arrive; check UDP {peer.port} "
            "(firewall, the router's Internet access)",
        )
    age = duration(max(0.0, now - peer.handshake))
    if peer.state == "active":
        return Verdict("tunnel", f"has a tunnel in {peer.domain}: last handshake {age} ago")
    return Verdict(
        "waiting",
        f"installed, last handshake {age} ago: the router is offline, its packets do not arrive any more "
        f"(UDP {peer.port}), or it has another gateway",
    )


def _missing_part(peer: PeerReport) -> str:
    """What the peer lacks, in a sentence; empty if it is whole."""
    if peer.allowed_ips == "none":
        return f"a peer of {peer.interface} without allowed IPs: nothing can be sent to it, until its node asks again"
    if peer.route == "missing":
        return f"no route leads to it over {peer.interface}: the worker adds it within a minute; {_WORKER}"
    if not peer.fdb and peer.route == "ours":
        return (
            "VXLAN has no FDB entry for it, so the mesh does not reach it: the worker adds it within a minute; "
            + _WORKER
        )
    return ""


def _of_absent_peer(
    journal: JournalEntry | None, refused: Mapping[str, str], interface_problems: Mapping[str, str]
) -> Verdict:
    if DENIED in refused.values() or (journal is not None and journal.domain in refused):
        return Verdict("refused", _refusal(journal.domain if journal else "", refused))
    if journal is not None:
        if problem := interface_problems.get(journal.domain):
            return Verdict("fault", problem)
        return Verdict(
            "fault",
            f"should be a peer in {journal.domain}, and is none: the worker restores it within a minute; {_WORKER}",
        )
    problems = "; ".join(interface_problems.values())
    return Verdict(
        "unknown",
        "not known here: no node has sent this key here lately, or the cleanup has removed its peer"
        + (f". {problems}" if problems else ""),
    )


def _refusal(domain: str, refused: Mapping[str, str]) -> str:
    if DENIED in refused.values():
        return "denied by the key lists ('wgkex-ops keys remove' takes it off)"
    return f"not one of the keys that {domain} allows ('wgkex-ops keys allow' adds it)"


def keys_in(answers: Iterable[Answer]) -> list[str]:
    """All keys that answers are about."""
    return list(dict.fromkeys(about.key for answer in answers for about in answer.keys))


def in_fleet(answers: Sequence[Answer], key: PublicKey, silent: Sequence[str], now: float) -> KeyInFleet:
    """Put together what all gateways and brokers know of a key.

    Args:
        answers: theirs.
        key: that it is about.
        silent: who should have answered, and has not.
        now: seconds since the epoch.
    """
    text = str(key)
    gateways: dict[str, KeyOnGateway] = {}
    brokers: dict[str, tuple[KeyAtBroker, ...]] = {}
    problems: dict[str, str] = {}
    for answer in answers:
        if isinstance(answer, BrokerAnswer):
            brokers[answer.name] = tuple(about for about in answer.keys if about.key == text)
        elif answer.problem:
            problems[answer.name] = answer.problem
        else:
            gateways.update((answer.name, about) for about in answer.keys if about.key == text)
    requests = [(name, about) for name, all_about in brokers.items() for about in all_about]
    names = [about.name for about in gateways.values()] + [about.name for _, about in requests]
    return KeyInFleet(
        key=text,
        name=next(filter(None, names), ""),
        address=str(key.link_local),
        verdict=_verdict(gateways, requests, silent, now),
        gateways=gateways,
        brokers=brokers,
        problems=problems,
        silent=tuple(silent),
    )


def _verdict(
    gateways: Mapping[str, KeyOnGateway], requests: Iterable[tuple[str, KeyAtBroker]], silent: Sequence[str], now: float
) -> Verdict:
    best = min(gateways, key=lambda name: _ORDER.index(gateways[name].verdict.outcome), default="")
    verdict = gateways[best].verdict if best else Verdict("unknown", "")
    if verdict.outcome == "tunnel":
        return Verdict("tunnel", f"{best}: {verdict.text}")
    for name, about in requests:
        if about.refused:
            return Verdict("refused", f"{name} refuses it: {in_words(about.refused)}, by the key lists")
    asked = [about for _, about in requests if about.asked_at is not None]
    if asked:
        return _of_request(max(asked, key=_asked_at), gateways, now)
    unheard = f" (no answer from {', '.join(silent)})" if silent else ""
    if verdict.outcome != "unknown":
        return Verdict(verdict.outcome, f"{best}: {verdict.text}. No broker was asked for it within 5 minutes{unheard}")
    return Verdict(
        "unknown",
        f"nobody knows it{unheard}: the router has not reached a broker within 5 minutes; check the broker's address "
        "in its configuration, its DNS and Internet access, and the load balancer",
    )


def _of_request(asked: KeyAtBroker, gateways: Mapping[str, KeyOnGateway], now: float) -> Verdict:
    """The router asks, and no gateway has a live session: where does it get stuck?"""
    since = f"asked {duration(max(0.0, now - (asked.asked_at or now)))} ago by version {asked.api_version}"
    if not asked.receipts:
        return Verdict(
            "fault", f"{since}, and no gateway has confirmed it: check the workers, and the MQTT server's access rules"
        )
    if all(asked.receipts.values()):
        reasons = ", ".join(f"{gateway}: {in_words(reason)}" for gateway, reason in asked.receipts.items())
        return Verdict("fault", f"{since}, and no gateway has installed it ({reasons})")
    named = gateways.get(asked.named)
    if named is not None and named.verdict.outcome in ("fault", "refused"):
        return Verdict(named.verdict.outcome, f"{since}, sent to {asked.named}: {named.verdict.text}")
    ports = sorted({peer.port for about in gateways.values() for peer in about.peers if peer.port})
    where = f"sent to {asked.named}" if asked.named else "installed on all gateways that confirmed it"
    udp = " or ".join(map(str, ports)) or "port of the gateway"
    return Verdict(
        "waiting",
        f"{since}, {where}, and no handshake since: the router's packets do not reach the gateway; check UDP {udp}",
    )


def _asked_at(seen: KeyAtBroker) -> float:
    return seen.asked_at or 0.0
