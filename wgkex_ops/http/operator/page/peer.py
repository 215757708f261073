"""The answer to the search box of a broker's page: what gateways and brokers know of a key, which is in full here."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from wgkex_ops.errors import BusError
from wgkex_ops.http.operator.page.parts import Notice, Page, Table, Tone
from wgkex_ops.http.operator.page.rendering import ago, lines, name, quiet, state
from wgkex_ops.model.inspection import LONGEST_QUERY, WHY_SILENT, Found, KeyInFleet, Outcome, Query
from wgkex_ops.model.words import duration, in_words

_TONES: Final[Mapping[Outcome, Tone]] = {
    "tunnel": Tone.GOOD,
    "waiting": Tone.WARN,
    "fault": Tone.BAD,
    "refused": Tone.BAD,
    "unknown": Tone.WARN,
}


@dataclass(frozen=True, slots=True)
class PeerView:
    """Makes the page.

    Attributes:
        broker: this broker's name.
        about: asks all gateways and brokers; raises BusError.
        problems: why this process is not ready, a sentence each.
    """

    broker: str
    about: Callable[[Query], Awaitable[Found]]
    problems: Callable[[], Sequence[str]]

    async def page(self, text: str) -> Page:
        """Make the page for what somebody has typed."""
        query = Query(text)
        found = Found(())
        if not 0 < len(query.text) <= LONGEST_QUERY or not query.text.isprintable():
            notices = [Notice(Tone.WARN, f"Type a key, a name or an address of up to {LONGEST_QUERY} characters")]
        else:
            try:
                found = await self.about(query)
                notices = (
                    []
                    if found.keys
                    else [Notice(Tone.WARN, f"No gateway or broker knows a key of this name or address{found.unheard}")]
                )
                if found.more:
                    notices.append(Notice(Tone.WARN, f"There are more keys than these {len(found.keys)}"))
            except BusError as error:
                notices = [Notice(Tone.BAD, f"Gateways cannot be asked: {error}")]
        now = time.time()
        for one in found.keys:
            notices += [Notice(Tone.BAD, f"{gateway}: {problem}") for gateway, problem in one.problems.items()]
            notices += Notice.about(Tone.WARN, f"No answer: {WHY_SILENT}", one.silent)
            notices += Notice.about(Tone.WARN, "Cannot be asked: an older version, or MQTT 3.1.1", one.unable)
        return Page(
            component="broker",
            name=self.broker,
            now=now,
            problems=self.problems(),
            notices=notices,
            tables=[table for one in found.keys for table in _tables(one, now)],
            facts={},
            search=query.text[:LONGEST_QUERY],
            reloads=False,
        )


def _tables(one: KeyInFleet, now: float) -> list[Table]:
    return [
        Table(
            one.name or "Key",
            "What all gateways and brokers together say of it",
            {"Verdict": "wide", "Key": "wide", "Address": ""},
            [[state(_TONES[one.verdict.outcome], one.verdict.text), name(one.key), name(one.address)]],
        ),
        Table(
            "On the gateways",
            "The peer, its parts, and how long ago its key arrived or its peer was adopted",
            {
                "Gateway": "",
                "Verdict": "wide",
                "Domain": "",
                "Route, FDB": "",
                "Endpoint": "",
                "Handshake": "",
                "In journal": "",
            },
            _rows_of_gateways(one, now),
            "" if one.gateways else "No gateway has answered.",
        ),
        Table(
            "At the brokers",
            "The latest request within five minutes, and what the gateways said to it",
            {"Broker": "", "Asked": "", "Domain": "", "Sent to": "", "Receipts": "wide", "Request": ""},
            _rows_of_brokers(one, now),
        ),
    ]


def _rows_of_gateways(one: KeyInFleet, now: float) -> list[list[str]]:
    rows: list[list[str]] = []
    for gateway, about in one.gateways.items():
        verdict = state(_TONES[about.verdict.outcome], about.verdict.text)
        entered = duration(now - about.journal.entered_at) if about.journal is not None else quiet("no")
        if not about.peers:
            rows.append([name(gateway), verdict, quiet("no peer"), "", "", "", entered])
        for peer in about.peers:
            parts = lines(f"route: {peer.route}", "FDB entry" if peer.fdb else "no FDB entry")
            handshake = quiet("never") if peer.handshake is None else ago(peer.handshake, now)
            cells = [name(peer.domain), parts, peer.endpoint or quiet("none"), handshake, entered]
            rows.append([name(gateway), verdict, *cells])
    return rows


def _rows_of_brokers(one: KeyInFleet, now: float) -> list[list[str]]:
    rows: list[list[str]] = []
    for broker, requests in one.brokers.items():
        for about in requests:
            reasons = dict.fromkeys(filter(None, (about.refused, about.failure)))
            refused = [state(Tone.BAD, in_words(reason)) for reason in reasons]
            receipts = [
                name(f"{gateway}: {in_words(reason) if reason else 'installed'}")
                for gateway, reason in about.receipts.items()
            ]
            asked = (
                quiet("not lately")
                if about.asked_at is None
                else lines(ago(about.asked_at, now), quiet(f"version {about.api_version}"))
            )
            told = lines(*refused, *receipts) if refused or receipts else quiet("none")
            cells = [name(about.domain), name(about.named), told, name(about.request_id)]
            rows.append([name(broker), asked, *cells])
    return rows
