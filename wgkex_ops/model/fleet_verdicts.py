"""What is wrong with a key, in one sentence with its remedy, from what all gateways and brokers know of it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from wgkex_ops.model.inspection import (
    Answer,
    Answers,
    BrokerAnswer,
    KeyAtBroker,
    KeyInFleet,
    KeyOnGateway,
    Verdict,
)
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.verdicts import ORDER
from wgkex_ops.model.words import duration, in_words

# Seconds. Receipts take a second; a gateway without one gets the key again after so many. A router's handshake follows.
_SETTLED_AFTER: Final = 5.0
# Seconds by which clocks of gateways and brokers may differ: an alert reports twice as much.
_CLOCKS_DIFFER: Final = 2.5
_BROKEN: Final = frozenset(("fault", "refused"))


def keys_in(answers: Iterable[Answer]) -> list[str]:
    """All keys that answers are about."""
    return list(dict.fromkeys(about.key for answer in answers for about in answer.keys))


def in_fleet(answers: Answers, key: PublicKey, now: float) -> KeyInFleet:
    """Put together what all gateways and brokers know of a key.

    Args:
        answers: theirs, and who has not answered.
        key: that it is about.
        now: seconds since the epoch.
    """
    text = str(key)
    gateways: dict[str, KeyOnGateway] = {}
    brokers: dict[str, tuple[KeyAtBroker, ...]] = {}
    for answer in answers.answers:
        if isinstance(answer, BrokerAnswer):
            brokers[answer.name] = tuple(about for about in answer.keys if about.key == text)
        else:
            gateways.update((answer.name, about) for about in answer.keys if about.key == text)
    names = [about.name for about in gateways.values()] + [
        about.name for all_about in brokers.values() for about in all_about
    ]
    return KeyInFleet(
        key=text,
        name=next(filter(None, names), ""),
        address=str(key.link_local),
        verdict=_Judgement(answers, gateways, brokers, now).verdict(),
        gateways=gateways,
        brokers=brokers,
        problems=answers.problems,
        silent=answers.silent,
        unable=answers.unable,
    )


class _Judgement:
    """Of all that is known of a key. The arguments are those of `KeyInFleet`."""

    def __init__(
        self,
        answers: Answers,
        gateways: Mapping[str, KeyOnGateway],
        brokers: Mapping[str, Sequence[KeyAtBroker]],
        now: float,
    ) -> None:
        self._answers = answers
        self._gateways = gateways
        self._brokers = brokers
        self._now = now
        self._requests = [(broker, about) for broker, all_about in brokers.items() for about in all_about]
        # When the last handshake was, and on which gateway.
        self._handshake = max(
            (
                (peer.handshake, name)
                for name, about in gateways.items()
                for peer in about.peers
                if peer.handshake is not None
            ),
            default=(0.0, ""),
        )

    def verdict(self) -> Verdict:
        asked = [
            (self._says_much(about), about.asked_at, broker, about)
            for broker, about in self._requests
            if about.asked_at is not None
        ]
        _, asked_at, broker, latest = max(asked, key=lambda one: one[:2], default=(False, 0.0, "", None))
        if latest is None:
            return self._without_request()
        shaken_at, gateway = self._handshake
        if gateway and shaken_at >= self._arrived_at(gateway, asked_at):
            verdict = self._gateways[gateway].verdict
            return Verdict(verdict.outcome, f"{gateway}: {verdict.text}")
        return self._of_request(broker, latest)

    def _arrived_at(self, gateway: str, asked_at: float) -> float:
        """When the latest request reached a gateway, by that gateway's clock if possible: others may differ from it."""
        journal = self._gateways[gateway].journal
        return asked_at - _CLOCKS_DIFFER if journal is None else journal.entered_at

    def _says_much(self, about: KeyAtBroker) -> bool:
        """Whether a request says at least as much as those before it.

        One that was refused for its number says less. So does one by version 1 that no gateway has installed, right
        after version 2 had none to name: the firmware asks by both.
        """
        if about.failure == "rate_limited":
            return False
        return (
            about.api_version != 1
            or "" in about.receipts.values()
            or not any(
                other.failure == "no_worker"
                and other.domain == about.domain
                and 0 <= (about.asked_at or 0.0) - (other.asked_at or 0.0) < _SETTLED_AFTER
                for _, other in self._requests
            )
        )

    def _without_request(self) -> Verdict:
        best = min(self._gateways, key=lambda name: ORDER.index(self._gateways[name].verdict.outcome), default="")
        verdict = self._gateways[best].verdict if best else Verdict("unknown", "")
        if verdict.outcome == "tunnel":
            return Verdict("tunnel", f"{best}: {verdict.text}")
        for broker, about in self._requests:
            if about.refused:
                return Verdict("refused", f"{broker} refuses it: {in_words(about.refused)}, by the key lists")
        unheard = self._answers.unheard
        if verdict.outcome != "unknown":
            asked_nobody = "No broker was asked for it within 5 minutes" if self._brokers else "No broker has answered"
            return Verdict(verdict.outcome, f"{best}: {verdict.text}. {asked_nobody}{unheard}")
        if not self._brokers:
            return Verdict("unknown", f"no gateway knows it, and no broker has answered{unheard}")
        return Verdict(
            "unknown",
            f"nobody knows it{unheard}: the router has not reached a broker within 5 minutes; check the broker's "
            "address in its configuration, its DNS and Internet access, the load balancer, and whether its network "
            "asks too often (limits)",
        )

    def _of_request(self, broker: str, asked: KeyAtBroker) -> Verdict:
        """The router asks, and has had no handshake since: where does it get stuck?"""
        age = max(0.0, self._now - (asked.asked_at or self._now))
        since = f"asked {duration(age)} ago by version {asked.api_version}"
        if asked.refused:
            return Verdict(
                "refused",
                f"{since}: {broker} refuses it in {asked.domain}: {in_words(asked.refused)}, by the key lists",
            )
        if asked.failure:
            return self._of_failure(since, broker, asked)
        return self._of_receipts(since, age, asked) or self._of_installation(since, age, asked)

    def _of_receipts(self, since: str, age: float, asked: KeyAtBroker) -> Verdict | None:
        """None if a gateway has installed it, or none sends receipts."""
        if "" in asked.receipts.values() or not (asked.receipts or asked.awaited):
            return None
        if asked.awaited and age < _SETTLED_AFTER:
            return Verdict("waiting", f"{since}, and no gateway has confirmed it yet: look again in a few seconds")
        faults, unheard = self._faults(), self._answers.unheard
        if asked.receipts:
            return Verdict("fault", f"{since}, and no gateway has installed it ({_reasons(asked)}){faults}{unheard}")
        cause = faults or ": check the workers, and the MQTT server's access rules"
        return Verdict("fault", f"{since}, and no gateway has confirmed it{cause}{unheard}")

    def _faults(self) -> str:
        """What gateways say that is wrong with them, for the end of a sentence."""
        broken = {
            name: about.verdict.text for name, about in self._gateways.items() if about.verdict.outcome in _BROKEN
        }
        return "".join(f"; {name}: {text}" for name, text in broken.items())

    def _of_failure(self, since: str, broker: str, asked: KeyAtBroker) -> Verdict:
        match asked.failure:
            case "unknown_domain":
                return Verdict(
                    "refused",
                    f"{since} in a domain that {broker} does not serve: check the router's configuration, and domains "
                    "and domain_prefixes in the broker's",
                )
            case "rate_limited":
                return Verdict(
                    "refused",
                    f"{since}, and {broker} refused it: its key or its network asks more often than limits allow",
                )
            case "denied_key" | "not_allowed_key":
                return Verdict(
                    "waiting",
                    f"{since}, and {broker} refused it by the key lists, which allow it by now: it asks again",
                )
            case "no_worker":
                reasons = f" ({_reasons(asked)})" if asked.receipts else ""
                return Verdict(
                    "fault",
                    f"{since}, and no gateway takes nodes of {asked.domain}{reasons}: see 'wgkex-ops status'",
                )
            case failure:
                return Verdict(
                    "fault",
                    f"{since}, and {broker} could not publish it ({in_words(failure)}): check the MQTT server",
                )

    def _of_installation(self, since: str, age: float, asked: KeyAtBroker) -> Verdict:
        """Gateways have it, as far as can be known: why has the router no handshake?"""
        if named := asked.named:
            since = f"{since}, sent to {named}"
            if (verdict := self._of_named(since, asked)) is not None:
                return verdict
        ports = {
            name: peer.port
            for name, about in self._gateways.items()
            for peer in about.peers
            if peer.domain == asked.domain and about.verdict.outcome not in _BROKEN and named in ("", name)
        }
        unheard = self._answers.unheard
        if not ports:
            if faults := self._faults():
                return Verdict("fault", f"{since}{faults}{unheard}")
            if unheard:
                return Verdict("unknown", f"{since}, and no gateway that has answered has it{unheard}")
            return Verdict("fault", f"{since}, and no gateway that is online has it: see 'wgkex-ops status'")
        where = "" if named else f", installed on {', '.join(ports)}"
        # The first one takes seconds.
        since_then = "yet; if none comes within seconds," if age < _SETTLED_AFTER else f"since{self._last_handshake()}:"
        elsewhere = f", or it has its tunnel elsewhere{unheard}" if unheard and not named else ""
        return Verdict(
            "waiting",
            f"{since}{where}, and no handshake {since_then} the router's packets do not arrive; check UDP "
            f"{_udp(ports)}{'' if named else self._faults()}{elsewhere}",
        )

    def _last_handshake(self) -> str:
        at, gateway = self._handshake
        return f" (the last one {duration(max(0.0, self._now - at))} ago on {gateway})" if gateway else ""

    def _of_named(self, since: str, asked: KeyAtBroker) -> Verdict | None:
        """None if nothing is wrong with the gateway that the router was sent to."""
        named = asked.named
        about = self._gateways.get(named)
        if about is None:
            return self._of_absent(since, named)
        if about.verdict.outcome in _BROKEN:
            return Verdict(about.verdict.outcome, f"{since}: {about.verdict.text}")
        if any(peer.domain == asked.domain for peer in about.peers):
            return None
        reason = asked.receipts.get(named)
        done = "confirmed it" if reason is None else f"installed it ({in_words(reason)})" if reason else "kept it"
        return Verdict("fault", f"{since}, which has not {done}: see the log of its worker")

    def _of_absent(self, since: str, named: str) -> Verdict:
        """Nothing is known of what the gateway has that the router was sent to."""
        if problem := self._answers.problems.get(named):
            return Verdict("fault", f"{since}, which cannot tell: {problem}")
        if named in self._answers.silent:
            return Verdict("unknown", f"{since}, which has not answered: look there, with 'wgkex-ops peer'")
        if named in self._answers.unable:
            return Verdict("unknown", f"{since}, which cannot be asked: look there, with 'wg show'")
        return Verdict("fault", f"{since}, which has gone offline: see 'wgkex-ops status'")


def _udp(ports: Mapping[str, int]) -> str:
    """The ports of some gateways."""
    if len(set(ports.values())) == 1:
        return str(next(iter(ports.values())))
    return ", ".join(f"{port} of {gateway}" for gateway, port in ports.items())


def _reasons(asked: KeyAtBroker) -> str:
    return ", ".join(f"{gateway}: {in_words(reason)}" for gateway, reason in asked.receipts.items())
