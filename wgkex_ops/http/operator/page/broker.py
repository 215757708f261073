"""The broker's page: gateways, keys, and the way to them."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from wgkex_ops.http.gateways.registry import Gateway, Gateways
from wgkex_ops.http.operator.page.history import History
from wgkex_ops.http.operator.page.parts import (
    CountRow,
    Fact,
    Moment,
    MqttView,
    Notice,
    Page,
    Recent,
    Tile,
    Tone,
    about,
    in_words,
    name_of,
    sorted_notices,
)
from wgkex_ops.http.operator.page.words import count, things
from wgkex_ops.metrics.broker import GatewayMetrics, KeyMetrics
from wgkex_ops.model.names import UNKNOWN

_ONLINE: Final = "online"
_OFFLINE: Final = "offline"
_SILENT: Final = "not heard of"

_OLD_NEWS: Final = Notice(Tone.WARN, "Without a connection to MQTT nothing new is heard of gateways")


@dataclass(frozen=True, slots=True)
class GatewayRow:
    """What the broker knows of a gateway.

    Attributes:
        state: in words.
        takes_none: domains whose nodes are not sent there, though it is online.
        listed: whether it is in the configuration, if anything is.
        peers: connected ones, with those assigned since it told; None if it does not know.
        target: how many its weight asks for.
        heard: when it was last heard of; None if never.
        assigned: version 2 answers that named it, by window; None if they are not counted for it alone.
    """

    name: str
    state: str
    tone: Tone
    takes_none: tuple[str, ...]
    listed: bool
    peers: int | None
    target: float
    heard: Moment | None
    assigned: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class DomainRow:
    """A domain as its nodes meet it.

    Attributes:
        gateways: how many take its nodes.
        peers: connected ones over all gateways.
        accepted: keys, by window.
    """

    name: str
    gateways: int
    peers: int
    accepted: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPage(Page):
    """All that the broker's page shows.

    Attributes:
        scale: what a full bar means, in peers.
        shared: answers that named gateways which are not listed, by window, counted together; empty if there are none.
    """

    template: ClassVar[str] = "broker.html"

    gateways: tuple[GatewayRow, ...]
    scale: float
    shared: tuple[int, ...]
    domains: tuple[DomainRow, ...]


class BrokerView:
    """Makes the page. Cheap enough for the event loop, on which the gateways' state may be read.

    Args:
        name: of this broker.
        domains: names of the configured domains.
        listed: names of the configured workers; empty if anyone may come.
        gateways: what is known of them.
        keys: what became of the keys.
        gateway_metrics: how often a gateway was chosen, and how many messages were refused.
        mqtt: the session.
        problems: why this process is not ready.
        clock: of the history; seconds, never set back.
    """

    def __init__(
        self,
        *,
        name: str,
        domains: Sequence[str],
        listed: Collection[str],
        gateways: Gateways,
        keys: KeyMetrics,
        gateway_metrics: GatewayMetrics,
        mqtt: MqttView,
        problems: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._domains = domains
        self._listed = listed
        self._gateways = gateways
        self._keys = keys
        self._gateway_metrics = gateway_metrics
        self._mqtt = mqtt
        self._problems = problems
        self.history = History(
            [
                keys.published,
                keys.rejections,
                keys.failures,
                gateway_metrics.assignments,
                gateway_metrics.messages_rejected,
                *mqtt.counters,
            ],
            clock,
        )

    async def page(self) -> BrokerPage:
        """Make the page of this moment."""
        now = time.time()
        recent = Recent.of(self.history)
        rows = [
            self._gateway_row(name, target, recent, now) for name, target in sorted(self._gateways.targets().items())
        ]
        domains = [self._domain_row(name, recent) for name in self._domains]
        others = self._gateways.brokers_online - 1
        return BrokerPage(
            component="broker",
            name=self._name,
            now=now,
            problems=tuple(self._problems()),
            notices=sorted_notices(
                [
                    *([] if self._mqtt.link.connected else [_OLD_NEWS]),
                    *_notices_of_gateways(rows),
                    *_notices_of_domains(domains),
                    *self._notices_of_keys(recent),
                    *self._mqtt.notices(recent),
                ]
            ),
            tiles=(
                recent.tile("Keys accepted", self._keys.published),
                self._tile_of_failures(recent),
                _tile_of_gateways(rows),
                self._mqtt.tile(),
            ),
            columns=recent.headings,
            keys=self._key_rows(recent),
            mqtt=tuple(self._mqtt.facts(recent, now)),
            about=about(now, self.history, [Fact("Other brokers online", count(others))]),
            gateways=tuple(rows),
            scale=max((number for row in rows for number in (row.peers or 0, row.target)), default=0),
            shared=self._shared(rows, recent),
            domains=tuple(domains),
        )

    def _gateway_row(self, name: str, target: float, recent: Recent, now: float) -> GatewayRow:
        gateway = self._gateways.workers[name]
        state, tone = _state(gateway)
        listed = not self._listed or name in self._listed
        return GatewayRow(
            name=name,
            state=state,
            tone=tone,
            takes_none=tuple(domain for domain in self._domains if gateway.online and not _takes(gateway, domain)),
            listed=listed,
            peers=gateway.peers if any(peers is not None for peers in gateway.reported.values()) else None,
            target=target,
            heard=None if gateway.last_seen is None else Moment.by_monotonic_clock(now, gateway.last_seen),
            assigned=self._assigned(name, recent) if listed else None,
        )

    def _assigned(self, label: str, recent: Recent) -> tuple[int, ...]:
        return tuple(window.by_label(self._gateway_metrics.assignments).get(label, 0) for window in recent.shown)

    def _shared(self, rows: Sequence[GatewayRow], recent: Recent) -> tuple[int, ...]:
        return self._assigned(UNKNOWN, recent) if any(row.assigned is None for row in rows) else ()

    def _domain_row(self, name: str, recent: Recent) -> DomainRow:
        gateways = self._gateways.workers.values()
        return DomainRow(
            name=name,
            gateways=sum(_takes(gateway, name) for gateway in gateways),
            peers=sum(gateway.peers_in(name) for gateway in gateways),
            accepted=tuple(window.by_label(self._keys.published).get(name, 0) for window in recent.shown),
        )

    def _key_rows(self, recent: Recent) -> tuple[CountRow, ...]:
        return (
            *recent.rows("Accepted", Tone.PLAIN, self._keys.published),
            *recent.rows_with_reasons("Rejected: the sender's fault", Tone.PLAIN, self._keys.rejections),
            *recent.rows_with_reasons("Failed: our fault", Tone.BAD, self._keys.failures),
        )

    def _tile_of_failures(self, recent: Recent) -> Tile:
        failed = recent.latest.total(self._keys.failures)
        return Tile("Keys failed", count(failed), name_of(recent.latest), Tone.BAD if failed else Tone.GOOD)

    def _notices_of_keys(self, recent: Recent) -> list[Notice]:
        failures = recent.latest.by_label(self._keys.failures)
        reasons = ", ".join(f"{count(times)} {in_words(reason)}" for reason, times in failures.items())
        refused = recent.latest.total(self._gateway_metrics.messages_rejected)
        notices = []
        if failures:
            failed = things(sum(failures.values()), "key")
            notices.append(Notice(Tone.BAD, f"{failed} failed {name_of(recent.latest)}: {reasons}"))
        if refused:
            of_whom = f"{things(refused, 'message')} of workers or brokers {'was' if refused == 1 else 'were'} refused"
            notices.append(Notice(Tone.WARN, f"{of_whom} {name_of(recent.latest)}; the log says why"))
        return notices


def _state(gateway: Gateway) -> tuple[str, Tone]:
    if gateway.last_seen is None:
        return _SILENT, Tone.WARN
    return (_ONLINE, Tone.GOOD) if gateway.online else (_OFFLINE, Tone.BAD)


def _takes(gateway: Gateway, domain: str) -> bool:
    """Whether nodes of a domain can be sent there: what makes a candidate in `Gateways.choose`."""
    return gateway.online and gateway.reported.get(domain) is not None and domain in gateway.endpoints


def _tile_of_gateways(rows: Sequence[GatewayRow]) -> Tile:
    online = sum(row.state == _ONLINE for row in rows)
    peers = sum(row.peers or 0 for row in rows)
    tone = Tone.BAD if not online else Tone.WARN if online < len(rows) else Tone.GOOD
    return Tile("Gateways online", f"{count(online)} of {count(len(rows))}", things(peers, "connected peer"), tone)


def _notices_of_gateways(rows: Sequence[GatewayRow]) -> list[Notice]:
    def named(state: str) -> list[str]:
        return [row.name for row in rows if row.state == state]

    nobody = Notice(Tone.BAD, "No gateway is online: there is none that nodes could be sent to")
    return [
        *([] if named(_ONLINE) else [nobody]),
        *Notice.about(Tone.WARN, "Offline", named(_OFFLINE)),
        *Notice.about(Tone.WARN, "Not heard of", named(_SILENT)),
        *Notice.about(
            Tone.WARN, "Not listed under workers, so they weigh 1", [row.name for row in rows if not row.listed]
        ),
        *Notice.about(
            Tone.WARN,
            "Online, but not ready for nodes of all domains",
            [row.name for row in rows if row.takes_none],
        ),
    ]


def _notices_of_domains(rows: Sequence[DomainRow]) -> list[Notice]:
    """Domains that are worse off than others; that there is no gateway at all is told elsewhere."""
    if not any(row.gateways for row in rows):
        return []
    return Notice.about(Tone.BAD, "Domains without any gateway", [row.name for row in rows if not row.gateways])
