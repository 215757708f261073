"""What is wrong with a key on one gateway, in one sentence with its remedy. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from wgkex_ops.model.inspection import JournalEntry, Outcome, PeerReport, Verdict
from wgkex_ops.model.key_lists import DENIED
from wgkex_ops.model.words import duration

_WORKER: Final = "does it run? (systemctl status wgkex-worker)"
# What helps most comes first.
ORDER: Final[tuple[Outcome, ...]] = ("tunnel", "refused", "fault", "waiting", "unknown")


def on_gateway(
    address: str,
    peers: Sequence[PeerReport],
    journal: JournalEntry | None,
    refused: Mapping[str, str],
    *,
    interface_problems: Mapping[str, str],
    now: float,
) -> Verdict:
    """What a gateway says of a key.

    Args:
        address: what derives from the key.
        peers: where it is a peer.
        journal: its row.
        refused: which lists keep it out, by domain.
        interface_problems: what is wrong with a domain's interfaces, by the domain's name; only those that have any.
        now: seconds since the epoch.
    """
    if not peers:
        return _of_absent_peer(journal, refused, interface_problems)
    # Where a node has moved to another domain, its peer there is the one that counts.
    present = [peer for peer in peers if peer.route != "elsewhere"] or peers
    verdicts = [_of_peer(address, peer, refused, interface_problems, now) for peer in present]
    return min(verdicts, key=lambda verdict: ORDER.index(verdict.outcome))


def _of_peer(
    address: str, peer: PeerReport, refused: Mapping[str, str], interface_problems: Mapping[str, str], now: float
) -> Verdict:
    # The worker installs, repairs and removes no others.
    ours = peer.allowed_ips in (f"{address}/128", "none")
    if peer.domain in refused:
        end = "its peer is about to be removed" if ours else "its peer, with another address, is not the worker's"
        return Verdict("refused", f"{_refusal(peer.domain, refused)}; {end}")
    if peer.route == "elsewhere":
        return Verdict("waiting", f"a peer left behind in {peer.domain}: its route leads to another domain")
    if fault := interface_problems.get(peer.domain) or _missing_part(peer, ours=ours):
        return Verdict("fault", fault)
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


def _missing_part(peer: PeerReport, *, ours: bool) -> str:
    """What the peer lacks, in a sentence; empty if it is whole."""
    remedy = (
        f"the worker adds it within a minute; {_WORKER}"
        if ours
        else "its address is not derived from its key, so whoever made this peer has to add it"
    )
    if peer.allowed_ips == "none":
        return f"a peer of {peer.interface} without allowed IPs: nothing can be sent to it, until its node asks again"
    if peer.route == "missing":
        return f"no route leads to it over {peer.interface}: {remedy}"
    if not peer.fdb and peer.route == "ours":
        return f"VXLAN has no FDB entry for it, so the mesh does not reach it: {remedy}"
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
        + (
            f"; not one of the keys that {', '.join(refused)} allow{'s' if len(refused) == 1 else ''}"
            if refused
            else ""
        )
        + (f". {problems}" if problems else ""),
    )


def _refusal(domain: str, refused: Mapping[str, str]) -> str:
    if DENIED in refused.values():
        return "denied by the key lists ('wgkex-ops keys remove' takes it off)"
    return f"not one of the keys that {domain} allows ('wgkex-ops keys allow' adds it)"
